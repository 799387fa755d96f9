"""The controller of this machine, and its agent, restarted as the corral that is installed now.

`corral upgrade` calls :func:`renew` on the controller's machine. Whatever keeps the daemons (units,
or the supervisor) is told the new command first, so that a death on the way has it started as the
old or the new version; then the daemon is ended and awaited. One that does not come up is started
as before, where the code of before is still there: in another folder, because the environment it
was installed in is not ours. Containers are never touched.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from orchestrator.client.client import Client
from orchestrator.client.errors import ClientError
from orchestrator.client.places import run_dir as sockets_dir
from orchestrator.client.places import state_dir as durable_dir
from orchestrator.embedded import boot, daemons, systemd
from specs.kit import alive, changeover, versions
from specs.kit.disk import write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PATIENCE = 60.0  # seconds the new controller has until it answers, on a busy machine
HOPELESS = 3
LOOK = 0.05
ENDS = 30.0
ASKS_VERSION = "from importlib.metadata import version; print(version('corral'))"
# What names the code a daemon runs; all else of its environment stays as it was started.
CODE = ("PYTHONPATH",)


@dataclass(frozen=True)
class Former:
    """How a daemon was started before: enough to start it so again."""

    version: str
    argv: tuple[str, ...]
    environ: Mapping[str, str]

    @property
    def supervisor(self) -> list[str]:
        """Return the command of the supervisor that started it."""
        found: list[str] = json.loads(self.environ.get(alive.RESTARTER) or "[]")
        return found

    def there(self) -> bool:
        """Whether the code of that version can still be started."""
        if not self.argv:
            return False
        words = [self.argv[0], "-P", "-c", ASKS_VERSION]
        try:
            done = subprocess.run(
                words, env=dict(self.environ), capture_output=True, text=True, check=False,
                timeout=30,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            return False
        return done.stdout.strip() == self.version


def renew(client: Client, say: Callable[[str], None], *, agent: bool) -> None:
    """Have this version's controller here, and with ``agent`` its agent. Raises StartFailed."""
    with daemons.locked(client, say):
        mine = versions.installed()
        theirs = _controllers_version()
        if theirs == mine:
            say(f"controller: {mine} already")
        else:
            say(f"controller: {theirs} -> {mine}")
            _renew_controller(theirs, mine)
            say(f"controller: {mine} (was {theirs})")
        if agent:
            _renew_agent(mine, say)


# ---- the controller -----------------------------------------------------------------------------


def _renew_controller(was: str, mine: str) -> None:
    pid = daemons.daemon_pids().get("controller", 0)
    former = _former(pid, was)
    keeper = _keeper()
    keeper.start("controller", _environ(former))
    why = _controller_comes(mine, keeper)
    if not why:
        keeper.keep(_environ(former))
        return
    words = daemons.last_words("controller")
    if not former.there():
        raise daemons.StartFailed(
            f"the new controller ({mine}) is no good: {why}; {was} is not installed here any more,"
            f" so it is not put back{words}",
            hint=f"install corral {was} again, in a folder of its own, and there: corral"
            " controller stop, corral controller start; containers run on meanwhile",
        )
    keeper.back("controller", former)
    still = _controller_comes(was, keeper)
    raise daemons.StartFailed(
        f"the new controller ({mine}) is no good: {why}; "
        + (f"{was} was put back, but {still}" if still else f"{was} is in place again")
        + words,
        hint="no agent was touched, containers run on; once the cause is mended: corral upgrade",
    )


def _controller_comes(version: str, keeper: _Keeper) -> str:
    """Wait until a controller of that version answers; return why it does not."""
    until = time.monotonic() + PATIENCE
    why = "it does not answer"
    while True:
        found = _controllers_version()
        if found == version:
            return ""
        if found:
            why = f"it answers as {found}"
        if keeper.ends("controller") >= HOPELESS:
            return "it ends as soon as it starts"
        if time.monotonic() > until:
            return f"{why} within {PATIENCE:g} s"
        time.sleep(LOOK)


