"""Read the files a load is told to read, each once, and keep their text for messages."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from specs.compose.reading.envfile import EnvFile, EnvFileError, text_of
from specs.kit import reading
from specs.problems import Position

if TYPE_CHECKING:
    from collections.abc import Callable

    from specs.compose.reading.tree import SourceMark
    from specs.compose.reading.variables import Environment
    from specs.findings import Findings

STDIN = "-"


class Files:
    """All reading goes through here; nothing else in the package opens a file."""

    def __init__(self, cwd: str, stdin: Callable[[], bytes]) -> None:
        self._cwd = cwd
        self._stdin = stdin
        self.texts: dict[str, bytes] = {}
        self._refused: dict[str, OSError] = {}  # asking a pipe again would wait again

    def absolute(self, path: str) -> str:
        return os.path.normpath(os.path.join(self._cwd, path))

    def read(self, path: str) -> bytes:
        """Return the bytes of a file (``-`` is standard input); OSError when it cannot be read."""
        if path in self._refused:
            raise self._refused[path]
        if path not in self.texts:
            try:
                self.texts[path] = self._stdin() if path == STDIN else reading.read(path)
            except OSError as error:
                self._refused[path] = error
                raise
        return self.texts[path]

    def env_files(
        self,
        paths: list[str],
        outer: Environment,
        findings: Findings,
        mark: SourceMark | None = None,
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Return the variables of env files, later over earlier, and where each was set."""
        values: dict[str, str] = {}
        sources: dict[str, str] = {}
        for path in paths:
            path = self.absolute(path)  # noqa: PLW2901 - the one form used below
            try:
                parsed = EnvFile(text_of(self.read(path)), outer.get, values)
            except FileNotFoundError:
                findings.error(
                    f"the env file {path} does not exist",
                    code="missing-file",
                    mark=mark,
                    hint="create it, or remove it from --env-file",
                )
                continue
            except OSError as error:
                findings.error(
                    f"the env file {path} cannot be read: {error.strerror}",
                    code="unreadable-file",
                    mark=mark,
                    hint="name a file",
                )
                continue
            except EnvFileError as error:
                findings.error(
                    str(error),
                    code="env-file",
                    position=Position(path, error.line, 1),
                    hint=error.hint,
                )
                continue
            values.update(parsed.values)
            sources.update({key: f"{path}:{line}" for key, line in parsed.lines.items()})
        return values, sources
