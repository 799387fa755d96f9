"""Pulling from a real registry, and from registries that lie, fail or hang."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import hashlib
import http.server
import json
import random
import threading
from typing import TYPE_CHECKING

import pytest

from agent.errors import Later, Refusal
from agent.images import proxy, pull
from agent.images.store import ImageStore
from specs.wire import ResolveImage
from tests.agent.images import tars
from tests.real.images.conftest import PORT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ONE = tars.archive(tars.file(b"one", b"1" * 5000), tars.directory(b"etc"))
TWO = tars.archive(tars.file(b"two", b"2" * 5000))
THREE = tars.archive(tars.file(b"three", b"3" * 5000))


def left(store: ImageStore) -> list[Path]:
    assert store.content.emptied(60)
    return list((store.content.root / "staging").iterdir())


async def test_an_image_is_pulled_pinned_and_kept(store, registry) -> None:
    digest = registry.push("team/app:1", [ONE, TWO], {"Cmd": ["run"]})
    name = f"{registry.address}/team/app:1"
    found = await store.resolve(ResolveImage(image=name))
    assert (found.digest, found.created) == (digest, "2026-01-01T00:00:00Z")
    assert (await store.ensure(name, digest)).command == ("run",)
    root = await store.mount("t1", digest)
    assert sorted(path.name for path in root.iterdir()) == ["etc", "one", "two"]
    await store.discard("t1")
    assert left(store) == []


async def test_policies(store, registry) -> None:
    name = f"{registry.address}/app:1"
    with pytest.raises(Refusal, match="never"):
        await store.resolve(ResolveImage(image=name, policy="never"))
    first = registry.push("app:1", [ONE])
    assert (await store.resolve(ResolveImage(image=name))).digest == first
    second = registry.push("app:1", [TWO])
    assert (await store.resolve(ResolveImage(image=name))).digest == first
    assert (await store.resolve(ResolveImage(image=name, policy="never"))).digest == first
    assert (await store.resolve(ResolveImage(image=name, policy="always"))).digest == second
    assert (await store.resolve(ResolveImage(image=name))).digest == second
    # A task of the older release gets what it was pinned to, and the name stays.
    assert (await store.ensure(name, first)).digest == first
    assert (await store.resolve(ResolveImage(image=f"{name}@{first}"))).digest == first
    assert (await store.resolve(ResolveImage(image=name))).digest == second


async def test_only_what_is_missing_is_fetched(store, registry) -> None:
    first = registry.push("app:1", [ONE, TWO])
    await store.resolve(ResolveImage(image=f"{registry.address}/app:1"))
    registry.push("app:2", [ONE, THREE])
    record = store.content.record(first)
    assert record is not None
    registry.blob_path(record.blobs[0]).unlink()  # asking for it would fail
    found = await store.resolve(ResolveImage(image=f"{registry.address}/app:2"))
    root = await store.mount("t1", found.digest)
    assert sorted(path.name for path in root.iterdir()) == ["etc", "one", "three"]
    await store.discard("t1")


async def test_many_at_once_pull_once(store, registry) -> None:
    digest = registry.push("app:1", [ONE, TWO, THREE])
    name = f"{registry.address}/app:1"
    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(store.ensure(name, digest))
    assert len(list(store.content.layers.iterdir())) == 3


async def test_damage_on_disk_is_noticed_and_repaired(store, registry) -> None:
    digest = registry.push("app:1", [ONE, TWO])
    name = f"{registry.address}/app:1"
    await store.ensure(name, digest)
    record = store.content.record(digest)
    assert record is not None
    config = store.content.blob(record.config)

    flipped = bytearray(config.read_bytes())
    flipped[10] ^= 1
    config.write_bytes(flipped)
    store._known.clear()
    with pytest.raises(Later, match="damaged"):
        await store.ensure(name, digest)
    assert (await store.ensure(name, digest)).digest == digest

    layer = store.layers.directory(record.diff_ids[0]).parent
    (layer / "done").unlink()
    blob = store.content.blob(record.blobs[0])
    blob.write_bytes(blob.read_bytes()[:-1] + b"\0")
    with pytest.raises(Later, match="not complete"):
        await store.mount("t1", digest)
    await store.ensure(name, digest)
    root = await store.mount("t1", digest)
    assert (root / "one").read_bytes() == b"1" * 5000
    await store.discard("t1")
    assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name


async def test_missing_names_are_refused_in_the_registrys_words(store, registry) -> None:
    registry.push("app:1", [ONE])
    for name in ("app:9", "other:1"):
        with pytest.raises(Refusal, match=r"not found: .*manifest unknown"):
            await store.resolve(ResolveImage(image=f"{registry.address}/{name}"))
    with pytest.raises(Refusal, match="not found"):
        await store.ensure(f"{registry.address}/app:1", "sha256:" + "0" * 64)
    with pytest.raises(Later, match="connection refused"):
        await store.resolve(ResolveImage(image="127.0.0.1:5999/app:1"))
    assert left(store) == []


async def test_full_disk_is_said_before_pulling(store, registry, monkeypatch) -> None:
    registry.push("app:1", [ONE])
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100 << 20})())
    with pytest.raises(Later, match="MiB free"):
        await store.resolve(ResolveImage(image=f"{registry.address}/app:1"))


# A registry that can be made to lie, and to take its time

PIECE = 1 << 20


class Stub:
    """Serves one image; ``answer`` may change what a path gives (None: nothing changed)."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.answer: Callable[[str], tuple[int, dict[str, str], bytes] | None] = lambda _: None
        self.allowed: threading.Semaphore | None = None  # one release lets ``PIECE`` bytes go

    def blob(self, data: bytes, kind: str) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return {"digest": digest, "size": len(data), "mediaType": kind}

    def image(self, layers: list[bytes], **more: object) -> bytes:
        vnd = "application/vnd.oci.image"
        diff_ids = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
        config = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": diff_ids}} | more
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{vnd}.manifest.v1+json",
            "config": self.blob(json.dumps(config).encode(), f"{vnd}.config.v1+json"),
            "layers": [
                self.blob(gzip.compress(layer, mtime=0), f"{vnd}.layer.v1.tar+gzip")
                for layer in layers
            ],
        }
        return json.dumps(manifest).encode()


