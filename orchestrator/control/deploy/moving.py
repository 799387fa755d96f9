"""Carries volumes' moves out: compares, copies, and writes what came of it. See planning/moving.py.

One task for each volume with a move, or with a copy that one left. All of its state that matters is
in the record: whatever is lost, the next one compares anew and sends what differs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.control.mirror.observed import MoveFigures
from orchestrator.control.planning import moving
from orchestrator.errors import NotFound, RequestError, Unavailable
from specs.kit import cancelled
from specs.kit.amounts import as_set, size
from specs.kit.room import ARCHIVES

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Callable,
        Collection,
        Coroutine,
    )

    from orchestrator.contracts import Agents
    from orchestrator.control.mirror.cluster import Cluster
    from orchestrator.control.mirror.effective import Specs
    from orchestrator.control.mirror.records import Volume
    from orchestrator.control.planning.moving import MoveStep
    from orchestrator.control.planning.passes import Pass
    from specs.kit.clock import Clock
    from specs.objects import VolumeLook

log = logging.getLogger(__name__)
T = TypeVar("T")

LOOK = 0.2
RETRY = 1.0
SILENCE = 60.0  # seconds without a byte of a list; who works says so every two
OPEN_PATIENCE = 900.0  # seconds one of the nodes may not answer while what uses the volume runs
CLOSED_PATIENCE = 60.0  # likewise while it is stopped
STOPPING = 1800.0  # seconds tasks may take to stop
SMALL = 64 << 20  # bytes that may be left to send when the tasks are stopped
ROUNDS = 4  # times what changed meanwhile is sent before that
SAME = 3  # tries to make the copies the same once nothing writes
MOST = 4_000_000  # entries: both lists are compared in memory
PIECE = 1 << 20


class MoveChanged(Exception):
    """The move's record says something else meanwhile: what is done is to be decided anew."""


class MoveRefused(Exception):
    """The move cannot be made; the words say why."""


Tree = dict[bytes, bytes]  # path -> its kind and digest