def _controllers_version() -> str:
    here = Client()
    here.patient = False
    try:
        return str(here.request("GET", "/v1/version", timeout=5.0)["version"])
    except (ClientError, KeyError, TypeError):
        return ""


# ---- the agent of this machine ------------------------------------------------------------------


def _renew_agent(mine: str, say: Callable[[str], None]) -> None:
    socket = f"{sockets_dir()}/agent.sock"
    was = changeover.version_of(changeover.ask(socket, "/v1/hello"))
    age = versions.age(was or versions.UNKNOWN, mine)
    if not age:
        return
    if age == "newer":
        say(f"this machine's agent: {was} is newer than {mine}; it is left as it is")
        return
    say(f"this machine's agent: {was or 'no answer'} -> {mine}")
    pid = daemons.daemon_pids().get("agent", 0)
    place = _AgentPlace(socket, _former(pid, was))
    found = changeover.change(place, mine)
    if found.ok:
        kept = f"{found.kept} container{'s' * (found.kept != 1)} kept running"
        say(f"this machine's agent: {mine} (was {found.was or 'not there'}); {kept}")
        return
    state = f"; {was} is in place again" if found.back else ""
    said = "".join(f"\n    | {line}" for line in found.log)
    raise daemons.StartFailed(
        f"this machine's new agent is no good: {found.message}{state}{said}",
        hint="no other node was touched, containers run on; once the cause is mended: corral"
        " upgrade",
    )


class _AgentPlace:
    """The agent of the controller's machine, kept by what keeps the controller."""

    def __init__(self, socket: str, former: Former) -> None:
        self._socket = socket
        self._former = former
        self._keeper = _keeper()
        self._log = daemons.log_dir() / "agent.log"
        self._logged = 0

    def forward(self) -> None:
        self._mark()
        self._keeper.start("agent", _environ(self._former))

    def back(self) -> str:
        if not self._former.there():
            return "the former version is not installed here any more, so it is not put back"
        self._keeper.back("agent", self._former)
        return ""

    def settle(self) -> None:
        self._keeper.keep(_environ(self._former))

    def ends(self) -> int:
        return self._keeper.ends("agent")

    def _mark(self) -> None:
        try:
            self._logged = self._log.stat().st_size
        except OSError:
            self._logged = 0

    def last_words(self) -> tuple[str, ...]:
        if _by_systemd():
            return tuple(systemd.journal("agent", daemons.TAIL))
        return changeover.said_since(self._log, self._logged, daemons.TAIL)

    def ask(self, path: str) -> Any:
        return changeover.ask(self._socket, path)

    def start_of(self, pid: int) -> str:
        return changeover.start_time(pid)

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


# ---- who keeps them -----------------------------------------------------------------------------


class _Keeper(Protocol):
    """What starts daemons again; ``start`` ends a daemon, which is then started as this version."""

    def start(self, name: str, environ: Mapping[str, str]) -> None: ...

    def back(self, name: str, former: Former) -> None: ...

    def keep(self, environ: Mapping[str, str]) -> None:
        """Have what is in place started after a boot, too."""
        ...

    def ends(self, name: str) -> int:
        """Return how often the daemon was started again since ``start`` or ``back``."""
        ...


class _Units:
    """systemd: a unit file each."""

    def __init__(self) -> None:
        paths = {name: systemd.UNIT_DIR / systemd.unit(name) for name in systemd.COMMANDS}
        self._texts = {n: p.read_text(encoding="utf-8") for n, p in paths.items() if p.exists()}
        self._before = 0

    def start(self, name: str, environ: Mapping[str, str]) -> None:
        self._write(name, systemd.unit_text(name, dict(environ)))

    def back(self, name: str, former: Former) -> None:
        # Not the text that was read: it is already ours when this is the second attempt.
        kept = daemons.environment(former.environ)
        self._write(name, systemd.unit_text(name, kept, python=former.argv[0]))

    def _write(self, name: str, text: str) -> None:
        write_file(systemd.UNIT_DIR / systemd.unit(name), text.encode(), mode=0o644)
        systemd.restart(name)
        self._before = systemd.restarts(name)

    def keep(self, environ: Mapping[str, str]) -> None:
        """Do nothing: the units are what a boot starts."""

    def ends(self, name: str) -> int:
        return systemd.restarts(name) - self._before


