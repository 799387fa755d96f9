#!/usr/bin/env python3
"""Base images for machines without a registry, made from Debian packages and cached.

``scripts/base_images.py guestbook busybox`` builds what is not cached and imports it into
the node's image store, where ``FROM NAME`` in a Dockerfile finds it.

busybox:latest         Debian's busybox-static and its applets; made in milliseconds
corral/debian-base:12  Debian with python3, nginx and redis-server, for examples/guestbook
debian:12-slim         Debian with apt, for the other examples; only made when it is named

The cache is ``$CORRAL_CACHE_DIR``, else ``$XDG_CACHE_HOME/corral``, else /var/cache/corral;
an archive's name holds the hash of its recipe, so a changed recipe is a new archive.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from specs.kit.programs import SYSTEM_PATH  # noqa: E402 - found by the line above

SUITE = "bookworm"
# usr-is-merged instead of usrmerge, which would bring all of perl with it
PACKAGES = ("usr-is-merged", "python3-minimal", "libpython3-stdlib", "nginx", "redis-server")
MMDEBSTRAP = (
    "mmdebstrap",
    "--quiet",
    "--variant=essential",
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
    f"--include={','.join(PACKAGES)}",
    '--aptopt=APT::Install-Recommends "false"',
    *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale", "info")),
    # Nothing of the machine it was made on, and nothing that a first boot would make.
    "--customize-hook=rm -rf $1/etc/hostname $1/etc/resolv.conf $1/var/log/* $1/var/cache/*",
    "--customize-hook=mkdir -p $1/var/log/nginx $1/var/cache",
    SUITE,
)
# What images called `debian` hold: the essential packages and apt.
PLAIN = (
    *("mmdebstrap", "--quiet", "--variant=apt", "--include=usr-is-merged"),
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
    '--aptopt=Acquire::Languages "none"',
    "--dpkgopt=force-unsafe-io",  # a layer is written once more anyway; a sync a file takes minutes
    *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale", "info")),
    "--customize-hook=rm -rf $1/etc/hostname $1/etc/resolv.conf $1/var/log/* $1/var/cache/*",
    SUITE,
)


def cache_directory() -> Path:
    """Return the cache's place outside the checkout, made when missing."""
    given = os.environ.get("CORRAL_CACHE_DIR")
    home = os.environ.get("XDG_CACHE_HOME")
    path = Path(given) if given else Path(home) / "corral" if home else Path("/var/cache/corral")
    path.mkdir(parents=True, exist_ok=True)
    return path


def busybox_archive(path: Path) -> None:
    """Write the root file system of busybox:latest."""
    program = shutil.which("busybox", path="/bin:/usr/bin")
    if program is None:
        raise SystemExit("error: busybox is missing (apt-get install busybox-static)")
    listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True)
    files = {
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
        "etc/group": "root:x:0:\nnogroup:x:65534:\n",
        "etc/nsswitch.conf": "hosts: files dns\n",
    }
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name in (
            "bin",
            "dev",
            "etc",
            "home",
            "proc",
            "root",
            "run",
            "sys",
            "tmp",
            "usr",
            "var",
        ):
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(member)
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
        data = Path(program).read_bytes()
        member = tarfile.TarInfo("bin/busybox")
        member.size, member.mode = len(data), 0o755
        archive.addfile(member, io.BytesIO(data))
        for applet in sorted(set(listed.stdout.split()) - {"busybox"}):
            member = tarfile.TarInfo(f"bin/{applet}")
            member.type, member.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(member)


def debian_archive(command: tuple[str, ...], path: Path) -> None:
    """Write a root file system of Debian packages (30 s, needs the Debian mirror)."""
    print(f"base images: making {path.name} of Debian {SUITE} ...", file=sys.stderr)
    started = time.monotonic()
    environment = dict(os.environ) | {"SOURCE_DATE_EPOCH": "0", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [*command, str(path)],
        check=False,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
    )
    if done.returncode:
        tail = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise SystemExit(f"error: mmdebstrap failed:\n{tail}")
    print(f"base images: done in {time.monotonic() - started:.0f} s", file=sys.stderr)


RECIPES: dict[str, tuple[str, Callable[[Path], None], dict[str, object], str]] = {
    "busybox": (
        "busybox:latest",
        busybox_archive,
        {"Cmd": ["sh"], "Env": [f"PATH={SYSTEM_PATH}"]},
        "busybox",
    ),
    "guestbook": (
        "corral/debian-base:12",
        functools.partial(debian_archive, MMDEBSTRAP),
        {"Cmd": ["sh"], "Env": [f"PATH={SYSTEM_PATH}"]},
        " ".join(MMDEBSTRAP),
    ),
    "debian": (
        "debian:12-slim",
        functools.partial(debian_archive, PLAIN),
        {"Cmd": ["bash"], "Env": [f"PATH={SYSTEM_PATH}"]},
        " ".join(PLAIN),
    ),
}


def archive(kind: str) -> Path:
    """Return the cached root file system of an image, made when missing."""
    _, make, _, recipe = RECIPES[kind]
    if kind == "busybox":
        recipe += hashlib.sha256(
            Path(shutil.which("busybox") or os.devnull).read_bytes()
        ).hexdigest()
    key = hashlib.sha256(f"{recipe} {platform.machine()} 1".encode()).hexdigest()[:16]
    path = cache_directory() / f"{kind}-{key}.tar"
    if not path.exists():
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.tar")
        try:
            make(unfinished)
            unfinished.rename(path)
        finally:
            unfinished.unlink(missing_ok=True)
    return path


async def provide(kinds: list[str], state_dir: Path, run_dir: Path) -> list[str]:
    """Import images into a store unless the same archive is there already; returns their names."""
    from agent.images.store import ImageStore  # noqa: PLC0415 - not for --archive-only

    store = ImageStore(state_dir, run_dir)
    try:
        names = []
        for kind in kinds:
            name, _, config, _ = RECIPES[kind]
            path = archive(kind)
            if not store.has(name, path.stem):
                digest = await store.add(name, path, {"config": config}, path.stem)
                print(f"base images: {name} {digest[7:19]}", file=sys.stderr)
            names.append(name)
        return names
    finally:
        store.close()


def main() -> None:
    own = CHECKOUT / ".venv" / "bin" / "python"
    if sys.prefix == sys.base_prefix and own.exists():  # the store needs our dependencies
        os.execv(own, [str(own), *sys.argv])  # noqa: S606 - no shell is the point
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    state = Path(os.environ.get("CORRAL_STATE_DIR", "/var/lib/corral")) / "agent"
    run = Path(os.environ.get("CORRAL_RUN_DIR", "/run/corral")) / "agent"
    parser.add_argument("kinds", nargs="*", choices=[*RECIPES, []], help="which images")
    parser.add_argument("--state-dir", type=Path, default=state)
    parser.add_argument("--run-dir", type=Path, default=run)
    parser.add_argument(
        "--archive-only", action="store_true", help="fill the cache, import nothing"
    )
    arguments = parser.parse_args()
    kinds = arguments.kinds or [kind for kind in RECIPES if kind != "debian"]
    if arguments.archive_only:
        print(json.dumps({kind: str(archive(kind)) for kind in kinds}))
        return
    for name in asyncio.run(provide(kinds, arguments.state_dir, arguments.run_dir)):
        print(name)


if __name__ == "__main__":
    main()
