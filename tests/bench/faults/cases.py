"""The faults: what is done, for how long, and what is then looked at. One function runs each."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.lab.faults import Drop
from tests.bench.faults.figures import Errors, errors, restored
from tests.bench.faults.stage import PATIENCE, WANTED, Eyes, Stage

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 60.0  # seconds a fault stays at most where it stays until the number serves again
BACK = 180.0  # seconds at most until all is as before
AFTER = 4.0  # seconds more that are looked at
CONTROLLER = "/var/lib/corral/controller"
TRUST = 30.0  # seconds at most until every peer is used again


@dataclass(frozen=True)
class Case:
    """``hold``: how long the fault stays; 0 = until the wanted number serves again.

    ``goal``: seconds until it does, where there is one; ``stays``: the host's containers live
    through it, so that they must be the same processes afterwards; ``errors``: goal of the span.
    """

    name: str
    inflict: Callable[[Stage], object]
    relieve: Callable[[Stage], object]
    node: str = "n4"
    hold: float = 0.0
    goal: float | None = None
    errors: float | None = None
    stays: bool = True
    wanted: int = WANTED  # tasks that other hosts hear again while the fault is there
    keeps: bool = True  # every other container must be the same process afterwards


@dataclass
class Outcome:
    """One row of the table."""

    case: Case
    vip: Errors
    port: Errors
    own: Errors  # on the host that has the fault, by its own clients and its own port
    again: float | None  # seconds until the wanted number served; None: not while it was looked at
    fewest: int
    most: int
    kept: str
    writers: int
    twice: bool
    settled: float  # seconds from the fault's end until exactly the wanted ran
    notes: list[str] = field(default_factory=list)

    def missed(self) -> list[str]:
        """Return which goals and laws it missed, as sentences."""
        found = []
        goal = self.case.goal
        if goal is not None and (self.again is None or self.again > goal):
            took = "never" if self.again is None else f"after {self.again:.1f} s"
            found.append(f"{self.case.name}: served again {took}, goal {goal:g} s")
        most = self.case.errors
        for where, span in (("VIP", self.vip), ("port", self.port)):
            if most is not None and span.span > most:
                said = f"errors at the {where} for {span.span:.1f} s, goal {most:g} s"
                found.append(f"{self.case.name}: {said}")
        if self.writers > 1 or self.twice:
            found.append(f"{self.case.name}: the volume had two writers")
        if self.case.keeps and not self.kept.startswith("all"):
            found.append(
                f"{self.case.name}: containers that live through it were replaced: {self.kept}"
            )
        return found


def run(stage: Stage, case: Case) -> Outcome:
    """Do one fault from a whole stack to a whole stack."""
    stage.balance()
    before = stage.cluster.processes()
    names = {row["id"]: row["name"] for row in stage.cluster.rows()}
    with Eyes(stage) as eyes:
        began = time.monotonic()
        case.inflict(stage)
        if case.hold:
            time.sleep(max(0.0, began + case.hold - time.monotonic()))
        else:
            _until(lambda: _again(stage, case, began), LIMIT)
            time.sleep(AFTER)
        held = time.monotonic()
        case.relieve(stage)
        settled = stage.cluster.until(
            f"all is as before {case.name}", lambda: stage.all_ready() and stage.whole(), BACK
        )
        # A peer that came and went is trusted by the others some seconds later only.
        _until(lambda: _again(stage, case, began), TRUST)
        time.sleep(AFTER)
        ended = time.monotonic() - PATIENCE
    after = stage.cluster.processes()
    mine = lambda name: name.endswith(case.node)  # noqa: E731 - three uses
    requests = stage.clients.requests(lambda name: True)
    others = [r for r in requests if not mine(r.client)]
    again, fewest = restored(others, case.wanted, began, ended)
    return Outcome(
        case=case,
        vip=errors([r for r in others if r.client.startswith("vip")], began, ended),
        port=errors([r for r in others if r.client.startswith("port")], began, ended),
        own=errors([r for r in requests if r.client.endswith(case.node)], began, held),
        again=again,
        fewest=fewest,
        most=eyes.most,
        kept=_kept(case, before, after, names),
        writers=eyes.writers,
        twice=stage.wrote_twice(),
        settled=settled,
    )


def _kept(case: Case, before: Any, after: Any, names: dict[str, str]) -> str:
    """Say which containers that nothing was done to are the processes they were."""
    kept = {
        task: process for task, process in before.items() if case.stays or process[0] != case.node
    }
    lost = [names[task] for task, process in kept.items() if after.get(task) != process]
    return (
        f"all {len(kept)}"
        if not lost
        else f"{len(kept) - len(lost)} of {len(kept)}: not {', '.join(sorted(lost))}"
    )


def _again(stage: Stage, case: Case, began: float) -> bool:
    now = time.monotonic() - PATIENCE
    if now - began < 3.0:
        return False
    others = [
        r
        for r in stage.clients.requests(lambda name: not name.endswith(case.node))
        if r.begun > began - 2.0
    ]
    return restored(others, case.wanted, began, now)[0] is not None


def _until(check: Callable[[], bool], limit: float) -> None:
    deadline = time.monotonic() + limit
    while not check() and time.monotonic() < deadline:
        time.sleep(0.3)


# ---- what is done ------------------------------------------------------------------------------


def goodbye(stage: Stage, node: str = "n4") -> None:
    """Every process ends at once and the kernel closes its connections, then the host is off."""
    stage.lab.power_off(node)


def power_lost(stage: Stage, node: str = "n4") -> None:
    """Not a frame more leaves the host."""
    stage.lab.cut(node)
    stage.lab.power_off(node)


def power_back(stage: Stage, node: str = "n4") -> None:
    stage.lab.heal(node)
    stage.lab.power_on(node)


def inward(stage: Stage) -> None:
    """n4 is heard and hears nothing."""
    stage.lab.drop({Drop(target="n4")})


def flap(stage: Stage) -> None:
    """Three seconds without a network, three with one, ten times."""
    for _ in range(10):
        stage.lab.cut("n4")
        time.sleep(3.0)
        stage.lab.heal("n4")
        time.sleep(3.0)


def full_disk(stage: Stage) -> None:
    """A node's disk is full, and then a container of each kind dies there."""
    stage.fill("n4")
    stage.kill_tasks("n4", "web", "data")