class _Supervised:
    """Our supervisor: replaced by one that has the other command, and adopts what runs."""

    def start(self, name: str, environ: Mapping[str, str]) -> None:
        self._replace(daemons.supervisor_command(), environ)
        self._end(name)

    def back(self, name: str, former: Former) -> None:
        if name == "controller":
            self._replace(former.supervisor, daemons.environment(former.environ))
        else:
            # Of the two daemons only this one goes back.
            program = Path(durable_dir()) / "former-agent"
            text = boot.script(dict(former.environ), former.argv)
            write_file(program, text.encode(), mode=0o700)
            words = daemons.supervisor_command(names=("controller", f"agent={program}"))
            self._replace(words, _environ(former))
            daemons.start_at_boot(_environ(former), words)
        self._end(name)

    def _replace(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        """Put another supervisor in the present one's place; its daemons run on, adopted.

        Should we end in between, the daemons start the former one again.
        """
        status = Path(sockets_dir(), "supervisor.status")
        for _ in range(5):
            _kill(daemons.supervisor_pid())
            before = _written(status)
            if daemons.start_supervisor(list(command), environ):
                # What it counts is its own only once it has written that down.
                until = time.monotonic() + ENDS
                while _written(status) == before and time.monotonic() < until:
                    time.sleep(0.01)
                return
        raise daemons.StartFailed(
            "the supervisor cannot be replaced", hint=f"see {daemons.log_dir()}/supervisor.log"
        )

    def _end(self, name: str) -> None:
        if pid := daemons.daemon_pids().get(name):
            daemons.end(pid, name)

    def keep(self, environ: Mapping[str, str]) -> None:
        daemons.start_at_boot(environ)

    def ends(self, name: str) -> int:
        # It counts from its own start on, and one daemon was ended by us.
        return daemons.restarts().get(name, 0) - 1


def _keeper() -> _Keeper:
    """Return what keeps the daemons here. Raises StartFailed where that is nothing of ours."""
    if _by_systemd():
        return _Units()
    pid = daemons.supervisor_pid()
    if pid is None or "--foreground" in _proc(pid, "cmdline"):
        who = "nothing keeps" if pid is None else "something else keeps the supervisor of"
        raise daemons.StartFailed(
            f"{who} the controller of this machine",
            hint="end it, and start it as this version: corral controller start, or as before",
        )
    return _Supervised()


def _by_systemd() -> bool:
    return systemd.running() and systemd.installed()


def _former(pid: int, version: str) -> Former:
    pairs = (one.partition("=") for one in _proc(pid, "environ"))
    return Former(version, tuple(_proc(pid, "cmdline")), {key: value for key, _, value in pairs})


def _proc(pid: int, what: str) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/{what}").read_bytes().decode(errors="surrogateescape")
    except OSError:
        return []
    return [word for word in text.split("\0") if word]


def _environ(former: Former) -> dict[str, str]:
    """Return the environment of before, but for what names the code: that is ours."""
    kept = {k: v for k, v in daemons.environment(former.environ).items() if k not in CODE}
    return kept | {key: os.environ[key] for key in CODE if key in os.environ}


def _written(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_ino, found.st_mtime_ns


def _kill(pid: int | None) -> None:
    if pid is None:
        return
    started = changeover.start_time(pid)
    until = time.monotonic() + ENDS
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    while changeover.start_time(pid) == started and time.monotonic() < until:
        time.sleep(0.01)
