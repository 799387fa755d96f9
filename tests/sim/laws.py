"""What must hold in every simulated cluster, at every step. The list is :data:`LAWS`.

The world calls these where something happens: a container is made, started, told to stop, ends; an
agent takes instructions; the store commits. What is about durations is looked at once a second, and
what is about the end by :mod:`tests.sim.ending`. A law judges by what is true in the world and what
users were told, never by what the product believes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.control.mirror.released import spec_at
from orchestrator.store import keys
from orchestrator.store.base import Put
from specs.lease import TERM
from specs.states import FINAL, HEARD, WANTED, Desired, TaskState, may_move, may_want
from specs.task import MACHINE_RESTARTED, Task
from tests.sim.absent import Absent
from tests.sim.user import SINGLE

if TYPE_CHECKING:
    from collections.abc import Collection

    from agent.tasks.held import Held
    from orchestrator.store.base import Delete, Stored
    from specs.wire import Assignment, Instructions, Stamp
    from tests.sim.controller import Controller
    from tests.sim.host import Container, SimHost
    from tests.sim.world import World

LAWS = {
    "one writer": "N3: no two containers write one volume, and its data has one home",
    "exclusive never twice": "N3: of an exclusive service never two copies run",
    "one container a task": "N2: a task never has two containers, nor is it on two machines",
    "an address is one task's": "no two running containers have an address of a network in common",
    "not for what is unseen": "what may run is told to stop for a cause, never for what is unseen",
    "no collateral": "N5: what nobody aimed at keeps its process",
    "no more copies": "of a service no more copies are wanted than asked for, but for a moment",
    "placed by the rules": "nothing is placed where it may not be",
    "the brake holds": "with most nodes silent nothing lost is replaced",
    "legal moves": "a task's state and wish move as the table says",
    "epochs fence": "N7: an agent obeys no older epoch or generation than it has obeyed",
    "revisions never go back": "N7: neither do the store's revisions and the controllers' epochs",
    "a reboot is no crash": "N6: what a power cut ended is told so, and no try is used up",
    "exit codes are true": "N6: an exit code is what the process ended with, or unknown",
    "served until it ends": "a running container keeps its network",
    "acknowledged by an agent": "N1: an agent remembers what it acknowledged, or says its doubt",
    "an older state is asked about": "N1: a store older than what runs changes nothing unasked",
    "an absent agent is no dead host": "what runs there is replaced only after its deadline",
    "an absent agent serves on": "and is sent what it serves",
    "the dead get no traffic": "what a node cannot reach leaves its balancers, but for the last",
    "release numbers never go back": "N7: nor do the numbers of releases",
    "no process ends by itself": "a controller or an agent ends only when it is killed",
    "no internal errors": "nothing is logged that only a bug can cause",
    "no command fails for no reason": "what is right to ask is done in the end",
    "no circles": "N8: no part turns without time passing",
    "bounded": "N8: records, journals and queues stay small",
    "all as wanted": "N1 N4: once healed, exactly what was acknowledged runs, within the bound",
    "nothing leaks": "N2: once healed, nothing is left of what is not wanted",
    "truly told": "N6: once healed, what the controller says of a task is what it is",
}
DEAD = 12.0  # seconds after which nobody sends anything to a dead machine any more
EXCESS = 20.0  # seconds more copies than asked for may be wanted, while users are quiet


@dataclass(frozen=True)
class Broken:
    """A law that did not hold."""

    law: str
    words: str
    at: float


class Laws:
    """All that is checked while it happens."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.tasks: dict[str, Task] = {}  # by key, as the store has them
        self.exits: dict[tuple[str, int], int | None] = {}
        self.rebooted: set[tuple[str, int]] = set()  # runs that a power cut ended
        self.homes: dict[str, str] = {}  # volume -> machine with its data
        self.places: dict[str, str] = {}  # task -> machine it was made on
        self.highest: dict[str, int] = {}  # machine -> the highest epoch it obeyed
        self.disturbed: dict[str, float] = {}  # machine -> until when a fault aims at it
        self.revision = 0
        self.calm: set[str] = set()  # tasks that no fault explains a stop of
        self.sickened: set[str] = set()  # tasks whose check failed at some time
        self.leaving: set[str] = set()  # machines that are being removed
        self.excess: dict[tuple[str, str], float] = {}
        self.acknowledged: dict[str, tuple[int, int]] = {}  # machine -> newest stamp it took
        self.revisions: dict[str, int] = {}  # machine -> of the store, with that stamp
        self.epoch = 0
        self.absent = Absent(world)
        self.disputed = 0.0  # until when two controllers may both believe in themselves
        self.checks = 0
        self.signals = 0

    def broke(self, law: str, words: str) -> None:
        assert law in LAWS, law
        self.world.broke(law, words)

    def disturb(self, host: SimHost, seconds: float) -> None:
        """A fault aims at the machine, for so long."""
        until = max(self.disturbed.get(host.name, 0.0), self.world.now + seconds)
        self.disturbed[host.name] = until
        self.calm = {t for t in self.calm if self.places.get(t) != host.name}

    # The kernel's side.

    def creates(self, host: SimHost, task: str, assignment: Assignment) -> None:
        self.checks += 1
        where = self.places.setdefault(task, host.name)
        if where != host.name:
            self.broke(
                "one container a task", f"{assignment.name} {task} on {where} and {host.name}"
            )
        for volume in assignment.volumes.values():
            home = self.homes.setdefault(volume, host.name)
            if home != host.name:
                self.broke(
                    "one writer",
                    f"{volume} has its data on {home}, {assignment.name} is made on {host.name}",
                )

    def starts(self, host: SimHost, found: Container) -> None:
        self.checks += 1
        # The record of one that began right before a power cut may be lost: its number is given
        # again, and this one was ended by no power cut.
        self.rebooted.discard((found.task, found.run))
        mine = found.assignment
        single = (mine.stack, mine.service) in SINGLE
        if mine.spec.exclusive:
            self._alone(host, found)
        addresses = {(place.network, place.address) for place in mine.networks}
        for other_host in self.world.hosts:
            for other in other_host.running():
                if other is found:
                    continue
                theirs = other.assignment
                if single and set(mine.volumes.values()) & set(theirs.volumes.values()):
                    self.broke(
                        "one writer",
                        f"{mine.name} {mine.id} starts on {host.name}"
                        f" while {theirs.id} runs on {other_host.name}",
                    )
                shared = addresses & {(p.network, p.address) for p in theirs.networks}
                if shared:
                    self.broke(
                        "an address is one task's",
                        f"{min(shared)[1]}: {mine.name} {mine.id} on {host.name} and"
                        f" {theirs.name} {theirs.id} on {other_host.name}",
                    )
        if mine.stack == "calm" and self.disturbed.get(host.name, 0.0) <= self.world.now:
            # What is taken back by now (a drain was) may have been on its way to its start.
            asked = self.tasks.get(keys.task(mine.stack, found.task))
            if asked is None or asked.desired in WANTED:
                self.calm.add(found.task)

    def _alone(self, host: SimHost, found: Container) -> None:
        """Look for another copy of an exclusive service, unless two controllers are about."""
        if self.world.now < self.disputed:
            return
        mine = found.assignment
        for other_host in self.world.hosts:
            for other in other_host.running():
                theirs = other.assignment
                if other is not found and (theirs.stack, theirs.service) == (
                    mine.stack,
                    mine.service,
                ):
                    self.broke(
                        "exclusive never twice",
                        f"{mine.name} {mine.id} starts on {host.name}"
                        f" while {theirs.id} runs on {other_host.name}",
                    )

    def told_to_stop(self, host: SimHost, found: Container, number: int) -> None:
        self.signals += 1
        self._told_by_its_agent(host, found)
        if found.task not in self.calm or found.told:
            return
        stack = self.world.users.wanted["calm"]
        if stack.asking or self.world.now - stack.touched < 30 or found.task in host.sick:
            self.calm.discard(found.task)
            return
        self.broke(
            "no collateral", f"{found.assignment.name} {found.task} on {host.name} is told to stop"
        )

    def _told_by_its_agent(self, host: SimHost, found: Container) -> None:
        """An agent ends what every controller wants to run: has it a cause of its own?"""
        key = keys.task(found.assignment.stack, found.task)
        task = self.tasks.get(key)
        if task is None or task.desired is not Desired.RUNNING or task.state in FINAL or found.told:
            return
        if task.restart_asked or found.task in self.sickened or self.world.rewound:
            return
        if host.name in self.leaving or not found.runs or found.assignment.spec.exclusive:
            return
        self.broke("not for what is unseen", f"{host.name} ends {task.name} {task.id} unasked")

    def adopted(self, host: SimHost, held: Held) -> None:
        """An agent came up: it holds what it acknowledged, or has a doubt."""
        known = self.acknowledged.get(host.name)
        stamp = held.stamp
        has = (stamp.epoch, stamp.generation) if stamp is not None else (0, 0)
        if known is not None and has < known and not held.doubt:
            self.broke("acknowledged by an agent", f"{host.name} is at {has}, it took {known}")

    def applied(self, host: SimHost, kept: Collection[str]) -> None:
        """The kernel's network state is another: what runs must be in it."""
        for found in host.running():
            if found.task not in kept and found.task in host.attached:
                self.cut_off(host, found)

    def took_epoch(self, epoch: int) -> None:
        """A controller begins to decide."""
        if epoch <= self.epoch:
            self.broke("revisions never go back", f"epoch {epoch} after {self.epoch}")
        self.epoch = epoch

    def rewound(self) -> None:
        """The store is an older one."""
        self.tasks = {
            key: Task.model_validate_json(entry.value.partition(b"\0")[2])
            for key, entry in self.world.store.entries.items()
            if key.startswith(keys.TASKS)
        }
        self.revision = 0
        self.excess.clear()
        self.calm.clear()

    def cut_off(self, host: SimHost, found: Container) -> None:
        self.broke(
            "served until it ends",
            f"{found.assignment.name} {found.task} on {host.name} loses its network",
        )

    def ended(self, host: SimHost, found: Container, code: int | None, *, ran: bool) -> None:
        if ran:
            self.exits[(found.task, found.run)] = code
        self.calm.discard(found.task)

    def powered_off(self, host: SimHost) -> None:
        self.disturb(host, 30.0)
        for found in host.containers.there.values():
            if found.runs:
                self.exits[(found.task, found.run)] = None
                if not found.told:  # else it was being stopped, which is why it ended
                    self.rebooted.add((found.task, found.run))

    def left(self, host: SimHost) -> None:
        """The machine is no member any more: neither it nor the others know each other."""
        host.met.clear()
        for other in self.world.hosts:
            other.met.discard(host.name)
        self.highest.pop(host.name, None)
        self.forgets(host)
        self.leaving.discard(host.name)

    def forgets(self, host: SimHost) -> None:
        """The machine does not know any more what it took."""
        self.acknowledged.pop(host.name, None)
        self.revisions.pop(host.name, None)

    # The agent's side.

    def instructed(
        self, host: SimHost, asked: Instructions, before: Stamp | None, *, refused: bool
    ) -> None:
        self.checks += 1
        stamp = asked.stamp
        self.world.trace(
            host.name,
            "refuses" if refused else "takes",
            f"{stamp.epoch}.{stamp.generation}",
            "whole" if asked.base is None else f"on {asked.base}",
        )
        if refused:
            return
        highest = self.highest.get(host.name, 0)
        if stamp.epoch < highest:
            self.broke("epochs fence", f"{host.name} obeys epoch {stamp.epoch} after {highest}")
        if (
            before is not None
            and before.epoch == stamp.epoch
            and stamp.generation < before.generation
        ):
            self.broke(
                "epochs fence",
                f"{host.name} obeys generation {stamp.generation} after {before.generation}",
            )
        self.highest[host.name] = max(highest, stamp.epoch)
        self.acknowledged[host.name] = (stamp.epoch, stamp.generation)
        self.revisions[host.name] = asked.revision

    # The store's side.

    def committed(
        self,
        controller: Controller,
        writes: tuple[Put | Delete, ...],
        before: dict[str, Stored | None],
    ) -> None:
        world = self.world
        self.checks += 1
        if controller.disk is not world.store:
            return
        changes = [w.key for w in writes if w.key != keys.CLUSTER]
        if world.undecided and changes and not world.deciding:
            self.broke("an older state is asked about", f"{changes[0]} is written unasked")
        if controller.disk.revision < self.revision:
            self.broke(
                "revisions never go back", f"{controller.disk.revision} after {self.revision}"
            )
        self.revision = controller.disk.revision
        named = []
        for write in writes:
            if write.key.startswith(keys.TASKS):
                old = self.tasks.get(write.key)
                if isinstance(write, Put):
                    new = Task.model_validate_json(write.value.partition(b"\0")[2])
                    self.tasks[write.key] = new
                    self._task(controller, old, new)
                    named.append(f"{new.name}:{new.id[-4:]}:{new.desired.value}:{new.state.value}")
                else:
                    self.tasks.pop(write.key, None)
                    if old is not None:
                        named.append(f"{old.name}:{old.id[-4:]}:deleted")
                        if old.state not in FINAL and old.desired in WANTED:
                            self._stopped(controller, old, "its record is deleted")
            elif not write.key.startswith(keys.PARTS):
                named.append(write.key)
        world.trace(controller.name, "writes", str(self.revision), " ".join(named))

    def _task(self, controller: Controller, old: Task | None, new: Task) -> None:
        # Taking over goes by the nodes' word: what is there is there, in whatever state, wherever.
        adopted = self.world.undecided or self.world.adopting
        if old is not None and not adopted:
            by_agent = may_move(old.state, new.state, by="agent")
            if not (by_agent or may_move(old.state, new.state, by="controller")):
                self.broke("legal moves", f"{new.name} {new.id}: {old.state} -> {new.state}")
            if not may_want(old.desired, new.desired):
                self.broke(
                    "legal moves", f"{new.name} {new.id}: wanted {old.desired} -> {new.desired}"
                )
            if old.live and new.state not in FINAL and not new.live:
                self._stopped(controller, old, f"wanted {new.desired}, leaving {new.leaving}")
        for run in new.status.runs:
            true = self.exits.get((new.id, run.number), run.exit_code)
            if run.exit_code is not None and true != run.exit_code:
                self.broke(
                    "exit codes are true",
                    f"{new.name} run {run.number}: {run.exit_code}, was {true}",
                )
            cut = (new.id, run.number) in self.rebooted and run.finished_at is not None
            # Else it counts as a crash of its own. What was about to be stopped may say that.
            if cut and run.reason != MACHINE_RESTARTED and not run.reason.startswith("stopped ("):
                self.broke(
                    "a reboot is no crash",
                    f"{new.name} {new.id} run {run.number} ended: {run.reason or 'no reason'}",
                )
        if not adopted and new.node is not None and (old is None or old.node is None):
            self._placed(controller, new)

    def _placed(self, controller: Controller, task: Task) -> None:
        cluster = controller.cluster
        node = cluster.nodes.get(task.node or "")
        if node is None:
            self.broke("placed by the rules", f"{task.name} on {task.node}, which is no member")
            return
        condition = cluster.conditions.get(node.id)
        status = condition.status if condition is not None else None
        if status not in HEARD:
            self.broke("placed by the rules", f"{task.name} on {node.name}, which is {status}")
        if node.availability != "active" or node.removing:
            self.broke(
                "placed by the rules", f"{task.name} on {node.name}, which is {node.availability}"
            )
        others = [t for t in self.tasks.values() if _slot(t) == _slot(task) and t.id != task.id]
        same = [t for t in others if t.spec_hash == task.spec_hash]  # else it is an update
        names = {n.id: n.name for n in cluster.nodes.values()}
        early = self.absent.replaced([t for t in same if not self._emptied(controller, t)], names)
        if early:
            self.broke("an absent agent is no dead host", f"{task.name} {task.id} replaces {early}")
        if controller.control._health.brake():
            silent = [t for t in same if t.live and self._silent(controller, t)]
            if silent:
                lost = silent[0]
                where = " ".join(
                    f"{n.name}={cluster.conditions[n.id].status}" for n in cluster.nodes.values()
                )
                slot = " ".join(f"{t.id}={t.state}/{t.desired}@{t.node}" for t in others)
                self.broke(
                    "the brake holds",
                    f"{task.name} {task.id} replaces {lost.id} on a silent node; {where}; {slot}",
                )

    def _heard(self, controller: Controller, task: Task) -> bool:
        condition = controller.cluster.conditions.get(task.node or "")
        return condition is not None and condition.status in HEARD

    def _emptied(self, controller: Controller, task: Task) -> bool:
        node = controller.cluster.nodes.get(task.node or "")
        return node is None or node.availability == "drain" or node.removing

    def _silent(self, controller: Controller, task: Task) -> bool:
        """Say whether it is on a node that is silent, and that nobody wants empty."""
        return not self._emptied(controller, task) and not self._heard(controller, task)

    def _stopped(  # noqa: PLR0911 - a table of causes
        self, controller: Controller, task: Task, how: str
    ) -> None:
        """Somebody decided that a task goes: is there a cause?"""
        if self.world.deciding:
            return  # an older state was taken over: it goes by what nodes say of themselves
        if task.status.run is None or not task.status.run.alive or task.node is None:
            return  # nothing of it runs, as far as it was ever heard
        if not task.status.ready and self._heard(controller, task):
            return  # it is heard, and serves nobody
        cluster = controller.cluster
        stack = cluster.stacks.get(task.stack)
        if (
            stack is None
            or stack.desired != "up"
            or task.service in (*stack.stopped_services, *stack.created)
        ):
            return
        spec = spec_at(cluster, task.stack, stack.release)
        if spec is None or task.service not in spec.services:
            return
        for number in {stack.release, stack.running}:
            release = cluster.releases.get((task.stack, number))
            at = spec_at(cluster, task.stack, number)
            if release is None or at is None or task.service not in at.services:
                continue
            effective = controller.control._specs.under(release, at, task.service)
            if effective.hash != task.spec_hash:
                return  # an update, or the way back from one
        node = cluster.nodes.get(task.node)
        if node is None or node.removing or node.availability == "drain":
            return
        asked = stack.overrides.get(task.service, spec.services[task.service].replicas)
        if asked is not None and task.slot > asked:
            return
        others = [
            t for t in self.tasks.values() if _slot(t) == _slot(task) and t.id != task.id and t.live
        ]
        if any(t.status.ready and self._heard(controller, t) for t in others):
            return
        true = next((c for h in self.world.hosts for c in h.running() if c.task == task.id), None)
        if true is None:
            return  # it does not run, and whoever decided may know it from elsewhere
        self.broke("not for what is unseen", f"{task.name} {task.id} on {node.name}: {how}")

    # Durations: once a second.

    def look(self) -> None:
        """Look at what must not last."""
        world = self.world
        if sum(not one.dead for one in world.controllers) > 1:
            self.disputed = world.now + 3 * TERM  # two clusters, as ADR 0023 has it
        controller = world.controller
        if (
            controller is None
            or not controller.ready.is_set()
            or not controller.dispatcher.ready.is_set()
        ):
            self.excess.clear()
            return
        if controller.control._health.brake():
            self.excess.clear()
            return
        self._traffic()
        counts: dict[tuple[str, str], int] = {}
        for task in self.tasks.values():
            if task.live and task.node is not None and self._heard(controller, task):
                key = (task.stack, task.service)
                counts[key] = counts.get(key, 0) + 1
        for key, count in counts.items():
            stack = world.users.wanted[key[0]]
            quiet = not stack.asking and world.now - stack.touched > EXCESS
            surge = 2 if key == ("front", "web") else 0
            if quiet and count > world.users.most(*key) + surge:
                since = self.excess.setdefault(key, world.now)
                if world.now - since > EXCESS:
                    self.broke(
                        "no more copies",
                        f"{key[0]}/{key[1]}: {count} instead of {world.users.most(*key)}",
                    )
            else:
                self.excess.pop(key, None)
        inbox = len(controller.control._inbox)
        if inbox > 2000 or len(self.tasks) > 600:
            self.broke("bounded", f"{inbox} reports wait, {len(self.tasks)} task records")

    def _traffic(self) -> None:
        """Look whether what serves is sent to, and what has been dead for long is not."""
        stack = self.world.users.wanted["calm"]
        lost = self.absent.unserved(self.calm)
        if lost and not stack.asking and self.world.now - stack.touched > 30:
            self.broke("an absent agent serves on", lost)
        dead = {h.name for h in self.world.hosts if not h.on and h.off_for > DEAD}
        if not dead:
            return
        for host in self.world.hosts:
            if not host.on or host.agent is None or host.agent_since > self.world.now - DEAD:
                continue
            # At most half of the peers are taken out; who never answered this machine is not
            # judged (as the product says): it died before this one was on, or was told of it.
            if len(dead) > 2 or not dead <= host.met:
                continue
            for key, nodes in host.traffic_to().items():
                if dead & nodes and nodes - dead:
                    who = min(dead & nodes)
                    self.broke("the dead get no traffic", f"{host.name} sends {key} to {who}")


def _slot(task: Any) -> tuple[str, str, int]:
    return task.stack, task.service, task.slot


__all__ = ["LAWS", "Broken", "Laws", "TaskState"]
