"""Load the Compose files as the global flags say; read secrets and configs.

The only module of the command line that imports the loader (and so YAML).
"""

from __future__ import annotations

import argparse
import base64
import os
from typing import TYPE_CHECKING, Any

import specs
from orchestrator.cli import findings, names
from orchestrator.cli.errors import CliError
from specs.problems import SpecError, once

if TYPE_CHECKING:
    from collections.abc import Sequence

    from specs import Project
    from specs.problems import Problem


def load(flags: argparse.Namespace, services: Sequence[str] = (), **options: Any) -> Project:
    """Return the project; warnings and problems are shown on stderr. Raises CliError."""
    try:
        project = specs.load(**_given(flags), services=list(services), **options)
    except SpecError as exc:
        findings.show(exc.problems)
        count = sum(problem.severity == "error" for problem in once(exc.problems))
        raise CliError(
            f"the Compose file has {count} problem{'s' if count != 1 else ''}; nothing was changed",
            hint="corral lint says more",
        ) from None
    findings.show(project.warnings)
    if not flags.project_name and not os.environ.get("COMPOSE_PROJECT_NAME"):
        names.remember(flags, project.name)
    return project


def examine(flags: argparse.Namespace) -> tuple[Project | None, list[Problem]]:
    """Return what could be loaded, with all resources, and every problem; shows nothing."""
    from specs.compose.load import examine as examined

    return examined(**{**_given(flags), "prune": False})


def _given(flags: argparse.Namespace) -> dict[str, Any]:
    return {
        "files": list(flags.file),
        "project_name": flags.project_name,
        "project_directory": flags.project_directory,
        "profiles": list(flags.profile),
        "env_files": list(flags.env_file),
        "prune": not flags.all_resources,
    }


def origins(project: Project) -> dict[str, dict[str, Any]]:
    """Return dotted path -> its position, as the API takes it."""
    return {
        path: {"file": at.file, "line": at.line, "column": at.column}
        for path, at in project.origins.items()
    }


def with_profiles_of(flags: argparse.Namespace, names_: Sequence[str]) -> Project:
    """Return the whole project; naming a service switches its profiles on, as in Compose."""
    project = load(flags)
    asleep = [name for name in names_ if name in project.disabled]
    if not asleep:
        return project
    wanted = {word for name in asleep for word in project.disabled[name].get("profiles", ())}
    return load(argparse.Namespace(**{**vars(flags), "profile": [*project.profiles, *wanted]}))


def contents(
    project: Project, services: Sequence[str] = (), *, dependencies: bool = True
) -> dict[str, str]:
    """Return the base64 contents of secrets and configs. Raises CliError.

    Of named ``services`` only what they, and what they depend on, use: a file that another
    service lacks is of no concern to them.
    """
    from specs.compose.project.content import read_contents
    from specs.compose.project.selection import narrowed

    used = narrowed(project.model, services, dependencies=dependencies) if services else None
    try:
        found = read_contents(project, used=used)
    except SpecError as exc:
        findings.show(exc.problems)
        raise CliError("a secret or config cannot be read; nothing was changed") from None
    return {key: base64.b64encode(data).decode() for key, data in found.items()}
