"""``python -m agent.upgrade``: change this node's agent for the one this program came with.

Started by the controller over SSH (orchestrator/nodes/bootstrap/upgrade.py), from the new agent's
own folder, with a :class:`ChangeRequest` as JSON on its input; prints the outcome as JSON. It goes
on in a session of its own, so that a lost connection leaves the old or the new agent, never half.

``/opt/corral/current`` names the folder of the agent that is started, ``previous`` the one before;
both are replaced by rename. What starts it (the unit, or the line in rc.local) goes through
``current``; an installation of before that named its folder itself is kept in ``former``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specs.kit import changeover
from specs.kit.disk import sync, write_file

if TYPE_CHECKING:
    from collections.abc import Iterator

ENDS = 45.0  # seconds a supervisor has to end with its agent
STARTS = 60.0
BUSY = 120.0  # seconds another upgrade of this machine is waited for
TAIL = 12
MARK = "# corral"
TO_THE_END = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)


@dataclass(frozen=True)
class ChangeRequest:
    """``starter``: the unit's text, or without systemd the line of rc.local."""

    bundle: str  # folder below /opt/corral
    version: str
    starter: str
    systemd: bool
    told: dict[str, tuple[str, int]]  # containers as the controller knows them
    back: bool = False  # have the former agent again
    patience: float = changeover.PATIENCE


@dataclass(frozen=True)
class NodeLayout:
    """Where things are; tests have another root."""

    opt: Path = Path("/opt/corral")
    run: Path = Path("/run/corral")
    log: Path = Path("/var/lib/corral/log/agent.log")
    unit: Path = Path("/etc/systemd/system/corral-agent.service")
    rc: Path = Path("/etc/rc.local")


