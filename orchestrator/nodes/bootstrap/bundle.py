"""The agent as one archive that needs nothing of a node but Python: no index, no pip, no compiler.

Packed from what this controller itself runs: ``specs`` and ``agent``, the supervisor, and every
installed distribution they import, exactly as installed here. Compiled parts make it fit nodes with
the controller's Python minor version and architecture only; ``check.py`` refuses others in words.
So every module's byte code comes with it, too: compiling was a second of a node's processor time,
at every join and upgrade.
Used by ``join.py``; the archive is named by its content and kept in the controller's state folder.
As a program (``python -m orchestrator.nodes.bootstrap.bundle FOLDER``) it packs and prints what
it made.
"""

from __future__ import annotations

import ast
import contextlib
import gzip
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import marshal
import os
import platform
import re
import subprocess
import sys
import tarfile
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PACKAGES = ("specs", "agent")
PACKING = 120.0  # seconds, on a busy small machine
SUPERVISOR = "supervisor.py"
KEPT = 2  # archives of earlier versions that stay
_SKIPPED = ("__pycache__", ".pyc", ".pyi", ".pyx", ".pxd", ".c", ".h")
_LOW = 0xFFFFFFFF
_NAME = re.compile(r"^[A-Za-z0-9._-]+")


class BundleFailed(Exception):
    """The controller's own installation cannot be packed; message for people."""


@dataclass(frozen=True)
class Package:
    """An archive ready to be sent."""

    name: str  # directory on the node: VERSION-HASH
    archive: Path
    digest: str  # sha256 of the archive
    python: str  # "3.11"
    arch: str
    glibc: tuple[int, int] | None  # the least its compiled parts need; None = not glibc at all


def provide(folder: Path) -> Package:
    """Return the bundle of this installation, packed once in a controller's life. Blocks.

    Packing parses all sources and holds 30 MB of files: done in a child, it neither stops the
    controller's other threads for a second nor makes it 60 MB larger for ever.
    """
    made = _provided(folder)
    if not made.archive.exists():
        _provided.cache_clear()
        made = _provided(folder)
    return made