class VolumeMoves:
    """One task for each volume of which a move, or what one left, has something to do."""

    def __init__(
        self,
        cluster: Cluster,
        specs: Specs,
        agents: Agents,
        clock: Clock,
        write: Callable[[Callable[[Pass], None]], Awaitable[None]],
    ) -> None:
        self._cluster = cluster
        self._specs = specs
        self._agents = agents
        self._clock = clock
        self._write = write
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.going: dict[str, MoveFigures] = {}
        # By volume, of which move: its first copy is there; it is the same and in its place.
        self._copied: dict[str, str] = {}
        self._placed: dict[str, str] = {}
        self._removing: Collection[str] = ()

    def sync(self, group: asyncio.TaskGroup, removing: Collection[str]) -> None:
        """Start what should be under way; each ends by itself. ``removing``: volumes to go."""
        self._removing = removing
        for volume in self._cluster.volumes.values():
            going = volume.kept is not None and volume.name in removing
            if moving.at_rest(self._cluster, volume) and not going:
                continue
            if volume.name in self._tasks:
                continue
            task = group.create_task(self._run(volume.name), name=f"move volume {volume.name}")
            self._tasks[volume.name] = task

    async def _run(self, name: str) -> None:
        self.going[name] = MoveFigures()
        try:
            await self._follow(name)
        except Exception:  # the loop must live on; the record has it begun again
            log.exception("a volume's move stumbled", extra={"volume": name})
            await asyncio.sleep(RETRY)
        finally:
            self.going.pop(name, None)
            self._tasks.pop(name, None)

    def _step(self, volume: Volume) -> MoveStep:
        removing = volume.name in self._removing
        move, name = volume.move, volume.name
        if move is None:
            facts = moving.facts(self._cluster, self._specs, volume, removing=removing)
            return moving.decide(facts, copied=False)

        def lacking(done: dict[str, str]) -> tuple[str, ...]:
            return tuple(sorted(other for other in move.along if done.get(other) != move.id))

        facts = moving.facts(
            self._cluster,
            self._specs,
            volume,
            removing=removing,
            copying=() if move.back else lacking(self._copied),
            placing=lacking(self._placed),
        )
        copied, placed = (done.get(name) == move.id for done in (self._copied, self._placed))
        return moving.decide(facts, copied=copied, placed=placed)

    async def _follow(self, name: str) -> None:
        failing: float | None = None  # since when
        while (volume := self._cluster.volumes.get(name)) is not None:
            move = volume.move
            step = self._step(volume)
            going = self.going[name]
            going.waits = step.why
            if step.does == "nothing":
                self._copied.pop(name, None)
                self._placed.pop(name, None)
                return
            since = self._clock.monotonic()
            try:
                await self._do(volume, step)
            except MoveChanged:
                continue
            except MoveRefused as exc:
                assert move is not None
                await self._fail(name, move.id, str(exc))
            except RequestError as exc:
                lasting = not isinstance(exc, Unavailable)
                if move is not None and move.phase != "undoing":
                    failing = failing if failing is not None else since
                    limit = CLOSED_PATIENCE if move.phase == "closing" else OPEN_PATIENCE
                    lasted = self._clock.monotonic() - failing
                    if (lasting or lasted > limit) and not move.back:
                        await self._fail(name, move.id, exc.detail)
                        continue
                going.waits = f"{exc.detail}; trying again"
                await asyncio.sleep(RETRY)
            else:
                failing = None

    async def _fail(self, name: str, move: str, why: str) -> None:
        await self._write(lambda pass_: moving.take_back(pass_, name, move, why))

    async def _do(self, volume: Volume, step: MoveStep) -> None:
        """Perform a step. Raises RequestError, MoveRefused."""
        name, move, kept = volume.name, volume.move, volume.kept
        match step.does:
            case "wait" | "await":
                await self._wait(volume)
            case "aside" if kept is not None:
                await self._agents.change_volume(kept.node, "POST", name, "/aside")
                await self._write(lambda pass_: moving.settle(pass_, name, aside=True))
            case "forget" if kept is not None:
                await self._agents.change_volume(kept.node, "DELETE", name, "/aside")
                if not kept.aside:  # killed before it was set aside
                    await self._agents.remove_volume(kept.node, name)
                await self._write(lambda pass_: moving.settle(pass_, name))
            case "settle":
                await self._write(lambda pass_: moving.settle(pass_, name))
            case _ if move is not None:
                await self._move(volume, step, move.id)
            case _:
                raise AssertionError(f"{step.does} without anything to do it with")

    async def _move(self, volume: Volume, step: MoveStep, move: str) -> None:
        name, to = volume.name, volume.move.to if volume.move is not None else ""
        match step.does:
            case "copy":
                await self._copy(volume)
                self._copied[name] = move
            case "close":
                await self._write(lambda pass_: moving.begin_closing(pass_, name, move))
            case "place":
                if volume.move is not None and volume.move.back:
                    await self._agents.change_volume(volume.node, "POST", name, "/aside")
                    await self._agents.change_volume(to, "POST", name, "/aside", {"back": "1"})
                else:
                    await self._make_same(volume)
                    await self._agents.change_volume(
                        to, "POST", name, f"/drafts/{_draft(volume)}/place"
                    )
                self._placed[name] = move
            case "switch":
                await self._write(lambda pass_: moving.switch(pass_, name, move))
            case "fail":
                await self._fail(name, move, step.why)
            case "undo":
                if volume.move is None or not volume.move.back:
                    await self._agents.change_volume(
                        to, "DELETE", name, f"/drafts/{_draft(volume)}"
                    )
                else:
                    await self._not_back(volume, to)
                await self._write(lambda pass_: moving.settle(pass_, name))
            case _:
                raise AssertionError(f"{step.does} is no step of a move")

    async def _not_back(self, volume: Volume, to: str) -> None:
        """Have both copies as they were before they were exchanged, however far that came."""
        members = self._cluster.nodes
        for node, query in ((to, {}), (volume.node, {"back": "1"})):
            if node in members:
                with contextlib.suppress(NotFound):  # its disk was lost
                    await self._agents.change_volume(node, "POST", volume.name, "/aside", query)

    async def _wait(self, volume: Volume) -> None:
        """Wait a moment; in all no longer than it may last. Raises MoveRefused."""
        going = self.going[volume.name]
        began = self._clock.monotonic()
        silent: float | None = None
        while True:
            await asyncio.sleep(LOOK)
            now = self._cluster.volumes.get(volume.name)
            if now is None or now != volume:
                return
            step = self._step(now)
            if step.does not in ("wait", "await"):
                return
            going.waits = step.why
            lasted = self._clock.monotonic() - began
            if step.does == "await":
                continue  # each of those that go as one has limits of its own
            if volume.move is None or volume.move.phase != "closing" or volume.move.back:
                continue  # nothing is stopped: `--cancel` ends it
            since = lasted if silent is None else silent
            silent = since if moving.silent(self._cluster, volume.node) else None
            if silent is not None and lasted - silent > CLOSED_PATIENCE:
                raise MoveRefused(
                    f"{volume.home} does not answer, so nobody knows what still writes"
                )
            if lasted > STOPPING:
                raise MoveRefused(f"after {as_set(STOPPING)} it still {step.why}")

    # copying

    async def _copy(self, volume: Volume) -> None:
        """Send all, then what changed meanwhile, until little is left. Raises MoveRefused."""
        assert volume.move is not None
        source, target = await _both(
            self._looked(volume.node, volume), self._looked(volume.move.to, volume)
        )
        if not source.here:
            raise MoveRefused(f"{volume.home} has no data of it")
        if target.here:
            raise MoveRefused(f"{volume.move.called} has a volume of that name already")
        if source.entries > MOST:
            raise MoveRefused(f"it has {source.entries} entries; {MOST} are possible")
        going = self.going[volume.name]
        going.size = source.size
        first = await self._tree(volume.move.to, volume, draft=True)
        if not first and 0 <= target.free < source.size + ARCHIVES:
            raise MoveRefused(
                f"{size(source.size)} do not fit on {volume.move.called}: {size(target.free)} are "
                f"free there, and {size(ARCHIVES)} must stay so"
            )
        for _ in range(ROUNDS):
            before = going.sent
            await self._send(volume)
            if going.sent - before < SMALL:
                return

    async def _looked(self, node: str, volume: Volume) -> VolumeLook:
        try:
            return await self._agents.look_at_volume(node, volume.name)
        except NotFound:
            known = self._cluster.nodes.get(node)
            called = known.name if known is not None else node
            raise MoveRefused(
                f"the agent of {called} is of an earlier version: corral upgrade {called}"
            ) from None

    async def _make_same(self, volume: Volume) -> None:
        """Send what still differs, by its content, until nothing does. Raises MoveRefused."""
        source: Tree | None = None
        for _ in range(SAME):
            source, same = await self._send_closed(volume, source)
            if same:
                return
        raise MoveRefused("the copy is not the same as what was copied, by its checksums")

    async def _send(self, volume: Volume) -> None:
        assert volume.move is not None
        source, target = await _both(
            self._tree(volume.node, volume),
            self._tree(volume.move.to, volume, draft=True),
        )
        await self._transfer(volume, source, target)

    async def _send_closed(self, volume: Volume, source: Tree | None) -> tuple[Tree, bool]:
        assert volume.move is not None
        theirs = self._tree(volume.move.to, volume, draft=True, sums=True)
        if source is not None:
            return source, not await self._transfer(volume, source, await theirs)
        ours = self._tree(volume.node, volume, sums=True, unused=True)
        found, target = await _both(ours, theirs)
        return found, not await self._transfer(volume, found, target)

    async def _transfer(self, volume: Volume, source: Tree, target: Tree) -> bool:
        """Make the target's draft what the source is; say whether anything differed."""
        assert volume.move is not None
        send, drop = differences(source, target)
        base = f"/drafts/{_draft(volume)}"
        to, name = volume.move.to, volume.name
        if drop:
            await self._agents.change_volume(to, "POST", name, f"{base}/drop", {}, _joined(drop))
        if send:
            archive = self._agents.volume_differences(volume.node, name, _joined(send))
            counted = self._counted(volume, archive)
            try:
                await self._agents.change_volume(to, "PUT", name, f"{base}/archive", {}, counted)
            finally:
                await counted.aclose()
                await archive.aclose()
        return bool(send or drop)

    async def _counted(
        self, volume: Volume, pieces: AsyncGenerator[bytes, None]
    ) -> AsyncGenerator[bytes, None]:
        going = self.going[volume.name]
        async for piece in pieces:
            self._check(volume)
            going.sent += len(piece)
            yield piece

    def _check(self, volume: Volume) -> None:
        """Raise MoveChanged where somebody takes the move back, or the volume away."""
        now = self._cluster.volumes.get(volume.name)
        if now is None or now.move != volume.move or volume.name in self._removing:
            raise MoveChanged

    async def _tree(
        self,
        node: str,
        volume: Volume,
        *,
        draft: bool = False,
        sums: bool = False,
        unused: bool = False,
    ) -> Tree:
        """Return what a node has, by path; of a draft that is not there nothing."""
        assert volume.move is not None
        query = {"draft": _draft(volume)} if draft else {}
        query |= {key: "1" for key, on in (("sums", sums), ("unused", unused)) if on}
        found: Tree = {}
        left = b""
        pieces = self._agents.volume_tree(node, volume.name, query)
        try:
            async with contextlib.aclosing(pieces):
                while True:
                    async with asyncio.timeout(SILENCE):
                        piece = await anext(pieces, b"")
                    self._check(volume)
                    if not piece:
                        break
                    *whole, left = (left + piece).split(b"\0")
                    for record in whole:
                        digest, _, path = record.partition(b" ")
                        if path:
                            found[path] = digest
        except TimeoutError:
            raise Unavailable(f"a list of {volume.name} did not go on for {SILENCE:g} s") from None
        except NotFound:
            if not draft:
                raise
            return {}
        if left:
            raise Unavailable(f"a list of {volume.name} broke off")
        return found


