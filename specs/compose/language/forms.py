"""The recurring forms of the Compose schema: a text, a flag, a list or a mapping of strings...

Used by the tables :mod:`specs.compose.language.service` and :mod:`specs.compose.language.schema`.
"""

from __future__ import annotations

from specs.compose.language.shape import Shape

NAME = r"^[a-zA-Z0-9._-]+$"
_ANY_KEY = r".+"


def text(**more: object) -> Shape:
    return Shape("string", bind="str", **more)  # type: ignore[arg-type]  # forwarded as they are


def flag(cast: str | None = None, **more: object) -> Shape:
    return Shape("boolean string", bind="bool", cast=cast, **more)  # type: ignore[arg-type]  # forwarded


def integer(types: str = "integer string", cast: str | None = None, **more: object) -> Shape:
    more.setdefault("bind", "int")
    return Shape(types, cast=cast, **more)  # type: ignore[arg-type]  # forwarded


def duration(keep: str = "set") -> Shape:
    return Shape("string", bind="duration", keep=keep)


def size(types: str) -> Shape:
    return Shape(types, bind="bytes")


def mapping(fields: dict[str, Shape], **more: object) -> Shape:
    more.setdefault("extensible", True)
    more.setdefault("bind", "object")
    more.setdefault("types", "object")
    types = str(more.pop("types"))
    return Shape(types, fields=fields, **more)  # type: ignore[arg-type]  # forwarded


def strings(*, unique: bool = True, **more: object) -> Shape:
    return Shape("array", bind="strings", items=text(), unique=unique, **more)  # type: ignore[arg-type]  # forwarded


def string_or_list(**more: object) -> Shape:
    more.setdefault("bind", "strings")
    return Shape("string array", items=text(), unique=True, **more)  # type: ignore[arg-type]  # forwarded


def list_or_map(bind: str = "mapping", **more: object) -> Shape:
    return Shape(
        "object array",
        bind=bind,
        names=_ANY_KEY,
        values=Shape("string number boolean null"),
        items=text(),
        unique=True,
        **more,  # type: ignore[arg-type]  # forwarded
    )


def options(types: str = "string number", bind: str = "options") -> Shape:
    return Shape("object", bind=bind, names=r"^.+$", values=Shape(types), open=True)
