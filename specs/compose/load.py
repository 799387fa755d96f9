"""Load a Compose project: the public entry of the package.

``specs.load`` is this :func:`load`. The CLI calls it with the command line's options;
it reads the files it is told to and has no other effect. Every problem found is
raised at once as one ``SpecError``.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from specs.compose.merging.layers import Layers, Scope
from specs.compose.project.bind import bind
from specs.compose.project.model import Project
from specs.compose.reading import discovery
from specs.compose.reading.files import STDIN, Files
from specs.compose.reading.findings import Findings
from specs.compose.reading.variables import PROJECT_NAME
from specs.problems import Position, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from specs.compose.reading.discovery import Setting
    from specs.compose.reading.tree import Map
    from specs.problems import Problem


def load(
    files: Sequence[str | os.PathLike[str]] | None = None,
    *,
    project_directory: str | os.PathLike[str] | None = None,
    project_name: str | None = None,
    profiles: Sequence[str] | None = None,
    env_files: Sequence[str | os.PathLike[str]] | None = None,
    services: Sequence[str] | None = None,
    prune: bool = False,
    no_interpolate: bool = False,
    no_normalize: bool = False,
    no_consistency: bool = False,
    no_path_resolution: bool = False,
    no_env_resolution: bool = False,
    environ: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stdin: bytes | str | None = None,
    _keep: Callable[[Project], None] | None = None,
) -> Project:
    """Return the project that Compose files describe, in canonical form.

    Without ``files`` they are looked for from ``cwd`` upwards; ``-`` is ``stdin``.
    Options are those of ``corral config``; ``environ`` and ``cwd`` default to the
    process's own. Example::

        project = specs.load(["compose.yaml"], profiles=["debug"])
        project.model["services"]["web"]["image"]
        project.origins["services.web.image"]     # compose.yaml:4:12

    Raises ``SpecError`` with every problem found.
    """
    return _Load(
        environ=os.environ if environ is None else environ,
        cwd=os.path.abspath(cwd) if cwd else _cwd(),  # noqa: PTH100 - text paths, as everywhere here
        stdin=stdin.encode() if isinstance(stdin, str) else stdin,
        interpolation=not no_interpolate,
        normalization=not no_normalize,
        consistency=not no_consistency,
        resolve_paths=not no_path_resolution,
        resolve_environment=not no_env_resolution,
    ).run(
        files=[os.fspath(name) for name in files or ()],
        project_directory=os.fspath(project_directory) if project_directory else None,
        project_name=project_name,
        profiles=profiles or (),
        env_files=[os.fspath(name) for name in env_files or ()],
        services=services or (),
        prune=prune,
        keep=_keep,
    )


def examine(files: Sequence[str] = (), **options: Any) -> tuple[Project | None, list[Problem]]:
    """Load as :func:`load` does, but return what is wrong beside what could be loaded.

    For tools that have more to say about a broken project. What the problems name is
    missing from the project; it is None when not even that much could be made.
    """
    kept: list[Project] = []
    try:
        project = load(files, **options, _keep=kept.append)
    except SpecError as error:
        return (kept[0] if kept else None), error.problems
    return project, project.warnings


def _cwd() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - text paths
    except OSError:
        return "/"


class _Load:
    def __init__(
        self,
        *,
        environ: Mapping[str, str],
        cwd: str,
        stdin: bytes | None,
        interpolation: bool,
        normalization: bool,
        consistency: bool,
        resolve_paths: bool,
        resolve_environment: bool,
    ) -> None:
        self._environ = environ
        self._cwd = cwd
        self._interpolation = interpolation
        self._normalization = normalization
        self._consistency = consistency
        self._resolve_paths = resolve_paths
        self._resolve_environment = resolve_environment
        self._findings = Findings()
        self._files = Files(cwd, lambda: sys.stdin.buffer.read() if stdin is None else stdin)

    def run(
        self,
        *,
        files: Sequence[str],
        project_directory: str | None,
        project_name: str | None,
        profiles: Sequence[str],
        env_files: Sequence[str],
        services: Sequence[str],
        prune: bool,
        keep: Callable[[Project], None] | None,
    ) -> Project:
        setting = discovery.discover(
            files=files,
            project_directory=project_directory,
            env_files=env_files,
            profiles=profiles,
            environ=self._environ,
            cwd=self._cwd,
            reader=self._files,
            findings=self._findings,
        )
        if not setting.files:
            self._nothing_found(project_directory)
        layers = Layers(
            self._files,
            self._findings,
            home=self._environ.get("HOME"),
            interpolation=self._interpolation,
            resolve_paths=self._resolve_paths,
        )
        name = self._name(project_name, setting, layers)
        tree = self._tree(setting, layers, name)
        project = self._project(setting, name, tree, layers.trees())
        if keep is not None:
            keep(project)
        self._finish(project, services, prune=prune)
        if self._findings.errors:
            raise SpecError(self._findings.all())
        return project

    def _nothing_found(self, project_directory: str | None) -> None:
        if not self._findings.errors:
            where = project_directory or self._cwd
            self._findings.error(
                f"no Compose file in {where} or any folder above it",
                code="missing-file",
                hint="create compose.yaml, or name a file with -f",
            )
        raise SpecError(self._findings.all())

    def _name(self, wanted: str | None, setting: Setting, layers: Layers) -> str:
        documents = [layers.documents(path) or [] for path in setting.files]
        if self._findings.errors and not any(documents):
            raise SpecError(self._findings.all())
        name = discovery.project_name(
            wanted,
            setting,
            documents,
            self._findings,
            interpolate=self._interpolation,
            normalize=self._normalization,
        )
        setting.environment.set(PROJECT_NAME, name, "the project name")
        return name

    def _tree(self, setting: Setting, layers: Layers, name: str) -> Map:
        folder = setting.working_dir
        tree = layers.load(setting.files, Scope(folder, folder, setting.environment))
        if not tree and not self._findings.errors:
            self._findings.error(
                "the project is empty",
                code="empty",
                position=Position(setting.files[0], 1, 1),
                hint="add services:",
            )
        if self._normalization:
            from specs.compose.project.normalize import normalize  # noqa: PLC0415 - only when asked for

            normalize(tree, name, setting.environment)
        return tree

    def _project(
        self, setting: Setting, name: str, tree: Map, documents: tuple[Any, ...]
    ) -> Project:
        from specs.compose.project.selection import by_profile  # noqa: PLC0415 - one stage, one import

        model = bind(tree, name, self._findings, lenient=not self._interpolation)
        enabled, disabled = by_profile(model["services"], setting.profiles)
        model["services"] = enabled
        return Project(
            name=name,
            working_dir=setting.working_dir,
            files=tuple(setting.files),
            model=model,
            environment=setting.environment,
            warnings=self._findings.warnings,
            tree=tree,
            profiles=setting.profiles,
            documents=documents,
            disabled=disabled,
            sources=self._files.texts,
        )

    def _finish(self, project: Project, services: Sequence[str], *, prune: bool) -> None:
        from specs.compose.project import selection  # noqa: PLC0415
        from specs.compose.project.consistency import Consistency  # noqa: PLC0415 - one stage, one import
        from specs.compose.project.environment import Folding  # noqa: PLC0415

        model = project.model
        if self._consistency:
            Consistency(
                model,
                project.disabled,
                self._findings,
                project.origin,
                interpolated=self._interpolation,
            ).check()
        enabled, disabled = selection.select(
            model["services"], project.disabled, services, project.profiles, self._findings
        )
        model["services"] = enabled
        if disabled is not project.disabled:
            project.disabled.clear()
            project.disabled.update(disabled)
        if prune:
            selection.prune(model)
        folding = Folding(
            self._files,
            project.working_dir,
            project.environment,
            self._findings,
            project.origin,
            interpolated=self._interpolation,
        )
        if self._resolve_environment:
            folding.environments(enabled)
        folding.labels(enabled)
        project.file_marks.update(folding.marks)


__all__ = ["STDIN", "examine", "load"]
