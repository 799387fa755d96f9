"""What may follow on the command line, for the shells: ``corral __complete SHELL ...``.

The shell's function (``corral completion bash``) asks after each Tab, so this loads next to
nothing, waits for the controller a second at most, logs in nowhere, and says nothing of what
goes wrong: no answer is an answer. Names are live: services and tasks of the stack here,
stacks, nodes.
"""

from __future__ import annotations

import os
import sys

from orchestrator.cli import words as tables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    Candidates = list[tuple[str, str]]  # word, what it is

FILES = ":files"  # says: what the shell itself knows of files fits here
ANSWER = 1.0  # seconds a controller has
PATHS = frozenset({"FILE", "DIR", "PATH", "FOLDER"})


def run(argv: Sequence[str]) -> int:
    """Print candidates, a line each: the word, a tab, what it is."""
    shell, *rest = argv or ("",)
    if shell == "bash":  # it cuts words at = and :, and quotes are left to us
        line, cut = (*rest, "", "")[:2]
        typed = split(line)
    else:
        typed, cut = list(rest) or [""], ""
    try:
        found = candidates(typed, Names(typed))
    except Exception:  # noqa: BLE001 - a broken Tab must not print into somebody's line
        return 0
    current = typed[-1]
    for word, text in found:
        if word != FILES and not word.startswith(current):
            continue
        # bash completes only what stands behind the last = or : of the word.
        shown = word[len(current) - len(cut) :] if shell == "bash" and word != FILES else word
        print(f"{shown}\t{text}" if text and shell != "bash" else shown)
    sys.stdout.flush()
    return 0


def split(line: str) -> list[str]:
    """Return a line's words behind the command's own, the last one as far as it is typed."""
    words: list[str] = [""]
    quote = ""
    escaped = fresh = False
    for char in line:
        if escaped:
            words[-1] += char
            escaped = False
        elif char == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote, words[-1] = ("", words[-1]) if char == quote else (quote, words[-1] + char)
        elif char in "'\"":
            quote = char
        elif char.isspace():
            if not fresh:
                words.append("")
            fresh = True
            continue
        else:
            words[-1] += char
        fresh = False
    return words[1:] or [""]


class Before:
    """What stands before the verb, as far as names depend on it; argparse would cost a third."""

    def __init__(self, typed: Sequence[str], flags: dict[str, Any]) -> None:
        found: dict[str, list[str]] = {}
        at, end = 0, _verb(typed, flags)
        while at < end:
            name, mark, value = typed[at].partition("=")
            known = flags.get(name)
            takes = known is not None and bool(known["takes"] or known["choices"])
            if known and takes:
                if not mark:
                    at += 1
                    value = typed[at] if at < end and at < len(typed) else ""
                found.setdefault(known["same"][-1], []).append(value)
            at += 1
        last = {name: values[-1] for name, values in found.items()}
        self.file = found.get("--file", [])
        self.env_file = found.get("--env-file", [])
        self.project_name = last.get("--project-name")
        self.project_directory = last.get("--project-directory")
        self.host = last.get("--host")
        self.context = last.get("--context")


