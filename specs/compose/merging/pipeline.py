"""From files to one canonical tree: the pipeline every set of files goes through.

Per document: interpolate, include, cut what ``!reset`` and ``!override`` name,
extends, merge over the earlier documents, collapse duplicates, schema, long forms,
collapse again. Then once per set: defaults, checks, paths. The order explains most
surprises and is fixed by the Compose specification. Used for the project itself, for
each include and, in part, for ``extends`` from another file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specs.compose.language.schema import PROJECT
from specs.compose.merging.extends import Extends
from specs.compose.merging.include import Include
from specs.compose.merging.merge import Merge
from specs.compose.merging.passing import pass_through
from specs.compose.merging.paths import PathResolver
from specs.compose.merging.scope import Cuts, cut
from specs.compose.merging.semantics import check, set_defaults
from specs.compose.merging.shortforms import canonicalise
from specs.compose.merging.unique import enforce_unicity
from specs.compose.merging.validate import validate
from specs.compose.reading import source
from specs.compose.reading.interpolate import interpolate
from specs.compose.reading.tree import Map
from specs.problems import Position

if TYPE_CHECKING:
    from specs.compose.merging.scope import Scope
    from specs.compose.reading.files import Files
    from specs.compose.reading.source import Document
    from specs.compose.reading.tree import SourceMark
    from specs.findings import Findings


class Pipeline:
    """Loads sets of files; one per load."""

    def __init__(
        self,
        files: Files,
        findings: Findings,
        *,
        home: str | None,
        interpolation: bool,
        resolve_paths: bool,
        resolve_environment: bool,
    ) -> None:
        self.files = files
        self.findings = findings
        self._home = home
        self._interpolation = interpolation
        self._resolve_paths = resolve_paths
        self._resolve_environment = resolve_environment
        self._parsed: dict[str, list[Document]] = {}
        self._extended: dict[Any, tuple[Map, Cuts] | None] = {}

    def documents(
        self, path: str, at: tuple[str, SourceMark | None] = ("", None)
    ) -> list[Document] | None:
        """Return the parsed documents of a file, None when it cannot be read."""
        if path in self._parsed:
            return self._parsed[path]
        try:
            text = self.files.read(path)
        except OSError as error:
            where, mark = at
            self.findings.error(
                f"the file {path} cannot be read: {error.strerror}",
                code="missing-file" if isinstance(error, FileNotFoundError) else "unreadable-file",
                path=where,
                mark=mark,
                hint="check the path" if mark is not None else "check the path given with -f",
            )
            return None
        self._parsed[path] = source.parse(text, path, self.findings)
        return self._parsed[path]

    def load(
        self,
        paths: list[str],
        scope: Scope,
        included: tuple[str, ...] = (),
        at: tuple[str, SourceMark | None] = ("", None),
    ) -> Map:
        """Return the canonical tree of a set of files."""
        tree = Map()
        for path in paths:
            for document in self.documents(path, at) or ():
                tree = self._document(document, path, tree, scope, included)
        set_defaults(tree)
        check(tree, self.findings)
        if included and self._resolve_environment:
            pass_through(tree, scope.environment)
        if self._resolve_paths or included:
            PathResolver(scope.base, self._home, self.findings).project(tree)
        return tree

    def _document(
        self, document: Document, path: str, tree: Map, scope: Scope, included: tuple[str, ...]
    ) -> Map:
        body = self._body(document, path, scope)
        if body is None:
            return tree
        chain = (*included, path)

        def imported(paths: list[str], inner: Scope, where: str, mark: SourceMark | None) -> Map:
            return self.load(paths, inner, chain, at=(where, mark))

        def other(
            path: str, folder: str, where: str, mark: SourceMark | None
        ) -> tuple[Map, Cuts] | None:
            return self._for_extends(path, folder, scope, (where, mark))

        Include(self.files, self.findings, scope, chain, document.cuts, imported).apply(body)
        cut(tree, document.cuts)
        Extends(self.findings, scope, path, document.cuts, other).apply(body)
        tree = Merge(self.findings, "override").projects(tree, body)
        enforce_unicity(tree, self.findings)
        validate(tree, self.findings)
        if "version" in tree:
            self.findings.warn(
                "version is obsolete and ignored",
                code="obsolete",
                path="version",
                mark=tree.marks.get("version"),
                hint="remove it",
            )
            del tree["version"]
        self._canonical(tree)
        return tree

    def _body(self, document: Document, path: str, scope: Scope) -> Map | None:
        if not isinstance(document.tree, Map):
            self.findings.error(
                "the top level must be a mapping",
                code="wrong-type",
                position=Position(path, 1, 1),
                hint="begin with services:",
            )
            return None
        variables = scope.environment if self._interpolation else None
        body = interpolate(document.tree, PROJECT, variables, self.findings)
        assert isinstance(body, Map)
        return body

    def _canonical(self, tree: Map) -> None:
        canonicalise(tree, self.findings, lenient=not self._interpolation)
        enforce_unicity(tree, self.findings)

    def _for_extends(
        self, path: str, folder: str, scope: Scope, at: tuple[str, SourceMark | None]
    ) -> tuple[Map, Cuts] | None:
        """Return a file another one extends from, and what its tags cut.

        Canonical but not validated (the merged result will be); paths from ``folder``.
        """
        key = (path, folder, id(scope))
        if key not in self._extended:
            self._extended[key] = self._extended_file(path, folder, scope, at)
        return self._extended[key]

    def _extended_file(
        self, path: str, folder: str, scope: Scope, at: tuple[str, SourceMark | None]
    ) -> tuple[Map, Cuts] | None:
        documents = self.documents(path, at)
        if documents is None:
            return None
        tree = Map()
        cuts: Cuts = []
        for document in documents:
            body = self._body(document, path, scope)
            if body is None:
                return None
            cuts = document.cuts
            cut(tree, document.cuts)
            tree = Merge(self.findings, "override").projects(tree, body)
            enforce_unicity(tree, self.findings)
            self._canonical(tree)
        PathResolver(folder, self._home, self.findings).project(tree)
        return tree, cuts
