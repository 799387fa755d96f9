"""A round: faults and commands as the schedule says, then all is healed, and the laws are held.

Faults and commands each have a thread of their own; both write into one timeline.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.client.errors import ClientError
from orchestrator.lab.faults import Drop
from orchestrator.lab.layout import LabError
from tests.chaos import laws, schedule
from tests.chaos.laws import Promise
from tests.chaos.schedule import NODES
from tests.chaos.stage import Eyes, Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.lab.host import LabHost

CONVERGE = 240.0  # seconds from the last fault's end; 20 to 60 on a quiet machine
COMMAND = 300.0  # seconds a command may take, faults on its way included
DYING = 20.0  # seconds a host that loses its power may take to be seen off


@dataclass
class Round:
    """What happened, as lines, and which laws were broken, as sentences."""

    seed: int
    seconds: float
    say: Callable[[str], None]
    broken: list[str] = field(default_factory=list)
    events: list[schedule.Event] = field(default_factory=list)
    drained: list[tuple[float, str]] = field(default_factory=list)
    requests: int = 0
    failed: int = 0
    latest: float = 0.0  # seconds after a peer's fault began
    commands: int = 0
    refused: int = 0
    converged: float = 0.0

    @property
    def replay(self) -> str:
        return f"python -m tests.chaos --seed {self.seed} --seconds {self.seconds:g}"

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {len(self.events)} faults, {self.commands} commands"
            f" ({self.refused} not acknowledged), {self.requests} requests ({self.failed} failed),"
            f" the last one {self.latest:.1f} s after a peer's fault began,"
            f" converged in {self.converged:.0f} s, {len(self.broken)} laws broken"
        )


def play(stage: Stage, seed: int, seconds: float, say: Callable[[str], None]) -> Round:
    """Do one round. What breaks a law is said and kept; nothing is raised for it."""
    found = Round(seed, seconds, say)
    user = User(stage, found)
    with Eyes(stage) as eyes:
        stage.cluster.until("every client asks", lambda: stage.asking() > len(NODES), 120)
        stage.began = time.monotonic()
        eyes.look()
        typing = threading.Thread(target=user.type_all, name="user")
        typing.start()
        try:
            _inflict_all(stage, found)
        finally:
            heal_all(stage)
        found.say(f"{stage.now():7.1f} s  all is healed")
        healed = stage.now()
        typing.join(COMMAND + 60)
        if typing.is_alive():
            found.broken.append("a command has not ended")
        _converge(stage, found, user)
        found.converged = stage.now() - healed
        time.sleep(5.0)
        steady = stage.now()
    stage.end_clients()
    _judge(stage, found, eyes, steady)
    return found


def _converge(stage: Stage, found: Round, user: User) -> None:
    """Wait until what was acknowledged runs, and nothing else."""
    began = time.monotonic()
    differs = "not looked at"
    while time.monotonic() - began < CONVERGE:
        try:
            user.activate_all()
            differs = stage.differs({"roll": user.replicas, "one": user.small})
            if not differs:
                versions = stage.versions()
                if len(versions) == 1 and user.version.allows(int(next(iter(versions)))):
                    return
                differs = f"versions {sorted(versions)} run, wanted {user.version}"
        except (AssertionError, OSError, KeyError, ClientError) as error:
            differs = repr(error)[:500]
        time.sleep(0.5)
    found.broken.append(f"not as acknowledged {CONVERGE:g} s after all was healed: {differs}")


def _judge(stage: Stage, found: Round, eyes: Eyes, steady: float) -> None:
    asked = [one for one in stage.asked() if 0.0 <= one.begun <= steady]
    found.requests = len(asked)
    found.failed = sum(one.said != "ok" for one in asked)
    found.latest = laws.latest(asked, found.events)
    failures = laws.failures(asked, found.events)
    if failures:
        shown = "\n    ".join(map(str, failures[:12]))
        found.broken.append(f"{len(failures)} requests failed without a reason:\n    {shown}")
    for who in ("outside", *NODES):
        kinds = {one.kind for one in asked if one.where == who}
        if len(kinds) < (3 if who == "outside" else 4):
            found.broken.append(f"the client {who} asked only {sorted(kinds)}")
    for life in laws.taken(eyes.lives(), stage.steady, found.events, found.drained):
        ended = f"ended at {life.ended:.1f} s" if life.ended is not None else ""
        found.broken.append(f"the container of {life.task} on {life.node} {ended} without a reason")
    if stage.wrote_twice():
        found.broken.append("a volume had two writers")
    if any(len(nodes) > 1 for nodes in stage.writes().values()):
        found.broken.append(f"a volume is on two nodes: {stage.writes()}")
    checked = stage.corral("", "state", "check")
    if checked.returncode:
        found.broken.append(f"state check: {checked.stdout}{checked.stderr}")


# ---- faults ------------------------------------------------------------------------------------


def _inflict_all(stage: Stage, found: Round) -> None:
    pending = [(e.at, 0, e) for e in schedule.faults(found.seed, found.seconds)]
    pending.sort(key=lambda one: one[:2])
    ends: list[schedule.Event] = []
    while pending or ends:
        moments = [one[0] for one in pending[:1]] + [e.until for e in ends]
        time.sleep(max(0.0, min(moments) - stage.now()))
        for event in [e for e in ends if e.until <= stage.now()]:
            ends.remove(event)
            relieve(stage, event)
            # Done late, it was there for longer than it says.
            was = found.events.index(_there(found, event))
            found.events[was] = _lasting(found.events[was], stage.now())
            found.say(f"{stage.now():7.1f} s  healed  {event}")
        while pending and pending[0][0] <= stage.now():
            _, _, event = pending.pop(0)
            began = stage.now()
            done = inflict(stage, event)
            real = schedule.Event(began, max(stage.now(), event.until), *_what(event))
            found.say(f"{began:7.1f} s  fault   {event}{done}")
            if "nothing" not in done:
                found.events.append(real)
                if event.until > event.at:
                    ends.append(event)


def _what(event: schedule.Event) -> tuple[str, str, tuple[object, ...]]:
    return event.what, event.node, event.details


def _there(found: Round, event: schedule.Event) -> schedule.Event:
    return [e for e in found.events if _what(e) == _what(event)][-1]


def _lasting(event: schedule.Event, until: float) -> schedule.Event:
    return schedule.Event(event.at, until, *_what(event))


def inflict(stage: Stage, event: schedule.Event) -> str:
    """Do a fault; return what there is to add to its line."""
    lab, node = stage.lab, event.node
    match event.what, event.details:
        case "cut", ():
            lab.cut(node)
        case "cut-out", ():
            lab.drop({Drop(source=node)})
        case "cut-pair", (peer,):
            lab.cut(node, str(peer))
        case "loss", (percent,):
            lab.lose(node, int(percent))
        case "slow", (rate,):
            lab.slow(node, int(rate))
        case (("mtu" | "black-hole"), (mtu, silent)):
            lab.small_mtu(node, int(mtu), silent=bool(silent))
        case "freeze", ():
            lab.host(node).freeze()
        case "power", ():
            lab.power_off(node)
        case "clock", (seconds,):
            lab.power_off(node)
            lab.wrong_clock(node, int(seconds))
            lab.power_on(node)
        case "disk-full", ():
            lab.fill_disk(node)
        case _:
            return _kill(stage, node, event.what.removeprefix("kill-"))
    return ""


def _kill(stage: Stage, node: str, what: str) -> str:
    try:
        return f" ({stage.lab.kill(node, what)} killed)"
    except LabError as error:
        return f" (nothing: {error})"


def relieve(stage: Stage, event: schedule.Event) -> None:
    """End a fault."""
    if event.what == "freeze":
        stage.lab.host(event.node).freeze(frozen=False)
    elif event.what == "power":
        stage.lab.power_on(event.node)
    else:
        stage.lab.heal(event.node)


def heal_all(stage: Stage) -> None:
    """End whatever is wrong with any host."""
    for host in stage.lab.nodes:
        stage.lab.heal(host.name)
        if host.pid is None:
            host.boot()
        host.freeze(frozen=False)


def _lost_power(host: LabHost, boot: str) -> bool:
    """Tell whether a host has gone off since it had this boot id, or is just going."""
    deadline = time.monotonic() + DYING
    while host.pid is not None and host.boot_id == boot:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


# ---- commands ----------------------------------------------------------------------------------


class User:
    """Types commands, one after the other, and remembers what was acknowledged."""

    def __init__(self, stage: Stage, found: Round) -> None:
        self.stage = stage
        self.found = found
        self.version = Promise(0, [])
        self.replicas = Promise(3, [])
        self.small = Promise(1, [])
        self._versions = 0
        self._drained: set[str] = set()

    def type_all(self) -> None:
        """Type what the schedule says; raises nothing."""
        for at, what, details in schedule.actions(self.found.seed, self.found.seconds):
            time.sleep(max(0.0, at - self.stage.now()))
            if self.stage.now() > self.found.seconds:
                return
            try:
                self._do(what, *details)
            except (AssertionError, OSError) as error:
                self.found.broken.append(f"{what} {details}: {error!r}")

    def _do(self, what: str, *details: object) -> None:
        match what, details:
            case "change", ():
                self._versions += 1
                self._typed("work", "up", "-d", promise=self.version, value=self._versions)
            case "killed", (seconds,):
                self._versions += 1
                promise, value = self.version, self._versions
                limit = float(str(seconds))
                self._typed("work", "up", "-d", promise=promise, value=value, timeout=limit)
            case "restart", (service,):
                self._typed("work", "restart", str(service))
            case "scale", (count,):
                words = ("scale", f"roll={count}")
                self._typed("work", *words, promise=self.replicas, value=count)
            case "again", ():
                self._typed("calm", "up", "-d")
            case "drain", (node,):
                self.found.drained.append((self.stage.now(), str(node)))
                self._drained.add(str(node))
                self._typed("", "node", "drain", str(node), "--timeout", "20")
                self.activate_all()
            case "down-up", ():
                self._typed("small", "down", promise=self.small, value=0)
                self._typed("small", "up", "-d", promise=self.small, value=1)
            case _:
                raise AssertionError(what)

    def activate_all(self) -> None:
        """Have no node drained any more, as far as it is acknowledged."""
        for node in sorted(self._drained):
            if self._typed("", "node", "activate", node):
                self._drained.discard(node)

    def _typed(
        self,
        stack: str,
        *words: str,
        promise: Promise | None = None,
        value: object = None,
        timeout: float = COMMAND,
    ) -> bool:
        began, home = self.stage.now(), self.stage.lab.host("n1")
        boot = home.boot_id
        try:
            done = self.stage.corral(stack, *words, version=self._versions, timeout=timeout)
            code, said = done.returncode, (done.stdout + done.stderr).strip().splitlines()[-1:]
        except LabError as error:  # it was killed, or its host is off
            code, said = -1, [str(error)]
        except (AssertionError, OSError):
            if not _lost_power(home, boot):
                raise
            code, said = -1, ["its host lost its power"]
        took = self.stage.now() - began
        self.found.commands += 1
        self.found.refused += code != 0
        told = "" if code == 0 else f", code {code}: {' '.join(said)[:150]}"
        self.found.say(f"{began:7.1f} s  user    {' '.join((stack, *words))} ({took:.1f} s{told})")
        if promise is not None:
            promise.asked(value, acknowledged=code == 0)
        if took > COMMAND:
            self.found.broken.append(f"corral {' '.join(words)} took {took:.0f} s")
        return code == 0
