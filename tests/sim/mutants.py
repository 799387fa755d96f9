"""Defects planted in the product, one at a time, each of which some seed must notice.

A mutant is a few lines that take the place of a function while it is planted. The first seven are
the faults of old that destroyed what they should have protected. ``seeds`` are tried in turn; with
one of them ``law`` (or another) breaks. A simulation that lets one live proves less than it says.
"""

from __future__ import annotations

import contextlib
import importlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agent.tasks.adoption import Adopt, Sweep
from agent.tasks.held import Held
from agent.vocabulary import Exit
from orchestrator.store.base import StoreUnavailable
from scheduler import filters
from tests.sim.run import LENGTH, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.sim.run import Outcome

FIRST = tuple(range(1, 41))


@dataclass(frozen=True)
class Mutant:
    """``at``: "module:name" or "module:Class.name"; ``make`` gets what is there now."""

    at: str
    what: str
    make: Callable[[Any], Any]
    seeds: tuple[int, ...] = FIRST
    exclusive: bool = False  # it needs a service of which never two copies run


def _seen_as_well(real: Any) -> Any:
    """Take what is unreachable for what is there, while most nodes are silent."""

    def made(pass_: Any, *more: Any, **named: Any) -> Any:
        found = real(pass_, *more, **named)
        if not pass_.brake or not found.unheard:
            return found
        return replace(found, lost=False, awaited=False, unheard=False)

    return made


def _unreadable_is_gone(real: Any) -> Any:
    def made(found: Any, **named: Any) -> Any:
        return Sweep() if found.damaged else real(found, **named)

    return made


def _doubt_is_nothing(_: Any) -> Any:
    return lambda self, held, why: Held(held.stamp, held.me)


def _without_endings(real: Any) -> Any:
    return lambda record: real(record) and record.assignment.desired in ("prepared", "running")


def _impatient(real: Any) -> Any:
    return lambda self, node, reason, *, host=False: real(self, node, reason, host=False)


def _no_rule(reason: str) -> Callable[[Any], Any]:
    def plant(real: Any) -> Any:
        def made(seen: Any, instructions: Any) -> Any:
            refused = real(seen, instructions)
            if refused is None or refused.reason != reason:
                return refused
            return None

        return made

    return plant


def _any_generation(real: Any) -> Any:
    def made(seen: Any, instructions: Any) -> Any:
        refused = real(seen, instructions)
        older = refused is not None and refused.reason == "base" and "older" in refused.message
        return None if older else refused

    return made


def _says_it_is_written(real: Any) -> Any:
    async def made(self: Any, store: Any) -> bool:
        try:
            done: bool = await real(self, store)
        except StoreUnavailable:
            chunk = [(key, model) for key, model in self.writes.items()]
            self.cluster.applied(self.cluster.revision, chunk)
            return True
        return done

    return made


def _anywhere(real: Any) -> Any:
    return lambda *more, **named: real(*more, **{**named, "stays": False})


def _replaced_at_once(real: Any) -> Any:
    return lambda *more, **named: replace(real(*more, **named), awaited=False)


def _guesses_the_code(real: Any) -> Any:
    def made(record: Any, seen: Any, now: float, wall: float) -> Any:
        known = seen if seen.code is not None else Exit(0, reason=seen.reason)
        return real(record, known, now, wall)

    return made


def _adopts_nothing(real: Any) -> Any:
    def made(found: Any, **named: Any) -> Any:
        verdict = real(found, **named)
        ran = isinstance(verdict, Adopt) and verdict.record.process is not None
        return Sweep() if ran else verdict

    return made


def _every_node(_: Any) -> Any:
    return lambda pending, load: True


def _forgets_half(real: Any) -> Any:
    return lambda self, instructions, held: (
        None if instructions.base is not None else real(self, instructions, held)
    )


def _same_epoch(real: Any) -> Any:
    async def made(store: Any, cluster: Any, seen: Any, **named: Any) -> Any:
        return replace(await real(store, cluster, seen, **named), epoch=max(cluster.epoch, 1))

    return made


def _no_detach(_: Any) -> Any:
    async def made(self: Any, record: Any, slots: Any) -> None:
        if record.touched:
            await self.containers.erase(record.id)
            await self.images.discard(record.id)

    return made


def _no_stop_after_update(_: Any) -> Any:
    return lambda entry, update: []


def _stops_first(real: Any) -> Any:
    """Of two copies of a slot the wrong one is kept."""
    return lambda tasks: list(reversed(real(tasks)))


def _from_the_answer(real: Any) -> Any:
    def made(self: Any, question: int, *more: Any) -> Any:
        if question in self.asked:
            self.asked[question] = more[-1]
        return real(self, question, *more)

    return made


def _whoever_answers(real: Any) -> Any:
    return lambda self, asked_at, yes, now: real(self, asked_at, self.members, now)


