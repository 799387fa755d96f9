"""Load a Compose project: the public entry of the package.

``specs.load`` is this :func:`load`. The CLI calls it with the command line's options;
it reads the files it is told to and has no other effect. :func:`examine` does the work
and tells everything it found; :func:`load` is for those who can do nothing with a
broken project, and raises all of it at once as one ``SpecError``.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specs.compose.merging.pipeline import Pipeline
from specs.compose.merging.scope import Scope
from specs.compose.project.bind import bind
from specs.compose.project.model import Project
from specs.compose.reading import discovery
from specs.compose.reading.files import STDIN, Files
from specs.compose.reading.variables import PROJECT_NAME
from specs.findings import Findings
from specs.kit.reading import TEXT_LIMIT, FileTooLarge
from specs.problems import Position, SpecError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from specs.compose.reading.discovery import Setting
    from specs.compose.reading.source import Document
    from specs.compose.reading.tree import Map
    from specs.problems import Problem

    Name = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What a project is loaded from, and how far: the options of ``corral config``.

    Without ``files`` they are looked for from ``cwd`` upwards; ``-`` is ``stdin``.
    ``environ`` and ``cwd`` None = the process's own.
    """

    files: Sequence[Name] | None = None
    project_directory: Name | None = None
    project_name: str | None = None
    profiles: Sequence[str] | None = None
    env_files: Sequence[Name] | None = None
    services: Sequence[str] | None = None
    prune: bool = False
    no_interpolate: bool = False
    no_normalize: bool = False
    no_consistency: bool = False
    no_path_resolution: bool = False
    no_env_resolution: bool = False
    environ: Mapping[str, str] | None = None
    cwd: Name | None = None
    stdin: bytes | str | None = None


def load(files: Sequence[Name] | None = None, **options: Any) -> Project:
    """Return the project that Compose files describe, in canonical form.

    ``options`` are the other fields of :class:`LoadOptions`. Example::

        project = specs.load(["compose.yaml"], profiles=["debug"])
        project.model["services"]["web"]["image"]
        project.origins["services.web.image"]     # compose.yaml:4:12

    Raises ``SpecError`` with every problem found.
    """
    project, problems = examine(files, **options)
    if project is None or any(problem.severity == "error" for problem in problems):
        raise SpecError(problems)
    return project


def examine(
    files: Sequence[Name] | None = None, **options: Any
) -> tuple[Project | None, list[Problem]]:
    """Load as :func:`load` does, but return what is wrong beside what could be loaded.

    For tools that have more to say about a broken project. What the problems name is
    missing from the project; it is None when not even that much could be made.
    """
    loading = _Load(LoadOptions(files, **options))
    return loading.run(), loading.findings.all()


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "/"


