"""Which files, which folder, which variables, which name: everything before reading YAML.

Goes by Docker's page "Specify a project name" and compose-go. Reads ``.env`` files and looks
for Compose files; decides nothing about their content.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from specs.compose.reading.files import STDIN, Files
from specs.compose.reading.interpolate import Substitution, TemplateError
from specs.compose.reading.variables import PROJECT_NAME, Environment
from specs.kit import reading
from specs.problems import Position

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from specs.compose.reading.source import Document
    from specs.findings import Findings

FILE_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDE_NAMES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*\Z")


@dataclass
class Setting:
    """Where a load takes place; the outcome of discovery."""

    files: list[str] = field(default_factory=list)
    working_dir: str = ""
    environment: Environment = field(default_factory=lambda: Environment({}))
    profiles: tuple[str, ...] = ()


def discover(
    *,
    files: Sequence[str],
    project_directory: str | None,
    env_files: Sequence[str],
    profiles: Sequence[str],
    environ: Mapping[str, str],
    cwd: str,
    reader: Files,
    findings: Findings,
) -> Setting:
    """Find files, folder, variables and profiles; problems go to ``findings``."""
    setting = Setting(environment=Environment(environ))
    environment = setting.environment
    if "PWD" not in environment:
        environment.set("PWD", cwd, "environment")
    if not env_files and environ.get("COMPOSE_ENV_FILES"):
        env_files = environ["COMPOSE_ENV_FILES"].split(",")
    setting.files = [name if name == STDIN else reader.absolute(name) for name in files]
    folder = _folder(setting.files, project_directory, reader, cwd)
    _add_env_files(setting, env_files, folder, reader, findings)
    if not setting.files:
        _files_from_environment(setting, reader, findings)
    if not setting.files:
        _search(setting, _folder([], project_directory, reader, cwd), findings)
    setting.working_dir = _folder(setting.files, project_directory, reader, cwd)
    if setting.working_dir != folder and not env_files:
        _add_env_files(setting, env_files, setting.working_dir, reader, findings)
    active = profiles or environment.get("COMPOSE_PROFILES", "").split(",")
    setting.profiles = tuple(name if profiles else name.strip() for name in active)
    return setting


def _folder(files: list[str], project_directory: str | None, reader: Files, cwd: str) -> str:
    if project_directory:
        return reader.absolute(project_directory)
    for name in files:
        if name != STDIN:
            return os.path.dirname(name)
    return cwd


def _add_env_files(
    setting: Setting, env_files: Sequence[str], folder: str, reader: Files, findings: Findings
) -> None:
    paths = list(env_files)
    if not paths:
        disabled = setting.environment.get("COMPOSE_DISABLE_ENV_FILE")
        if (
            disabled is not None
            and setting.environment.source("COMPOSE_DISABLE_ENV_FILE") == "environment"
        ):
            if disabled not in _GO_BOOLEANS:
                findings.error(
                    f"COMPOSE_DISABLE_ENV_FILE is {disabled!r}, neither true nor false",
                    code="bad-value",
                    hint="write COMPOSE_DISABLE_ENV_FILE=1, or unset it",
                )
                return
            if _GO_BOOLEANS[disabled]:
                return
        default = f"{folder}/.env"
        if not reading.exists(default) or reading.is_folder(default):
            return
        paths = [default]
    values, sources = reader.env_files(paths, setting.environment, findings)
    setting.environment.add(values, sources)


_GO_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}


def _files_from_environment(setting: Setting, reader: Files, findings: Findings) -> None:
    value = setting.environment.get("COMPOSE_FILE")
    if value is None:
        return
    separator = setting.environment.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
    for name in value.split(separator):
        path = name if name == STDIN else reader.absolute(name)
        if path != STDIN and not reading.exists(path):
            findings.error(
                f"the file {path} named by COMPOSE_FILE does not exist", code="missing-file"
            )
            continue
        setting.files.append(path)


def _search(setting: Setting, folder: str, findings: Findings) -> None:
    while True:
        found = _present(FILE_NAMES, folder)
        if found:
            break
        parent = os.path.dirname(folder)
        if parent == folder:
            return
        folder = parent
    for candidates in (found, _present(OVERRIDE_NAMES, folder)):
        if len(candidates) > 1:
            findings.warn(
                f"several files would do: {', '.join(candidates)}; {candidates[0]} is used",
                code="several-files",
                position=Position(candidates[0], 1, 1),
                hint="remove the others, or name one with -f",
            )
        setting.files.extend(candidates[:1])


def _present(names: tuple[str, ...], folder: str) -> list[str]:
    paths = (f"{folder.rstrip('/')}/{name}" for name in names)
    return [path for path in paths if reading.exists(path)]


def normalize_name(text: str) -> str:
    """Return the text as a project name: lower case, without what a name cannot have."""
    return re.sub(r"[^a-z0-9_-]", "", text.lower()).lstrip("_-")


def project_name(
    wanted: str | None,
    setting: Setting,
    documents: list[list[Document]],
    findings: Findings,
    *,
    interpolate: bool,
    normalize: bool,
) -> str:
    """Return the project's name: ``-p``, the variable, the last file's ``name:``, the folder."""
    for value, what in ((wanted, "-p"), (setting.environment.get(PROJECT_NAME), PROJECT_NAME)):
        if value:
            if not _NAME.match(value):
                findings.error(
                    f"the project name {value!r} given by {what} is not valid",
                    code="bad-name",
                    hint="use a-z, 0-9, '-' and '_', beginning with a letter or digit",
                )
            return value
    written, mark = _written_name(documents)
    if written and interpolate:
        try:
            written = Substitution(setting.environment).text(written)
        except TemplateError:
            written = ""  # reported when the file itself is interpolated
            return "invalid"
    if normalize or not mark:
        written = normalize_name(written)
    if not written and not _named_first(documents):
        base = os.path.basename(setting.working_dir)
        written = normalize_name(base)
    if not written:
        findings.error(
            "the project name is empty",
            code="bad-name",
            path="name" if mark else "",
            mark=mark,
            hint="give one with -p, or with name: in the file",
        )
    return written


def _written_name(documents: list[list[Document]]) -> tuple[str, Any]:
    written, mark = "", None
    for file in documents:
        for document in file:
            name = document.tree.get("name") if isinstance(document.tree, dict) else None
            if isinstance(name, str) and name:
                written, mark = name, document.tree.marks.get("name")
    return written, mark


def _named_first(documents: list[list[Document]]) -> bool:
    for file in documents:
        tree = file[0].tree if file else None
        if isinstance(tree, dict) and tree.get("name"):
            return True
    return False
