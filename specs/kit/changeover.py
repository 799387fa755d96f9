"""Changing a running agent for another version of it, and back when the other one is no good.

One sequence for every machine: note what runs, put the new agent in the old one's place, wait
until it answers as the new version with every container still there; else put the old one back
and say why. agent/upgrade.py does it on a node, orchestrator/embedded/renewal.py on the
controller's machine: how an agent is put in place there is their business (:class:`Place`).
Interrupted anywhere, the old or the new agent is in place; doing it again finishes it.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PATIENCE = 90.0  # seconds an agent has until it answers with all that ran, on a busy machine
LOOK = 0.1
HOPELESS = 3  # ends of an agent that was just started, after which waiting is no use
ANY_WIRE = "99999999"  # whoever is asked answers in its own words; what is read here never changed
UNWANTED = ("shutdown", "removed")
SAID = 1 << 20  # bytes of a log that are looked at
SIGNALLED = 128  # exit codes from here on are somebody's doing


@dataclass(frozen=True)
class KeptContainer:
    """A container that runs: it has to be the same process afterwards."""

    name: str
    pid: int
    start: str  # the process's start time; with the pid it names one process


@dataclass(frozen=True)
class Changed:
    """How it went; ``back``: the former agent is in place again, and answers."""

    ok: bool
    was: str = ""  # the version before
    kept: int = 0  # containers that ran before and are the same processes
    message: str = ""
    back: bool = False
    log: tuple[str, ...] = field(default=())  # the new agent's last words


class Place(Protocol):
    """A machine's agent, and how it is changed; every call may be repeated."""

    def forward(self) -> None:
        """Put the new agent in the old one's place and start it. Raises OSError."""
        ...

    def back(self) -> str:
        """Put the former agent in place again and start it; return why there is none."""
        ...

    def settle(self) -> None:
        """Take away what is older than the former agent, once the new one has proved itself."""
        ...

    def ends(self) -> int:
        """Return how often the agent was started again since it was put in place."""
        ...

    def last_words(self) -> tuple[str, ...]:
        """Return the end of what it logged since it was put in place."""
        ...

    def ask(self, path: str) -> Any:
        """Return what the agent answers; None: it does not, {}: it does not know the question."""
        ...

    def start_of(self, pid: int) -> str:
        """Return the start time of a process, "" when there is none."""
        ...

    def now(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


def change(
    place: Place,
    version: str,
    *,
    told: Mapping[str, tuple[str, int]] | None = None,
    patience: float = PATIENCE,
) -> Changed:
    """Change the agent for ``version``; on failure have the former one again.

    ``told``: the containers (task -> name, pid) to compare when the agent itself cannot be asked.
    """
    was = version_of(place.ask("/v1/hello"))
    before = running(place, told or {})
    try:
        place.forward()
        why = _wait(place, version, before, patience)
    except OSError as error:
        why = str(error)
    if not why:
        place.settle()
        return Changed(ok=True, was=was, kept=_same(place, before))
    words = place.last_words()
    none = place.back()
    if none:
        return Changed(ok=False, was=was, message=f"{why}; {none}", log=words)
    still = _wait(place, was, before, patience)
    if still:
        why = f"{why}; the former agent is in place again, but {still}"
    return Changed(
        ok=False, was=was, kept=_same(place, before), message=why, back=not still, log=words
    )


def running(place: Place, told: Mapping[str, tuple[str, int]]) -> dict[str, KeptContainer]:
    """Return the containers that run, by task: as the agent says, else as was told."""
    held = place.ask("/v1/held")
    found = _pids(held) if held else dict(told)
    return {
        task: KeptContainer(name, pid, start)
        for task, (name, pid) in found.items()
        if (start := place.start_of(pid))
    }


def _pids(held: Any) -> dict[str, tuple[str, int]]:
    assigned = (held.get("objects") or {}).get("tasks") or {}
    found = {}
    for task, status in (held.get("tasks") or {}).items():
        run = (status.get("runs") or [{}])[-1]
        if run.get("started_at") and not run.get("finished_at") and run.get("pid"):
            found[task] = (str((assigned.get(task) or {}).get("name") or task), int(run["pid"]))
    return found


def lost(
    before: Mapping[str, KeptContainer], held: Any, start_of: Callable[[int], str]
) -> list[str]:
    """Return which containers the new agent does not have as they were, each with why.

    One that ended by itself meanwhile is not lost, nor one that its controller had stopped.
    ``held`` empty: this agent cannot say what it holds, only the processes are looked at.
    """
    now = _pids(held)
    assigned = (held.get("objects") or {}).get("tasks") or {}
    found = []
    for task, one in before.items():
        if start_of(one.pid) == one.start:
            if held and now.get(task, ("", 0))[1] != one.pid:
                found.append(f"{one.name} (pid {one.pid}) runs and is not known to it")
            continue
        if held and (assigned.get(task) or {}).get("desired", UNWANTED[0]) in UNWANTED:
            continue
        if not _by_itself((held.get("tasks") or {}).get(task) or {}, one.pid):
            found.append(f"{one.name} (pid {one.pid}) does not run any more")
    return found


def _by_itself(status: Mapping[str, Any], pid: int) -> bool:
    runs: list[dict[str, Any]] = status.get("runs") or []
    ended = next((run for run in runs if run.get("pid") == pid), {})
    code = ended.get("exit_code")
    return bool(ended.get("oom")) or (code is not None and 0 <= code < SIGNALLED)


def _wait(place: Place, version: str, before: Mapping[str, KeptContainer], patience: float) -> str:
    """Wait for an agent of that version ("" = any) with all containers; return why not."""
    until = place.now() + patience
    why = "it does not answer"
    while True:
        answers = place.ask("/v1/hello")
        if answers is not None:
            found = version_of(answers)
            held = place.ask("/v1/held") if not version or found == version else None
            if held is not None:
                return "; ".join(lost(before, held, place.start_of)[:5])
            why = f"it answers as version {found or 'unknown'}, not {version}"
        if place.ends() >= HOPELESS:
            return "it ends as soon as it starts"
        if place.now() >= until:
            return f"{why} within {patience:g} s"
        place.sleep(LOOK)


def version_of(hello: Any) -> str:
    """Return the version an agent greets with, "" when it does not."""
    return str(((hello or {}).get("facts") or {}).get("agent_version") or "")


def _same(place: Place, before: Mapping[str, KeptContainer]) -> int:
    return sum(place.start_of(one.pid) == one.start for one in before.values())


# ---- of this machine ----------------------------------------------------------------------------


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("agent", timeout=timeout)
        self._path = path

    @override
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(socket_path: str, path: str, timeout: float = 10.0) -> Any:
    """Return what the agent at a socket answers as JSON, as Place.ask does."""
    link = _Unix(socket_path, timeout)
    try:
        link.request("GET", path, headers={"Corral-Wire": ANY_WIRE})
        answer = link.getresponse()
        data = answer.read()
        if answer.status == http.HTTPStatus.NOT_FOUND:
            return {}  # an old one, which does not know the question
        return json.loads(data) if answer.status == http.HTTPStatus.OK else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        link.close()


def said_since(log: Path, offset: int, lines: int) -> tuple[str, ...]:
    """Return the last lines a daemon wrote into its log behind ``offset``, of 1 MiB at most."""
    try:
        with log.open("rb") as file:
            file.seek(max(offset, file.seek(0, os.SEEK_END) - SAID))
            return tuple(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ()


def start_time(pid: int) -> str:
    """Return the process's start time, "" when there is none (proc(5), field 22)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]