def full_controller(stage: Stage) -> None:
    """The controller's disk is full, a container dies elsewhere, and a change is asked for."""
    stage.fill("n1")
    stage.kill_tasks("n4", "web")


def read_only(stage: Stage) -> None:
    """A node's disk takes nothing from its agent any more, and a container of each kind dies."""
    stage.remount("n4", "/var/lib/corral/agent", "ro")
    stage.kill_tasks("n4", "web", "data")


def writable(stage: Stage) -> None:
    stage.remount("n4", "/var/lib/corral/agent", "rw")


def read_only_controller(stage: Stage) -> None:
    """The controller dies on a disk that became read-only, and a container elsewhere."""
    stage.host("n1").run(["mount", "--bind", CONTROLLER, CONTROLLER])  # has no writer yet
    stage.remount("n1", CONTROLLER, "ro")
    stage.kill_tasks("n4", "web")
    stage.cluster.kill(("n1", "orchestrator"))


def writable_controller(stage: Stage) -> None:
    stage.host("n1").run(["umount", "--lazy", CONTROLLER])
    stage.cluster.begin()


def agent(stage: Stage, number: str) -> None:
    (pid,) = stage.cluster.daemons("n4", "agent")
    stage.host("n4").run(["kill", f"-{number}", str(pid)])


def no_sshd(stage: Stage) -> None:
    host = stage.host("n4")
    host.run(["mv", "/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/away"])
    host.run(["sh", "-c", "kill -9 $(pgrep -x sshd) 2>/dev/null; true"])


