"""Every key of the Compose language, as data: the Compose specification as a table.

One table for the whole package: what is valid (:mod:`specs.compose.merging.validate`), what
interpolation casts, how files merge, what list items are identified by, what the
short forms become, which values are paths, and the type in the canonical model.
:data:`PROJECT` is the root, :data:`SERVICE` one service.
"""

from __future__ import annotations

from specs.compose.language.forms import (
    NAME,
    flag,
    integer,
    list_or_map,
    mapping,
    options,
    string_or_list,
    strings,
    text,
)
from specs.compose.language.service import SERVICE
from specs.compose.language.shape import Shape

__all__ = ["PROJECT", "SERVICE"]


def _external(*, closed: bool) -> Shape:
    return Shape(
        "boolean string object",
        bind="bool",
        cast="bool",
        fields={"name": text()},
        open=not closed,
        extensible=True,
    )


_NETWORK = mapping(
    {
        "name": text(),
        "driver": text(),
        "driver_opts": options(),
        "ipam": mapping(
            {
                "driver": text(),
                "config": Shape(
                    "array",
                    bind="list",
                    merge="ipam",
                    items=mapping(
                        {
                            "subnet": text(),
                            "ip_range": text(),
                            "gateway": text(),
                            "aux_addresses": Shape(
                                "object", bind="mapping", names=r"^.+$", values=text()
                            ),
                        }
                    ),
                ),
                "options": Shape("object", bind="options", names=r"^.+$", values=text()),
            },
            keep="always",
        ),
        "external": _external(closed=True),
        "internal": flag("bool"),
        "enable_ipv4": flag("bool", keep="set"),
        "enable_ipv6": flag("bool", keep="set"),
        "attachable": flag("bool"),
        "labels": list_or_map(merge="sequence", key="keyvalue"),
    },
    types="object null",
    short="external",
)
_VOLUME = mapping(
    {
        "name": text(),
        "driver": text(),
        "driver_opts": options(),
        "external": _external(closed=True),
        "labels": list_or_map(merge="sequence"),
    },
    types="object null",
    short="external",
    path="volume",
)
_SECRET = mapping(
    {
        "name": text(),
        "environment": text(),
        "file": text(path="unix"),
        "external": _external(closed=False),
        "labels": list_or_map(),
        "driver": text(),
        "driver_opts": options(bind="string-map"),
        "template_driver": text(),
    },
    short="external",
)
_CONFIG = mapping(
    {
        "name": text(),
        "content": text(),
        "environment": text(),
        "file": text(path="unix"),
        "external": _external(closed=False),
        "labels": list_or_map(),
        "template_driver": text(),
    },
    short="external",
)
_MODEL = mapping(
    {
        "name": text(),
        "model": text(),
        "context_size": integer("integer"),
        "runtime_flags": strings(unique=False),
    },
    required=("model",),
)
_INCLUDE = mapping(
    {
        "path": string_or_list(path="abs"),
        "env_file": string_or_list(path="abs"),
        "project_directory": text(path="abs"),
    },
    types="string object",
    extensible=False,
)


def _section(values: Shape, *, open: bool = False) -> Shape:  # noqa: A002 - as in Shape
    return Shape("object", bind="map", names=NAME, values=values, open=open)


PROJECT = mapping(
    {
        "version": Shape("string", bind="drop"),
        "name": text(),
        "include": Shape("array", bind="drop", items=_INCLUDE),
        "services": _section(SERVICE),
        "models": _section(_MODEL, open=True),
        "networks": _section(_NETWORK, open=True),
        "volumes": _section(_VOLUME),
        "secrets": _section(_SECRET),
        "configs": _section(_CONFIG),
    },
    note="a Compose file",
)
