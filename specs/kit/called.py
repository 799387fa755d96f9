"""What a person calls a container by, for every verb that takes SERVICE: one resolver. Pure.

A word is a service, else a container: by its name as ``ps`` shows it, as ``logs`` does (``web-1``),
by its id or the beginning of it (``ps -q``), or by the name old Compose gave it (``shop_web_1``).
A service wins: that is what Compose takes. Of two of a name one may stand by (blue-green): the
other is meant, and the one that stands by is called by its id.

Rows are mappings with ``id``, ``name``, ``service``, ``slot``, ``oneoff`` and ``beside``, as
``corral ps`` has.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself costs the command line milliseconds
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from typing import Any

    Row = Mapping[str, Any]

SHORTEST = 4  # letters of an id that may stand for it
STANDS_BY = "stands by"  # as a row's ``beside`` says it


class Ambiguous(Exception):
    """A beginning of several ids."""


class PartOf(Exception):
    """One of several containers of a service, where only a whole service can be meant."""

    def __init__(self, word: str, service: str, count: int) -> None:
        super().__init__(f"{word} is one of {count} containers of {service}")
        self.service = service
        self.count = count

    def hint(self, verb: str) -> str:
        """Return what to type instead."""
        less = f"; corral scale {self.service}={self.count - 1} for one less"
        return f"corral {verb} {self.service}{less if verb in ('stop', 'rm', 'kill') else ''}"


def containers(word: str, rows: Iterable[Row]) -> list[Row]:
    """Return what the word calls by a container's name or id; it is no service. Raises Ambiguous.

    A name may have several rows: what runs, and what ended before.
    """
    rows = list(rows)
    for known in (_named, _short, _with_id, _of_old):
        if found := [row for row in rows if known(word, row)]:
            return found if known is _with_id else serving(found)
    begun = [row for row in rows if len(word) >= SHORTEST and str(row.get("id")).startswith(word)]
    if len({row.get("id") for row in begun}) > 1:
        raise Ambiguous(f"{word} is the beginning of {len(begun)} ids")
    return begun


def serving(rows: list[Row]) -> list[Row]:
    """Return the rows but for those that stand by, which only their ids call; all if all do."""
    return [row for row in rows if row.get("beside") != STANDS_BY] or rows


def _named(word: str, row: Row) -> bool:
    return bool(row.get("name") == word)


def _short(word: str, row: Row) -> bool:
    service, name = row.get("service"), str(row.get("name"))
    numbered = row.get("slot") and word == f"{service}-{row['slot']}"
    return bool(numbered) or (word.startswith(f"{service}-") and name.endswith(f"-{word}"))


def _with_id(word: str, row: Row) -> bool:
    return bool(row.get("id") == word)


def _of_old(word: str, row: Row) -> bool:
    return "_" in word and str(row.get("name")).replace("_", "-") == word.replace("_", "-")


def services(rows: Iterable[Row]) -> set[str]:
    """Return the services that have containers of their own among these."""
    return {str(row.get("service")) for row in rows if not row.get("oneoff")}


def split(
    words: Sequence[str], rows: Iterable[Row], known: Collection[str] = ()
) -> tuple[list[str], list[Row], list[str]]:
    """Return which services the words are, which containers, and what nobody is called.

    ``known``: services besides those that have containers. Raises Ambiguous.
    """
    rows = list(rows)
    there = services(rows) | {*known}
    named: list[str] = []
    single: list[Row] = []
    unknown: list[str] = []
    for word in words:
        if word in there:
            named.append(word)
        elif found := containers(word, rows):
            single += found
        else:
            unknown.append(word)
    return named, single, unknown


def whole(
    words: Sequence[str], rows: Iterable[Row], known: Collection[str] = ()
) -> tuple[list[str], list[str], list[str]]:
    """Return services, names of one-offs, and what nobody is called, for verbs about services.

    The only container of a service stands for it. Raises Ambiguous, PartOf.
    """
    rows = list(rows)
    named, oneoffs, unknown = [], [], []
    for word in words:
        ours, single, nobody = split([word], rows, known)
        named += ours
        unknown += nobody
        for row in single[:1]:
            if row.get("oneoff"):
                oneoffs.append(str(row["name"]))
                continue
            service = str(row["service"])
            names = {row["name"]} | {
                other["name"]
                for other in rows
                if other.get("service") == service
                and not other.get("oneoff")
                and not other.get("ended")
            }
            if len(names) > 1:
                raise PartOf(word, service, len(names))
            named.append(service)
    return list(dict.fromkeys(named)), list(dict.fromkeys(oneoffs)), unknown
