"""Print a canonical model as YAML or JSON that loads back to the same project.

``corral config`` calls it. Deterministic: the name first, attributes in the schema's
order, names sorted. ``$`` is doubled, because loading reads it once more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specs.compose.language.schema import PROJECT
from specs.compose.reading.source import resolve
from specs.kit import jsontext

if TYPE_CHECKING:
    from specs.compose.language.shape import Shape

_SOURCES = frozenset({"file", "environment", "content", "external"})
_SECTIONS = ("name", "services", "networks", "volumes", "secrets", "configs", "models")


def render(model: dict[str, Any], form: str = "yaml", *, double: bool = True) -> str:
    """Return the model as text; ``double`` False leaves ``$`` alone (after no_interpolate)."""
    ordered: dict[str, Any] = {key: model[key] for key in _SECTIONS if key in model}
    ordered.update((key, model[key]) for key in sorted(model) if key not in ordered)
    ordered = _ordered(ordered, PROJECT, top=True)
    for config in ordered.get("configs", {}).values():
        if not _SOURCES & config.keys():
            config["external"] = False  # what lets a config without source load again
    if double:
        ordered = _doubled(ordered)
    if form == "json":
        return jsontext.shown(ordered, indent=2) + "\n"
    return as_yaml(ordered)


def _ordered(value: Any, shape: Shape | None, *, top: bool = False) -> Any:
    if isinstance(value, list):
        items = shape.items if shape is not None else None
        return [_ordered(item, items) for item in value]
    if not isinstance(value, dict):
        if shape is not None and shape.bind == "bytes":
            return str(value)  # some sizes may only be written as text
        return value
    if shape is not None and shape.bind == "ulimit":
        return {
            key: value.get(key, 0) for key in ("soft", "hard")
        }  # zeros are left out of the model
    keys: Any = list(value)
    fields = shape.fields if shape is not None else None
    if fields and not top:
        rank = {key: number for number, key in enumerate(fields)}
        keys.sort(key=lambda key: (rank.get(key, len(rank)), key))
    elif not top:
        keys.sort()
    return {
        key: _ordered(value[key], shape.of_key(key) if shape is not None else None) for key in keys
    }


def _doubled(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, dict):
        return {key: _doubled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_doubled(item) for item in value]
    return value


def as_yaml(value: Any) -> str:
    """Return plain values as YAML that reads back as they are."""
    import yaml  # noqa: PLC0415 - one of the two forms

    class Dumper(yaml.CSafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            del data
            return True

    def text(dumper: Dumper, data: str) -> Any:
        style = None
        if "\n" in data and data.isprintable() is False and _block_safe(data):
            style = "|"
        elif not isinstance(resolve(data), str) or data in ("<<", "="):
            style = '"'  # would be read as a number, boolean, date, null or merge key
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    def number(dumper: Dumper, data: float) -> Any:
        shown = repr(data)
        return dumper.represent_scalar("tag:yaml.org,2002:float", shown)

    Dumper.add_representer(str, text)
    Dumper.add_representer(float, number)
    dumped: str = yaml.dump(
        value,
        Dumper=Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=4096,
    )
    return dumped


def _block_safe(text: str) -> bool:
    """Return whether a literal block shows the text unchanged."""
    return all(line == line.rstrip() for line in text.split("\n")) and all(
        char == "\n" or char.isprintable() for char in text
    )
