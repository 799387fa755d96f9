"""The OpenAPI document, generated from the route table and the pydantic models."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from pydantic.json_schema import models_json_schema

from specs.api import ApiProblem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.api.routes import ApiRoute, QueryField
    from specs.base import Model

Mode = Literal["validation", "serialization"]

_LINES = "one object a line; empty lines are a pulse"
_TYPES: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "number": {"type": "number", "minimum": 0},
    "integer": {"type": "integer", "minimum": 0},
    "flag": {"type": "integer", "enum": [0, 1]},
}


_ARCHIVE: dict[str, Any] = {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}}


def document(routes: Iterable[ApiRoute], version: str) -> dict[str, Any]:
    """Return the API as an OpenAPI 3.1 document."""
    routes = list(routes)
    read: set[type[Model]] = {ApiProblem}
    written: set[type[Model]] = set()
    for route in routes:
        read.update(model for model in (route.answer, route.stream) if model)
        written.update(model for model in (route.body,) if model)
    wanted: list[tuple[type[Model], Mode]] = [
        *((model, "serialization") for model in sorted(read, key=_name)),
        *((model, "validation") for model in sorted(written, key=_name)),
    ]
    schemas, definitions = models_json_schema(wanted, ref_template="#/components/schemas/{model}")
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "corral controller", "version": version},
        "servers": [{"url": "http://localhost", "description": "on the controller's unix socket"}],
        "paths": paths,
        "components": {"schemas": definitions.get("$defs", {})},
    }


def _operation(route: ApiRoute, schemas: dict[Any, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.handler.__module__.rsplit(".", 1)[-1] + "." + route.handler.__name__,
        "summary": route.summary,
        "parameters": [
            *(_path_parameter(name) for name in re.findall(r"{(\w+)}", route.path)),
            *(_parameter(query) for query in route.query),
        ],
        "responses": {
            **_success(route, schemas),
            "default": {
                "description": "a problem (RFC 9457)",
                "content": {
                    "application/problem+json": {"schema": schemas[ApiProblem, "serialization"]}
                },
            },
        },
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schemas[route.body, "validation"]}},
        }
    elif route.archive and route.changes:
        operation["requestBody"] = {"required": True, "content": _ARCHIVE}
    return operation


def _success(route: ApiRoute, schemas: dict[Any, Any]) -> dict[str, Any]:
    if route.websocket:
        return {"101": {"description": "a WebSocket; messages as specs/wire.py says"}}
    if route.archive and not route.changes:
        return {"200": {"description": "a tar archive; cut = not whole", "content": _ARCHIVE}}
    if route.stream is not None:
        content = {"application/x-ndjson": {"schema": schemas[route.stream, "serialization"]}}
        return {"200": {"description": _LINES, "content": content}}
    schema = schemas[route.answer, "serialization"] if route.answer else {"type": "object"}
    return {"200": {"description": "done", "content": {"application/json": {"schema": schema}}}}


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _parameter(query: QueryField) -> dict[str, Any]:
    schema = _TYPES[query.type]
    if query.repeated:
        schema = {"type": "array", "items": schema}
    return {"name": query.name, "in": "query", "description": query.text, "schema": schema}


def _name(model: type[Model]) -> str:
    return model.__name__
