"""Remember which stack a folder's Compose files describe, so that reading needs no YAML.

An entry holds every file that could have decided the name, absent ones too, with
its modification time; any difference makes the entry worthless. A name that
depends on variables is not remembered. The cache is a convenience: whatever is
wrong with its file, the answer is "not known" and the loader is asked.
"""

from __future__ import annotations

import fcntl
import json
import os

from orchestrator.client.places import run_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
OVERRIDES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
KEPT = 200  # entries
_VARIABLES = (
    "COMPOSE_FILE",
    "COMPOSE_PATH_SEPARATOR",
    "COMPOSE_ENV_FILES",
    "COMPOSE_DISABLE_ENV_FILE",
)

Stamp = list["str | int | None"]


def cache_file() -> str:
    """Return the cache's path: beside the sockets for root, else in the user's cache folder."""
    shared = run_dir()
    if os.path.isdir(shared) and os.access(shared, os.W_OK):
        return f"{shared}/names.json"
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return f"{base}/corral/names.json"


def _key(flags: argparse.Namespace) -> str:
    return json.dumps(
        [
            os.getcwd(),
            flags.file,
            flags.env_file,
            flags.project_directory,
            *(os.environ.get(name) for name in _VARIABLES),
        ]
    )


def _candidates(flags: argparse.Namespace) -> list[str] | None:
    """Return every path whose content or existence decides the name; None = cannot say."""
    here = os.getcwd()
    files = list(flags.file)
    if not files and os.environ.get("COMPOSE_FILE"):
        separator = os.environ.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
        files = os.environ["COMPOSE_FILE"].split(separator)
    if "-" in files:
        return None
    found: list[str] = []
    folder = here
    if files:
        found += [os.path.join(here, name) for name in files]
        folder = os.path.dirname(found[0])
    else:
        while True:
            names = [f"{folder.rstrip('/')}/{name}" for name in FILES]
            found += names
            if any(os.path.exists(name) for name in names):
                found += [f"{folder.rstrip('/')}/{name}" for name in OVERRIDES]
                break
            if folder == "/":
                return None
            folder = os.path.dirname(folder)
    extra = flags.env_file or (os.environ.get("COMPOSE_ENV_FILES") or "").split(",")
    found += [os.path.join(here, name) for name in extra if name]
    folders = {here, folder}
    if flags.project_directory:
        folders.add(os.path.join(here, flags.project_directory))
    return found + [f"{name.rstrip('/')}/.env" for name in sorted(folders)]


def beside(flags: argparse.Namespace) -> bool:
    """Say whether a Compose file is here, or in a folder above."""
    return any(os.path.exists(path) for path in _candidates(flags) or ())


def _stamp(path: str) -> Stamp:
    try:
        seen = os.stat(path)
    except OSError:
        return [path, None, None, None]
    return [path, seen.st_mtime_ns, seen.st_size, seen.st_ino]


def _read() -> dict[str, Any]:
    try:
        with open(cache_file(), encoding="utf-8") as file:
            data = json.load(file)
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def lookup(flags: argparse.Namespace) -> str | None:
    """Return the remembered name if nothing that decides it has changed."""
    try:
        entry = _read().get(_key(flags))
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            return None
        stamps = entry.get("stamps")
        if not isinstance(stamps, list) or any(_stamp(old[0]) != old for old in stamps):
            return None
        paths = _candidates(flags)
    except (OSError, TypeError, IndexError, KeyError):
        return None
    return entry["name"] if paths == [old[0] for old in stamps] else None


def _depends_on_variables(paths: list[str]) -> bool:
    for path in paths:
        try:
            with open(path, encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    if "COMPOSE_FILE" in line or (
                        line.lstrip().startswith("name:") and "$" in line
                    ):
                        return True
        except OSError:
            continue
    return False


def remember(flags: argparse.Namespace, name: str) -> None:
    """Store the name the loader found; failing to is not an error."""
    try:
        paths = _candidates(flags)
        if paths is None or _depends_on_variables(paths):
            return
        data = _read()
        key = _key(flags)
        data.pop(key, None)
        data[key] = {"name": name, "stamps": [_stamp(path) for path in paths]}
        while len(data) > KEPT:
            del data[next(iter(data))]
        _write(cache_file(), json.dumps(data))
    except OSError:
        return


def _write(target: str, text: str) -> None:
    """Replace the file. Always by the same other name, so that a kill leaves nothing for ever."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    temporary = f"{target}.new"
    with open(os.open(temporary, os.O_RDWR | os.O_CREAT, 0o666), "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another is at it; what is not remembered now is found again
        if not os.path.samestat(os.fstat(file.fileno()), os.stat(temporary)):
            return  # it has just become the cache
        file.truncate(0)
        file.write(text)
        file.flush()
        os.replace(temporary, target)
