"""Fixtures of the tests that run in private namespaces (see tests/real/test_images.py)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.images.store import ImageStore
from scripts.base_images import busybox_archive
from specs.kit.programs import SYSTEM_PATH

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

PORT = 5000


@pytest.fixture(scope="session", autouse=True)
def inside() -> None:
    if os.environ.get("CORRAL_TEST_INSIDE") != "1":
        pytest.fail("run these through tests/real/test_images.py: they mount and listen")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Every test ends with the mounts and processes it began with."""
    before, processes = mounts(), children()
    yield
    # Only what is new: a lab that ends elsewhere takes its mounts out of every namespace.
    assert [line for line in mounts() if line not in before] == []
    deadline = time.monotonic() + 60
    while (left := children() - processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left, [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in left]


def children() -> set[int]:
    """Return all processes of this pid namespace but the registry."""
    found = set()
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):
                command = (path / "cmdline").read_bytes()
                # Empty: ended; as pid 1 of this namespace pytest does not reap what it adopts.
                if command and b"docker-registry" not in command:
                    found.add(int(path.name))
    return found


@pytest.fixture(scope="session")
def busybox_tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("busybox") / "busybox.tar"
    busybox_archive(path)
    return path


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ImageStore]:
    async with ImageStore(tmp_path / "state", tmp_path / "run") as images:
        yield images


@pytest.fixture
async def busybox(store: ImageStore, busybox_tar: Path) -> str:
    """busybox:latest in the store; its digest."""
    config = {"config": {"Cmd": ["sh"], "Env": [f"PATH={SYSTEM_PATH}"]}}
    return await store.add("busybox", busybox_tar, config)


@dataclass
class Registry:
    """Debian's docker-registry on loopback."""

    data: Path
    address: str = f"127.0.0.1:{PORT}"

    def push(self, name: str, layers: list[bytes], config: dict[str, object] | None = None) -> str:
        """Push an image made of layer archives; returns its digest."""
        image = self.data / f"push-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        image.mkdir(exist_ok=True)
        (image / "version").write_text("Directory Transport Version: 1.1\n")

        def blob(data: bytes, kind: str) -> dict[str, object]:
            digest = hashlib.sha256(data).hexdigest()
            (image / digest).write_bytes(data)
            return {"digest": f"sha256:{digest}", "size": len(data), "mediaType": kind}

        import gzip

        vnd = "application/vnd.oci.image"
        full = {
            "os": "linux",
            "architecture": "amd64",
            "created": "2026-01-01T00:00:00Z",
            "config": config or {},
            "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "test"} for _ in layers],
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers],
            },
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{vnd}.manifest.v1+json",
            "config": blob(json.dumps(full).encode(), f"{vnd}.config.v1+json"),
            "layers": [
                blob(gzip.compress(layer, 1, mtime=0), f"{vnd}.layer.v1.tar+gzip")
                for layer in layers
            ],
        }
        data = json.dumps(manifest).encode()
        (image / "manifest.json").write_bytes(data)
        subprocess.run(
            [
                *("skopeo", "--insecure-policy", "copy", "-q", "--preserve-digests"),
                *("--dest-tls-verify=false", f"dir:{image}", f"docker://{self.address}/{name}"),
            ],
            check=True,
            capture_output=True,
            timeout=90,
        )
        return f"sha256:{hashlib.sha256(data).hexdigest()}"

    def blob_path(self, digest: str) -> Path:
        digest = digest.removeprefix("sha256:")
        return self.data / "docker/registry/v2/blobs/sha256" / digest[:2] / digest / "data"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    data = tmp_path / "registry"
    data.mkdir()
    settings = tmp_path / "registry.yml"
    settings.write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {data}}}}}\n"
        f"http: {{addr: '127.0.0.1:{PORT}'}}\n"
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", str(settings)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for_port(PORT)
        yield Registry(data)
    finally:
        process.kill()
        process.wait()


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, f"nothing listens on {port}"
        time.sleep(0.02)
