"""Make everything a task's container needs, and take it away again.

The runner calls it; the order of effects is here: image, root, who the process is,
mounts, network, bundle. Everything may be repeated. Taking away never stops at the
first error: what could not be removed is tried again by the runner.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Protocol

from agent.errors import Later, Refusal
from agent.runtime import bundle, rootfs
from agent.runtime.signals import number_of
from agent.tasks import fitness, pairs
from agent.vocabulary import ImageConfig
from specs.kit.failpoints import reached

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from agent.runtime.bundle import User
    from agent.tasks.effects import Containers, Images, Networking, Volumes
    from agent.tasks.record import Record
    from agent.vocabulary import Attachment, BoundMount, ImageConfig, Process
    from specs.stack import TaskSpec
    from specs.task import Doing
    from specs.wire import Assignment, Content


log = logging.getLogger(__name__)

RECALL = 30.0  # seconds for the image of a container that was taken over
TELL_EVERY = 1.0  # seconds between two words on how far an image is


class SetKnowledge(Protocol):
    """What the preparation asks of the node's whole set: ``agent/tasks/holdings.py``."""

    def contents(self) -> Mapping[str, Content]:
        """Return the secrets and configs sent to this node."""
        ...

    def slot_of(self, assignment: Assignment) -> str:
        """Return the name of the slot a task fills."""
        ...

    def keeps(self, slot: str) -> bool:
        """Say whether what a slot has stays."""
        ...

    def predecessors(self, record: Record) -> list[Record]:
        """Return the tasks of a task's slot that are on their way out."""
        ...

    def record(self, task: str) -> Record | None:
        """Return what is known of a task."""
        ...

    def unclear(self, task: str) -> bool:
        """Say whether something is here of a task, and nobody knows yet what became of it."""
        ...


class Root(NamedTuple):
    """What there is of a task before it has a network."""

    path: str
    user: User
    mounts: Sequence[BoundMount]


