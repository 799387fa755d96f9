"""A watch at work: the files of this machine, and the containers they belong in.

What runs before a change runs on where something fails, and that is said: nothing but Ctrl-C ends
a watch. orchestrator.cli.commands.watch is one, and `up --watch` has one beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import shlex
import signal
import stat
import sys
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from orchestrator.cli import deploy, said, sending, wishes
from orchestrator.cli.commands import cp, restart
from orchestrator.cli.commands.exec import Channel, alive
from orchestrator.cli.develop import rules as laws
from orchestrator.cli.develop.ledger import Ledger
from orchestrator.cli.develop.notices import FolderNotices
from orchestrator.cli.develop.tree import WatchedTree
from orchestrator.cli.errors import INTERRUPTED, USAGE, CliError
from orchestrator.client import websocket
from orchestrator.client.errors import ApiNotFound, ApiRefusal, ClientError
from orchestrator.client.http import quote
from specs.kit import tarpacking, tarsyncing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from orchestrator.cli.develop.ledger import Key
    from orchestrator.cli.develop.rules import WatchRule
    from orchestrator.cli.session import Invocation

    BringUp = Callable[[Sequence[str]], int]

LOOK = 1.0  # seconds between two looks at the containers
RESTARTS = 2  # for one change, of what ends by itself
PR_SET_PDEATHSIG = 1
FINAL = (400, 404, 409, 422)  # answers that are the same when asked again


def prepared(
    session: Invocation,
    model: Mapping[str, Any],
    services: Sequence[str],
    *,
    bring_up: BringUp,
    builds: bool = True,
) -> Watching:
    """Return what watches these services' files, as they are now. Raises CliError.

    ``bring_up`` is `corral up -d` with more words; it returns its exit code.
    """
    if "-" in session.flags.file:
        raise CliError(
            "the file is read again at each rebuild, and standard input only once",
            hint="corral -f FILE watch",
            code=USAGE,
        )
    deploy.known_services(model, list(services))
    names = sending.asked(model, services, dependencies=True) if services else ()
    rules, warnings = laws.rules_of(model, names, read=text_of, builds=builds)
    for line in warnings:
        warn(f"warning: {line}; it is not watched")
    return Watching(session, rules, built=model["services"], bring_up=bring_up)


@contextlib.contextmanager
def beside(watching: Watching) -> Iterator[None]:
    """Watch in a process of its own for as long as the block runs: `up --watch`."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    child = os.fork()
    if not child:
        _apart(watching, parent)
    try:
        yield
    finally:
        os.kill(child, signal.SIGTERM)  # it is there, be it as a zombie, until it is waited for
        os.waitpid(child, 0)


def _apart(watching: Watching, parent: int) -> NoReturn:
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() == parent:
            wishes.typed(argparse.Namespace(ansi="never", progress="plain"))
            watching.run()
    except KeyboardInterrupt:
        pass  # `up` says what that does
    except BrokenPipeError:
        pass  # nobody reads what we say, and `up` finds that, too
    except (CliError, ClientError, OSError) as exc:
        warn(f"Watch disabled: {exc}")
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(0)  # nothing of the parent's is ended here