@cache
def _provided(folder: Path) -> Package:
    argv = [sys.executable, "-P", "-m", "orchestrator.nodes.bootstrap.bundle", str(folder)]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
            timeout=PACKING,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BundleFailed(f"packing the agent took more than {PACKING:g} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise BundleFailed(f"the agent cannot be packed: {last}")
    values = json.loads(done.stdout)
    values |= {"archive": Path(values["archive"]), "glibc": _pair(values["glibc"])}
    return Package(**values)


def _pair(numbers: list[int] | None) -> tuple[int, int] | None:
    return None if numbers is None else (numbers[0], numbers[1])


def build(folder: Path, packages: Iterable[str | Path] = PACKAGES) -> Package:
    """Return the bundle of this installation, from ``folder`` when it was packed before.

    ``packages``: names, or directories that stand for the package of their name. Blocks: reads
    some 30 MB, and compresses them the first time.
    """
    roots = [_root(package) for package in packages]
    distributions = sorted(_needed(roots), key=lambda d: _canonical(d.name))
    files = dict(_files(roots, distributions))
    version = importlib.metadata.version("corral")
    content = hashlib.sha256()
    for name in sorted(files):
        content.update(f"{name}\0{hashlib.sha256(files[name].read_bytes()).hexdigest()}\n".encode())
    label = f"{version}-{content.hexdigest()[:12]}"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    arch = platform.machine()
    archive = folder / f"agent-{label}-py{python}-{arch}.tar.gz"
    if not archive.exists():
        manifest = {
            "version": version, "python": python, "arch": arch,
            "distributions": {d.name: d.version for d in distributions},
        }  # fmt: skip
        _forget_old(folder)
        _pack(archive, version, files, json.dumps(manifest, indent=1, sort_keys=True).encode())
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Package(label, archive, digest, python, arch, _glibc(distributions))


def _root(package: str | Path) -> Path:
    if isinstance(package, Path):
        return package
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise BundleFailed(f"this controller is installed without the package {package}")
    return Path(found.submodule_search_locations[0])


# ---- what is imported ---------------------------------------------------------------------------


def imported(roots: Iterable[Path]) -> set[str]:
    """Return the top-level modules that the packages' sources import, our own left out."""
    own = {root.name for root in roots}
    found: set[str] = set()
    for root in roots:
        for source in root.rglob("*.py"):
            for node in _statements(ast.parse(source.read_bytes())):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    # A namespace package (backports.x) is told apart by its second part only.
                    found.add(node.module.partition(".")[0])
    return found - own - set(sys.stdlib_module_names)


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements of a module at any depth: an import is never part of an expression."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for field in ("body", "handlers", "orelse", "finalbody", "cases"):
            waiting += getattr(node, field, ())


def _needed(roots: list[Path]) -> list[importlib.metadata.Distribution]:
    """Return the distributions of everything imported, with what they require in turn."""
    providers = importlib.metadata.packages_distributions()
    waiting = [name for module in imported(roots) for name in providers.get(module, ())]
    found: dict[str, importlib.metadata.Distribution] = {}
    while waiting:
        name = _canonical(waiting.pop())
        if name in found or name == "corral":
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # required only on another Python or system
        for requirement in found[name].requires or ():
            matched = _NAME.match(requirement)
            if matched and "extra ==" not in requirement:
                waiting.append(matched.group())
    return list(found.values())


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _files(
    roots: list[Path], distributions: list[importlib.metadata.Distribution]
) -> Iterator[tuple[str, Path]]:
    """Yield every file of the bundle: its name in it, and where it is here."""
    for root in roots:
        for source in root.rglob("*"):
            if source.is_file() and not _skipped(source):
                yield f"{root.name}/{source.relative_to(root)}", source
    supervisor = Path(__file__).parents[2] / "embedded" / "supervisor.py"
    yield SUPERVISOR, supervisor
    for distribution in distributions:
        if distribution.files is None:
            raise BundleFailed(
                f"{distribution.name} does not say which files it consists of: install corral with"
                " pip into a virtual environment"
            )
        for file in distribution.files:
            source = Path(str(file.locate()))
            if ".." not in file.parts and not _skipped(source) and source.is_file():
                yield str(file), source


def _skipped(path: Path) -> bool:
    return "__pycache__" in path.parts or path.name.endswith(_SKIPPED)


def _glibc(distributions: Iterable[importlib.metadata.Distribution]) -> tuple[int, int] | None:
    """Return the newest glibc any of the wheels was built for, from their tags (PEP 600)."""
    if platform.libc_ver()[0] != "glibc":
        return None
    needed = (2, 17)
    for distribution in distributions:
        versions = [
            (int(major), int(minor))
            for major, minor in re.findall(
                r"manylinux_(\d+)_(\d+)", distribution.read_text("WHEEL") or ""
            )
        ]
        # A wheel with several tags runs on the oldest of them.
        needed = max(needed, min(versions, default=needed))
    return needed


def _forget_old(folder: Path) -> None:
    """Delete all but the newest few archives: every change of corral makes another one.

    And what a packer that was killed has left of one.
    """
    for path in folder.glob(".agent-*.tar.gz.*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > 2 * PACKING:
                path.unlink()
    found = sorted(folder.glob("agent-*.tar.gz"), key=lambda path: path.stat().st_mtime)
    for path in found[:-KEPT]:
        path.unlink(missing_ok=True)


# ---- the archive --------------------------------------------------------------------------------


def _metadata(version: str) -> bytes:
    return f"Metadata-Version: 2.1\nName: corral\nVersion: {version}\n".encode()


def _pack(archive: Path, version: str, files: dict[str, Path], manifest: bytes) -> None:
    """Write the archive; equal content makes equal bytes."""
    archive.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = archive.with_name(f".{archive.name}.{os.getpid()}")
    with temporary.open("wb") as raw:
        with (
            gzip.GzipFile("", "wb", 4, raw, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
        ):
            for name in sorted(files):
                data = files[name].read_bytes()
                _add(tar, name, data)
                if name.endswith(".py") and name != SUPERVISOR:  # which nobody imports
                    _add(tar, importlib.util.cache_from_source(name), compiled(files[name], data))
            # So that the agent can say its version as any installed program does.
            _add(tar, f"corral-{version}.dist-info/METADATA", _metadata(version))
            # Last: its presence says that the directory is whole.
            _add(tar, "bundle.json", manifest)
        raw.flush()
        os.fsync(raw.fileno())
    temporary.rename(archive)


def compiled(path: Path, source: bytes) -> bytes:
    """Return the file of a module's byte code, for a source that is unpacked with our time, 0.

    A Python that writes byte code of another kind, or finds that the source was changed on the
    node, ignores it and compiles.
    """
    return _header(0, len(source)) + (_kept(path) or _code(path, source))


def _header(time_: int, size: int) -> bytes:
    """Return what byte code begins with: Python, and time and size of the source (PEP 552)."""
    numbers = (0, time_ & _LOW, size & _LOW)
    return importlib.util.MAGIC_NUMBER + b"".join(n.to_bytes(4, "little") for n in numbers)


def _kept(path: Path) -> bytes | None:
    """Return what this machine's Python made of it already, if that is of the file as it is."""
    try:
        kept = Path(importlib.util.cache_from_source(str(path), optimization="")).read_bytes()
        status = path.stat()
    except OSError:
        return None
    of_it = _header(int(status.st_mtime), status.st_size)
    return kept[len(of_it) :] if kept.startswith(of_it) else None


def _code(path: Path, source: bytes) -> bytes:
    return marshal.dumps(compile(source, path, "exec", dont_inherit=True, optimize=0))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    tar.addfile(entry, io.BytesIO(data))


def main() -> int:
    """Pack, and print the bundle as JSON; a failure is one line on stderr."""
    try:
        made = build(Path(sys.argv[1]))
    except (BundleFailed, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(asdict(made) | {"archive": str(made.archive)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