@pytest.fixture
def stub() -> Iterator[Stub]:
    made = Stub()
    made.manifest = made.image([ONE])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append((self.command, self.path, dict(self.headers)))
            kind, _, digest = self.path.rpartition("/")
            status, headers, body = 200, {}, made.blobs.get(digest, b"")
            if kind.endswith("/manifests"):
                body = made.manifest
                headers["Content-Type"] = json.loads(body)["mediaType"]
            elif self.path != "/v2/" and digest not in made.blobs:
                status = 404
            changed = made.answer(self.path)
            if changed:
                status, headers, body = changed
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                with contextlib.suppress(OSError):
                    for start in range(0, len(body), PIECE):
                        if made.allowed is not None and len(body) > PIECE:
                            made.allowed.acquire(timeout=60)
                        self.wfile.write(body[start : start + PIECE])

        do_HEAD = do_GET  # noqa: N815 - the name is the protocol

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


NAME = f"127.0.0.1:{PORT}/app:1"


def nothing_kept(store: ImageStore) -> bool:
    return not store.content.records() and not left(store) and not store.content.refs()


async def test_the_stub_is_an_honest_registry_unless_told(store, stub) -> None:
    found = await store.resolve(ResolveImage(image=NAME))
    assert found.digest == f"sha256:{hashlib.sha256(stub.manifest).hexdigest()}"


async def test_a_slow_registry_s_bytes_are_told_as_they_come(store, stub) -> None:
    """Nothing is told before something came, more with every piece, nothing after the end."""
    layer = tars.archive(tars.file(b"big", random.Random(5).randbytes(4 * PIECE)))
    stub.manifest = stub.image([layer])
    size = json.loads(stub.manifest)["layers"][0]["size"]
    stub.allowed = threading.Semaphore(0)
    assert store.transfer(NAME) == (0, 0)
    pulling = asyncio.ensure_future(store.resolve(ResolveImage(image=NAME)))
    told = []
    async with asyncio.timeout(60):
        for pieces in range(1, size // PIECE + 1):
            stub.allowed.release()
            while (seen := store.transfer(NAME))[0] < pieces * PIECE * 3 // 4:
                assert not pulling.done()
                await asyncio.sleep(0.01)
            assert seen[0] <= pieces * PIECE + 4096, "never more than came"
            assert seen[1] >= size
            told.append(seen[0])
        stub.allowed.release(99)
        await pulling
    assert len(told) >= 4
    assert store.transfer(NAME) == (0, 0)


def changed_blob(stub: Stub, change: Callable[[bytes], bytes]) -> None:
    layer = json.loads(stub.manifest)["layers"][0]["digest"]
    data = change(stub.blobs[layer])
    stub.answer = lambda path: (200, {}, data) if path.endswith(layer) else None


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:],
        lambda data: data[:-4],
        lambda data: data + b"more",
        lambda data: b"",
        lambda data: bytes(len(data)),
    ],
    ids=["flipped", "truncated", "longer", "empty", "zeros"],
)
async def test_blobs_that_are_not_their_digest_are_never_used(store, stub, change) -> None:
    changed_blob(stub, change)
    with pytest.raises((Later, Refusal)):
        await store.resolve(ResolveImage(image=NAME))
    assert nothing_kept(store)
    assert list(store.content.layers.iterdir()) == []
    stub.answer = lambda _: None
    await store.resolve(ResolveImage(image=NAME))


