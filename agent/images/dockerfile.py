"""Which images a Dockerfile needs before it can be built (pure).

Called by agent.images.build so that bases come through our own store: a locally built name
and an image of a registry are found the same way, by the same rules. It reads just enough
of the language for that; buildah interprets the file itself, and whatever is missed here
is left to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agent.images.manifest import host_platform

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_VARIABLE: Final = re.compile(
    r"\\\$|\$(?:(?P<plain>\w+)|\{(?P<name>\w+)(?::?(?P<how>[-+])(?P<word>[^}]*))?\})"
)
_HEREDOC: Final = re.compile(r"<<-?\s*[\"']?(\w+)[\"']?")
_MOUNT_FROM: Final = re.compile(r"--mount=\S*?\bfrom=([^\s,]+)")
_COPY_FROM: Final = re.compile(r"--from=(\S+)")


@dataclass
class Stage:
    """One FROM and what its steps refer to."""

    base: str
    name: str = ""
    needs: list[str] = field(default_factory=list)


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield (KEYWORD, rest) for each instruction: continuations joined, comments left out."""
    escape = "\\"
    directive = re.match(r"\s*#\s*escape\s*=\s*([`\\])", text, re.IGNORECASE)
    if directive:
        escape = directive.group(1)
    whole = ""
    until: list[str] = []
    for line in text.splitlines():
        if until:
            if line.strip() == until[0]:
                until.pop(0)
            continue
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue  # also inside a continued instruction
        if stripped.endswith(escape):
            whole += stripped[:-1] + " "
            continue
        keyword, _, rest = (whole + stripped).partition(" ")
        whole = ""
        keyword = keyword.upper()
        if keyword in ("RUN", "COPY", "ADD"):
            until = _HEREDOC.findall(rest)
        yield keyword, rest.strip()
    if whole.strip():
        keyword, _, rest = whole.partition(" ")
        yield keyword.upper(), rest.strip()


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Substitute ``$NAME``, ``${NAME}``, ``${NAME:-word}`` and ``${NAME:+word}``."""

    def value(match: re.Match[str]) -> str:
        name = match["plain"] or match["name"]
        if name is None:
            return "$"
        have = variables.get(name, "")
        match match["how"]:
            case "-":
                return have or expand(match["word"], variables)
            case "+":
                return expand(match["word"], variables) if have else ""
            case _:
                return have

    return _VARIABLE.sub(value, text)


def _predefined() -> dict[str, str]:
    platform = host_platform()
    system, architecture, *variant = platform.split("/")
    values = {
        "PLATFORM": platform,
        "OS": system,
        "ARCH": architecture,
        "VARIANT": variant[0] if variant else "",
    }
    return {f"{side}{key}": value for side in ("TARGET", "BUILD") for key, value in values.items()}


def stages(text: str, arguments: Mapping[str, str]) -> list[Stage]:
    """Return the stages of a Dockerfile with their bases' variables filled in."""
    found: list[Stage] = []
    variables = _predefined()
    for keyword, rest in instructions(text):
        if keyword == "ARG" and not found:
            for item in rest.split():
                name, _, default = item.partition("=")
                default = expand(default.strip("\"'"), variables)
                variables[name] = arguments.get(name, default)
        elif keyword == "FROM":
            words = [word for word in rest.split() if not word.startswith("--")]
            if not words:
                continue
            named = len(words) >= 3 and words[1].upper() == "AS"
            found.append(Stage(expand(words[0], variables), words[2].lower() if named else ""))
        elif found and keyword in ("COPY", "ADD"):
            found[-1].needs += _COPY_FROM.findall(rest)
        elif found and keyword == "RUN":
            found[-1].needs += _MOUNT_FROM.findall(rest)
    return found


def bases(text: str, arguments: Mapping[str, str], target: str | None = None) -> list[str]:
    """Return the images the target stage (default: the last) is made from, first needed first."""
    every = stages(text, arguments)
    if not every:
        return []
    names = {stage.name: place for place, stage in enumerate(every) if stage.name}
    start = len(every) - 1
    if target:
        start = names.get(target.lower(), int(target) if target.isdigit() else start)
    images: dict[str, None] = {}
    waiting, seen = [min(start, len(every) - 1)], set()
    while waiting:
        place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        stage = every[place]
        for item in (stage.base, *stage.needs):
            before = names.get(item.lower())
            if before is None and item.isdigit() and item is not stage.base:
                before = int(item)
            if before is not None and before < place:
                waiting.append(before)
            elif item and item.lower() != "scratch" and "$" not in item and before is None:
                images[item] = None
    return list(images)
