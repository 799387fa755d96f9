"""Which images a release needs, each of them once (pure).

Services that say `image: X` where another one builds X mean that build, and several
services with one build, under one name or several, cause one. Which is which is decided
here, before any node is asked; ``images.py`` carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from specs.base import content_hash

if TYPE_CHECKING:
    from collections.abc import Iterable

    from specs.stack import BuildSpec, ServiceSpec

Policy = Literal["always", "missing", "never"]


@dataclass(frozen=True)
class PullOrder:
    """An image some services take from a registry, or from what their node has."""

    image: str
    policy: Policy
    services: tuple[str, ...]


@dataclass(frozen=True)
class BuildOrder:
    """One build: which services it is for, by the name each has for its image.

    ``forced`` = made whatever is there already: a service says `pull_policy: build`, or
    the image's name alone does not tell whose build it is.
    """

    build: BuildSpec
    images: dict[str, tuple[str, ...]]
    forced: bool
    rivals: tuple[str, ...] = ()  # services that make an image of the same name otherwise

    @property
    def services(self) -> tuple[str, ...]:
        return tuple(sorted({name for names in self.images.values() for name in names}))


def orders(
    services: Iterable[ServiceSpec], pull: str | None
) -> tuple[list[PullOrder], list[BuildOrder]]:
    """Return what to pull and what to build; builds of one name in the order to make them.

    ``pull`` is what the command line said, over the services' own policy. A service
    without `build:` whose image two others build differently gets the last one's by name,
    as that is what the name means afterwards.
    """
    ordered = sorted(services, key=lambda service: service.name)
    members: dict[str, list[ServiceSpec]] = {}  # a build's key -> whom it is for
    makers: dict[str, list[ServiceSpec]] = {}  # an image's whole name -> who builds it
    for service in ordered:
        if service.build is not None:
            members.setdefault(_key(service), []).append(service)
            makers.setdefault(whole_name(service.task.image), []).append(service)
    pulls: dict[tuple[str, Policy], list[str]] = {}
    for service in ordered:
        if service.build is not None:
            continue
        made = makers.get(whole_name(service.task.image))
        if made and policy_of(service.pull_policy) != "always":
            members[_key(made[-1])].append(service)
        else:
            policy = policy_of(pull or service.pull_policy)
            pulls.setdefault((service.task.image, policy), []).append(service.name)
    return (
        [PullOrder(image, policy, tuple(names)) for (image, policy), names in pulls.items()],
        [_order(key, services, makers) for key, services in members.items()],
    )


def _key(service: ServiceSpec) -> str:
    """Return what is equal where the same thing is built."""
    assert service.build is not None
    return content_hash(service.build.model_copy(update={"tags": ()}))


def _order(
    key: str, members: list[ServiceSpec], makers: dict[str, list[ServiceSpec]]
) -> BuildOrder:
    build = members[0].build
    assert build is not None
    images: dict[str, tuple[str, ...]] = {}
    spelled: dict[str, str] = {}  # whole name -> as the first one writes it
    for service in members:
        image = spelled.setdefault(whole_name(service.task.image), service.task.image)
        images[image] = (*images.get(image, ()), service.name)
    tags = dict.fromkeys(tag for member in members if member.build for tag in member.build.tags)
    rivals = {other.name for name in spelled for other in makers[name] if _key(other) != key}
    return BuildOrder(
        build=build.model_copy(update={"tags": tuple(tags)}),
        images=images,
        forced=bool(rivals) or any(member.pull_policy == "build" for member in members),
        rivals=tuple(sorted(rivals)),
    )


def policy_of(asked: str) -> Policy:
    """Return what a node is asked for: daily and its like are always, for late is worse."""
    if asked == "never":
        return "never"
    if asked in ("always", "daily", "weekly") or asked.startswith("every_"):
        return "always"
    return "missing"


def whole_name(image: str) -> str:
    """Return an image's name so that two spellings of one name are equal."""
    name = image.removeprefix("docker.io/").removeprefix("library/")
    plain = "@" not in name and ":" not in name.rpartition("/")[2]
    return f"{name}:latest" if plain else name
