"""What a request's words mean: services of a stack, or single containers of it by name or id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.control.mirror.released import spec_in_force
from orchestrator.control.mirror.serving import beside
from orchestrator.errors import Conflict, NotFound
from specs.kit import called
from specs.states import FINAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.contracts import Mirror
    from specs.task import Task


def _row(cluster: Mirror, task: Task, *, oneoff: bool = False) -> dict[str, Any]:
    return {
        "id": task.id,
        "name": task.name,
        "service": task.service,
        "slot": task.slot,
        "oneoff": oneoff,
        "ended": task.state in FINAL,
        "beside": "" if oneoff else beside(cluster, task),
    }


def _rows(cluster: Mirror, stack: str) -> list[dict[str, Any]]:
    mine = [_row(cluster, task) for task in cluster.tasks_of(stack)]
    ones = [one for one in cluster.oneoffs.values() if one.stack == stack and one.shown]
    return mine + [_row(cluster, one.task, oneoff=True) for one in ones]


def _known(cluster: Mirror, stack: str) -> frozenset[str]:
    spec = spec_in_force(cluster, cluster.stacks.get(stack))
    return frozenset(spec.services if spec else ())


def _split(
    words: Sequence[str], rows: list[dict[str, Any]], known: frozenset[str]
) -> tuple[list[str], list[Mapping[str, Any]], list[str]]:
    """Return services, single containers, and what nobody is called. Raises Conflict."""
    try:
        return called.split(words, rows, known)
    except called.Ambiguous as exc:
        raise _several(exc) from None


def _several(exc: called.Ambiguous) -> Conflict:
    return Conflict(str(exc), hint="corral ps has their names")


def single(
    cluster: Mirror, stack: str, words: Sequence[str]
) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the services among the words, and the ids of single containers. Raises NotFound."""
    rows, known = _rows(cluster, stack), _known(cluster, stack)
    services, found, unknown = _split(words, rows, known)
    if unknown:
        raise _nobody(stack, unknown[0], known | called.services(rows))
    return tuple(services), frozenset(str(row["id"]) for row in found)


def present(
    cluster: Mirror, stack: str, words: Sequence[str]
) -> tuple[frozenset[str], dict[str, str]]:
    """Return services, and the names of single containers with the service they are of.

    What nobody is called counts as a service: it may come. Raises Conflict.
    """
    services, found, unknown = _split(words, _rows(cluster, stack), _known(cluster, stack))
    names = {str(row["name"]): str(row["service"]) for row in found}
    oneoffs = {str(row["name"]) for row in found if row["oneoff"]}
    return frozenset({*services, *unknown}), {
        name: name if name in oneoffs else service for name, service in names.items()
    }


def whole(cluster: Mirror, stack: str, words: Sequence[str], verb: str) -> tuple[str, ...]:
    """Return the words with containers' names replaced by the services they are all of.

    What nobody is called stays, for the command to refuse, but for one-offs that have just ended
    and gone: of these nothing is left to be done. Raises Conflict for one of several.
    """
    rows, known = _rows(cluster, stack), _known(cluster, stack)
    try:
        services, oneoffs, unknown = called.whole(words, rows, known)
    except called.Ambiguous as exc:
        raise _several(exc) from None
    except called.PartOf as exc:
        raise Conflict(f"{exc}: {verb} is about whole services", hint=exc.hint(verb)) from None
    gone = {
        one.task.name
        for one in cluster.oneoffs.values()
        if one.stack == stack and not one.shown and verb in ("stop", "rm", "kill")
    }
    return (*services, *oneoffs, *(word for word in unknown if word not in gone))


def _nobody(stack: str, word: str, known: frozenset[str] | set[str]) -> NotFound:
    there = ", ".join(sorted(known)) or "none"
    return NotFound(
        f"there is no service {word} in {stack} (services: {there})",
        hint="corral ps has the names of containers",
    )


def restarting(
    cluster: Mirror, stack: str, words: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the services to restart, and the ids of single containers that run.

    What has ended is begun anew with its service only. Raises Conflict.
    """
    rows, known = _rows(cluster, stack), _known(cluster, stack)
    services: list[str] = []
    ids: list[str] = []
    for word in words:
        _, found, _ = _split([word], rows, known)
        alive = [str(row["id"]) for row in found if not row["ended"] and not row["oneoff"]]
        ids += alive
        services += () if alive else whole(cluster, stack, [word], "restart")
    return tuple(dict.fromkeys(services)), tuple(dict.fromkeys(ids))
