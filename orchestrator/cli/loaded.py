"""Compose projects as they were loaded, kept while nothing that was looked at has changed.

Loading takes YAML and half of what `run` costs its user's processor. A kept project counts only
while the flags, the folder, the environment, our own loader, and every file that was read or
found absent are as they were before they were looked at (place behind links, inode, size, times of
change). What changed meanwhile or is in doubt is loaded again, and whatever is wrong with the
cache's file means the same.

Kept in memory only, for its owner's eyes, and until `down`: a model holds what variables hold. A
project with the value of a variable of the environment whose name says that it is secret is not
kept at all.
"""

from __future__ import annotations

import json
import os
import stat
import time

from orchestrator.client.digests import sha256
from orchestrator.client.places import run_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection, Iterator, Mapping
    from typing import Any

    from specs import Project
    from specs.problems import Position

KEPT = 50  # projects
FRESH = 0.1  # seconds; what changed this short before it was read may have changed since
COARSE = 2.1  # likewise, where times are whole seconds (some file systems), or every other one
# What differs from shell to shell and command to command. No file that names one is kept.
_RESTLESS = ("_", "SHLVL", "OLDPWD")
_NAMED = (b"SHLVL", b"OLDPWD", b"${_", b"$_")
_SECRET = ("PASSW", "PASSPHRASE", "SECRET", "TOKEN", "KEY", "CREDENTIAL")
_LOADER = (
    *("specs", "specs/compose", "specs/compose/language", "specs/compose/merging"),
    *("specs/compose/project", "specs/compose/reading", "specs/kit"),
)


