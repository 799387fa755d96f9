"""Swarm's words in a file, ``{{.Task.Slot}}``: filled in for each task, where it is.

What is no word of Swarm's is somebody else's template, and stays as it is; but for the names of
volumes, where nothing may stay. Stdlib only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from specs.names import NAME

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLACEHOLDER: Final = re.compile(r"\{\{\s*\.([A-Za-z.]+)\s*\}\}")
SLOT: Final = "Task.Slot"
# What a volume may be called by: what its task's successor has, too.
_IN_VOLUMES: Final = {
    "Service.Name": r"_[a-zA-Z0-9._-]+",  # behind the name of its stack
    SLOT: "[0-9]+",
    "Node.Hostname": "[a-zA-Z0-9._-]+",
    "Node.ID": "[a-zA-Z0-9._-]+",
}
HINT: Final = (
    "use letters, digits, '_', '-' and '.', and of Swarm's words {{.Service.Name}}, "
    "{{.Task.Slot}}, {{.Node.Hostname}} and {{.Node.ID}}"
)


def fill(text: str, values: Mapping[str, str]) -> str:
    """Return the text with the words there are values for."""
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), text)


def words(text: str) -> set[str]:
    """Return the words of a text."""
    return set(_PLACEHOLDER.findall(text)) if "{{" in text else set()


def names_nodes(text: str) -> bool:
    """Say whether a text is another one on each node."""
    return any(word.startswith("Node.") for word in words(text))


def volume_name_fault(text: str) -> str:
    """Return what is wrong with the name of a volume; empty = nothing."""
    for word in sorted(words(text) - _IN_VOLUMES.keys()):
        if word in ("Task.ID", "Task.Name"):
            return (
                f"{{{{.{word}}}}} is another one for each new task, which would not find its data"
            )
        return f"{{{{.{word}}}}} is no word for the name of a volume"
    return NAME.fault(fill(text, dict.fromkeys(_IN_VOLUMES, "x")))


def volume_name_pattern(text: str, stack: str) -> str:
    """Return the regular expression of the names that the volumes of a stack have by a template."""
    found, at = "", 0
    for match in _PLACEHOLDER.finditer(text):
        found += re.escape(text[at : match.start()])
        found += re.escape(stack) if match[1] == "Service.Name" else ""
        found += _IN_VOLUMES.get(match[1], re.escape(match[0]))
        at = match.end()
    return found + re.escape(text[at:])