def text_of(path: str) -> str | None:
    """Return the text of an ignore file; None where there is none."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def say(text: str, level: str = said.INFO) -> None:
    """Tell the user what happens."""
    said.tell(f"watch: {text}", level)


def warn(text: str) -> None:
    """Tell the user what was not done, however little he asked to be told."""
    say(text, said.WARNING)


class Watching:
    """The rules, what changed, and who has it."""

    def __init__(
        self,
        session: Invocation,
        rules: Sequence[WatchRule],
        *,
        built: Mapping[str, Any],
        bring_up: BringUp,
    ) -> None:
        self._session = session
        self._bring_up = bring_up
        self._rules = rules
        self._of: dict[str, dict[int, WatchRule]] = {}
        for rule in rules:
            self._of.setdefault(rule.service, {})[rule.number] = rule
        self._no_part = laws.no_part(built)
        self._ledgers = {name: Ledger() for name in self._of}
        self._restarts = dict.fromkeys(self._of, 0)
        self._told: dict[str, str] = {}
        self._to_build: set[str] = set()  # after a change, once they are up again
        self._notices = FolderNotices()
        self._tree = WatchedTree(
            rules,
            watched=self._notices.watch,
            unwatched=self._notices.forget,
            unread=lambda path, why: warn(f"{path}: {why}; it stays in the containers as it is"),
        )

    def run(self) -> None:
        """Watch until Ctrl-C."""
        say("Watch enabled")
        if self._notices.deaf:
            say(f"looking at all files every few seconds: {self._notices.deaf}")
        self._bring_up_to_date()
        while True:
            changed = self._changed()
            if changed or self._to_build:
                self._act(laws.due(self._rules, changed))
            self._bring_up_to_date()

    def _changed(self) -> set[str]:
        noticed = self._notices.wait(LOOK, self._anybodys)
        if noticed is None:
            return self._tree.look(()) if self._tree.shut else set()
        looked = self._tree.look(None if noticed.everything else noticed.folders)
        # A change that a look does not see, of what is there: not what came and went meanwhile.
        return looked | {path for path in noticed.files if self._tree.holds(path)}

    def _anybodys(self, path: str, folder: bool) -> bool:  # noqa: FBT001 - one question
        if any(rule.takes(path) for rule in self._rules):
            return True
        return folder and any(not rule.closes(path) for rule in self._rules)

    def _act(self, wishes_: Mapping[str, laws.Due]) -> None:
        """Take note of what changed, build and restart. What fails does not end the watch."""
        for name, wish in wishes_.items():
            self._restarts[name] = 0
            self._ledgers[name].note(wish.files)
        self._to_build.update(name for name, wish in wishes_.items() if wish.rebuild)
        if builds := self._not_down(sorted(self._to_build)):
            self._to_build.difference_update(builds)
            self._rebuild(builds)
        for name in self._not_down([name for name, wish in wishes_.items() if wish.restart]):
            self._bring_up_to_date([name])
            self._restart(name)

    def _not_down(self, names: Sequence[str]) -> list[str]:
        """Return those of the services that are to run; say once why the others are left alone.

        What somebody took down stays down: it is built once it is up again.
        """
        if not names:
            return []
        try:
            detail = self._session.client.get(self._session.path())
        except ApiNotFound:
            detail = None
        except ClientError as exc:
            self._tell_once("", str(exc))
            return []
        down = laws.taken_down(self._session.stack(), detail, names)
        for name in names:
            why = down.get(name)
            if why is None:
                self._told.pop(f"down {name}", None)
            else:
                self._tell_once(f"down {name}", f"{name} is left alone: {why}")
        return [name for name in names if name not in down]

    def _rebuild(self, names: list[str]) -> None:
        shown = ", ".join(names)
        say(f"{shown}: building after a change")
        begun = {name: self._ledgers[name].number for name in names}
        words = ["--build", "--no-deps", *names]
        code = self._tried(lambda: self._bring_up(words))
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if code == 0:
            for name in names:
                self._ledgers[name].built(begun[name])
            say(f"{shown}: built, and up")
        else:
            warn(f"{shown}: not rebuilt; what ran before runs on")

    def _restart(self, name: str) -> None:
        words = argparse.Namespace(services=[name], timeout=None, detach=False, no_deps=False)
        if self._tried(lambda: restart.run(words, self._session)) == 0:
            say(f"{name}: restarted")

    def _tried(self, work: Callable[[], int]) -> int:
        """Return what comes of it; what is refused is said."""
        try:
            return work()
        except (CliError, ClientError, OSError) as exc:
            warn(str(exc))
            if hint := getattr(exc, "hint", ""):
                warn(f"  hint: {hint}")
            return 1

    # Files into containers.

    def _bring_up_to_date(self, names: Collection[str] = ()) -> None:
        """Send every container what it lacks, restart and call what rules say then."""
        try:
            rows = self._session.client.get(self._session.path("tasks"), all=True)["tasks"]
        except ApiNotFound:
            rows = []  # whoever brings it up again gets what changed
            why = laws.taken_down(self._session.stack(), None, [""])[""]
            self._tell_once("", f"{why}; what changes is brought in then")
        except ClientError as exc:
            self._tell_once("", str(exc))
            return
        else:
            self._told.pop("", None)
        for name in names or self._of:
            if any(rule.syncs for rule in self._of[name].values()):
                self._service(name, [row for row in rows if row.get("service") == name])

    def _service(self, name: str, rows: list[dict[str, Any]]) -> None:
        ledger = self._ledgers[name]
        mine = [
            row
            for row in (cp.chosen(rows, name, 0) if rows else ())
            if row.get("started_at") is not None and not row.get("stopping")
        ]
        ledger.keep({str(row["id"]) for row in mine})
        number = ledger.number
        had: list[tuple[dict[str, Any], set[int]]] = []
        for row in mine:
            container = str(row["id"])
            late = ledger.behind(container)
            keys = self._initial(name) if ledger.fresh(container) else []
            if self._sent(row, name, sorted({*keys, *late})):
                ledger.brought(container, number)
                had.append((row, {rule for rule, _ in late}))
        rules = self._of[name]
        for row, numbers in had:
            for one in sorted(numbers):
                if rules[one].action == laws.SYNC_EXEC and alive(row):
                    self._call(row, rules[one].hook)
        again = any(rules[n].action == laws.SYNC_RESTART for _, numbers in had for n in numbers)
        if again and not self._not_down([name]):
            pass  # a later one begins with what changed
        elif again and self._restarts[name] < RESTARTS:
            self._restarts[name] += 1
            self._restart(name)
        elif again:
            warn(f"{name} ends by itself, and begins without what changed: use action rebuild")
        elif mine and all(alive(row) and not ledger.behind(str(row["id"])) for row in mine):
            self._restarts[name] = 0

    def _initial(self, name: str) -> list[Key]:
        return [
            (rule.number, inner)
            for rule in self._of[name].values()
            if rule.initial and rule.syncs
            for path in self._tree.below(rule.path)
            if rule.takes(path) and (inner := rule.relative(path)) is not None
            if not self._no_part.matches(inner)
        ]

    def _sent(self, row: Mapping[str, Any], name: str, keys: Iterable[Key]) -> bool:
        """Send these to one container; False where it is worth another try."""
        bases: dict[str, dict[str, str]] = {}
        own: set[str] = set()  # names of rules' own paths
        for number, inner in keys:
            rule = self._of[name][number]
            base, called = rule.place(inner)
            bases.setdefault(base, {})[called] = f"{rule.path}/{inner}" if inner else rule.path
            if not inner:
                own.add(called)
        count, whole, refused = 0, True, ""
        for base, files in bases.items():
            try:
                where = f"/v1/tasks/{quote(str(row['id']))}/archive"
                fill = partial(pack, files)
                done = self._session.client.upload(where, fill, path=base, sync=True)
            except (ClientError, OSError) as exc:
                refused += f"{'; ' if refused else ''}{exc}{_way_out(exc, files, own)}"
                final = isinstance(exc, ApiRefusal) and exc.status in FINAL
                whole = whole and final and alive(dict(row))
            else:
                count += int(done.get("files") or 0)
        if refused:
            self._tell_once(str(row["id"]), f"{row.get('name')}: {refused}")
        else:
            self._told.pop(str(row["id"]), None)
        if count and whole:  # else it is tried again, and said then
            say(f"{row.get('name')}: {count} change{'s' if count > 1 else ''} brought in")
        return whole

    def _call(self, row: Mapping[str, Any], hook: Mapping[str, Any]) -> None:
        """Run a rule's command in a container, its output here."""
        asked = {"command": _words(hook.get("command")), "tty": False, "stdin": False}
        environment = hook.get("environment") or {}
        more = {
            "user": hook.get("user"),
            "working_dir": hook.get("working_dir"),
            "privileged": hook.get("privileged"),
            "environment": {key: value for key, value in environment.items() if value is not None},
        }
        asked |= {key: value for key, value in more.items() if value}

        def called() -> int:
            where = f"/v1/tasks/{quote(str(row['id']))}/exec"
            socket = websocket.open_websocket(self._session.client, where)
            try:
                socket.send(json.dumps(asked))
                return Channel(socket, size=None, reads_input=False).run()
            finally:
                socket.close()

        code = self._tried(called)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if code:
            warn(f"{row.get('name')}: the command ended with {code}")

    def _tell_once(self, about: str, text: str) -> None:
        if self._told.get(about) != text:
            self._told[about] = text
            warn(text)


