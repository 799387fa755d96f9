"""A JSON schema of the Compose language as corral reads it, made from the schema's own data.

``corral config --schema`` prints it, for editors: completion, and corral's verdict on
a key as its description. It describes files as they are written, before variables are
put in, so wherever a number or a boolean is wanted a text with a ``$`` may stand too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specs.compile.support import EXTENSIONS, SUPPORT, KeyVerdict
from specs.compose.language.schema import PROJECT

if TYPE_CHECKING:
    from specs.compose.language.shape import Shape

_VARIABLE = {"type": "string", "pattern": r"\$"}


def json_schema() -> dict[str, Any]:
    """Return the schema (draft 07, which every editor knows)."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Compose files, as corral reads them",
        **_schema(PROJECT, ""),
    }


def _schema(shape: Shape, path: str) -> dict[str, Any]:
    made: dict[str, Any] = {"type": list(shape.types) if len(shape.types) > 1 else shape.types[0]}
    if shape.low is not None:
        made["minimum"] = shape.low
    if shape.high is not None:
        made["maximum"] = shape.high
    if shape.pattern is not None and "string" in shape.types:
        made["pattern"] = shape.pattern.pattern
    if "array" in shape.types and shape.items is not None:
        made["items"] = _schema(shape.items, f"{path}[]")
        if shape.unique:
            made["uniqueItems"] = True
    if "object" in shape.types:
        _object(made, shape, path)
    if shape.enum:
        made = _enumerated(made, shape)
    elif "string" not in shape.types and not {"object", "array"} & set(shape.types):
        made = {"anyOf": [made, _VARIABLE]}
    elif "pattern" in made:
        made["pattern"] = rf"{made['pattern']}|\$"
    return _described(made, path)


def _enumerated(made: dict[str, Any], shape: Shape) -> dict[str, Any]:
    words = {"type": "string", "enum": list(shape.enum)}
    others = [kind for kind in shape.types if kind != "string"]
    if not others:
        return {"anyOf": [words, _VARIABLE]}
    return {"anyOf": [words, _VARIABLE, {**made, "type": others}]}


def _object(made: dict[str, Any], shape: Shape, path: str) -> None:
    prefix = f"{path}." if path else ""
    properties = {
        key: _schema(field, f"{prefix}{key}") for key, field in (shape.fields or {}).items()
    }
    if f"{prefix}x-corral" in _CORRAL:
        properties["x-corral"] = _CORRAL[f"{prefix}x-corral"]
    if properties:
        made["properties"] = properties
    patterns: dict[str, Any] = {}
    if shape.values is not None:
        spelling = shape.names.pattern if shape.names is not None else ".*"
        patterns[spelling] = _schema(shape.values, f"{prefix}*")
    if shape.extensible:
        patterns["^x-"] = {}
    if patterns:
        made["patternProperties"] = patterns
    if shape.required:
        made["required"] = list(shape.required)
    if not shape.open:
        made["additionalProperties"] = False


def _described(made: dict[str, Any], path: str) -> dict[str, Any]:
    support = SUPPORT.get(path)
    if support is not None:
        word = (
            "" if support.verdict is KeyVerdict.HONOURED and support.note else support.verdict.value
        )
        text = ": ".join(filter(None, (word, support.note)))
        made["description"] = text
    return made


def _extensions() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for path, extension in EXTENSIONS.items():
        place, _, key = path.rpartition(".")
        made = found.setdefault(
            place, {"type": "object", "properties": {}, "additionalProperties": False}
        )
        made["properties"][key] = {**extension.schema, "description": extension.note}
    return found


_CORRAL = _extensions()