class _Load:
    """One load; its stages run in the order of the methods here."""

    def __init__(self, options: LoadOptions) -> None:
        self._options = options
        self._environ = os.environ if options.environ is None else options.environ
        self._cwd = os.path.abspath(options.cwd) if options.cwd else _cwd()
        self._interpolation = not options.no_interpolate
        self.findings = Findings()
        self._files = Files(self._cwd, self._stdin)

    def _stdin(self) -> bytes:
        given = self._options.stdin
        if given is None:
            data = sys.stdin.buffer.read(TEXT_LIMIT + 1)
            if len(data) > TEXT_LIMIT:
                raise FileTooLarge(STDIN, TEXT_LIMIT)
            return data
        return given.encode() if isinstance(given, str) else given

    def run(self) -> Project | None:
        options = self._options
        setting = discovery.discover(
            files=[os.fspath(name) for name in options.files or ()],
            project_directory=os.fspath(options.project_directory or "") or None,
            env_files=[os.fspath(name) for name in options.env_files or ()],
            profiles=options.profiles or (),
            environ=self._environ,
            cwd=self._cwd,
            reader=self._files,
            findings=self.findings,
        )
        if not setting.files:
            self._nothing_found()
            return None
        pipeline = Pipeline(
            self._files,
            self.findings,
            home=self._environ.get("HOME"),
            interpolation=self._interpolation,
            resolve_paths=not options.no_path_resolution,
            resolve_environment=not options.no_env_resolution,
        )
        documents = [pipeline.documents(path) or [] for path in setting.files]
        if self.findings.errors and not any(documents):
            return None
        name = self._name(setting, documents)
        tree = self._tree(setting, pipeline, name)
        project = self._project(setting, name, tree)
        self._finish(project)
        return project

    def _nothing_found(self) -> None:
        if not self.findings.errors:
            where = os.fspath(self._options.project_directory or "") or self._cwd
            self.findings.error(
                f"no Compose file in {where} or any folder above it",
                code="missing-file",
                hint="create compose.yaml, or name a file with -f",
            )

    def _name(self, setting: Setting, documents: list[list[Document]]) -> str:
        name = discovery.project_name(
            self._options.project_name,
            setting,
            documents,
            self.findings,
            interpolate=self._interpolation,
            normalize=not self._options.no_normalize,
        )
        setting.environment.set(PROJECT_NAME, name, "the project name")
        return name

    def _tree(self, setting: Setting, pipeline: Pipeline, name: str) -> Map:
        folder = setting.working_dir
        tree = pipeline.load(setting.files, Scope(folder, folder, setting.environment))
        if not tree and not self.findings.errors:
            self.findings.error(
                "the project is empty",
                code="empty",
                position=Position(setting.files[0], 1, 1),
                hint="add services:",
            )
        if not self._options.no_normalize:
            from specs.compose.project.normalize import normalize  # noqa: PLC0415 - only when asked for

            normalize(tree, name, setting.environment)
        return tree

    def _project(self, setting: Setting, name: str, tree: Map) -> Project:
        from specs.compose.project.selection import by_profile  # noqa: PLC0415 - one stage, one import

        model = bind(tree, name, self.findings, lenient=not self._interpolation)
        enabled, disabled = by_profile(model["services"], setting.profiles)
        model["services"] = enabled
        return Project(
            name=name,
            working_dir=setting.working_dir,
            files=tuple(setting.files),
            model=model,
            environment=setting.environment,
            warnings=self.findings.warnings,
            tree=tree,
            profiles=setting.profiles,
            disabled=disabled,
            sources=self._files.texts,
        )

    def _finish(self, project: Project) -> None:
        from specs.compose.project import selection  # noqa: PLC0415 - one stage, one import
        from specs.compose.project.consistency import Consistency  # noqa: PLC0415 - one stage, one import
        from specs.compose.project.environment import Folding  # noqa: PLC0415 - one stage, one import

        model = project.model
        if not self._options.no_consistency:
            Consistency(
                model,
                project.disabled,
                self.findings,
                project.origin,
                interpolated=self._interpolation,
            ).check()
        enabled, disabled = selection.select(
            model["services"],
            project.disabled,
            self._options.services or (),
            project.profiles,
            self.findings,
        )
        model["services"] = enabled
        if disabled is not project.disabled:
            project.disabled.clear()
            project.disabled.update(disabled)
        if self._options.prune:
            selection.prune(model)
        folding = Folding(
            self._files,
            project.working_dir,
            project.environment,
            self.findings,
            project.origin,
            interpolated=self._interpolation,
        )
        if not self._options.no_env_resolution:
            folding.environments(enabled)
        folding.labels(enabled)
        project.file_marks.update(folding.marks)
        self._unwritable(project)

    def _unwritable(self, project: Project) -> None:
        """Refuse texts no file can hold: bytes of the environment that are not UTF-8."""
        for path, text in texts(project.model):
            try:
                text.encode()
            except UnicodeEncodeError:
                self.findings.error(
                    f"{text[:60]!a} is not Unicode text",
                    code="not-text",
                    path=path,
                    position=project.origin(path),
                    hint="a variable of the environment is not UTF-8; secrets may be",
                )


def texts(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text below a value with its path, but for what is ASCII."""
    if isinstance(value, str):
        if not value.isascii():
            yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from texts(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from texts(item, f"{path}[{index}]")


__all__ = ["STDIN", "LoadOptions", "examine", "load"]
