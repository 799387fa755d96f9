"""A pending release's images: built and resolved to digests, in parallel.

One ``ReleaseImages`` per pending release runs beside the control loop. It asks agents and
returns digests or the reason why there are none; writing the result is control.py's.
Repeating it after a controller's death is harmless: builds and pulls are idempotent.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from orchestrator.control.mirror.node_view import node_of_client
from orchestrator.errors import Invalid, RequestError, Unavailable
from specs.api import Progress
from specs.wire import BuildImage, ResolveImage

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.contracts import Agents
    from orchestrator.control.mirror.cluster import Cluster
    from specs.api import Release
    from specs.kit.clock import Clock
    from specs.stack import ServiceSpec, StackSpec

NODE_WAIT = 30.0  # seconds to wait for a node that can do the work
RETRY_DELAYS = (0.5, 2.0, 4.0)  # between tries at a registry that does not answer
AT_ONCE = 4  # images asked for in parallel

Policy = Literal["always", "missing", "never"]


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

    async def images(self) -> dict[str, str]:
        """Return service -> manifest digest of every service the release is about.

        Raises NoImage.
        """
        limit = asyncio.Semaphore(AT_ONCE)
        plain: dict[tuple[str, Policy], list[str]] = {}
        builds: list[ServiceSpec] = []
        for name, service in sorted(self.spec.services.items()):
            if name in self.spec.carried:
                continue  # its image is pinned since the release it comes from
            if service.build is not None:
                builds.append(service)
            else:
                policy = self._policy(service)
                plain.setdefault((service.task.image, policy), []).append(name)
        result: dict[str, str] = {}

        async def resolve(image: str, policy: Policy, services: list[str]) -> None:
            async with limit:
                digest = await self._resolve(services[0], image, policy)
            result.update(dict.fromkeys(services, digest))

        async def build(service: ServiceSpec) -> None:
            async with limit:
                result[service.name] = await self._built(service)

        try:
            async with asyncio.TaskGroup() as group:
                for (image, policy), services in plain.items():
                    group.create_task(resolve(image, policy, services), name=f"image {image}")
                for service in builds:
                    group.create_task(build(service), name=f"build {service.name}")
        except ExceptionGroup as group_error:
            expected, others = group_error.split(NoImage)
            if expected is None or others is not None:
                raise
            # All failures in one go would be kinder, but the first one cancels the rest.
            raise NoImage(str(_first(expected))) from None
        return result

    def _policy(self, service: ServiceSpec) -> Policy:
        asked = self.release.pull or service.pull_policy
        if asked in ("always", "never"):
            return "always" if asked == "always" else "never"
        # daily, weekly and every_N ask the registry each time: late is worse than slow.
        if asked in ("daily", "weekly") or asked.startswith("every_"):
            return "always"
        return "missing"

    async def _node(self, *, builder: bool) -> str:
        """Wait for a node to do the work: the CLI's machine, which has files and credentials."""
        until = self.clock.monotonic() + NODE_WAIT
        while True:
            conditions = self.cluster.conditions
            ready = sorted(
                n for n, c in conditions.items() if c.status == "ready" and n in self.cluster.nodes
            )
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
                self._say(service, f"image {image}: {exc.detail}; trying again")
                await asyncio.sleep(delay)
                node = await self._node(builder=False)
            except RequestError as exc:
                raise NoImage(f"{service}: image {image}: {_words(exc)}") from exc
            else:
                return found.digest
        raise AssertionError("the last try returns or raises")

    async def _built(self, service: ServiceSpec) -> str:
        assert service.build is not None
        node = await self._node(builder=True)
        image = service.task.image
        named = not self.release.services or service.name in self.release.services
        always = self.release.build == "always" and named
        if not always and service.pull_policy != "build":
            try:
                found = await self.agents.resolve_image(
                    node, ResolveImage(image=image, policy="never")
                )
            except Invalid:
                if self.release.build == "never":
                    raise NoImage(
                        f"{service.name}: image {image} is not there and building is switched off"
                    ) from None
            except RequestError as exc:
                raise NoImage(f"{service.name}: image {image}: {_words(exc)}") from exc
            else:
                return found.digest
        return await self._build(service, node)

    async def _build(self, service: ServiceSpec, node: str) -> str:
        assert service.build is not None
        self._say(service.name, f"building {service.task.image}")
        last: list[str] = []
        try:
            events = self.agents.build(
                node, BuildImage(tag=service.task.image, build=service.build)
            )
            async for event in events:
                if event.digest:
                    return event.digest
                if event.error:
                    raise NoImage(_build_failed(service, event.error, last))
                last = [*last[-9:], event.line]
                self._say(service.name, event.line)
        except RequestError as exc:
            raise NoImage(f"{service.name}: the build did not finish: {_words(exc)}") from exc
        raise NoImage(f"{service.name}: the build ended without an image")

    def _say(self, service: str, line: str) -> None:
        self.tell(
            Progress(
                kind="build",
                time=self.clock.wall(),
                stack=self.release.stack,
                service=service,
                message=line,
            )
        )


def _build_failed(service: ServiceSpec, error: str, last: list[str]) -> str:
    tail = "".join(f"\n  {line}" for line in last)
    return f"{service.name}: the build of {service.task.image} failed: {error}{tail}"


def _words(exc: RequestError) -> str:
    return f"{exc.detail}; {exc.hint}" if exc.hint else exc.detail


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
