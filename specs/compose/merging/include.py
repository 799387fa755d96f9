"""``include``: load other Compose files as projects of their own and merge under this one.

Each entry has its own folder and env file; its variables never leak out. What the
local file says of the same resource is merged over the imported definition.
"""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING, Any

from specs.compose.language.schema import PROJECT
from specs.compose.merging.merge import Merge
from specs.compose.merging.scope import Scope, cut, relative
from specs.compose.reading.tree import Map, Seq, SourceMark, child
from specs.kit import reading

if TYPE_CHECKING:
    from collections.abc import Callable

    from specs.compose.merging.scope import Cuts
    from specs.compose.reading.files import Files
    from specs.findings import Findings

    # (paths, their scope, where the include stands) -> the canonical tree of the set
    LoadSet = Callable[[list[str], Scope, str, SourceMark | None], Map]

_DEEPEST = 50  # includes within includes
_SECTIONS = ("services", "volumes", "networks", "secrets", "configs", "models")


class Include:
    """The ``include`` of one document."""

    def __init__(
        self,
        files: Files,
        findings: Findings,
        scope: Scope,
        included: tuple[str, ...],
        cuts: Cuts,
        load: LoadSet,
    ) -> None:
        self._files = files
        self._findings = findings
        self._scope = scope
        self._included = included
        self._cuts = cuts
        self._load_set = load

    def apply(self, tree: Map) -> None:
        """Import everything the document includes, in place."""
        if "include" not in tree:
            return
        entries = tree.pop("include")
        mark = tree.marks.get("include")
        if entries is None:
            return
        if not isinstance(entries, Seq):
            self._bad("include must be a list", "include", mark)
            return
        for index, entry in enumerate(entries):
            self._entry(entry, tree, child("include", index), entries.marks[index] or mark)

    def _bad(
        self, message: str, path: str, mark: SourceMark | None, code: str = "wrong-type"
    ) -> None:
        self._findings.error(
            message, code=code, path=path, mark=mark, hint="write '- path/to/compose.yaml'"
        )

    def _entry(self, entry: Any, tree: Map, path: str, mark: SourceMark | None) -> None:
        if isinstance(entry, str):
            entry = Map({"path": entry})
        if not isinstance(entry, Map):
            self._bad("an include must be a path or a mapping with path:", path, mark)
            return
        paths = self._list(entry, "path", path, mark)
        env_files = self._list(entry, "env_file", path, mark)
        folder = entry.get("project_directory")
        if paths is None or env_files is None or not isinstance(folder, str | None):
            if paths is not None and env_files is not None:
                self._bad("project_directory must be a string", path, mark)
            return
        self._load(paths, env_files, folder or "", tree, path, mark)

    def _list(self, entry: Map, key: str, path: str, mark: SourceMark | None) -> list[str] | None:
        value = entry.get(key)
        if value is None:
            return []
        if isinstance(value, str):
            return [value]
        if isinstance(value, Seq) and all(isinstance(item, str) for item in value):
            return list(value)
        self._bad(f"{key} must be a path or a list of paths", f"{path}.{key}", mark)
        return None

    def _load(
        self,
        paths: list[str],
        env_files: list[str],
        wanted_folder: str,
        tree: Map,
        path: str,
        mark: SourceMark | None,
    ) -> None:
        scope = self._scope
        files = [scope.local(name) for name in paths]
        if files and (files[0] in self._included or len(self._included) > _DEEPEST):
            chain = "\n  include ".join((*self._included, files[0]))
            self._bad(f"include cycle detected: {chain}", path, mark, "cycle")
            return
        folder = posixpath.dirname(files[0]) if files else scope.folder
        if wanted_folder:
            folder = posixpath.normpath(posixpath.join(scope.folder, wanted_folder))
        environment = scope.environment.copy()
        chosen = self._env_files(env_files, folder, path, mark)
        if chosen is None:
            return
        values, sources = self._files.env_files(chosen, scope.environment, self._findings, mark)
        environment.add(values, sources)
        base = folder
        if wanted_folder and not reading.is_folder(folder):
            base = posixpath.dirname(folder)  # as Compose does with a folder that does not exist
        inner = Scope(folder, relative(base, scope.folder), environment)
        imported = self._load_set(files, inner, path, mark)
        self._import(imported, tree)

    def _env_files(
        self, given: list[str], folder: str, path: str, mark: SourceMark | None
    ) -> list[str] | None:
        if not given:
            default = f"{folder}/.env"
            return [default] if reading.exists(default) and not reading.is_folder(default) else []
        chosen = []
        for name in given:
            if name == os.devnull:
                continue
            full = posixpath.join(self._scope.folder, name)
            if not reading.exists(full):
                self._findings.error(
                    f"the env file {full} does not exist",
                    code="missing-file",
                    path=f"{path}.env_file",
                    mark=mark,
                )
                return None
            chosen.append(full)
        return chosen

    def _import(self, imported: Map, tree: Map) -> None:
        merge = Merge(self._findings, "include")
        fields = PROJECT.fields or {}
        for section in _SECTIONS:
            entries = imported.get(section)
            if not isinstance(entries, Map):
                continue
            local = tree.get(section)
            if local is None:
                local = Map()
                tree.put(section, local, imported.marks.get(section))
            if not isinstance(local, Map):
                continue  # the schema tells
            for name, entry in entries.items():
                if name not in local:
                    local.put(name, entry, entries.marks.get(name))
                    continue
                holder = Map({section: Map({name: entry})})
                cut(holder, self._cuts)
                if name not in holder[section]:
                    continue
                dotted = f"{section}.{name}"
                mark = local.marks.get(name)
                shape = fields[section].values
                local[name] = merge.value(entry, local[name], shape, dotted, mark)
                if mark is not None:
                    local.marks[name] = mark.over(entries.marks.get(name), "include")
