"""Make relative paths absolute, attribute by attribute (the ``path`` column of the schema).

``base`` may itself be relative: what an included or extended file gives is first
made relative to the project directory and resolved with the rest later. Looks at
the disk only for symbolic links in ``develop.watch``.
"""

from __future__ import annotations

import os
import posixpath
import re
from typing import TYPE_CHECKING, Any

from specs.compose.language.schema import PROJECT
from specs.compose.merging.shortforms import clean
from specs.compose.reading.tree import Map, Seq, child, mark_of
from specs.kit import reading

if TYPE_CHECKING:
    from specs.compose.language.shape import Shape
    from specs.findings import Findings

_REMOTE = ("https://", "http://", "git://", "ssh://", "github.com/", "git@")
_DRIVE = re.compile(r".:[/\\]", re.DOTALL)
_UNC = re.compile(r"[/\\]{2}")


def is_windows_absolute(path: str) -> bool:
    """Return whether the path is absolute on Windows: a drive or a share in front."""
    return bool(_DRIVE.match(path) or _UNC.match(path))


def _has_paths(items: Shape) -> bool:
    return bool(items.path or items.fields)


class PathResolver:
    """Resolves paths against one folder; ``home`` stands for a leading ``~``."""

    def __init__(self, base: str, home: str | None, findings: Findings) -> None:
        self._base = base
        self._home = home
        self._findings = findings

    def project(self, tree: Map) -> None:
        """Resolve every path of the project in place."""
        self._children(tree, PROJECT, "")

    def _children(self, value: Any, shape: Shape, path: str) -> None:
        if isinstance(value, Map):
            for key, item in value.items():
                sub = shape.of_key(key)
                if sub is not None and item is not None:
                    value[key] = self._one(item, sub, f"{path}.{key}" if path else key)
        elif isinstance(value, Seq) and shape.items is not None and _has_paths(shape.items):
            for index, item in enumerate(value):
                value[index] = self._one(item, shape.items, child(path, index))

    def _one(self, value: Any, shape: Shape, path: str) -> Any:
        rule = shape.path
        if rule == "mount":
            return self._mount(value, path)
        if rule == "volume":
            return self._volume(value)
        if rule.startswith("each-"):
            return self._each(value, rule, path)
        if rule and isinstance(value, str):
            return self._by_rule(rule, value)
        if isinstance(value, Map | Seq):
            self._children(value, shape, path)
        return value

    def _by_rule(self, rule: str, value: str) -> str:
        if rule == "context":
            return self.context(value)
        if rule == "unix":
            return self.unix(value)
        if rule == "symlink":
            return _follow_links(self.absolute(value))
        return self.absolute(value)

    def absolute(self, value: str) -> str:
        """Return a host path resolved; absolute and empty ones stay as they are."""
        value = self._expand(value)
        if not value or posixpath.isabs(value):
            return value
        return clean(posixpath.join(self._base, value))

    def unix(self, value: str) -> str:
        """Return a path resolved that may also be absolute for Windows."""
        value = self._expand(value)
        if posixpath.isabs(value) or is_windows_absolute(value):
            return value
        return clean(posixpath.join(self._base, value))

    def context(self, value: str) -> str:
        """Return a build context: URLs and ``service:`` stay."""
        if "://" in value or value.startswith(("service:", *_REMOTE)):
            return value
        return self.absolute(value)

    def _expand(self, value: str) -> str:
        if value.startswith("~") and self._home:
            return clean(posixpath.join(self._home, value[1:].lstrip("/")))
        return value

    def _each(self, value: Any, rule: str, path: str) -> Any:
        if not isinstance(value, Map):
            return value
        for key, item in value.items():
            if isinstance(item, str):
                value[key] = self._by_rule(rule.removeprefix("each-"), item)
            elif rule == "each-context":
                self._findings.error(
                    "a build context must be a string",
                    code="wrong-type",
                    path=f"{path}.{key}",
                    mark=mark_of(value, key),
                )
        return value

    def _mount(self, value: Any, path: str) -> Any:
        if isinstance(value, Map) and value.get("type") == "bind":
            source = value.get("source")
            if isinstance(source, str):
                value["source"] = self.unix(source)
            elif f"{path}.source" not in self._findings.damaged:
                self._findings.error(
                    "a bind mount needs a source",
                    code="missing-key",
                    path=path,
                    mark=mark_of(value, "type"),
                    hint="add source: PATH",
                )
        return value

    def _volume(self, value: Any) -> Any:
        options = value.get("driver_opts") if isinstance(value, Map) else None
        if (
            isinstance(options, Map)
            and value.get("driver") == "local"
            and options.get("o") == "bind"
        ):
            device = options.get("device")
            if isinstance(device, str):
                options["device"] = self.unix(device)
        return value


def _follow_links(path: str) -> str:
    """Return the path with its first symbolic link replaced by what it points to."""
    current = "/" if path.startswith("/") else ""
    for part in path.split("/"):
        if not part:
            continue
        current = posixpath.join(current, part)
        try:
            if reading.is_link(current):
                return path.replace(current, os.path.realpath(current, strict=True), 1)
        except (OSError, ValueError):
            return path
    return path
