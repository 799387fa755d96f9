"""Controller and agent of lab hosts without a cold interpreter: their supervisor forks them.

A daemon's start costs more than half a second of processor time for imports, and the tests on lab
hosts start some hundred. Where ``warm.corral`` starts the cluster, the supervisor is therefore a
child of a process that has both daemons imported: orchestrator/embedded/supervisor.py itself, in
the host's namespaces and control groups, which supervises, restarts, kills and keeps its files as
ever. Only where it would execute ``python -P -m agent`` (or the controller) after its fork does it
run that module instead: a process of its own, with the command line, environment, standard
streams, signals and open files an exec would have left it.

What a controller sends to a joining node is packed by the first that needs it, and had from memory
by the others of the same server: it took 2 s of processor time each.

What is about the start itself is cold: a supervisor that a daemon starts again, one after a boot,
agents of joined nodes and of other versions, ``LabHost.popen`` and ``LabHost.corral``.
"""

from __future__ import annotations

import atexit
import ctypes
import dataclasses
import gc
import hashlib
import importlib
import json
import mmap
import os
import pickle
import runpy
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests import warm

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MODULES = {"agent", "orchestrator"}
STARTING = (
    "agent.daemon",
    "agent.images.store",
    "agent.network.node",
    "agent.volumes.store",
    "orchestrator.controller",
)
FIRST, LAST = 3, 1 << 16  # descriptors that an exec would close
SERVER = warm.Server("-m", "tests.warm_daemons")
atexit.register(SERVER.close)


# ---- in a command that runs warm ---------------------------------------------------------------


def lend(door: socket.socket, host: dict[str, Any]) -> None:
    """Have this process start its supervisor through the door; whatever else it runs is cold."""
    from orchestrator.embedded import supervisor

    if not possible():
        return
    cold = subprocess.run
    start = [sys.executable, "-I", "-S", str(supervisor.__file__)]

    def run(command: Any, **options: Any) -> Any:
        if isinstance(command, list) and command[:4] == start:
            return _ask(door, host, command, options["env"])
        return cold(command, **options)

    subprocess.run = run  # type: ignore[assignment]  # of this process only


def _ask(
    door: socket.socket, host: dict[str, Any], command: list[str], env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    errors, status = os.pipe(), os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    request = {**host, "call": "supervisor", "argv": command, "env": dict(env), "cwd": "/"}
    socket.send_fds(door, [json.dumps(request).encode()], [null, null, errors[1], status[1]])
    for descriptor in (null, errors[1], status[1]):
        os.close(descriptor)
    with os.fdopen(errors[0], "rb") as said, os.fdopen(status[0], "rb") as ended:
        words, lines = said.read().decode(errors="replace"), ended.read().split()
    code = int(lines[-1]) if len(lines) > 1 else -signal.SIGKILL
    return subprocess.CompletedProcess(command, code, None, words)


# ---- the server --------------------------------------------------------------------------------


def preload() -> None:
    """Import what daemons do when they start, in their way."""
    from specs.kit import allocator

    with allocator.uncollected(), allocator.without_authorities():
        for name in STARTING:
            importlib.import_module(name)
    from orchestrator.nodes.bootstrap import bundle
    from specs.base import Model

    for model in _heirs(Model):
        model.model_rebuild()  # which each process does with its first use
    bundle._provided = Packed(bundle._provided)  # type: ignore[assignment]
    gc.collect()
    gc.freeze()


def _heirs(model: type[Any]) -> Iterator[type[Any]]:
    for heir in model.__subclasses__():
        yield heir
        yield from _heirs(heir)


class Packed:
    """``bundle._provided`` for processes that are forked: one packs, the others have its bytes.

    Memory, because a daemon has no descriptor of who forked it, and hosts have files of their own.
    """

    LENGTHS = struct.Struct("=QQ")  # of the description and of the archive; written last
    ROOM = 64 << 20

    def __init__(self, cold: Any) -> None:
        self.cold = cold
        self.memory = mmap.mmap(-1, self.ROOM)
        self.provided: dict[Path, Any] = {}

    def cache_clear(self) -> None:
        self.provided.clear()
        self.cold.cache_clear()

    def __call__(self, folder: Path) -> Any:
        if folder not in self.provided:
            self.provided[folder] = self._kept(folder) or self._new(folder)
        return self.provided[folder]

    def _new(self, folder: Path) -> Any:
        made = self.cold(folder)
        archive = made.archive.read_bytes()
        words = pickle.dumps(made)
        start = self.LENGTHS.size
        if start + len(words) + len(archive) <= self.ROOM:
            self.memory[start : start + len(words)] = words
            self.memory[start + len(words) : start + len(words) + len(archive)] = archive
            self.memory[:start] = self.LENGTHS.pack(len(words), len(archive))
        return made

    def _kept(self, folder: Path) -> Any:
        """Return it as made in this folder; None where nobody packed it, or two do just now."""
        start = self.LENGTHS.size
        length, size = self.LENGTHS.unpack(self.memory[:start])
        archive = self.memory[start + length : start + length + size]
        try:
            made = pickle.loads(self.memory[start : start + length])
        except Exception:
            return None
        if hashlib.sha256(archive).hexdigest() != made.digest:
            return None
        path = folder / made.archive.name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Several threads of a controller may ask for it at once.
        new = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
        new.write_bytes(archive)
        new.rename(path)
        return dataclasses.replace(made, archive=path)


def _supervise(argv: list[str]) -> int:
    """Be the supervisor: ``argv`` is what would have been executed."""
    from orchestrator.embedded import supervisor

    os.closerange(FIRST, LAST)
    become(argv, os.environ)
    os.execv = _run_or_exec  # type: ignore[assignment]  # of this process and its children
    return supervisor.main(argv[4:])


_exec = os.execv


def _run_or_exec(program: str, argv: list[str]) -> None:
    """Execute, or run the daemon if it is one of this checkout by this interpreter."""
    os.execv = _exec
    words, module, *arguments = argv[:3], *argv[3:4], *argv[4:]
    ours = os.environ.get("PYTHONPATH") == str(warm.ROOT)
    if words != [sys.executable, "-P", "-m"] or module not in MODULES or not ours:
        _exec(program, argv)
    code = 1
    try:
        os.closerange(FIRST, LAST)
        become(argv, os.environ)
        time.tzset()
        sys.argv = [module, *arguments]
        sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(  # noqa: SIM115
            2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
        )
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:  # what an interpreter's end does
        with suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]
        with suppress(BaseException):
            atexit._run_exitfuncs()
        with suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code & 0xFF)