class Loaded:
    """A project as commands that send it need it, from its files or from the cache."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data
        self.name = str(data["name"])
        self.working_dir = str(data["working_dir"])
        self.files = tuple(data["files"])
        self.model: dict[str, Any] = data["model"]
        self.origins: dict[str, dict[str, Any]] = data["origins"]
        self.disabled: dict[str, Any] = data["disabled"]
        self.profiles = tuple(data["profiles"])
        self.warnings: list[dict[str, Any]] = data["warnings"]
        self.environment: dict[str, str] = {**os.environ, **data["variables"]}

    def origin(self, path: str) -> Position | None:
        """Return where the value at ``path`` was written, or the nearest thing around it."""
        from specs.problems import Position

        while path and path not in self.origins:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return Position(**self.origins[path]) if path else None

    def as_json(self) -> dict[str, Any]:
        return dict(self._data)


def of(project: Project) -> Loaded:
    """Return a project that has just been loaded."""
    variables = project.environment
    return Loaded(
        {
            "name": project.name,
            "working_dir": project.working_dir,
            "files": list(project.files),
            "model": project.model,
            "origins": {
                path: {"file": at.file, "line": at.line, "column": at.column}
                for path, at in project.origins.items()
            },
            "disabled": project.disabled,
            "profiles": list(project.profiles),
            "warnings": [problem.as_json() for problem in project.warnings],
            "variables": {n: v for n, v in variables.items() if os.environ.get(n) != v},
        }
    )


def lookup(flags: argparse.Namespace) -> Loaded | None:
    """Return the project these flags mean, if it was loaded before and nothing has changed."""
    try:
        key = _key(flags)
        folder, end = _folder(), _end(key)  # whose it is stands before that, and is not known yet
        path = next((f"{folder}/{name}" for name in os.listdir(folder) if name.endswith(end)), None)
        if path is None:
            return None
        with open(path, encoding="utf-8") as file:
            seen = os.fstat(file.fileno())
            if seen.st_uid != os.geteuid() or seen.st_mode & 0o077:
                return None
            kept = json.load(file)
        if kept["key"] != key or any(stamp(old[0]) != old for old in kept["stamps"]):
            return None
        return Loaded(kept["project"])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def remember(
    flags: argparse.Namespace,
    project: Loaded,
    *,
    looked_at: Mapping[str, list[Any]],
    texts: Collection[bytes],
    began: float,
) -> None:
    """Keep a project that was loaded since ``began`` (of the wall clock) from these files.

    ``looked_at``: each path with its stamp before it was read. Failing to is not an error.
    """
    try:
        key = _key(flags)
        folder = _folder()
        if not folder or any(word in text for text in texts for word in _NAMED):
            return
        if any(name in environment for environment in _environments(project) for name in _RESTLESS):
            return
        stamps = [looked_at[name] for name in sorted(looked_at)]
        if any(stamp(old[0]) != old or _in_doubt(old, began) for old in stamps):
            return
        text = json.dumps({"key": key, "stamps": stamps, "project": project.as_json()})
        if not _holds_secrets(text):
            _write(folder, project.name, _end(key), text)
    except (OSError, ValueError, TypeError):
        return


def forget(stack: str) -> None:
    """Drop what is kept of a stack: it is being removed. Failing to is not an error."""
    try:
        folder = _folder()
        for name in os.listdir(folder):
            if name.partition(".")[0] == stack:
                os.unlink(f"{folder}/{name}")
    except OSError:
        return


def _key(flags: argparse.Namespace) -> list[Any]:
    environment = sorted(item for item in os.environ.items() if item[0] not in _RESTLESS)
    return [
        os.getcwd(),
        *(flags.file, flags.project_name, flags.project_directory),
        *(flags.profile, flags.env_file, flags.all_resources),
        sha256(json.dumps([environment, _loader()]).encode()),
    ]


def _loader() -> list[list[Any]]:
    """Return what changes whenever the loader may have changed."""
    base = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    found: list[list[Any]] = [[base]]
    for folder in _LOADER:
        with os.scandir(f"{base}/{folder}") as entries:
            files = [entry for entry in entries if entry.name.endswith(".py")]
            found += sorted([entry.name, entry.stat().st_mtime_ns] for entry in files)
    return found


def _end(key: list[Any]) -> str:
    return f".{sha256(json.dumps(key).encode())[:32]}.json"


def _folder() -> str:
    """Return where projects are kept: in memory, never on a disk; "" = nowhere."""
    if os.geteuid() == 0:
        shared = run_dir()
        return f"{shared}/projects" if os.path.isdir(shared) else ""
    own = os.environ.get("XDG_RUNTIME_DIR") or ""
    return f"{own}/corral" if os.path.isdir(own) else ""


def stamp(path: str) -> list[Any]:
    """Return what is different once a file is, or a link on the way to it, or once there is one."""
    try:
        place = os.path.realpath(path)
        own, seen = os.lstat(path), os.stat(path)
    except (OSError, ValueError):
        return [path, os.path.realpath(path) if "\0" not in path else ""]
    if stat.S_ISDIR(seen.st_mode):
        return [path, place, "folder"]
    kind = [stat.S_IFMT(seen.st_mode), seen.st_dev, seen.st_ino, seen.st_size, own.st_ino]
    return [path, place, *kind, own.st_ctime_ns, seen.st_mtime_ns, seen.st_ctime_ns]


def _in_doubt(seen: list[Any], began: float) -> bool:
    """Say whether what was read may be other than what is there now: a pipe, a file just written.

    Times in the future say nothing at all.
    """
    if len(seen) <= 3:
        return False
    newest = max(seen[-3:])
    patience = COARSE if newest % 10**9 == 0 else FRESH
    return bool(seen[2] != stat.S_IFREG or newest > (began - patience) * 1e9)


def _environments(project: Loaded) -> Iterator[Collection[str]]:
    for service in (*project.model["services"].values(), *project.disabled.values()):
        yield (service or {}).get("environment") or ()


def _holds_secrets(text: str) -> bool:
    return any(
        value and _secret(name, value) and json.dumps(value)[1:-1] in text
        for name, value in os.environ.items()
    )


def _secret(name: str, value: str) -> bool:
    """Say whether a variable is likely to be one: by its name, or a URL with a password."""
    _, scheme, rest = value.partition("://")
    user, at, _ = rest.partition("@")
    named = name.upper()
    by_name = named.endswith("PASS") or any(word in named for word in _SECRET)
    return by_name or bool(scheme and at and ":" in user)


def _write(folder: str, name: str, end: str, text: str) -> None:
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = f"{folder}/{name}{end}"
    for other in os.listdir(folder):  # what the same flags meant before the file's name changed
        if other.endswith(end) and other != f"{name}{end}":
            os.unlink(f"{folder}/{other}")
    kept = [f"{folder}/{name}" for name in os.listdir(folder)]
    if len(kept) >= KEPT:
        for old in sorted(kept, key=_age)[: len(kept) - KEPT + 1]:
            os.unlink(old)
    draft = f"{path}.{os.getpid()}"
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        os.replace(draft, path)
    except OSError:
        if os.path.exists(draft):
            os.unlink(draft)
        raise


def _age(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return time.time()
