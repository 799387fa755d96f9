"""`corral config --explain`: where a value or a variable comes from, and what touched it.

Pure but for reading nothing: the loaded project remembers every step. Called by
orchestrator.cli.commands.config.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from orchestrator.cli.errors import CliError
from specs.kit import jsontext

if TYPE_CHECKING:
    from collections.abc import Iterator

    from specs import Project
    from specs.compose.project.model import Touch
    from specs.problems import Position

_HOW = {
    "set": "set",
    "override": "overridden by a later file",
    "extends": "over what it extends",
    "include": "over an included file",
    "same item": "replaced by the same item again",
    "env_file": "read from an env file",
}
_VARIABLE = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*\Z")


def explain(project: Project, what: str) -> str:
    """Return the story of a dotted path or of a variable. Raises CliError for neither."""
    found, value = value_at(project, what)
    if found:
        return _path_story(project, what, value)
    if _VARIABLE.match(what.removeprefix("$")):
        name = what.removeprefix("$")
        uses = project.uses_of(name)
        if uses or name in project.environment:
            return _variable_story(project, name, uses)
    raise CliError(f"nothing at {what}, and no such variable", hint=_suggestion(project, what))


def value_at(project: Project, path: str) -> tuple[bool, Any]:
    """Return whether the canonical model has something at ``path``, and what."""
    from specs.compose.project.model import split_path

    here: Any = project.model
    for step in split_path(path, project.model):
        try:
            here = here[step]
        except (KeyError, IndexError, TypeError):
            return False, None
    return True, here


def _path_story(project: Project, path: str, value: Any) -> str:
    lines = [f"{path} = {_shown(value)}"]
    touches = project.history(path)
    if not _written(project, path):
        lines.append("  not written in any file: it is implied")
        if touches:
            lines.append(f"  by {as_typed(touches[-1].position)}")
        return "\n".join(lines) + "\n"
    for touch in touches:
        text = _source(project, touch.position)
        how = _HOW.get(touch.how, touch.how)
        lines.append(f"  {as_typed(touch.position)}  {how}{f': {text}' if text else ''}")
        lines.extend(f"      {line}" for line in _used(project, touch))
    return "\n".join(lines) + "\n"


def _written(project: Project, path: str) -> bool:
    """Return whether the path itself, or something below it, stands in a file."""
    return any(
        known == path or known.startswith((f"{path}.", f"{path}[")) for known in project.origins
    )


def _used(project: Project, touch: Touch) -> Iterator[str]:
    for use in touch.variables:
        match use.source:
            case "unset":
                yield f"${use.name} is not set: empty"
            case "default":
                yield f"${use.name} is not set: its default is used"
            case "replacement":
                yield f"${use.name} is set: its replacement is used"
            case source:
                value = project.environment.get(use.name, "")
                yield f"${use.name} = {_shown(value)} from {as_typed(source)}"


def _variable_story(project: Project, name: str, uses: list[tuple[str, Touch]]) -> str:
    value = project.environment.get(name)
    if value is None:
        lines = [f"{name} is not set"]
    else:
        lines = [
            f"{name} = {_shown(value)}",
            f"  from {as_typed(project.environment.source(name))}",
        ]
    lines += [
        f"  also set at {as_typed(place)}, which does not count here"
        for place in _shadowed(project, name)
    ]
    seen = set()
    for path, touch in uses:
        line = f"  used by {path} ({as_typed(touch.position)})"
        how = next(use.source for use in touch.variables if use.name == name)
        notes = {"default": ", default used", "unset": ", empty"}
        line += notes.get(how, "")
        if line not in seen:
            seen.add(line)
            lines.append(line)
    if not uses:
        lines.append("  used by nothing in these files")
    return "\n".join(lines) + "\n"


def _shadowed(project: Project, name: str) -> Iterator[str]:
    """Yield FILE:LINE of the env files that set a variable somebody else decides."""
    winner = project.environment.source(name)
    setting = re.compile(rf"\s*(?:export\s+)?{name}\s*[=:]")
    for file, text in project.sources.items():
        if file.endswith((".yml", ".yaml")) or file in project.files:
            continue
        for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), 1):
            place = f"{file}:{number}"
            if setting.match(line) and place != winner:
                yield place


def _suggestion(project: Project, what: str) -> str:
    from difflib import get_close_matches

    words = [*project.origins, *project.environment]
    close = get_close_matches(what, words, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else "write it like services.web.image"


def _source(project: Project, position: Position) -> str:
    lines = project.sources.get(position.file, b"").decode("utf-8", "replace").splitlines()
    return lines[position.line - 1].strip() if 0 < position.line <= len(lines) else ""


def as_typed(place: Position | str) -> str:
    """Return a place with its file as people would type it here."""
    text = str(place)
    here = os.getcwd() + "/"
    return text.removeprefix(here)


def _shown(value: Any) -> str:
    return jsontext.shown(value, sort_keys=True)
