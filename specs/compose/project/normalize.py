"""Spell out what the file implies: default network, dependencies, names, pass-through.

Runs once, on the whole canonical project, after paths are absolute. Pure: the
environment comes in as a mapping. Changes the tree in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specs.compose.merging.semantics import services
from specs.compose.merging.shortforms import clean
from specs.compose.reading.interpolate import VariableUse
from specs.compose.reading.tree import Map, Seq

if TYPE_CHECKING:
    from specs.compose.reading.tree import SourceMark
    from specs.compose.reading.variables import Environment

_SECTIONS = ("networks", "volumes", "configs", "secrets")


def normalize(tree: Map, name: str, environment: Environment) -> None:
    """Make everything implied explicit; ``name`` is the project's."""
    _networks(tree)
    for _, service in services(tree):
        if service.get("pull_policy") == "if_not_present":
            service["pull_policy"] = "missing"
        _build(service, environment)
        if "environment" in service:
            service["environment"] = pass_through(service["environment"], environment, keep=True)
        for mount in service.get("volumes") or ():
            if isinstance(mount, Map) and isinstance(mount.get("target"), str):
                mount["target"] = clean(mount["target"])
        _dependencies(service)
        _hook_images(service)
    _names(tree, name)


def pass_through(value: Any, environment: Environment, *, keep: bool) -> Any:
    """Give keys without a value theirs from the environment; ``keep`` keeps the unset ones."""
    if isinstance(value, Map):
        made = Map()
        for key, item in value.items():
            at = value.marks.get(key)
            if item is not None:
                made.put(key, item, at)
            elif key in environment:
                made.put(key, environment[key], _used(at, key, environment))
            elif keep:
                made.put(key, None, at)
        return made
    if not isinstance(value, Seq):
        return value
    seq = Seq()
    for index, item in enumerate(value):
        mark = value.marks[index]
        if not isinstance(item, str) or "=" in item:
            seq.add(item, mark)
        elif item in environment:
            seq.add(f"{item}={environment[item]}", _used(mark, item, environment))
        elif keep:
            seq.add(item, mark)
    return seq


def _used(mark: SourceMark | None, name: str, environment: Environment) -> SourceMark | None:
    return mark.using((VariableUse(name, environment.source(name)),)) if mark is not None else None


def _networks(tree: Map) -> None:
    used = False
    for _, service in services(tree):
        if "provider" in service or "network_mode" in service:
            continue
        networks = service.get("networks")
        if not networks:
            service["networks"] = Map({"default": None})
            used = True
        elif isinstance(networks, Map) and "default" in networks:
            used = True
    declared = tree.get("networks")
    if not isinstance(declared, Map):
        declared = Map()
    if used:
        declared.setdefault("default", None)
    if declared:
        tree["networks"] = declared


def _build(service: Map, environment: Environment) -> None:
    build = service.get("build")
    if not isinstance(build, Map):
        return
    build.setdefault("context", ".")
    if "dockerfile" not in build and "dockerfile_inline" not in build:
        build["dockerfile"] = "Dockerfile"
    if "args" in build:
        build["args"] = pass_through(build["args"], environment, keep=False)


def _dependencies(service: Map) -> None:
    depends = service.get("depends_on")
    if not isinstance(depends, Map):
        depends = Map()
    for link in _strings(service.get("links")):
        parts = link.split(":")
        _depend(depends, parts[0] if len(parts) == 2 else link, restart=True)
    for key in ("network_mode", "ipc", "pid", "uts", "cgroup"):
        mode = service.get(key)
        if isinstance(mode, str) and mode.startswith("service:"):
            _depend(depends, mode.removeprefix("service:"), restart=True)
    for source in _strings(service.get("volumes_from")):
        if not source.startswith("container:"):
            _depend(depends, source.split(":")[0], restart=False)
    if depends:
        service["depends_on"] = depends


def _depend(depends: Map, name: str, *, restart: bool) -> None:
    if name not in depends:
        depends[name] = Map({"condition": "service_started", "restart": restart, "required": True})


def _strings(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, Seq) else []


def _hook_images(service: Map) -> None:
    image = service.get("image")
    if isinstance(image, str) and image:
        for hook in service.get("pre_start") or ():
            if isinstance(hook, Map):
                hook.setdefault("image", image)


def _names(tree: Map, name: str) -> None:
    for section in _SECTIONS:
        entries = tree.get(section)
        if not isinstance(entries, Map):
            continue
        for key in list(entries):
            entry = entries[key]
            if entry is None:
                entry = entries[key] = Map()
            if isinstance(entry, Map) and entry.get("name") is None:
                external = entry.get("external") in (True, "true")
                entry["name"] = key if external else f"{name}_{key}"
