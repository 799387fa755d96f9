"""Fold ``env_file`` into ``environment`` and ``label_file`` into ``labels``.

The last stage: only selected services' files are read. Strongest first:
``environment`` with a value, a bare key passed through, the last env file.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

from specs.compose.reading.envfile import EnvFile, EnvFileError, parse_raw, text_of
from specs.compose.reading.tree import SourceMark
from specs.problems import Position

if TYPE_CHECKING:
    from collections.abc import Callable

    from specs.compose.reading.files import Files
    from specs.compose.reading.variables import Environment
    from specs.findings import Findings


class Folding:
    """Folds the files of one model's services."""

    def __init__(
        self,
        files: Files,
        folder: str,
        environment: Environment,
        findings: Findings,
        where: Callable[[str], Position | None],
        *,
        interpolated: bool = True,
    ) -> None:
        self._files = files
        self._known = interpolated
        self._folder = folder
        self._environment = environment
        self.marks: dict[str, SourceMark] = {}  # path -> the line of the file a value came from
        self._findings = findings
        self._where = where

    def environments(self, services: dict[str, Any]) -> None:
        """Replace every ``env_file`` by its variables."""
        for name, service in services.items():
            self._environment_of(service, f"services.{name}")

    def labels(self, services: dict[str, Any]) -> None:
        """Replace every ``label_file`` by its labels."""
        for name, service in services.items():
            paths = service.pop("label_file", None)
            if not paths:
                continue
            labels: dict[str, str] = {}
            for index, path in enumerate(paths):
                at = f"services.{name}.label_file[{index}]"
                known = dict(labels)
                read = self._read(path, "", known.get, {}, at, "label file")
                labels.update(read or {})
            own = service.get("labels", {})
            self._forget(f"services.{name}.labels", own)
            labels.update(own)
            if labels:
                service["labels"] = labels

    def _environment_of(self, service: dict[str, Any], path: str) -> None:
        written = service.get("environment") or {}
        if not isinstance(written, dict):
            return  # not interpolated, and not readable before that
        own: dict[str, str | None] = dict(written)
        for key, value in own.items():
            if value is None and key in self._environment:
                own[key] = self._environment[key]
        folded: dict[str, str | None] = {k: v for k, v in own.items() if v is not None}

        def lookup(name: str) -> str | None:
            return self._environment.get(name, own.get(name))

        for index, entry in enumerate(service.pop("env_file", ())):
            if not isinstance(entry, dict) or (not self._known and "$" in entry.get("path", "")):
                continue  # which file it is, is not known
            known = {key: value for key, value in folded.items() if value is not None}
            read = self._read(
                entry.get("path", ""),
                entry.get("format", ""),
                lookup,
                known,
                f"{path}.env_file[{index}]",
                "env file",
                required=entry.get("required", True),
            )
            folded.update(read or {})
        folded.update(own)
        self._forget(f"{path}.environment", own)
        if folded:
            service["environment"] = folded
        else:
            service.pop("environment", None)

    def _forget(self, path: str, own: dict[str, Any]) -> None:
        """Drop what the service itself says: that wins over the files."""
        for key in own:
            self.marks.pop(f"{path}.{key}", None)

    def _read(
        self,
        path: str,
        form: str,
        lookup: Callable[[str], str | None],
        known: dict[str, str],
        at: str,
        what: str,
        *,
        required: bool = True,
    ) -> dict[str, str] | None:
        path = posixpath.join(self._folder, path)  # relative only without path resolution
        try:
            text = text_of(self._files.read(path))
            if form == "raw":
                return parse_raw(text, lookup)
            if form not in ("", ".env"):
                self._report(f"unknown env_file format {form!r}", at, "use raw, or leave it out")
                return None
            into = at.rpartition(".")[0] + (".environment" if what == "env file" else ".labels")
            return self._noted(EnvFile(text, lookup, known), path, into)
        except FileNotFoundError:
            if required:
                self._report(
                    f"the {what} {path} does not exist", at, "create it, or set required: false"
                )
        except OSError as error:
            self._report(f"the {what} {path} cannot be read: {error.strerror}", at, "name a file")
        except EnvFileError as error:
            self._findings.error(
                str(error),
                code="env-file",
                path=at,
                position=Position(path, error.line, 1),
                hint=error.hint,
            )
        return None

    def _noted(self, parsed: EnvFile, path: str, into: str) -> dict[str, str]:
        for key, line in parsed.lines.items():
            before = self.marks.get(f"{into}.{key}")
            self.marks[f"{into}.{key}"] = SourceMark(path, line, 1).over(before, "override")
        return parsed.values

    def _report(self, message: str, at: str, hint: str = "") -> None:
        self._findings.error(
            message, code="missing-file", path=at, position=self._where(at), hint=hint
        )
