"""Carry out the events of a schedule. Each can be left out; one that has no object does nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.sim.disk import _File, _Folder
from tests.sim.host import SIGKILL

if TYPE_CHECKING:
    from tests.sim.host import Container, SimHost
    from tests.sim.schedule import Event
    from tests.sim.world import World

OVER = 15.0  # seconds after a cut in which what it led to is still being put right
PLACE = "home"


class Faults:
    """Does to the world what the schedule says, and undoes all of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._undo: dict[tuple[Any, ...], int] = {}

    def do(self, event: Event) -> None:
        """Begin an event."""
        if self.world.broken is not None:
            return
        self.world.trace("event", str(event))
        getattr(self, f"_{event.what}")(*event.args)

    def _for(self, key: tuple[Any, ...], seconds: float, on: Any, off: Any) -> None:
        """Have something be so for a while; of two at once the later end counts."""
        on()
        self._undo[key] = self._undo.get(key, 0) + 1

        def end() -> None:
            self._undo[key] -= 1
            if not self._undo[key]:
                off()

        self.world.later(seconds, end)

    def _link(self, host: SimHost) -> Any:
        return self.world.wire.link(PLACE, host)

    def _disturb(self, host: SimHost, seconds: float) -> None:
        self.world.laws.disturb(host, seconds)

    # Processes.

    def _kill_controller(self, away: float) -> None:
        self.world.kill_controller(away)

    def _controller_dies_at_commit(self, count: int, after: bool) -> None:
        self.world.store.kill_in, self.world.store.kill_after = count, after

    def _kill_agent(self, name: str) -> None:
        self.world.host(name).kill_agent()

    def _agent_dies_at_write(self, name: str, count: int) -> None:
        self.world.host(name).disk.kill_at = count

    def _agent_away(self, name: str, seconds: float) -> None:
        host = self.world.host(name)
        if seconds > 45:
            self._disturb(host, seconds + OVER)

        def off() -> None:
            host.wants_agent = False
            host.kill_agent()

        def on() -> None:
            host.wants_agent = True
            host.begin_agent()

        self._for(("agent", name), seconds, off, on)

    def _power(self, name: str, seconds: float, lucky: bool) -> None:
        host = self.world.host(name)
        self._disturb(host, seconds + OVER)
        self._for(("power", name), seconds, lambda: host.power_off(lucky=lucky), host.power_on)

    def _power_home(self, seconds: float, lucky: bool) -> None:
        host = self.world.hosts[0]

        def off() -> None:
            host.power_off(lucky=lucky)
            self.world.kill_controller(seconds + 0.5)

        self._disturb(host, seconds + OVER)
        self._for(("power", host.name), seconds, off, host.power_on)

    # Lines.

    def _cut(self, name: str, seconds: float, _way: str) -> None:
        host = self.world.host(name)
        self._disturb(host, seconds + OVER)
        link = self._link(host)
        self._for(
            ("cut", name),
            seconds,
            lambda: link.set(cut_to=True, cut_from=True),
            lambda: link.set(cut_to=False, cut_from=False),
        )

    def _cut_one_way(self, name: str, seconds: float, way: str) -> None:
        host = self.world.host(name)
        self._disturb(host, seconds + OVER)
        link = self._link(host)
        self._for(
            ("cut", name),
            seconds,
            lambda: link.set(**{f"cut_{way}": True}),
            lambda: link.set(cut_to=False, cut_from=False),
        )

    def _isolate(self, seconds: float) -> None:
        for host in self.world.hosts[1:]:
            self._cut(host.name, seconds, "both")

    def _cut_most(self, seconds: float, apart: float) -> None:
        for place, host in enumerate(self.world.hosts[1:4]):
            self.world.later(place * apart, lambda host=host: self._cut(host.name, seconds, "both"))

    def _flap(self, name: str, times: int, period: float) -> None:
        for number in range(times):
            self.world.later(2 * number * period, lambda: self._cut(name, period, "both"))

    def _loss(self, name: str, seconds: float, share: float) -> None:
        host = self.world.host(name)
        self._disturb(host, seconds + OVER)
        link = self._link(host)
        self._for(("loss", name), seconds, lambda: link.set(loss=share), lambda: link.set(loss=0.0))

    def _late(self, name: str, seconds: float, most: float) -> None:
        link = self._link(self.world.host(name))
        self._for(("late", name), seconds, lambda: link.set(late=most), lambda: link.set(late=0.0))

    def _twice(self, name: str, seconds: float) -> None:
        link = self._link(self.world.host(name))
        self._for(
            ("twice", name), seconds, lambda: link.set(twice=0.4), lambda: link.set(twice=0.0)
        )

    # Disks.

    def _on_disk(self, name: str, seconds: float, field: str, value: Any, usual: Any) -> None:
        disk = self.world.host(name).disk
        self._for(
            (field, name),
            seconds,
            lambda: setattr(disk, field, value),
            lambda: setattr(disk, field, usual),
        )

    def _slow_disk(self, name: str, seconds: float, delay: float) -> None:
        self._on_disk(name, seconds, "slow", delay, 0.0)

    def _full_disk(self, name: str, seconds: float) -> None:
        self._disturb(self.world.host(name), seconds + OVER)
        self._on_disk(name, seconds, "full", True, False)

    def _failing_disk(self, name: str, seconds: float) -> None:
        self._on_disk(name, seconds, "failing", True, False)

    def _in_store(self, seconds: float, field: str, value: Any, usual: Any) -> None:
        self._for(
            ("store", field),
            seconds,
            lambda: setattr(self.world.store, field, value),
            lambda: setattr(self.world.store, field, usual),
        )

    def _store_slow(self, seconds: float, delay: float) -> None:
        self._in_store(seconds, "slow", delay, 0.0)

    def _store_full(self, seconds: float) -> None:
        self._in_store(seconds, "full", True, False)

    def _store_failing(self, seconds: float) -> None:
        self._in_store(seconds, "failing", True, False)

    def _older_store(self, age: float) -> None:
        """The controller's machine gets a copy of its state file back that was made before."""
        world = self.world
        old = [disk for at, disk in world.backups if at <= world.now - age]
        if not old or world.rewound:
            return
        world.kill_controller(1.0)
        world.store = old[-1].copy()
        world.rewound = True
        # Its own machine's agent is always asked and waited for, so it cannot but hear that it is
        # behind. By what that agent took, not by what it says just now: it may be away, and still
        # have all of it when it is back.
        world.undecided = world.laws.revisions.get(world.hosts[0].name, 0) > world.store.revision
        world.laws.rewound()
        for host in world.hosts:
            self._disturb(host, 120.0)
        world.users.begin("decide what the state is", "state", world.users.decide)

    def _journal_damaged(self, name: str, how: str) -> None:
        host = self.world.host(name)
        if not host.on:
            return
        self._disturb(host, 60.0)
        host.kill_agent()
        # A torn line was never acknowledged, so this one says that nobody was told of it.
        self.world.laws.forgets(host)
        folder = host.disk.find(("state", "journal"))
        if not isinstance(folder, _Folder):
            return
        found = folder.names.get("set.log")
        if not isinstance(found, _File):
            return
        lines = found.data.splitlines(keepends=True)
        match how:
            case "gone":
                del folder.names["set.log"]
            case "first" if lines:
                lines[0] = lines[0][:20] + b"x" + lines[0][21:]
            case "last" if lines:
                lines[-1] = lines[-1][:20] + b"x" + lines[-1][21:]
            case "torn" if lines:
                lines[-1] = lines[-1][: len(lines[-1]) // 2]
        found.data = b"".join(lines)

    def _record_damaged(self, name: str, which: int) -> None:
        host = self.world.host(name)
        if not host.on:
            return
        self._disturb(host, 60.0)
        host.kill_agent()
        folder = host.disk.find(("run", "agent", "records"))
        if isinstance(folder, _Folder) and folder.names:
            names = sorted(folder.names)
            found = folder.names[names[which % len(names)]]
            if isinstance(found, _File):
                found.data = found.data[: len(found.data) // 2]

    def _run_wiped(self, name: str) -> None:
        host = self.world.host(name)
        if host.on:
            self._disturb(host, 60.0)
            host.disk.top.names["run"] = _Folder("run")

    # The kernel and what runs on it.

    def _hang(self, name: str, call: str, seconds: float) -> None:
        host = self.world.host(name)
        host.hung[call] = max(host.hung.get(call, 0.0), self.world.now + seconds)
        if call in ("network", "attach"):
            self._disturb(host, seconds + OVER)

    def _freeze(self, name: str, seconds: float) -> None:
        host = self.world.host(name)
        self._disturb(host, seconds + OVER)
        host.frozen_until = max(host.frozen_until, self.world.now + seconds)

    def _slow_runtime(self, name: str, seconds: float, factor: float) -> None:
        host = self.world.host(name)
        self._for(
            ("pace", name),
            seconds,
            lambda: setattr(host, "pace_factor", factor),
            lambda: setattr(host, "pace_factor", 1.0),
        )

    def _one(self, name: str, which: int) -> Container | None:
        running = sorted(self.world.host(name).running(), key=lambda c: (c.assignment.name, c.task))
        return running[which % len(running)] if running else None

    def _crash(self, name: str, which: int) -> None:
        found = self._one(name, which)
        if found is not None:
            self.world.laws.calm.discard(found.task)
            self.world.host(name).containers.ended(found, 128 + SIGKILL)

    def _lost_monitor(self, name: str, which: int) -> None:
        found = self._one(name, which)
        if found is not None:
            self.world.laws.calm.discard(found.task)
            self.world.host(name).containers.ended(found, None, "its monitor died")

    def _sick(self, name: str, which: int, seconds: float) -> None:
        host, found = self.world.host(name), self._one(name, which)
        if found is not None:
            task = found.task
            self.world.laws.sickened.add(task)
            self.world.laws.calm.discard(task)
            self._for(
                ("sick", task),
                seconds,
                lambda: host.sick.add(task),
                lambda: host.sick.discard(task),
            )

    def _clock(self, name: str, seconds: float) -> None:
        self.world.host(name).jumped += seconds

    def _registry_down(self, seconds: float) -> None:
        self._for(
            ("registry",),
            seconds,
            lambda: setattr(self.world, "registry_down", True),
            lambda: setattr(self.world, "registry_down", False),
        )

    def _older_agent(self, name: str, seconds: float) -> None:
        host = self.world.host(name)

        def speak(version: int) -> None:
            host.speaks = version
            host.kill_agent()

        self._for(("speaks", name), seconds, lambda: speak(1), lambda: speak(2))

    def _network_broken(self, name: str, seconds: float) -> None:
        host = self.world.host(name)
        self._disturb(host, seconds + OVER)
        self._for(
            ("network", name),
            seconds,
            lambda: setattr(host, "network_broken", True),
            lambda: setattr(host, "network_broken", False),
        )

    # Users.

    def _up(self, stack: str, service: str) -> None:
        users = self.world.users
        users.begin(
            f"up {stack} with another {service}", stack, lambda: users.up(stack, (service,))
        )

    def _scale(self, stack: str, service: str, count: int) -> None:
        users = self.world.users
        users.begin(
            f"scale {stack}/{service} to {count}", stack, lambda: users.scale(stack, service, count)
        )

    def _stop_start(self, stack: str, service: str, seconds: float) -> None:
        users = self.world.users
        users.begin(f"stop {stack}/{service}", stack, lambda: users.stop(stack, (service,)))
        self.world.later(
            seconds, lambda: users.begin(f"start {stack}", stack, lambda: users.start(stack))
        )

    def _restart(self, stack: str, service: str) -> None:
        users = self.world.users
        users.begin(f"restart {stack}/{service}", stack, lambda: users.restart(stack, service))

    def _down_up(self, stack: str, seconds: float) -> None:
        users = self.world.users
        users.begin(f"down {stack}", stack, lambda: users.down(stack))
        self.world.later(
            seconds, lambda: users.begin(f"up {stack}", stack, lambda: users.up(stack))
        )

    def _drain(self, name: str, seconds: float) -> None:
        self._availability(name, "drain", seconds)

    def _pause_node(self, name: str, seconds: float) -> None:
        self._availability(name, "pause", seconds)

    def _availability(self, name: str, availability: str, seconds: float) -> None:
        users = self.world.users
        if availability == "drain":
            self._disturb(self.world.host(name), seconds + 2 * OVER)
        users.begin(
            f"node {availability} {name}", "nodes", lambda: users.available(name, availability)
        )
        self.world.later(
            seconds,
            lambda: users.begin(
                f"node active {name}", "nodes", lambda: users.available(name, "active")
            ),
        )

    def _node_rm(self, name: str, seconds: float) -> None:
        users = self.world.users
        self._disturb(self.world.host(name), 200.0)
        self.world.laws.leaving.add(name)

        async def away_and_back() -> None:
            await users.remove_node(name)
            self.world.laws.leaving.discard(name)
            self._disturb(self.world.host(name), seconds + OVER)

        users.begin(f"node rm {name}", "nodes", away_and_back)
        self.world.later(
            seconds, lambda: users.begin(f"node add {name}", "nodes", lambda: users.add_node(name))
        )

    # The end of it.

    def heal(self) -> None:
        """Take away every fault at once."""
        world = self.world
        world.healing = True
        for host in world.hosts:
            self._link(host).set(cut_to=False, cut_from=False, loss=0.0, late=0.0, twice=0.0)
            host.disk.full = host.disk.failing = False
            host.disk.slow, host.disk.kill_at = 0.0, 0
            host.hung.clear()
            host.frozen_until = 0.0
            host.pace_factor = 1.0
            host.network_broken = False
            host.wants_agent = True
            host.sick.clear()
            if host.speaks != 2:
                host.speaks = 2
                host.kill_agent()
            host.power_on()
            host.begin_agent()
        world.registry_down = False
        store = world.store
        store.full = store.failing = False
        store.slow, store.kill_in = 0.0, 0
        world.controller_wanted = True
        world.begin_controller()
