"""Send what a Compose file needs of this machine, where this machine is outside the cluster.

Build contexts and read-only binds beside the file go to the controller's machine as folders by
their content, and the model names those: to the cluster the command ran there. Only chunks that
are missing travel. `up` and `run` call it; nothing is done unless the controller is reached over
ssh. Secrets and configs travel in the request, as always.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import os
import stat
from typing import TYPE_CHECKING, Any

from orchestrator.cli.errors import CliError
from specs.kit.ignoring import PathPatterns, lines_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from orchestrator.client.client import Client

CHUNK = 4 * 1024 * 1024  # as specs.sent has it
BATCH = 12 * 1024 * 1024  # bytes of a request, before base64
MOST = 100_000  # files, folders and links of one folder
ANSWER = 600.0  # seconds for a batch over a slow line


class Folder:
    """A folder (or one file) of this machine, read and cut into chunks."""

    def __init__(self, path: str, left_out: LeftOut | None = None) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []
        self.where: dict[str, tuple[str, int]] = {}  # chunk -> file, offset
        if os.path.isdir(path):
            for name in _walk(path, left_out):
                self._add(name, f"{path}/{name}")
        else:
            # What a link leads to here: the link itself would lead to a file of the controller's.
            self._add(os.path.basename(path), os.path.realpath(path))
            if not self.entries:
                raise CliError(f"{path} is neither a file nor a folder", hint="take it out")
        if len(self.entries) > MOST:
            raise CliError(
                f"{path} has {len(self.entries)} files: at most {MOST} are sent",
                hint="a .dockerignore leaves out what no build needs",
            )

    def _add(self, name: str, path: str) -> None:
        seen = os.lstat(path)
        entry: dict[str, Any] = {"path": name, "mode": stat.S_IMODE(seen.st_mode) & 0o777}
        if stat.S_ISLNK(seen.st_mode):
            entry |= {"kind": "link", "target": os.readlink(path), "mode": 0o777}
        elif stat.S_ISDIR(seen.st_mode):
            entry["kind"] = "folder"
        elif stat.S_ISREG(seen.st_mode):
            entry["chunks"] = self._chunks(path)
        else:
            return  # sockets, pipes and devices mean nothing elsewhere
        self.entries.append(entry)

    def _chunks(self, path: str) -> list[str]:
        found: list[str] = []
        with open(path, "rb") as file:
            while data := file.read(CHUNK):
                digest = hashlib.sha256(data).hexdigest()
                self.where[digest] = (path, len(found) * CHUNK)
                found.append(digest)
        return found


def _walk(top: str, left_out: LeftOut | None) -> Iterator[str]:
    """Yield what is sent: of a folder that is ignored, only the way to what is taken back."""
    given: set[str] = {""}
    for folder, folders, files in os.walk(top):
        below = os.path.relpath(folder, top)
        prefix = "" if below == "." else f"{below}/"
        links = [name for name in folders if os.path.islink(f"{folder}/{name}")]
        real = sorted(name for name in folders if name not in links)
        folders[:] = [n for n in real if left_out is None or not left_out.closes(prefix + n)]
        for name in sorted([*folders, *links, *files]):
            path = prefix + name
            if left_out is not None and left_out.out(path):
                continue
            for way in _ways(path):
                if way not in given:
                    given.add(way)
                    yield way


def _ways(path: str) -> Iterator[str]:
    """Yield the folders a path lies in, from the top, and itself."""
    at = path.find("/")
    while at > 0:
        yield path[:at]
        at = path.find("/", at + 1)
    yield path


class LeftOut:
    """What a build ignores of its context, as its node will: that need not be sent.

    What says so, and the Dockerfile, are sent whatever the patterns say.
    """

    def __init__(self, patterns: PathPatterns, kept: Collection[str]) -> None:
        self.patterns = patterns
        self.kept = frozenset(kept)

    def out(self, path: str) -> bool:
        return path not in self.kept and self.patterns.matches(path)

    def closes(self, folder: str) -> bool:
        """Say whether nothing below the folder is sent."""
        within = any(name.startswith(f"{folder}/") for name in self.kept)
        return not within and self.patterns.closes(folder)


def ignored_by(context: str, dockerfile: str = "Dockerfile") -> tuple[str, LeftOut | None]:
    """Return which file says what a build ignores of its context, and what that is.

    As the build does: the Dockerfile's own, else .containerignore, else .dockerignore.
    """
    for name in (f"{dockerfile}.dockerignore", ".containerignore", ".dockerignore"):
        try:
            with open(f"{context}/{name}", encoding="utf-8") as file:
                text = file.read()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            continue
        except (OSError, UnicodeDecodeError):
            return name, None  # the node says what is wrong with it; all is sent
        patterns = PathPatterns(lines_of(text))
        return name, LeftOut(patterns, (name, dockerfile)) if patterns else None
    return "", None


def asked(model: Mapping[str, Any], names: Sequence[str], *, dependencies: bool) -> Collection[str]:
    """Return the services that `up NAMES` is about."""
    from specs.compose.project.selection import with_dependencies

    services = model.get("services") or {}
    if not names:
        return set(services)
    return with_dependencies(services, names) if dependencies else set(names) & set(services)


def from_here(client: Client, request: dict[str, Any], say: Callable[[str], None]) -> None:
    """Change a request (specs.api.Deploy): its paths are the controller's, where ssh leads there.

    Its model, folder and machine, that is. Raises CliError, ClientError.
    """
    if not client.ssh:
        return
    client.get("/v1/version")  # whatever is wrong with the way is said first
    model = request["project"]
    model, machine, top = moved(
        client,
        model,
        request["directory"],
        of=asked(model, request["services"], dependencies=not request["no_deps"]),
        builds=request["build"] != "never",
        say=say,
    )
    request["project"] = model
    if machine:
        request |= {"client": machine, "directory": top}


def moved(
    client: Client,
    model: Mapping[str, Any],
    directory: str,
    *,
    of: Collection[str],
    builds: bool,
    say: Callable[[str], None],
) -> tuple[dict[str, Any], dict[str, str] | None, str]:
    """Return the model with its paths on the controller's machine, that machine, its folder.

    Only what the services ``of`` need is looked at. The machine is None where nothing was
    sent. Raises CliError, ClientError.
    """
    found = copy.deepcopy(dict(model))
    # By path and what says which part of it is ignored: two Dockerfiles may differ in that.
    sent: dict[tuple[str, str, str], tuple[str, dict[str, str]]] = {}

    def send(path: str, dockerfile: str = "") -> str:
        says, left_out = ignored_by(path, dockerfile) if dockerfile else ("", None)
        key = (path, says, dockerfile if left_out is not None else "")
        if key not in sent:
            say(f"reading {path}")
            sent[key] = _send(client, Folder(path, left_out), say)
        there = sent[key][0]
        return there if os.path.isdir(path) else f"{there}/{os.path.basename(path)}"

    for name in sorted(of):
        service = found["services"][name] or {}
        build = service.get("build")
        if builds and build:
            context = str(build.get("context") or "")
            if context.startswith("/"):
                _there(context, f"services.{name}.build.context")
                build["context"] = send(context, str(build.get("dockerfile") or "Dockerfile"))
            file = str(build.get("dockerfile") or "")
            if file.startswith("/"):
                build["dockerfile"] = send(file)
            more = build.get("additional_contexts") or {}
            for key, value in more.items():
                if str(value).startswith("/"):
                    more[key] = send(str(value), "Dockerfile")
        for number, mount in enumerate(service.get("volumes") or ()):
            source = str(mount.get("source") or "")
            if mount.get("type") == "bind" and f"{source}/".startswith(f"{directory}/"):
                where = f"services.{name}.volumes[{number}]"
                if not mount.get("read_only"):
                    raise CliError(
                        f"{where}: {source} is on this machine, no node, and is written to",
                        hint="a named volume, or :ro for files that are only read",
                    )
                _there(source, where)
                mount["source"] = send(source)
    machine = next((client_ for _, client_ in sent.values()), None)
    top = next((os.path.dirname(path) for path, _ in sent.values()), "")
    return found, machine, top


def _there(path: str, where: str) -> None:
    if not os.path.exists(path):
        raise CliError(f"{where}: there is no {path} on this machine")


def _send(client: Client, folder: Folder, say: Callable[[str], None]) -> tuple[str, dict[str, str]]:
    missing = client.request(
        "POST", "/v1/sent/missing", body={"chunks": list(folder.where)}, timeout=ANSWER
    )["missing"]
    batch: dict[str, str] = {}
    size = done = 0
    for number, digest in enumerate(missing, 1):
        path, offset = folder.where[digest]
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(CHUNK)
        if hashlib.sha256(data).hexdigest() != digest:
            raise CliError(f"{path} changed while it was sent", hint="type it again")
        batch[digest] = base64.b64encode(data).decode()
        size += len(data)
        done += len(data)
        if size >= BATCH or number == len(missing):
            say(f"sending {folder.path}: {done / 1e6:.1f} MB")
            client.request("POST", "/v1/sent/chunks", body={"chunks": batch}, timeout=ANSWER)
            batch, size = {}, 0
    answer = client.request(
        "POST", "/v1/sent/trees", body={"entries": folder.entries}, timeout=ANSWER
    )
    return str(answer["path"]), dict(answer["client"])
