"""When an attached `up` ends, with which code, and what it stops: the one place that decides.

Pure: ``attach`` looks at the tasks and asks here after each look. The law is Compose's, with
one difference: a one-off whose clean end others wait for ends nothing, for it is how they
begin. And whoever asked for a service's code never gets 0 for one that did not run.
"""

from __future__ import annotations

from dataclasses import dataclass, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from typing import Any, Literal

NEVER_RAN = 1  # the code asked for, of a service that did not run


@dataclass(frozen=True, slots=True)
class Ends:
    """What was asked for on the command line, and what the files say of it."""

    abort: Literal["", "exit", "failure"] = ""  # stop all when one exits, or fails
    exit_code_from: str = ""  # the service whose code is ours
    stop_timeout: float | None = None
    stops_on_interrupt: bool = True  # else Ctrl-C only detaches
    named: tuple[str, ...] = ()  # on the command line: no others are stopped
    watched: tuple[str, ...] = ()  # their end is ours; none: that of everything
    awaited: Collection[str] = field(default_factory=frozenset)  # others start once it completed


@dataclass(frozen=True, slots=True)
class SeenExit:
    """One end of a container that was seen while we were attached."""

    service: str
    name: str
    code: int


@dataclass(frozen=True, slots=True)
class End:
    """How it ends.

    ``how`` aborted: stop what is ours, then give ``code``; failed: as the release did; over:
    nothing is left of what we are attached to. ``cause``: the exit that aborted it.
    """

    how: Literal["aborted", "failed", "over"]
    cause: SeenExit | None = None


def decide(
    ends: Ends, exits: Iterable[SeenExit], alive: Collection[str], *, deployed: bool | None
) -> End | None:
    """Say whether it ends now; None: it goes on.

    ``exits`` in the order they came, ``alive`` the services of which something has not ended,
    ``deployed`` how the release ended, None while it is under way.
    """
    exits = list(exits)
    cause = next((one for one in exits if _aborts(ends, one)), None)
    if cause is not None:
        return End("aborted", cause)
    if deployed is None:
        return None
    if not deployed:
        return End("failed")
    own = ends.exit_code_from
    if own and own not in alive and all(one.service != own for one in exits):
        return End("aborted")  # nothing of it will ever end: no wait without an end
    watched = set(alive) & set(ends.watched) if ends.watched else set(alive)
    return None if watched else End("over")


def _aborts(ends: Ends, one: SeenExit) -> bool:
    if not ends.abort:
        return False
    if one.code != 0:
        return True
    begins = one.service in ends.awaited and one.service != ends.exit_code_from
    return ends.abort == "exit" and not begins


def code(ends: Ends, end: End, exits: Iterable[SeenExit]) -> tuple[int, str]:
    """Return the exit code once everything has stopped, and words where it needs some."""
    own = ends.exit_code_from
    if not own:
        return end.cause.code if end.cause is not None else 0, ""
    found = next((one for one in exits if one.service == own), None)
    if found is not None:
        return found.code, ""
    why = "nothing of it was left to run"
    if end.cause is not None:
        why = f"{end.cause.name} exited with code {end.cause.code} before"
    return NEVER_RAN, f"{own} did not run, so it has no exit code: {why}"


def awaited(services: Mapping[str, Any]) -> frozenset[str]:
    """Return the services of a Compose model that others start after once they completed."""
    return frozenset(
        other
        for spec in services.values()
        for other, edge in _edges(spec).items()
        if (edge or {}).get("condition") == "service_completed_successfully"
    )


def run_again(ends: Ends, services: Iterable[str]) -> tuple[str, ...]:
    """Return the services that run although they completed before: their end is asked for.

    Without them an `up` that ends with them would wait for ever the second time.
    """
    if ends.exit_code_from:
        return (ends.exit_code_from,)
    if ends.abort == "exit":
        return tuple(sorted(set(services) - set(ends.awaited)))
    return ()


def _edges(spec: Mapping[str, Any] | None) -> Mapping[str, Any]:
    found = (spec or {}).get("depends_on") or {}
    return found if isinstance(found, dict) else dict.fromkeys(found)
