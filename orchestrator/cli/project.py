"""Load the Compose files as the global flags say; read secrets and configs.

The only module of the command line that imports the loader (and so YAML), and only where what
it found the last time does not count any more (``orchestrator.cli.loaded``).
"""

from __future__ import annotations

import argparse
import base64
import time

from orchestrator.cli import loaded, names
from orchestrator.cli.errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from orchestrator.cli.loaded import Loaded
    from specs import Project
    from specs.problems import Problem


def load(flags: argparse.Namespace, services: Sequence[str] = (), **options: Any) -> Project:
    """Return the project; warnings and problems are shown on stderr. Raises CliError."""
    import os

    import specs
    from orchestrator.cli import findings
    from specs.problems import SpecError, once

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


def with_profiles_of(flags: argparse.Namespace, names_: Sequence[str]) -> Loaded:
    """Return the whole project; naming a service switches its profiles on, as in Compose."""
    project = _whole(flags)
    asleep = [name for name in names_ if name in project.disabled]
    if not asleep:
        return project
    wanted = {word for name in asleep for word in project.disabled[name].get("profiles", ())}
    profiles = [*project.profiles, *sorted(wanted)]
    return _whole(argparse.Namespace(**{**vars(flags), "profile": profiles}))


def _whole(flags: argparse.Namespace) -> Loaded:
    """Return the project as it was loaded before, where that still holds, else load it."""
    project = loaded.lookup(flags)
    if project is None:
        from specs.kit import reading

        began = time.time()
        with reading.noting(loaded.stamp) as looked_at:
            fresh = load(flags)
        project = loaded.of(fresh)
        texts = fresh.sources
        if "-" not in texts:  # standard input is nothing to come back to
            known = texts.values()
            loaded.remember(flags, project, looked_at=looked_at, texts=known, began=began)
        return project
    if project.warnings:
        from orchestrator.cli import findings

        findings.show_json(project.warnings)
    return project


def contents(
    project: Loaded, services: Sequence[str] = (), *, dependencies: bool = True
) -> dict[str, str]:
    """Return the base64 contents of secrets and configs. Raises CliError.

    Of named ``services`` only what they, and what they depend on, use: a file that another
    service lacks is of no concern to them.
    """
    if not project.model.get("secrets") and not project.model.get("configs"):
        return {}
    from orchestrator.cli import findings
    from specs.compose.project.content import read_contents
    from specs.compose.project.selection import narrowed
    from specs.problems import SpecError

    used = narrowed(project.model, services, dependencies=dependencies) if services else None
    try:
        found = read_contents(project, used=used)
    except SpecError as exc:
        findings.show(exc.problems)
        raise CliError("a secret or config cannot be read; nothing was changed") from None
    return {key: base64.b64encode(data).decode() for key, data in found.items()}
