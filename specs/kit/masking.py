"""Hide the values of variables whose names say that they are secret, where we print them ourselves.

Asked by everything of ours that shows a spec, an environment or somebody else's words about them:
the daemons' log (kit/log.py), events and progress, the rows of ``ps``, findings about a file. What
containers print and what ``corral config`` prints is the user's own and never comes here.

Pure. A name decides, never what a value looks like; in running text only forms that cannot be
prose count: ``NAME=value``, a quoted name with a colon, a name in capitals with a colon, and an
option's value in a command.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
_WORD = "(?:PASSWORD|SECRET|TOKEN|KEY)"
_SECRET = re.compile(_WORD, re.IGNORECASE)
# A name is looked at where it begins, and once: a text of any length costs its length.
_NAME = rf"(?<![A-Za-z0-9_.-])(?=[A-Za-z0-9_.-]*?{_WORD})[A-Za-z0-9_.-]+"
_CAPITALS = rf"(?-i:(?<![A-Za-z0-9_.-])(?=[A-Z0-9_]*?{_WORD})[A-Z0-9_]+)"
_REST = r"(?:\\.|(?!(?P=%s))[^\\])*"  # of what is quoted; the text may end before it does
_TEXT = re.compile(
    rf"(?P<item>['\"]){_NAME}=(?P<whole>{_REST % 'item'})"
    rf"|(?P<quote>['\"]){_NAME}(?P=quote)\s*:\s*"
    rf"(?P<value>(?P<open>['\"]){_REST % 'open'}(?P=open)?|[^\s,}}\][{{'\"][^\s,}}\]]*)"
    rf"|(?:{_NAME}=|{_CAPITALS}:[ \t]+)"
    rf"(?P<plain>(?P<by>['\"]){_REST % 'by'}(?P=by)?|[^\s'\"]\S*)",
    re.DOTALL | re.IGNORECASE,
)
_EMPTY = ("", "''", '""')


def is_secret(name: str) -> bool:
    """Say whether the value of a variable of this name is not to be shown."""
    return _SECRET.search(name) is not None


def value(name: str, shown: str) -> str:
    """Return what may be shown of a variable's value; an empty one is no secret."""
    return HIDDEN if shown and is_secret(name) else shown


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables as they may be shown."""
    return {name: value(name, shown) for name, shown in variables.items()}


def text(said: str) -> str:
    """Return a text with the values hidden that it gives secret names."""
    return _TEXT.sub(_hide, said) if _SECRET.search(said) else said


def _hide(found: re.Match[str]) -> str:
    group = next(name for name in ("whole", "value", "plain") if found[name] is not None)
    shown = found[group]
    if shown in _EMPTY or shown.startswith(HIDDEN):
        return found[0]
    quote = shown[0] if group == "value" and shown[0] in "'\"" else ""
    return f"{found[0][: -len(shown)]}{quote}{HIDDEN}{quote}"


def words(command: tuple[str, ...]) -> tuple[str, ...]:
    """Return a command as it may be shown: also without the word after ``--some-password``."""
    shown = []
    hide = False
    for word in command:
        shown.append(HIDDEN if hide and not word.startswith("-") else text(word))
        hide = word.startswith("-") and "=" not in word and " " not in word and is_secret(word)
    return tuple(shown)


def data(value_: Any) -> Any:
    """Return JSON-like data as it may be shown: mappings by their names, texts by what they say."""
    if isinstance(value_, str):
        return text(value_)
    if isinstance(value_, Mapping):
        return {
            name: HIDDEN
            if isinstance(one, str | bytes) and one and is_secret(str(name))
            else data(one)
            for name, one in value_.items()
        }
    if isinstance(value_, list | tuple | set | frozenset):
        return [data(one) for one in value_]
    return value_
