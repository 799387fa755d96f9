"""Load the Compose files as the global flags say; read secrets and configs.

The only module of the command line that imports the loader (and so YAML).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.cli import findings, names
from orchestrator.cli.errors import CliError
from specs.problems import SpecError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from specs.compose import Project


def load(flags: argparse.Namespace, services: Sequence[str] = (), **options: Any) -> Project:
    """Return the project; warnings and problems are shown on stderr. Raises CliError."""
    import specs

    try:
        project = specs.load(
            files=list(flags.file),
            project_name=flags.project_name,
            project_directory=flags.project_directory,
            profiles=list(flags.profile),
            env_files=list(flags.env_file),
            prune=not flags.all_resources,
            services=list(services),
            **options,
        )
    except SpecError as exc:
        findings.show(exc.problems)
        count = sum(problem.severity == "error" for problem in exc.problems)
        raise CliError(
            f"the Compose file has {count} problem{'s' if count != 1 else ''}; nothing was changed",
            hint="corral config -q checks it again",
        ) from None
    findings.show(project.warnings)
    if not flags.project_name:
        names.remember(flags, project.name)
    return project


def origins(project: Project) -> dict[str, str]:
    """Return dotted path -> file:line:column."""
    return {path: str(position) for path, position in project.origins.items()}


def contents(project: Project) -> Mapping[str, str]:
    """Return the base64 contents of secrets and configs. Raises CliError."""
    from specs.compose import content

    try:
        return content.read(project)
    except SpecError as exc:
        findings.show(exc.problems)
        raise CliError("a secret or config cannot be read; nothing was changed") from None