class NodePlace:
    """A node's agent as `node add` installed it."""

    def __init__(self, request: ChangeRequest, layout: NodeLayout | None = None) -> None:
        self._request = request
        self._at = layout or NodeLayout()
        self._logged = 0
        self._ended = 0

    # ---- what is in place -------------------------------------------------------------------

    def _named(self, link: str) -> str:
        try:
            return str((self._at.opt / link).readlink())
        except OSError:
            return ""

    def _name(self, link: str, target: str) -> None:
        made = self._at.opt / f".{link}.new"
        made.unlink(missing_ok=True)
        made.symlink_to(target)
        made.replace(self._at.opt / link)
        sync(self._at.opt)

    def forward(self) -> None:
        """Let ``current`` name the new folder, then start what it names."""
        now = self._named("current")
        if now != self._request.bundle:
            # Strictly before: whatever happens then, the way back is known.
            write_file(self._at.opt / "former", self._starter().encode())
            if now:
                self._name("previous", now)
            self._name("current", self._request.bundle)
        self._start_with(self._request.starter)

    def _starter(self) -> str:
        """Return what starts the agent at present: the unit, or our line of rc.local."""
        if self._request.systemd:
            return _read(self._at.unit)
        return next((one for one in _read(self._at.rc).splitlines() if one.endswith(MARK)), "")

    def _start_with(self, starter: str) -> None:
        """Have the agent started that way from now on, and start it."""
        if starter and starter != self._starter():
            if self._request.systemd:
                write_file(self._at.unit, starter.encode(), mode=0o644)
            else:
                text = with_line(_read(self._at.rc), starter.strip())
                write_file(self._at.rc, text.encode(), mode=0o755)
        self._restart()

    def back(self) -> str:
        former = self._named("previous")
        if not former or not (self._at.opt / former / "bundle.json").exists():
            return "there is no former agent on this machine to go back to"
        try:
            self._name("current", former)
            self._start_with(_read(self._at.opt / "former"))
        except OSError as error:
            return f"the former agent cannot be started: {error}"
        return ""

    def settle(self) -> None:
        kept = {self._named("current"), self._named("previous")}
        for folder in self._at.opt.iterdir():
            ours = (folder / "bundle.json").exists() and not folder.is_symlink()
            if ours and folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(self._at.opt / "unpacking", ignore_errors=True)

    # ---- starting ---------------------------------------------------------------------------

    def _restart(self) -> None:
        with contextlib.suppress(OSError):
            self._logged = self._at.log.stat().st_size
        if self._request.systemd:
            _run(["systemctl", "daemon-reload"])
            _run(["systemctl", "restart", "corral-agent.service"])
        else:
            # Twice: an agent may just have started a supervisor that was killed.
            for again in (True, False):
                self._end_supervised()
                try:
                    _run(["sh", "-c", self._starter()])
                    break
                except OSError:
                    if not again:
                        raise
        self._ended = self._counted()

    def _end_supervised(self) -> None:
        """End the supervisor, which ends its agent; then an agent that nobody keeps."""
        keeper, status = self._at.run / "supervisor.pid", self._status()
        words = _read(keeper).split()
        if len(words) == 2 and changeover.start_time(int(words[0])) != words[1]:
            keeper.unlink(missing_ok=True)  # killed: its agent would start it again meanwhile
        for one in (words, status[1:3]):
            if len(one) == 2 and one[0].isdecimal():
                _end(int(one[0]), one[1])

    def _status(self) -> list[str]:
        """Return the supervisor's line about the agent: NAME PID STARTTIME RESTARTS LASTEXIT."""
        lines = _read(self._at.run / "supervisor.status").splitlines()
        return next((one.split() for one in lines if one.startswith("agent ")), [])

    def _counted(self) -> int:
        if self._request.systemd:
            said = _output(["systemctl", "show", "-p", "NRestarts", "--value", "corral-agent"])
            return int(said) if said.isdecimal() else 0
        status = self._status()
        return int(status[3]) if len(status) == 5 and status[3].isdecimal() else 0

    def ends(self) -> int:
        return max(0, self._counted() - self._ended)

    def last_words(self) -> tuple[str, ...]:
        if self._request.systemd:
            show = ["journalctl", "-u", "corral-agent", "-n", str(TAIL), "--no-pager", "-o", "cat"]
            return tuple(_output(show).splitlines())
        return changeover.said_since(self._at.log, self._logged, TAIL)

    # ---- asking -----------------------------------------------------------------------------

    def ask(self, path: str) -> Any:
        return changeover.ask(str(self._at.run / "agent.sock"), path)

    def start_of(self, pid: int) -> str:
        return changeover.start_time(pid)

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def with_line(text: str, line: str) -> str:
    """Return rc.local with our one line: before a closing `exit 0`, as distributions ship it."""
    lines = [one for one in text.splitlines() if not one.endswith(MARK)] or ["#!/bin/sh"]
    end = next((i for i, one in enumerate(lines) if one.startswith("exit 0")), len(lines))
    return "\n".join([*lines[:end], line, *lines[end:], ""])


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _run(argv: list[str]) -> None:
    """Run what starts something. Raises OSError with its words."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
            timeout=STARTS,
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"{argv[0]} took more than {STARTS:g} s") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise OSError(f"{' '.join(argv[:3])[:80]}: {said}")


def _output(argv: list[str]) -> str:
    try:
        return subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=STARTS
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _end(pid: int, started: str) -> None:
    """End one process, named for ever by its start time; kill it when it takes too long."""
    for number, patience in ((signal.SIGTERM, ENDS), (signal.SIGKILL, ENDS)):
        until = time.monotonic() + patience
        if changeover.start_time(pid) == started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        while changeover.start_time(pid) == started and time.monotonic() < until:
            time.sleep(0.05)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Be the only upgrade of this machine. Raises OSError when another takes too long."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        until = time.monotonic() + BUSY
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise OSError("another corral upgrade is at work on this machine") from None
                time.sleep(0.1)
        yield
    finally:
        os.close(lock)


def perform(request: ChangeRequest, layout: NodeLayout) -> changeover.Changed:
    """Change the agent, or have the former one again."""
    place = NodePlace(request, layout)
    try:
        with _alone(layout.run / "upgrade.lock"):
            if request.back:
                why = place.back()
                return changeover.Changed(ok=not why, message=why, back=not why)
            return changeover.change(
                place, request.version, told=request.told, patience=request.patience
            )
    except OSError as error:
        return changeover.Changed(ok=False, message=str(error))


def _heed_not(*_: object) -> None:
    """Go on."""


def main() -> int:
    """Read the request, do it in a process nobody's connection can end, say how it went."""
    asked = json.load(sys.stdin)
    told = {task: (str(name), int(pid)) for task, (name, pid) in asked.pop("told").items()}
    request, layout = ChangeRequest(told=told, **asked), NodeLayout()
    result = layout.run / "upgrade.json"
    result.unlink(missing_ok=True)
    worker = os.fork()
    if worker == 0:
        os.setsid()
        for number in TO_THE_END:
            signal.signal(number, _heed_not)  # ignored ones would stay so in what we start
        code = 1
        try:
            outcome = perform(request, layout)
            write_file(result, json.dumps(asdict(outcome)).encode())
            code = 0
        finally:
            os._exit(code)
    os.waitpid(worker, 0)
    said = _read(result)
    sys.stdout.write(said)
    return 0 if said else 1


if __name__ == "__main__":
    sys.exit(main())