def pack(files: Mapping[str, str], send: Callable[[bytes], None]) -> None:
    """Write an archive: names to be gone first, then what is there, folders before their files.

    A name with a slash behind it was a folder's here: what it is over there goes with all that is
    in it, unless it is one again. Any other name takes no folder away: that one was made by the
    container, or came with its image.
    """
    were = {name[:-1]: path.rstrip("/") for name, path in files.items() if name.endswith("/")}
    files = {name: path for name, path in files.items() if not name.endswith("/")}
    there = {name: _there(path, name) for name, path in files.items()}
    gathered = cp.Gathered(send)
    own = tarpacking.descriptors()
    try:
        packer = tarpacking.Packer(gathered.add, own=own, owner=(0, 0))
        for name in sorted(were, reverse=True):
            if not _folder(were[name]):
                packer.none(os.fsencode(name), tarsyncing.GONE)
        for name in sorted(files):
            if there[name] is not None and not _folder(files[name]):
                packer.none(os.fsencode(name), tarsyncing.ALONE)
        for name in sorted(files.keys() - were.keys(), reverse=True):
            if there[name] is False:
                packer.none(os.fsencode(name), tarsyncing.GONE)
        for name, path in sorted(files.items()):
            if not there[name]:
                continue
            try:
                _one(packer, os.fsencode(name), path)
            except (FileNotFoundError, NotADirectoryError):
                continue  # not any more: the next look finds it
            except PermissionError:
                warn(f"{path}: this user may not read it")
        packer.end()
        gathered.flush()
    finally:
        os.close(own)


def _there(path: str, name: str) -> bool | None:
    """Say whether it is there, and not only behind a link that has taken its folder's place.

    None: that cannot be said, and so nothing is to be done.
    """
    top, parts = path[: -len(name)].rstrip("/"), name.split("/")[:-1]
    ways = ("/".join([top, *parts[: end + 1]]) for end in range(len(parts)))
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return None  # the tree says why
    return not any(os.path.islink(way) for way in ways)


def _folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _one(packer: tarpacking.Packer, name: bytes, path: str) -> None:
    handle = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if stat.S_IFMT(os.fstat(handle).st_mode) in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            packer.one(handle, name)
    finally:
        os.close(handle)


def _way_out(refused: Exception, files: Collection[str], own: Collection[str]) -> str:
    """Return what helps where a rule for a single file has a folder for its target, or ""."""
    text = str(refused)
    met = [name for name in files if name in own and f"{name} is a folder there" in text]
    return f": end the target {met[0]} with / to have the file in it" if met else ""


def _words(command: Any) -> list[str]:
    return shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
