"""The words of a command as services and containers: ``specs.kit.called``, with our refusals.

Imported where words were given only: lists without any need none of it.
"""

from __future__ import annotations

from orchestrator.cli.errors import CliError
from specs.kit import called

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from typing import Any

    Rows = list[dict[str, Any]]


def _several(exc: called.Ambiguous) -> CliError:
    return CliError(str(exc), hint="corral ps has their names")


def containers(word: str, rows: Iterable[Mapping[str, Any]]) -> Rows:
    """Return the rows of the container a word calls; it is no service. Raises CliError."""
    try:
        return [dict(row) for row in called.containers(word, rows)]
    except called.Ambiguous as exc:
        raise _several(exc) from None


def serving(rows: Rows) -> Rows:
    """Return the rows but for those that stand by; all of them if all do."""
    return [dict(row) for row in called.serving([*rows])]


def meant(
    words: Sequence[str], rows: Sequence[Mapping[str, Any]], known: Collection[str] = ()
) -> tuple[set[str], set[str], list[str]]:
    """Return services, ids of single containers (and of one-offs), and what nobody is called."""
    try:
        services, single, unknown = called.split(words, rows, known)
    except called.Ambiguous as exc:
        raise _several(exc) from None
    return set(services), {str(row.get("id")) for row in single}, unknown


def whole(
    words: Sequence[str], rows: Sequence[Mapping[str, Any]], verb: str, final: Collection[str]
) -> tuple[list[str], list[str]]:
    """Return services and names of one-offs, for verbs about whole services. Raises CliError.

    What nobody is called is left among the services, for the controller to refuse.
    """
    marked = [{**row, "ended": row.get("state") in final} for row in rows]
    try:
        services, oneoffs, unknown = called.whole(words, marked)
    except called.Ambiguous as exc:
        raise _several(exc) from None
    except called.PartOf as exc:
        raise CliError(f"{exc}: {verb} is about whole services", hint=exc.hint(verb)) from None
    return [*services, *unknown], oneoffs
