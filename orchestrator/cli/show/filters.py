"""``--filter KEY=VALUE`` of every list, with Docker's meaning. Pure.

Words of one key: any of them; of ``label``: all of them; different keys: all of them. ``name``
is a regular expression that is found anywhere, ``id`` the beginning of an id.
"""

from __future__ import annotations

import re

from orchestrator.cli.errors import USAGE, CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from typing import Any


def describe(parser: argparse.ArgumentParser, known: Sequence[str], *, short: bool = True) -> None:
    """Add --filter to a list verb; ``short``: with Docker's -f, which a prune has for --force."""
    help_ = f"only what fits (repeatable): {', '.join(known)}"
    names = ("-f", "--filter") if short else ("--filter",)
    parser.add_argument(*names, action="append", default=[], metavar="KEY=VALUE", help=help_)


def parse(words: Sequence[str], known: Sequence[str]) -> dict[str, list[str]]:
    """Return key -> its words. Raises CliError."""
    found: dict[str, list[str]] = {}
    for word in words:
        key, mark, value = word.partition("=")
        if not mark or not key:
            # Behind `ls` and `ps` it is Docker's -f; before them Compose's.
            hint = f"a Compose file stands before the command: corral -f {word} ..."
            raise CliError(f"--filter {word!r} is not KEY=VALUE", hint, code=USAGE)
        if key not in known:
            raise CliError(
                f"--filter {word}: nothing is filtered by {key}",
                hint=f"one of {', '.join(known)}",
                code=USAGE,
            )
        if key == "name":
            try:
                re.compile(value)
            except re.error as exc:
                raise CliError(f"--filter {word}: {exc}", code=USAGE) from None
        found.setdefault(key, []).append(value)
    return found


def keeps(wanted: Mapping[str, Sequence[str]], facts: Mapping[str, Any]) -> bool:
    """Say whether ``facts`` (key -> text, collection of texts, or the labels) fit."""
    return all(_fits(key, words, facts.get(key)) for key, words in wanted.items())


def _fits(key: str, words: Sequence[str], fact: Any) -> bool:
    if key == "label":
        return all(_labelled(word, fact or {}) for word in words)
    if key == "name":
        return any(re.search(word, str(fact)) for word in words)
    if key == "id":
        return any(str(fact).startswith(word) for word in words)
    if isinstance(fact, list | tuple | set | frozenset):
        return any(word in fact for word in words)
    return any(word == str(fact) for word in words)


def _labelled(word: str, labels: Mapping[str, str]) -> bool:
    name, mark, content = word.partition("=")
    return name in labels and (not mark or labels[name] == content)