@dataclass(frozen=True)
class Preparation:
    """The parts a task is prepared with."""

    images: Images
    volumes: Volumes
    network: Networking
    containers: Containers
    tasks: Path  # per task, on disk
    traits: bundle.NodeTraits
    holdings: SetKnowledge
    networks_known: Callable[[], Awaitable[None]]  # waits; raises Later

    async def adopt(self, tasks: set[str]) -> None:
        """After a restart: remove what only tasks that are no more had."""
        try:
            await self.volumes.adopt(tasks, self.holdings.keeps)
        except OSError as error:  # a leftover must not keep the agent from coming up
            log.warning("leftovers of volumes stay", extra={"error": str(error)})

    async def prepare(
        self,
        record: Record,
        slots: asyncio.Semaphore,
        say: Callable[[Doing, str], None],
        arrived: Callable[[tuple[int, int]], None],
    ) -> ImageConfig:
        """Prepare a task. Raises Refusal, Later, OSError."""
        assignment = record.assignment
        spec = assignment.spec
        fitness.check(spec)
        if spec.stop_signal:
            number_of(spec.stop_signal)
        say("image", f"getting image {spec.image}")
        watching = asyncio.create_task(self._watch(spec.image, arrived), name="image-bytes")
        try:
            image = await self.images.ensure(spec.image, spec.image_digest)
        finally:
            watching.cancel()
            await asyncio.wait({watching})
            arrived((0, 0))
        say("root", "making its root, mounts and network")
        # Beside each other: the one waits for filters and the kernel, the other for the disk.
        networking = asyncio.create_task(self._network(assignment), name="network of a task")
        try:
            async with slots:
                root = await self._make_root(assignment, image)
            if not networking.done() and spec.network_mode != "host":
                say("network", "waiting for the node's network")
            if pairs.takes(spec):
                await self._partner(assignment, say, networking)
            net = await networking
        finally:
            networking.cancel()
            await asyncio.wait({networking})
        async with slots:
            await self._bundle(assignment, image, root, net)
        return image

    async def _partner(
        self,
        assignment: Assignment,
        say: Callable[[Doing, str], None],
        networking: asyncio.Task[pairs.Lent],
    ) -> None:
        """Say whom it waits for, until that one's network is known."""
        while not networking.done():
            partner = self.holdings.record(assignment.partner)
            if not pairs.there(partner):
                name = partner.assignment.name if partner is not None else assignment.spec.partner
                say("network", f"waits for {name}, whose {assignment.spec.lent} it shares")
            await asyncio.wait({networking}, timeout=pairs.LOOK)

    def join(self, record: Record) -> Process | None:
        """Have the task's next run join its partner's process; None = that is not there."""
        process = pairs.process_of(self.holdings.record(record.assignment.partner))
        if process is not None:
            config, kinds = self.containers.config(record.id), pairs.joins(record.assignment.spec)
            self.containers.write(record.id, pairs.joined(config, kinds, process))
        return process

    def beside(self, record: Record) -> bool:
        """Say whether the partner's process is there that a run has joined, if it has."""
        partner = record.assignment.partner
        if self.holdings.unclear(partner):
            return True  # nothing is ended because we do not know
        return pairs.beside(record, self.holdings.record(partner))

    async def recall(self, spec: TaskSpec) -> ImageConfig | None:
        """Return what the image of a container says that runs already; None = not to be had now."""
        try:
            async with asyncio.timeout(RECALL):
                return await self.images.ensure(spec.image, spec.image_digest)
        except (Refusal, Later, OSError, TimeoutError) as error:
            log.warning("an image is not known any more", extra={"why": str(error)})
            return None

    async def _watch(self, image: str, arrived: Callable[[tuple[int, int]], None]) -> NoReturn:
        """Tell how far the image is, for as long as it takes."""
        while True:
            await asyncio.sleep(TELL_EVERY)
            arrived(await asyncio.to_thread(self.images.transfer, image))

    async def _make_root(self, assignment: Assignment, image: ImageConfig) -> Root:
        spec, task = assignment.spec, assignment.id
        root = await self.images.mount(task, image.digest)
        wanted = image.user if spec.user is None else spec.user
        # In threads: files of the image, of any size, and a filter to be compiled.
        user = await asyncio.to_thread(rootfs.resolve_user, root, wanted, spec.group_add)
        if not assignment.fresh_volumes:
            await self.volumes.take(task, self.holdings.slot_of(assignment))
        mounts = await self.volumes.prepare(
            assignment, image, root, self.holdings.contents(), (user.uid, user.gid)
        )
        await asyncio.to_thread(
            rootfs.check,
            root,
            cwd=bundle.working_dir(spec, image),
            mounts=mounts,
        )
        return Root(str(root), user, mounts)

    async def _bundle(
        self, assignment: Assignment, image: ImageConfig, root: Root, net: pairs.Lent
    ) -> None:
        mounts = root.mounts
        if assignment.spec.ipc == "partner":
            memory = pairs.memory(self.containers.config(assignment.partner))
            mounts = (*((memory,) if memory is not None else ()), *mounts)
        made = await asyncio.to_thread(
            bundle.build,
            bundle.Inputs(
                assignment=assignment,
                image=image,
                root=root.path,
                user=root.user,
                netns=net.netns,
                hostname=net.hostname,
                etc=net.etc,
                mounts=mounts,
                devices=rootfs.node_devices(assignment.spec.devices),
            ),
            self.traits,
        )
        self.containers.write(assignment.id, made.config)

    async def _network(self, assignment: Assignment) -> pairs.Lent:
        """Make the task's network, or find its partner's, and the files that tell of it.

        However long it takes until the node's network, or the partner, is there.
        """
        if assignment.spec.network_mode != "host":
            await self.networks_known()
        taken = pairs.takes(assignment.spec)
        while taken and not pairs.there(self.holdings.record(assignment.partner)):
            await asyncio.sleep(pairs.LOOK)
        if assignment.spec.network_mode == "partner":
            return pairs.lent(self.containers.config(assignment.partner))
        attached = await self.network.attach(assignment)
        hostname = hostname_of(assignment)
        own = assignment.spec.network_mode != "host"
        etc = self._etc(assignment.id, hostname, attached)
        return pairs.Lent(_place(attached.netns) if own else None, hostname, etc)

    def _etc(self, task: str, hostname: str, attached: Attachment) -> dict[str, str]:
        """Write the three files every container gets; return where they go."""
        folder = self.tasks / task / "etc"
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        texts = {
            "hostname": f"{hostname}\n",
            "resolv.conf": attached.resolv_conf,
            "hosts": attached.hosts,
        }
        places = {}
        for name, text in texts.items():
            path = folder / name
            # Written in place: a running container has the very file mounted.
            path.write_text(text)
            path.chmod(0o644)
            places[f"/etc/{name}"] = str(path)
        return places

    # Anonymous volumes pass from task to task of a slot.

    def awaited(self, record: Record) -> str:
        """Return whose end a task's first run waits for, to have their anonymous volumes."""
        found = self.holdings.predecessors(record)
        return ", ".join(other.id for other in found if self.volumes.owns(other.id))

    async def claim(self, assignment: Assignment) -> None:
        """Give a task whose first run begins what the last one of its slot left."""
        slot = self.holdings.slot_of(assignment)
        await self.volumes.claim(assignment.id, slot, fresh=assignment.fresh_volumes)

    async def enter(self, assignment: Assignment) -> None:
        """Find what a run mounts that others may have made by now. Raises Refusal."""
        await self.volumes.enter(assignment)

    async def sweep(self) -> None:
        """Remove what was left in slots that are not wanted any more."""
        try:
            await self.volumes.sweep(self.holdings.keeps)
        except OSError as error:  # the next change of the set tries it again
            log.warning("anonymous volumes stay", extra={"error": str(error)})

    # The end of a task.

    async def tidy(self, record: Record) -> None:
        """Take away everything but logs and the writable layer. Raises ExceptionGroup."""
        task = record.id
        await self._end(
            f"tidying {task}", task, self.containers.erase, lambda: self.images.unmount(task)
        )

    async def erase(self, record: Record, slots: asyncio.Semaphore) -> None:
        """Take away everything of the task on this node. Raises ExceptionGroup."""
        if not record.touched:
            return
        task = record.id

        async def container(task: str) -> None:
            async with slots:
                await self.containers.erase(task)

        # Not in the slots, only behind each other: detaching is a wait in the kernel (30 ms) that
        # all tasks share which are there at the same time.
        await self._end(f"erasing {task}", task, container, lambda: self.images.discard(task))

    async def erase_by_name(self, task: str) -> None:
        """Take away everything that carries this task's id. Raises ExceptionGroup."""
        erase = self.containers.erase
        await self._end(f"erasing {task}", task, erase, lambda: self.images.discard(task))

    async def _end(
        self,
        what: str,
        task: str,
        erase: Callable[[str], Awaitable[None]],
        root: Callable[[], Awaitable[None]],
    ) -> None:
        ended = False

        async def container() -> None:
            nonlocal ended
            await erase(task)
            ended = True

        async def volumes() -> None:
            if ended:  # else a process may still write what the next task would get
                await self.volumes.release(task, self.holdings.keeps)

        async def network() -> None:
            reached("stop.mid_cleanup")
            await self.network.detach(task)
            reached("stop.after_net_out")

        await _all(what, container, network, root, volumes)


async def _all(what: str, *steps: Callable[[], Awaitable[None]]) -> None:
    errors: list[Exception] = []
    for step in steps:
        try:
            await step()
        except Exception as error:  # noqa: BLE001 - teardown goes on; all errors are raised below
            errors.append(error)
    if errors:
        raise ExceptionGroup(what, errors)


def hostname_of(assignment: Assignment) -> str:
    """Return the host name inside: the spec's, else the task's name made a legal one."""
    if assignment.spec.uts == "host":
        return socket.gethostname()
    if assignment.spec.hostname:
        return assignment.spec.hostname[:64]
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", assignment.name).strip("-.")
    return name[:63] or assignment.id


def _place(netns: Path) -> str:
    """Return the namespace file; an empty path means a fresh namespace made by the runtime."""
    return "" if str(netns) == "." else str(netns)