PLAN = "orchestrator.control.planning"
ALL: dict[str, Mutant] = {
    "a1-brake-kills": Mutant(
        f"{PLAN}.terms:_replica", "with the brake on the unseen counts as seen", _seen_as_well
    ),
    "a2-older-store-goes-on": Mutant(
        "orchestrator.dispatch.dispatcher:compare",
        "a store older than what runs is believed",
        lambda _: lambda store, hellos: None,
    ),
    "a3-unreadable-is-erased": Mutant(
        "agent.tasks.worker:judge", "a record that cannot be read is no task", _unreadable_is_gone
    ),
    "a4-lost-journal-is-empty": Mutant(
        "agent.tasks.journal:Journal._doubted", "a damaged set wants nothing", _doubt_is_nothing
    ),
    "a5-network-goes-first": Mutant(
        "agent.tasks.lifecycle:holds_network",
        "a task loses its network when its stop begins",
        _without_endings,
    ),
    "a6-dead-backends-stay": Mutant(
        "agent.network.reach:unreachable",
        "peers that cannot be reached keep their traffic",
        lambda _: lambda histories: frozenset(),
    ),
    "a7-agent-gone-is-host-gone": Mutant(
        "orchestrator.control.mirror.health:NodeHealth.disconnected",
        "an agent that is away is taken for a dead host",
        _impatient,
    ),
    "any-epoch": Mutant(
        "agent.tasks.worker:may_instruct", "an agent obeys an older epoch", _no_rule("epoch")
    ),
    "any-generation": Mutant(
        "agent.tasks.worker:may_instruct", "an agent obeys an older generation", _any_generation
    ),
    "acknowledged-unwritten": Mutant(
        "orchestrator.control.mirror.draft:Draft.commit",
        "what the store did not take is acknowledged",
        _says_it_is_written,
    ),
    "two-writers": Mutant(
        f"{PLAN}.starting:_held_by",
        "an update does not wait for a node that is down",
        _anywhere,
        seeds=(50, *FIRST),
    ),
    "replaces-the-awaited": Mutant(
        f"{PLAN}.terms:_replica", "the brake holds nothing", _replaced_at_once
    ),
    "guessed-exit-code": Mutant(
        "agent.tasks.lifecycle:ended", "an unknown exit code is 0", _guesses_the_code
    ),
    "adopts-nothing": Mutant(
        "agent.tasks.worker:judge", "a restarted agent ends what runs", _adopts_nothing
    ),
    "blind-to-reboots": Mutant(
        "agent.tasks.worker:rebooted",
        "after a reboot runs are taken for running",
        lambda _: lambda record, boot, now, wall: record,
    ),
    "address-twice": Mutant(
        f"{PLAN}.addresses:Addresses.held",
        "addresses in use are given again",
        lambda _: lambda self, network: set(),
    ),
    "places-anywhere": Mutant(
        "scheduler.filters:_ready", "tasks are placed on nodes that are not ready", _every_node
    ),
    "scale-forgotten": Mutant(
        "orchestrator.control.deploy.release:_overrides",
        "up forgets what scale set",
        lambda _: lambda *more: {},
    ),
    "increments-not-kept": Mutant(
        "agent.tasks.journal:Journal._write", "increments are not journalled", _forgets_half
    ),
    "epoch-not-raised": Mutant(
        "orchestrator.keys.identity:take_epoch", "a restart takes no higher epoch", _same_epoch
    ),
    "links-left": Mutant(
        "agent.tasks.preparation:Preparation.erase", "links of what is gone stay", _no_detach
    ),
    "old-one-stays": Mutant(
        "scheduler.rollout:_swap", "an update leaves the old task", _no_stop_after_update
    ),
    "volumes-have-no-home": Mutant(
        f"{PLAN}.placement:homes",
        "a task may be placed away from its volume",
        lambda _: lambda pass_, effective, slot: (),
    ),
    "wrong-copy-kept": Mutant(
        "scheduler.reconcile:best_first", "of two copies the worse one stays", _stops_first
    ),
    "lease-from-the-answer": Mutant(
        "specs.lease:NodeLeases.answered",
        "a node counts its lease from the answer",
        _from_the_answer,
        seeds=(151, *FIRST),  # an answer must be late while another copy takes over
        exclusive=True,
    ),
    "lease-by-nobodys-word": Mutant(
        "specs.lease:NodeLeases.vouched_for",
        "a node goes on whatever the other members say",
        _whoever_answers,
        exclusive=True,
    ),
}


@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    """Have a defect in the product."""
    mutant = ALL[name]
    module, _, path = mutant.at.partition(":")
    holder: Any = importlib.import_module(module)
    *way, last = path.split(".")
    for step in way:
        holder = getattr(holder, step)
    real = vars(holder)[last]
    setattr(holder, last, mutant.make(real))
    try:
        with _tables(name):
            yield
    finally:
        setattr(holder, last, real)


@contextlib.contextmanager
def _tables(name: str) -> Iterator[None]:
    """Put a defect also where a table holds the function itself."""
    if name != "places-anywhere":
        yield
        return
    rule = next(one for one in filters.FILTERS if one.name == "ready")
    before = rule.admits
    object.__setattr__(rule, "admits", filters._ready)
    try:
        yield
    finally:
        object.__setattr__(rule, "admits", before)


def catch(name: str, *, length: float = LENGTH) -> Outcome | None:
    """Return the first outcome in which a law notices the defect; None = it lives."""
    with planted(name):
        for seed in ALL[name].seeds:
            found = run(seed, length=length, exclusive=ALL[name].exclusive)
            if found.broken is not None:
                return found
    return None