class Names:
    """Live names, asked for when something is to be completed with them."""

    def __init__(self, typed: Sequence[str]) -> None:
        self._typed = list(typed)

    def _flags(self) -> Before:
        return Before(self._typed, tables.table()[""]["flags"])

    def services(self) -> Candidates:
        """Return the services of the stack here, and those its file has."""
        flags = self._flags()
        found = dict.fromkeys(in_the_file(flags), "")
        for row in self._tasks(flags):
            node = str(row.get("node") or "")
            found[str(row["service"])] = f"on {node}" if node else str(row.get("state"))
        return sorted(found.items())

    def tasks(self) -> Candidates:
        return [(str(row["name"]), str(row["status"])) for row in self._tasks(self._flags())]

    def _tasks(self, flags: Before) -> list[dict[str, Any]]:
        from orchestrator.cli import names
        from orchestrator.client.http import quote

        stack = flags.project_name or os.environ.get("COMPOSE_PROJECT_NAME")
        known = names.lookup(flags)  # type: ignore[arg-type] # has the fields it reads
        stack = stack or known or os.path.basename(os.getcwd()).lower()
        rows: list[dict[str, Any]] = self._get(f"/v1/stacks/{quote(stack)}/tasks", "tasks")
        return rows

    def stacks(self) -> Candidates:
        return [(str(row["name"]), str(row["status"])) for row in self._get("/v1/stacks", "stacks")]

    def nodes(self) -> Candidates:
        return [(str(row["name"]), str(row["status"])) for row in self._get("/v1/nodes", "nodes")]

    def networks(self) -> Candidates:
        return self._made("/v1/networks", "networks")

    def volumes(self) -> Candidates:
        return self._made("/v1/volumes", "volumes")

    def secrets(self) -> Candidates:
        return self._made("/v1/secrets", "contents")

    def configs(self) -> Candidates:
        return self._made("/v1/configs", "contents")

    def _made(self, path: str, key: str) -> Candidates:
        return [(str(row["name"]), ", ".join(row["used_by"])) for row in self._get(path, key)]

    def contexts(self) -> Candidates:
        from orchestrator.client import contexts

        return [(name, str(one["host"])) for name, one in contexts.read()["contexts"].items()]

    def _get(self, path: str, key: str) -> list[dict[str, Any]]:
        from orchestrator.client import contexts
        from orchestrator.client.client import Client
        from orchestrator.client.errors import ClientError

        try:
            flags = self._flags()
            client = Client(contexts.chosen(flags.host, flags.context)[0], timeout=ANSWER)
            client.patient = False
            if client.ssh and not client.ssh.stands():
                return []  # a login may take longer than anybody waits after a Tab
            rows: list[dict[str, Any]] = client.request("GET", path)[key]
        except (ClientError, OSError, KeyError, TypeError):
            return []
        return rows


def in_the_file(flags: Before) -> list[str]:
    """Return the names below ``services:`` of the Compose file, without reading YAML."""
    from orchestrator.cli import names

    given = list(flags.file) or [word for word in (os.environ.get("COMPOSE_FILE"),) if word]
    folder = os.getcwd()
    while not given:
        given = [f"{folder}/{name}" for name in names.FILES if os.path.isfile(f"{folder}/{name}")]
        if folder == "/":
            break
        folder = os.path.dirname(folder)
    found: list[str] = []
    for path in given[:1]:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                found += _keys_below(file.read(1 << 20).splitlines(), "services:")
        except OSError:
            continue
    return found


def _keys_below(lines: Iterable[str], head: str) -> list[str]:
    found: list[str] = []
    inside, depth = False, 0
    for line in lines:
        text = line.lstrip(" ")
        if not text or text.startswith("#"):
            continue
        indent = len(line) - len(text)
        if not indent:
            inside, depth = text.startswith(head), 0
        elif inside and indent == (depth := depth or indent):
            name, mark, _ = text.partition(":")
            if (
                mark
                and name.strip("'\"").replace("-", "").replace("_", "").replace(".", "").isalnum()
            ):
                found.append(name.strip("'\""))
    return found


def _verb(typed: Sequence[str], flags: dict[str, Any]) -> int:
    """Return where the verb stands, or would stand."""
    at = 0
    while at < len(typed) and typed[at].startswith("-"):
        name, mark, _ = typed[at].partition("=")
        known = flags.get(name)
        at += 2 if known and (known["takes"] or known["choices"]) and not mark else 1
    return at


