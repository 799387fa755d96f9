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
from specs.base import content_hash

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_VARIABLE: Final = re.compile(
    r"\\\$|\$(?:(?P<plain>\w+)|\{(?P<name>\w+)(?::?(?P<how>[-+])(?P<word>[^}]*))?\})"
)
_NAME: Final = re.compile(r"\$\{?(\w+)")
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
    for _, keyword, rest in _located(text):
        yield keyword, rest


def _located(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield what :func:`instructions` does with the index of the line each begins on."""
    escape = "\\"
    directive = re.match(r"\s*#\s*escape\s*=\s*([`\\])", text, re.IGNORECASE)
    if directive:
        escape = directive.group(1)
    whole, start = "", 0
    until: list[str] = []
    for number, line in enumerate(text.splitlines()):
        if until:
            if line.strip() == until[0]:
                until.pop(0)
            continue
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue  # also inside a continued instruction
        start = start if whole else number
        if stripped.endswith(escape):
            whole += stripped[:-1] + " "
            continue
        keyword, _, rest = (whole + stripped).partition(" ")
        whole = ""
        keyword = keyword.upper()
        if keyword in ("RUN", "COPY", "ADD"):
            until = _HEREDOC.findall(rest)
        yield start, keyword, rest.strip()
    if whole.strip():
        keyword, _, rest = whole.partition(" ")
        yield start, keyword.upper(), rest.strip()


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


def keyed(text: str, arguments: Mapping[str, str]) -> str:
    """Return the Dockerfile so that buildah's layer cache keeps values of arguments apart.

    buildah finds a cached layer by the instruction as it is written, and only RUN has the
    arguments written beside it: `ENV TAG=$TAG` is the layer of the first build for ever,
    whatever TAG is now. So a declaration whose name is a digest of all values and defaults
    is put before the first such instruction of a stage. What stands above it is shared
    still, and a text that needs nothing is returned as it came.
    """
    found = list(_located(text))
    declared = [rest for _, keyword, rest in found if keyword == "ARG"]
    names = {item.partition("=")[0] for rest in declared for item in rest.split()}
    values = sorted((name, arguments[name]) for name in names if name in arguments)
    marker = f"ARG corral_args_{content_hash([ascii(declared), ascii(values)])[-16:]}=1\n"
    lines = text.splitlines(keepends=True)
    allowed: set[str] = set()
    marked = False
    added = 0
    for start, keyword, rest in found:
        if keyword == "FROM":
            allowed, marked = set(), False
        elif keyword == "ARG":
            allowed |= {item.partition("=")[0] for item in rest.split()}
        elif keyword != "RUN" and not marked and allowed & _variables(rest):
            lines.insert(start + added, marker)
            marked = True
            added += 1
    return "".join(lines)


def _variables(text: str) -> set[str]:
    """Return the names of all variables in a text, also those inside of another's default."""
    return set(_NAME.findall(text))
