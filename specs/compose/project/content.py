"""The bytes of a project's secrets and configs, read when it is deployed.

``orchestrator.cli.commands.up`` sends them along as ``specs.api.Deploy.contents``. Never
part of the model or of anything printed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from specs.bounds import MOST_BYTES
from specs.kit import reading
from specs.problems import Problem, SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol

    from specs.problems import Position

    class Written(Protocol):
        """What a project is asked for here; the command line has one without its tree."""

        @property
        def model(self) -> dict[str, Any]: ...

        @property
        def environment(self) -> Mapping[str, str]: ...

        def origin(self, path: str) -> Position | None: ...


def read_contents(
    project: Written,
    sections: Sequence[str] = ("secrets", "configs"),
    *,
    used: Mapping[str, Any] | None = None,
) -> dict[str, bytes]:
    """Return ``secrets.KEY`` and ``configs.KEY`` -> bytes; external ones are left out.

    ``used`` is the part of the project's model that is deployed, where it is not all of it.
    Raises ``SpecError`` with every one that cannot be read.
    """
    found: dict[str, bytes] = {}
    problems: list[Problem] = []
    for section in sections:
        for key, entry in (used or project.model).get(section, {}).items():
            path = f"{section}.{key}"
            if entry.get("external"):
                continue
            try:
                data = _read(entry, project)
            except _Unreadable as error:
                problems.append(
                    Problem(str(error), error.code, path, project.origin(path), error.hint)
                )
                continue
            if data is None:
                continue  # a driver of its own provides it
            if len(data) > MOST_BYTES:
                problems.append(
                    Problem(
                        f"{len(data)} bytes are more than the {MOST_BYTES} allowed",
                        "too-large",
                        path,
                        project.origin(path),
                        "mount it as a volume instead",
                    )
                )
                continue
            found[path] = data
    if problems:
        raise SpecError(problems)
    return found


class _Unreadable(Exception):
    def __init__(self, message: str, hint: str, code: str = "unreadable-file") -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code


def _read(entry: dict[str, Any], project: Written) -> bytes | None:
    if entry.get("environment"):
        variable = entry["environment"]
        value = project.environment.get(variable)
        if value is None:
            raise _Unreadable(
                f"the variable {variable} is not set", f"set {variable} before deploying"
            )
        return value.encode("utf-8", "surrogateescape")
    if "content" in entry:
        content: str = entry["content"]
        return content.encode("utf-8", "surrogateescape")
    if entry.get("file"):
        try:
            return reading.read(entry["file"], MOST_BYTES)
        except reading.FileTooLarge as error:
            raise _Unreadable(
                f"{entry['file']}: {error.strerror}", "mount it as a volume instead", "too-large"
            ) from None
        except OSError as error:
            hint = "create the file" if isinstance(error, FileNotFoundError) else "name a file"
            raise _Unreadable(f"{entry['file']} cannot be read: {error.strerror}", hint) from None
    if entry.get("driver"):
        return None
    return b""  # ``content: ""`` (also of an unset variable): empty texts are not in the model
