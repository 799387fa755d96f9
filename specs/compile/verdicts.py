"""What corral says of the keys a file uses: refusals and warnings.

The verdicts come from :mod:`specs.compile.support`; the compiler adds those that depend on
a value. One :class:`Verdicts` lives for one compilation.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from specs.compile.support import EXTENSIONS, KeyVerdict, support_of
from specs.compile.values import duration_seconds
from specs.compose.reading.tree import mark_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from specs.compose.reading.tree import SourceMark
    from specs.findings import Findings

Json = dict[str, Any]

_NAMED = frozenset({"services", "networks", "volumes", "secrets", "configs", "models"})
_FREE = frozenset(
    {
        "environment",
        "labels",
        "annotations",
        "sysctls",
        "ulimits",
        "extra_hosts",
        "args",
        "options",
        "driver_opts",
        "storage_opt",
        "depends_on",
        "additional_contexts",
    }
)

_HARMLESS = {
    "networks.*.ipam.driver": ("default",),
    "services.*.cgroup": ("private",),
    "services.*.userns_mode": (),
}


def _harmless(pattern: str, value: Any) -> bool:
    if pattern == "volumes.*.driver_opts":
        # `type: ${VOLUME_TYPE}` with nothing set is a volume like any other, as for Docker.
        return not any((value or {}).values())
    return value in _HARMLESS.get(pattern, ()) or (
        pattern == "networks.*.enable_ipv4" and value is True
    )


class KeyUse(NamedTuple):
    """One key a file uses: ``pattern`` is its path in specs.compile.support's notation."""

    path: str
    pattern: str
    value: Any
    mark: SourceMark | None  # where it was written; None in a plain mapping and for defaults


def key_uses(project: Json) -> Iterator[KeyUse]:
    """Yield every key used, outer ones first."""
    todo: list[tuple[Any, str, str, bool]] = [(project, "", "", True)]
    while todo:
        node, path, pattern, named = todo.pop()
        if isinstance(node, list):
            todo.extend(
                (item, f"{path}[{index}]", f"{pattern}[]", False)
                for index, item in enumerate(node)
                if isinstance(item, dict | list)
            )
            continue
        is_name = pattern in _NAMED or pattern == "services.*.networks"
        for key, value in node.items():
            if key.startswith("x-") and not (named and pattern):
                continue
            here = f"{path}.{key}" if path else key
            like = f"{pattern}.{'*' if is_name else key}" if pattern else key
            yield KeyUse(here, like, value, mark_of(node, key))
            if isinstance(value, dict | list) and (key not in _FREE or is_name):
                names = like in _NAMED or like == "services.*.networks"
                todo.append((value, here, like, names))


class Verdicts:
    """How the compiler tells its findings, and the verdicts that need no compiling."""

    def __init__(self, project: Json, findings: Findings) -> None:
        self.project = project
        self.findings = findings

    def refuse(self, path: str, message: str, hint: str = "", code: str = "refused") -> None:
        self.findings.error(message, code=code, path=path, hint=hint)

    def warn(self, path: str, message: str, hint: str = "", code: str = "not-honoured") -> None:
        self.findings.warn(message, code=code, path=path, hint=hint)

    def apply_table(self) -> None:
        done: set[str] = set()
        for path, pattern, value, _ in key_uses(self.project):
            support = support_of(pattern)
            if value in (None, "", [], {}, False) or _harmless(pattern, value):
                continue
            if any(path.startswith((f"{seen}.", f"{seen}[")) for seen in done):
                continue
            key = path.rpartition(".")[2]
            if support.verdict is KeyVerdict.REFUSED:
                done.add(path)
                self.refuse(path, f"corral does not run `{key}`", support.note)
            elif support.verdict in (KeyVerdict.LATER, KeyVerdict.IGNORED):
                done.add(path)
                word = (
                    "is not honoured yet"
                    if support.verdict is KeyVerdict.LATER
                    else "has no meaning here"
                )
                self.warn(path, f"`{key}` {word}", support.note)

    def unknown_extensions(self, mapping: Json, path: str) -> None:
        place = re.sub(r"^(\w+)\..*\.", r"\1.*.", path)
        known = {key.rpartition(".")[2] for key in EXTENSIONS if key.startswith(f"{place}.")}
        for key in mapping:
            if key not in known:
                self.refuse(
                    f"{path}.{key}",
                    f"unknown corral setting `{key}`",
                    f"known here: {', '.join(sorted(known)) or 'none'}",
                    code="unknown-key",
                )

    def unknown_keys(self, holder: Json, path: str, known: Collection[str]) -> None:
        """Refuse each key of corral's own mapping at ``path`` that is none of the known ones."""
        for key in holder:
            if key not in known:
                self.refuse(
                    f"{path}.{key}",
                    f"unknown setting `{key}`",
                    f"known here: {', '.join(known)}",
                    code="unknown-key",
                )

    def word(self, holder: Json, path: str, known: Collection[str]) -> str | None:
        """Return the word at the last key of ``path``; None where there is none or a wrong one."""
        word = holder.get(path.rpartition(".")[2])
        if word is not None and word not in known:
            self.refuse(path, f"{word!r} is not known here", f"use {', '.join(known)}")
            return None
        return word

    def whole(self, holder: Json, path: str, what: str, most: int | None = None) -> int | None:
        """Return the number from 1 on at the last key of ``path``; None: none, or a wrong one.

        ``what`` is counted, in the plural; a text is no number here, as in the schema.
        """
        count = holder.get(path.rpartition(".")[2])
        if count is None:
            return None
        if (
            isinstance(count, bool)
            or not isinstance(count, int)
            or not 1 <= count <= (count if most is None else most)
        ):
            hint = "write a number from 1 on" if most is None else f"write 1 to {most}"
            self.refuse(path, f"{count!r} is no number of {what}", hint)
            return None
        return count

    def duration(self, holder: Json, path: str) -> float | None:
        """Return the seconds at the last key of ``path``; None where nothing is written."""
        value = holder.get(path.rpartition(".")[2])
        if value is None:
            return None
        seconds = duration_seconds(value)
        if seconds is None:
            self.refuse(path, f"{value!r} is not a duration", "write e.g. 30s or 1m30s")
            return 0.0
        return seconds
