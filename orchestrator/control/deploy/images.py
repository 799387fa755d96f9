"""A pending release's images: built and resolved to digests, in parallel.

One ``ReleaseImages`` per pending release runs beside the control loop. It asks agents and
returns digests or the reason why there are none; writing the result is control.py's.
Repeating it after a controller's death is harmless: builds and pulls are idempotent.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from orchestrator.control.deploy.orders import orders, whole_name
from orchestrator.control.mirror.node_view import heard, node_of_client
from orchestrator.errors import Invalid, RequestError, Unavailable
from specs.api import Progress
from specs.kit import cancelled
from specs.kit.amounts import size
from specs.wire import BuildImage, ResolveImage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.contracts import Agents
    from orchestrator.control.deploy.orders import BuildOrder, Policy, PullOrder
    from orchestrator.control.mirror.cluster import Cluster
    from specs.api import Release
    from specs.kit.clock import Clock
    from specs.stack import StackSpec

NODE_WAIT = 30.0  # seconds to wait for a node that can do the work
RETRY_DELAYS = (0.5, 2.0, 4.0)  # between tries at a registry that does not answer
TELL_FIRST = 1.0  # seconds before the first word on a transfer; then ever more rarely
TELL_MOST = 5.0
AT_ONCE = 4  # images asked for in parallel


class NoImage(Exception):
    """An image cannot be had; the message names service, image and reason."""


@dataclass(frozen=True)
class ReleaseImages:
    """Everything needed to resolve one release's images."""

    cluster: Cluster
    agents: Agents
    clock: Clock
    release: Release
    spec: StackSpec
    tell: Callable[[Progress], None]
    builds: bool = True  # else what would have to be built is not there

    async def images(self) -> dict[str, str]:
        """Return service -> manifest digest of every service the release is about.

        Raises NoImage.
        """
        # The image of a carried one is pinned since the release it comes from.
        wanted = [
            spec for name, spec in self.spec.services.items() if name not in self.spec.carried
        ]
        if self.release.rollback_to:
            return await self._pinned([service.name for service in wanted])
        pulls, builds = orders(wanted, self.release.pull)
        limit = asyncio.Semaphore(AT_ONCE)
        # Builds of one name wait for each other: the last one keeps it.
        turns = {whole_name(image): asyncio.Lock() for order in builds for image in order.images}
        result: dict[str, str] = {}

        async def resolve(order: PullOrder) -> None:
            async with limit:
                telling = asyncio.create_task(self._transfers(order), name=f"bytes {order.image}")
                try:
                    digest = await self._resolve(order.services[0], order.image, order.policy)
                finally:
                    telling.cancel()
                    await asyncio.wait({telling})
            result.update(dict.fromkeys(order.services, digest))

        async def build(order: BuildOrder) -> None:
            async with AsyncExitStack() as held:
                for name in sorted({whole_name(image) for image in order.images}):
                    await held.enter_async_context(turns[name])
                async with limit:
                    result.update(await self._built(order))

        group = asyncio.TaskGroup()
        with _first_alone(group):
            async with group:
                for pull in pulls:
                    group.create_task(resolve(pull), name=f"image {pull.image}")
                for order in builds:
                    group.create_task(build(order), name=f"build {order.services[0]}")
        return result

    async def _pinned(self, names: list[str]) -> dict[str, str]:
        """Return the digests that a rollback goes back to, all of which some node has or can get.

        Raises NoImage: nothing has been stopped so far.
        """
        found = {n: self.release.pinned[n] for n in names if self.release.pinned.get(n)}
        wanted = {d: self.spec.services[n].task.image for n, d in sorted(found.items())}
        users = {digest: name for name, digest in sorted(found.items(), reverse=True)}
        limit = asyncio.Semaphore(AT_ONCE)

        async def look(digest: str, image: str) -> None:
            async with limit:
                await self._found(users[digest], image, digest)

        group = asyncio.TaskGroup()
        with _first_alone(group):
            async with group:
                for digest, image in wanted.items():
                    group.create_task(look(digest, image), name=f"image {digest}")
        return found

    async def _found(self, service: str, image: str, digest: str) -> None:
        """Have a node say that it has these very bytes, else one fetch them."""
        exact = f"{_unpinned(image)}@{digest}"
        first = await self._node(builder=False)
        silent = []
        for node in [first, *(n for n in sorted(self.cluster.nodes) if n != first)]:
            try:
                await self.agents.resolve_image(node, ResolveImage(image=exact, policy="never"))
            except Invalid:
                continue
            except RequestError:
                silent.append(self.cluster.nodes[node].name)
            else:
                return
        try:
            await self.agents.resolve_image(first, ResolveImage(image=exact, policy="missing"))
        except RequestError as exc:
            raise NoImage(self._gone(service, image, digest, _words(exc), silent)) from exc

    def _gone(self, service: str, image: str, digest: str, why: str, silent: list[str]) -> str:
        number = self.release.rollback_to
        text = f"{service}: image {image} of release {number} ({digest[:19]}) is on no node"
        if silent:
            text += f" that answers ({', '.join(silent)} may have it)"
        text += f", and cannot be fetched: {why}"
        source = self.cluster.releases.get((self.release.stack, number))
        commit = source.by.commit[:12] if source is not None else ""
        where = f"commit {commit}" if commit else f"the files of release {number}"
        return f"{text}. Nothing was changed. `corral up -d --build` from {where} makes it anew"

    async def _node(self, *, builder: bool) -> str:
        """Wait for a node to do the work: the CLI's machine, which has files and credentials."""
        until = self.clock.monotonic() + NODE_WAIT
        while True:
            ready = heard(self.cluster)
            client = node_of_client(self.cluster.nodes, self.release.client.boot_id)
            if client in ready:
                return client
            if ready and not (builder and self.release.client.boot_id):
                return ready[0]
            if self.clock.monotonic() >= until:
                raise NoImage(self._no_node(ready, builder=builder, client=client))
            await asyncio.sleep(0.05)

    def _no_node(self, ready: list[str], *, builder: bool, client: str | None) -> str:
        if builder and ready and client is None:
            host = self.release.client.hostname or "the machine the command ran on"
            return (
                f"{host} is no node of this cluster, so its build contexts cannot be reached; "
                "run the command on a node, or push the image to a registry and name it"
            )
        reasons = [
            f"{self.cluster.nodes[n].name}: {c.reason or c.status}"
            for n, c in sorted(self.cluster.conditions.items())
            if n in self.cluster.nodes
        ]
        return "no node is ready" + (f" ({'; '.join(reasons[:3])})" if reasons else "")

    async def _transfers(self, order: PullOrder) -> None:
        """Tell how far an image is that takes a while, each service that waits for it."""
        pause = TELL_FIRST
        while True:
            await asyncio.sleep(pause)
            try:
                node = await self._node(builder=False)
                done, total = await self.agents.transfer(node, order.image)
            except (RequestError, NoImage):
                continue  # the pull itself says what is wrong
            if total:
                pause = min(pause * 1.5, TELL_MOST)
                for name in order.services:
                    self._say(
                        name, f"image {order.image}: {size(done)} of {size(total)}", doing="image"
                    )

    async def _resolve(self, service: str, image: str, policy: Policy) -> str:
        node = await self._node(builder=False)
        for delay in (*RETRY_DELAYS, None):
            try:
                found = await self.agents.resolve_image(
                    node, ResolveImage(image=image, policy=policy)
                )
            except Unavailable as exc:
                if delay is None:
                    raise NoImage(f"{service}: image {image}: {_words(exc)}") from exc
                self._say(service, f"image {image}: {exc.detail}; trying again", doing="image")
                await asyncio.sleep(delay)
                node = await self._node(builder=False)
            except RequestError as exc:
                raise NoImage(f"{service}: image {image}: {_words(exc)}") from exc
            else:
                return found.digest
        raise AssertionError("the last try returns or raises")

    async def _built(self, order: BuildOrder) -> dict[str, str]:
        """Return service -> digest of everybody the build is for; what is there is not made."""
        node = await self._node(builder=True)
        found: dict[str, str] = {}
        wanted: list[str] = []
        for image, services in order.images.items():
            digest = await self._there(order, image, node)
            if digest is None:
                wanted.append(image)
            else:
                found.update(dict.fromkeys(services, digest))
        if wanted and not self.builds:
            raise NoImage(f"{wanted[0]} would have to be built")
        if wanted:
            digest = await self._build(order, wanted, node)
            found.update({name: digest for image in wanted for name in order.images[image]})
        return found

    async def _there(self, order: BuildOrder, image: str, node: str) -> str | None:
        """Return the digest of an image that need not be built; None = build it."""
        service, asked = order.images[image][0], self.release.services
        named = not asked or any(name in asked for name in order.images[image])
        never = self.release.build == "never"
        if not never and (order.forced or (self.release.build == "always" and named)):
            return None
        try:
            found = await self.agents.resolve_image(node, ResolveImage(image=image, policy="never"))
        except Invalid:
            if never:
                raise NoImage(
                    f"{service}: image {image} is not there and building is switched off"
                ) from None
            return None
        except RequestError as exc:
            raise NoImage(f"{service}: image {image}: {_words(exc)}") from exc
        return found.digest

    async def _build(self, order: BuildOrder, images: list[str], node: str) -> str:
        tag, *others = images
        service = order.images[tag][0]
        spec = order.build.model_copy(update={"tags": (*others, *order.build.tags)})
        for name in order.services:
            with_whom = f", with {service}" if name != service else ""
            self._say(name, f"building {tag}{with_whom}")
        if order.rivals:
            self._say(
                service,
                f"{', '.join(order.rivals)} builds {tag} in another way: each gets its own;"
                " give them different names with image:",
                kind="warning",
            )
        last: list[str] = []
        try:
            async for event in self.agents.build(node, BuildImage(tag=tag, build=spec)):
                if event.digest:
                    return event.digest
                if event.error:
                    raise NoImage(_build_failed(service, tag, event.error, last))
                last = [*last[-9:], event.line]
                self._say(service, event.line)
        except RequestError as exc:
            raise NoImage(f"{service}: the build did not finish: {_words(exc)}") from exc
        raise NoImage(f"{service}: the build ended without an image")

    def _say(
        self,
        service: str,
        line: str,
        kind: Literal["build", "warning"] = "build",
        *,
        doing: str = "",
    ) -> None:
        self.tell(
            Progress(
                kind=kind,
                time=self.clock.wall(),
                stack=self.release.stack,
                service=service,
                message=line,
                doing=doing,
            )
        )


def _build_failed(service: str, image: str, error: str, last: list[str]) -> str:
    tail = "".join(f"\n  {line}" for line in last)
    return f"{service}: the build of {image} failed: {error}{tail}"


def _unpinned(image: str) -> str:
    """Return the name of an image without tag and digest."""
    name = image.partition("@")[0]
    head, slash, tail = name.rpartition("/")
    return f"{head}{slash}{tail.partition(':')[0]}"


def _words(exc: RequestError) -> str:
    return f"{exc.detail}; {exc.hint}" if exc.hint else exc.detail


@contextlib.contextmanager
def _first_alone(group: asyncio.TaskGroup) -> Iterator[None]:
    """Have the first image that cannot be had stand for a group's; raises NoImage."""
    try:
        yield
    except ExceptionGroup as group_error:
        cancelled.settle(group)
        expected, others = group_error.split(NoImage)
        if expected is None or others is not None:
            raise
        # All failures in one go would be kinder, but the first one cancels the rest.
        raise NoImage(str(_first(expected))) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