def candidates(typed: Sequence[str], live: Names) -> Candidates:
    """Return what the last of ``typed`` may become; more than what begins like it."""
    table = tables.table()
    at = _verb(typed, table[""]["flags"])
    if at >= len(typed) - 1:
        if at > len(typed) - 1 or typed[-1].startswith("-"):
            return _flag(typed, table[""]["flags"], live)
        hidden = {} if typed[-1] else tables.HIDDEN
        return [(name, table[name]["help"]) for name in table if name and name not in hidden]
    place = table.get(typed[at])
    rest = typed[at + 1 :]
    if place is None:
        return []
    if place["actions"]:
        deeper = _verb(rest, place["flags"])
        if deeper >= len(rest) - 1 and not rest[-1].startswith("-"):
            return [(name, sub["help"]) for name, sub in place["actions"].items()]
        place = place["actions"].get(rest[deeper]) if deeper < len(rest) - 1 else place
        rest = rest[deeper + 1 :]
        if place is None:
            return []
    return _second(place, rest, live)


def _second(place: dict[str, Any], rest: Sequence[str], live: Names) -> Candidates:
    """Return what may follow a verb whose first word may make another of it: ``config rm``."""
    other = place.get("second", {})
    if len(rest) > 1 and rest[0] in other:
        return _within(other[rest[0]], rest[1:], live)
    found = _within(place, rest, live)
    if len(rest) == 1 and not rest[0].startswith("-"):
        found += [(word, sub["help"]) for word, sub in other.items()]
    return found


def _within(place: dict[str, Any], rest: Sequence[str], live: Names) -> Candidates:
    words: list[str] = []
    kinds = place["words"]
    at = 0
    while at < len(rest) - 1:
        kind = _kind(kinds, len(words))
        if kind and kind["rest"] and words:
            return [(FILES, "")]  # somebody else's command begins here
        name, mark, _ = rest[at].partition("=")
        known = place["flags"].get(name) if rest[at].startswith("-") else None
        takes = known is not None and bool(known["takes"] or known["choices"]) and not mark
        if known and takes and at + 1 == len(rest) - 1:
            return _values(known, live)
        if not rest[at].startswith("-"):
            words.append(rest[at])
        at += 2 if takes else 1
    if rest[-1].startswith("-"):
        return _flag(rest, place["flags"], live)
    kind = _kind(kinds, len(words))
    if kind is None:
        return []
    if kind["rest"]:
        return [(FILES, "")]
    return [item for item in _values(kind, live) if item[0] not in words]


def _kind(kinds: Sequence[dict[str, Any]], number: int) -> dict[str, Any] | None:
    """Return what the word after ``number`` others is."""
    for kind in kinds:
        if kind["many"] or kind["rest"] or not number:
            return kind
        number -= 1
    return None


def _flag(typed: Sequence[str], flags: dict[str, Any], live: Names) -> Candidates:
    before = flags.get(typed[-2]) if len(typed) > 1 else None
    if before and (before["takes"] or before["choices"]):
        return _values(before, live)
    name, mark, _ = typed[-1].partition("=")
    if mark and name in flags:
        return [(f"{name}={word}", text) for word, text in _values(flags[name], live)]
    used = {word for one in typed[:-1] for word in flags.get(one, {}).get("same", ())}
    return [(name, flag["help"]) for name, flag in flags.items() if name not in used]


def _values(kind: dict[str, Any], live: Names) -> Candidates:
    """Return the values of a flag or the words in a place."""
    if kind["choices"]:
        return [(word, "") for word in kind["choices"]]
    takes = kind["takes"]
    known: dict[str, Callable[[], Candidates]] = {
        "SERVICE": live.services,
        "SERVICES": live.services,
        "TASK": live.tasks,
        "NODE": live.nodes,
        "STACK": live.stacks,
        "CONTEXT": live.contexts,
        "NETWORK": live.networks,
        "VOLUME": live.volumes,
        "SECRET": live.secrets,
        "CONFIG": live.configs,
        "OBJECT": lambda: [*live.services(), *live.volumes(), *live.nodes()],
    }
    if takes.startswith("SERVICE="):
        return [(f"{name}=", text) for name, text in live.services()]
    if takes in known:
        return known[takes]()
    if takes == "FORMAT":
        return [("table", ""), ("json", "one object a line"), ("{{.Name}}", "a template")]
    return [(FILES, "")] if takes in PATHS or takes in ("ENV-FILE", "PROJECT-DIRECTORY") else []