# ---- what /proc shows of a process --------------------------------------------------------------

_PR_SET_MM, _PR_SET_MM_MAP = 35, 14
_held: list[mmap.mmap] = []


def possible() -> bool:
    """Say whether a process may change what /proc shows of it; this one goes on as it was."""
    argv = Path("/proc/self/cmdline").read_bytes().split(b"\0")[:-1]
    try:
        become([os.fsdecode(word) for word in argv], os.environ)
    except OSError:
        return False
    return True


def become(argv: list[str], environment: Mapping[str, str]) -> None:
    """Have /proc show this command line and environment, as if executed (prctl(2)).

    Raises OSError where the kernel lets nobody do so (CONFIG_CHECKPOINT_RESTORE).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.sbrk.restype, libc.sbrk.argtypes = ctypes.c_void_p, [ctypes.c_long]
    words = b"".join(os.fsencode(word) + b"\0" for word in argv)
    settings = b"".join(os.fsencode(f"{k}={v}") + b"\0" for k, v in environment.items())
    area = mmap.mmap(-1, len(words) + len(settings), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.write(words + settings)
    _held.append(area)
    at = ctypes.addressof(ctypes.c_char.from_buffer(area))
    middle, end = at + len(words), at + len(words) + len(settings)
    fields = Path("/proc/self/stat").read_text(encoding="latin-1").rpartition(")")[2].split()
    stat = {number: int(fields[number - 3]) for number in (26, 27, 28, 45, 46, 47)}  # proc(5)
    layout = struct.pack(
        "=12QIi",
        *(stat[number] for number in (26, 27, 45, 46, 47)),
        libc.sbrk(0), stat[28], at, middle, middle, end,
        0, 0, -1,  # neither another auxiliary vector nor another program
    )  # fmt: skip
    size = ctypes.c_ulong(len(layout))
    if libc.prctl(_PR_SET_MM, ctypes.c_ulong(_PR_SET_MM_MAP), layout, size, 0):
        raise OSError(ctypes.get_errno(), "prctl PR_SET_MM_MAP")


if __name__ == "__main__":
    sys.path.pop(0)  # the folder it was started in; PYTHONPATH has the checkout
    warm.CALLS["supervisor"] = _supervise
    preload()
    warm.serve(socket.socket(fileno=int(sys.argv[1])))