async def test_a_blob_that_promises_more_than_its_size_is_stopped(store, stub) -> None:
    layer = json.loads(stub.manifest)["layers"][0]
    endless = bytes(32 << 20)
    stub.answer = lambda path: (200, {}, endless) if path.endswith(layer["digest"]) else None
    with pytest.raises(Later):
        await store.resolve(ResolveImage(image=NAME))
    assert nothing_kept(store)


async def test_another_manifest_than_asked_for_is_not_taken(store, stub) -> None:
    digest = f"sha256:{hashlib.sha256(stub.manifest).hexdigest()}"
    stub.manifest = stub.image([TWO])
    with pytest.raises((Later, Refusal)):
        await store.ensure(NAME, digest)
    assert nothing_kept(store)


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ({"config": {"digest": "sha256:../../../etc/passwd", "size": 1}}, "not a digest|invalid"),
        ({"layers": [{"digest": "../x", "size": 1}]}, "not a digest|invalid"),
        ({"layers": []}, "names 1 layers, its manifest 0"),
        (
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", "manifests": []},
            "index too|invalid|many",
        ),
    ],
    ids=["config-path", "layer-path", "no-layers", "both"],
)
async def test_lying_manifests_are_refused(store, stub, manifest, words) -> None:
    stub.manifest = json.dumps(json.loads(stub.manifest) | manifest).encode()
    with pytest.raises((Refusal, Later), match=words):
        await store.resolve(ResolveImage(image=NAME))
    assert not store.content.records()


async def test_a_config_that_promises_other_layers_is_refused(store, stub) -> None:
    stub.manifest = stub.image([ONE], rootfs={"diff_ids": ["sha256:" + "1" * 64]})
    with pytest.raises(Refusal, match="other files than the image's config promises"):
        await store.resolve(ResolveImage(image=NAME))
    assert nothing_kept(store)


async def test_a_hostile_config_is_refused_by_image_and_field(store, stub) -> None:
    stub.manifest = stub.image([ONE], config={"Volumes": {"/proc/sys": {}}})
    with pytest.raises(Refusal, match=r"image \S+: the image's Volumes: '/proc/sys' is inside"):
        await store.resolve(ResolveImage(image=NAME))
    assert nothing_kept(store)


async def test_the_platform_is_chosen_from_an_index(store, stub) -> None:
    inner = stub.manifest
    mine = f"sha256:{hashlib.sha256(inner).hexdigest()}"
    stub.manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [
                {"digest": "sha256:" + "5" * 64, "size": 5,
                 "platform": {"os": "linux", "architecture": "s390x"}},
                {"digest": mine, "size": len(inner),
                 "platform": {"os": "linux", "architecture": "amd64"}},
            ],
        }
    ).encode()  # fmt: skip
    kind = {"Content-Type": json.loads(inner)["mediaType"]}
    stub.answer = lambda path: (200, kind, inner) if path.endswith(mine) else None
    found = await store.resolve(ResolveImage(image=NAME))
    assert found.digest == f"sha256:{hashlib.sha256(stub.manifest).hexdigest()}"
    root = await store.mount("t1", found.digest)
    assert (root / "one").exists()
    await store.discard("t1")
    pinned = await store.resolve(ResolveImage(image=NAME, policy="always", platform="linux/amd64"))
    assert pinned.digest == mine
    with pytest.raises(Refusal, match="not made for linux/riscv64; it has: linux/amd64"):
        await store.resolve(ResolveImage(image=NAME, policy="always", platform="linux/riscv64"))