def sshd_back(stage: Stage) -> None:
    stage.host("n4").run(["mv", "/etc/ssh/away", "/etc/ssh/ssh_host_ed25519_key"])


def controller_back(stage: Stage) -> None:
    stage.no_controller.clear()
    stage.cluster.begin()


def cases(silent: float, noticed: float) -> list[Case]:
    """Return all faults; ``silent``, ``noticed``: goals until the wanted number serves again."""
    off = {"relieve": power_back, "stays": False}
    return [
        Case("nothing", nothing, nothing, hold=20.0, goal=0.0, errors=0.0),
        Case("powered off, connections closed", goodbye, goal=noticed, **off),
        Case("power lost, not a word", power_lost, goal=silent, **off),
        Case("frozen 5 s", freeze, thaw, hold=5.0),
        Case("frozen 20 s", freeze, thaw, hold=20.0, goal=silent, keeps=False),
        Case("frozen 60 s", freeze, thaw, hold=60.0, goal=silent, keeps=False),
        Case("cut off both ways", cut, heal, goal=silent, keeps=False),
        Case("cut off, what it sends is lost", deaf_to_it, heal, goal=silent, keeps=False),
        Case("cut off, what it is sent is lost", inward, heal, goal=silent, keeps=False),
        Case("flapping, 3 s without and 3 s with", flap, heal, hold=1.0, keeps=False),
        Case("disk full, web and data killed there", full_disk, free_node, hold=20.0, keeps=False),
        Case("disk read-only, web and data killed there", read_only, writable, hold=20.0,
             keeps=False),
        Case("agent killed", lambda s: agent(s, "KILL"), nothing, hold=10.0),
        Case("agent hung", lambda s: agent(s, "STOP"), nothing, hold=45.0),
        Case("sshd gone", no_sshd, sshd_back, hold=30.0, keeps=False),
        Case("controller killed", kill_controller, nothing, node="n1", hold=10.0),
        Case("controller cut off", lambda s: s.lab.cut("n1"), heal_first, node="n1", hold=25.0,
             wanted=3),
        Case("controller's disk full, web killed on n4", full_controller, free_first, node="n1",
             hold=20.0, keeps=False),
        Case("controller killed on a read-only disk, web on n4", read_only_controller,
             writable_controller, node="n1", hold=20.0, keeps=False),
        Case("no controller, a peer's power lost", orphaned, all_back, hold=20.0, stays=False,
             wanted=3, errors=2.0),
        Case("no controller, a peer cut off", orphaned_cut, healed_and_back, hold=20.0, wanted=3,
             errors=2.0),
    ]  # fmt: skip


def freeze(stage: Stage) -> None:
    stage.host("n4").freeze()


def thaw(stage: Stage) -> None:
    stage.host("n4").freeze(frozen=False)


def cut(stage: Stage) -> None:
    stage.lab.cut("n4")


def deaf_to_it(stage: Stage) -> None:
    stage.lab.cut("n4", one_way=True)


def heal(stage: Stage) -> None:
    stage.lab.heal("n4")


def heal_first(stage: Stage) -> None:
    stage.lab.heal("n1")


def free_node(stage: Stage) -> None:
    stage.free("n4")


def free_first(stage: Stage) -> None:
    stage.free("n1")


def nothing(stage: Stage) -> None:
    """It recovers by itself."""


def kill_controller(stage: Stage) -> None:
    stage.cluster.kill(("n1", "orchestrator"))


def orphaned(stage: Stage) -> None:
    stage.end_controller()
    power_lost(stage)


def orphaned_cut(stage: Stage) -> None:
    stage.end_controller()
    cut(stage)


def all_back(stage: Stage) -> None:
    power_back(stage)
    controller_back(stage)


def healed_and_back(stage: Stage) -> None:
    heal(stage)
    controller_back(stage)