def differences(source: Tree, target: Tree) -> tuple[list[bytes], list[bytes]]:
    """Return the paths to send, parents first, and those to remove before (pure).

    A folder in which anything changes is sent, too: else its time would be that of the change.
    """
    changed = {path for path, digest in source.items() if target.get(path) != digest}
    gone = {path for path in target if path not in source}
    turned = {path for path in changed if path in target and target[path][:1] != source[path][:1]}
    send = set(changed)
    for path in (*changed, *gone):
        while path != b"." and (path := path.rpartition(b"/")[0] or b".") not in send:
            if path in source:
                send.add(path)
    return [path for path in source if path in send], sorted(gone | turned)


async def _both(one: Coroutine[Any, Any, T], other: Coroutine[Any, Any, T]) -> tuple[T, T]:
    """Wait for both at once. Raises what the first of them raises that fails."""
    group = asyncio.TaskGroup()
    try:
        async with group:
            tasks = group.create_task(one), group.create_task(other)
    except ExceptionGroup as failed:
        cancelled.settle(group)
        raise failed.exceptions[0] from None
    return tasks[0].result(), tasks[1].result()


async def _joined(paths: list[bytes]) -> AsyncIterator[bytes]:
    piece = bytearray()
    for path in paths:
        piece += path + b"\0"
        if len(piece) > PIECE:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


def _draft(volume: Volume) -> str:
    """Return what a volume's copy is called on the target until it has its name."""
    move = volume.move
    assert move is not None
    name = move.id.lower().replace("_", "-")
    if not move.along:
        return name
    return f"{name}-{sorted((volume.name, *move.along)).index(volume.name)}"