@pytest.mark.parametrize(
    ("status", "headers", "error", "words"),
    [
        (500, {}, Later, "500"),
        (503, {}, Later, "503"),
        (429, {}, Later, "slow down"),
        (401, {"WWW-Authenticate": 'Basic realm="x"'}, Refusal, "not allowed"),
        (403, {}, Refusal, "not allowed"),
        (404, {}, Refusal, "not found"),
    ],
)
async def test_what_a_registry_answers_decides(
    store, stub, status, headers, error, words, monkeypatch
) -> None:
    if status == 429:  # skopeo itself waits and asks again for a minute
        monkeypatch.setattr(pull, "ASK_SECONDS", 0.5)
    body = b'{"errors":[]}' if status != 429 else b'{"errors":[{"code":"TOOMANYREQUESTS"}]}'
    stub.answer = lambda path: (status, headers, body) if "/manifests/" in path else None
    with pytest.raises(error, match=words):
        await asyncio.wait_for(store.resolve(ResolveImage(image=NAME)), 60)
    assert nothing_kept(store)


async def test_credentials_come_from_the_auth_file_and_stay_with_their_host(tmp_path, stub) -> None:
    auth = tmp_path / "auth.json"
    token = base64.b64encode(b"user:canary-password").decode()
    auth.write_text(json.dumps({"auths": {f"127.0.0.1:{PORT}": {"auth": token}}}))
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "CORRAL_AUTH_FILE": str(auth)}
    seen: list[str] = []

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            data = stub.blobs["sha256:" + self.path.rpartition("/")[2]]
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    other = http.server.ThreadingHTTPServer(("127.0.0.2", PORT + 1), Elsewhere)
    thread = threading.Thread(target=other.serve_forever, args=(0.02,))
    thread.start()

    def answer(path: str) -> tuple[int, dict[str, str], bytes] | None:
        headers = stub.asked[-1][2]
        if headers.get("Authorization") != f"Basic {token}":
            return 401, {"WWW-Authenticate": 'Basic realm="stub"'}, b"{}"
        if "/blobs/" in path:
            digest = path.rpartition(":")[2]
            return 307, {"Location": f"http://127.0.0.2:{PORT + 1}/{digest}"}, b""
        return None

    stub.answer = answer
    try:
        async with ImageStore(tmp_path / "s", tmp_path / "r", environment=environment) as store:
            await store.resolve(ResolveImage(image=NAME))
            stub.answer = lambda path: (
                (401, {"WWW-Authenticate": 'Basic realm="stub"'}, b"{}")
                if stub.asked[-1][2].get("Authorization") != "Basic other"
                else None
            )
            with pytest.raises(Refusal, match="not allowed") as error:
                await store.resolve(ResolveImage(image=NAME, policy="always"))
    finally:
        other.shutdown()
        thread.join()
        other.server_close()
    assert seen
    assert not any(seen)
    assert "canary" not in str(error.value)


async def test_a_registry_that_hangs_is_given_up_in_words(store, stub, monkeypatch) -> None:
    release = threading.Event()

    def hang(path: str) -> None:
        if "/manifests/" in path:
            release.wait(20)

    stub.answer = hang
    monkeypatch.setattr(pull, "ASK_SECONDS", 0.5)
    try:
        with pytest.raises(Later, match="did not answer"):
            await store.resolve(ResolveImage(image=NAME))
    finally:
        release.set()
    assert nothing_kept(store)


async def test_a_blob_that_stops_coming_is_given_up(store, stub, monkeypatch) -> None:
    release = threading.Event()
    layer = json.loads(stub.manifest)["layers"][0]["digest"]

    def hang(path: str) -> None:
        if path.endswith(layer):
            release.wait(20)

    stub.answer = hang
    monkeypatch.setattr(proxy, "STALL_SECONDS", 0.5)
    try:
        with pytest.raises(Later, match=r"nothing came|no answer"):
            await store.resolve(ResolveImage(image=NAME))
    finally:
        release.set()
    assert nothing_kept(store)


async def test_a_cancelled_pull_leaves_nothing(store, stub) -> None:
    release = threading.Event()
    started = threading.Event()

    def hang(path: str) -> None:
        if "/blobs/" in path:
            started.set()
            release.wait(20)

    stub.answer = hang
    task = asyncio.get_running_loop().create_task(store.resolve(ResolveImage(image=NAME)))
    try:
        while not started.is_set():
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    finally:
        release.set()
    assert nothing_kept(store)
    stub.answer = lambda _: None
    await store.resolve(ResolveImage(image=NAME))
