"""Every verb in every situation a shell can put it in: a table over real processes.

Law: a closed input, or an output or error stream that nobody reads, changes nothing of what a
command does, and it ends as quietly as one of Docker's; what is not there, or that nobody
answers, is said by name. What only nodes and containers can show is tests/e2e/multi/test_verbs.py.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from dataclasses import dataclass

import pytest
from fake import Exec, Hold, Lines, Problem

from orchestrator.cli.registry import COMMANDS
from tests import warm

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="some commands are root's")
FILE = """
name: shop
services:
  web: {image: busybox, ports: ["8080:80"]}
  db: {image: busybox}
"""
NOW = 1_800_000_000.0
NO_STACK = "there is no stack shop"
# Who writes and is not read is ended by SIGPIPE, as a command of Docker's, or says nothing more.
UNREAD = (1, 128 + signal.SIGPIPE)
TIMES = re.compile(r"\(\d+\.\ds\)")


@dataclass(frozen=True)
class Verb:
    """One row: what is typed, how it ends, and in its way (code, words) where something lacks."""

    words: str
    code: int = 0
    streams: bool = False  # goes on until Ctrl-C
    unread: tuple[int, ...] = UNREAD  # codes where nobody reads its output
    undone: tuple[tuple[str, str], ...] = ()  # what is taken back then
    absent: tuple[int, str] | None = (1, NO_STACK)  # no such stack; None = it is about none
    nobody: tuple[int, str] | None = (1, "no controller answers on ")  # None = it asks none


STOPPED = ("POST", "/v1/stacks/shop/oneoffs")
NOWHERE = {"absent": None, "nobody": None}
BESIDE = {"absent": None}
VERBS = {
    # Its results are errors' or nobody's: it has no output to lose, and ends as always.
    "up": Verb("up -d", absent=None, unread=(0,)),
    "down": Verb("down -t 0", absent=(0, "no such stack, nothing to remove"), unread=(0,)),
    "plan": Verb("plan", absent=None),
    "ps": Verb("ps", absent=(0, NO_STACK)),
    "logs": Verb("logs -f", streams=True),
    "exec": Verb("exec -T web true", code=7, unread=(7,)),  # it is the command's to decide
    "run": Verb("run -T web true", code=7, absent=None, undone=(STOPPED,)),
    "attach": Verb("attach web", code=7),
    "cp": Verb("cp web:/etc/hosts -"),
    "scale": Verb("scale web=1", unread=(0,)),
    "history": Verb("history"),
    "diff": Verb("diff"),
    "rollback": Verb("rollback -d", unread=(0,)),
    "schedule": Verb("schedule ls", **BESIDE),
    "rollout": Verb("rollout status"),
    "restart": Verb("restart -t 0 web", unread=(0,)),
    "create": Verb("create", absent=None, unread=(0,)),
    "start": Verb("start web", unread=(0,)),
    "stop": Verb("stop -t 0 web", absent=(0, NO_STACK), unread=(0,)),
    "rm": Verb("rm -f db", absent=(0, NO_STACK)),
    "kill": Verb("kill -s HUP web"),
    "wait": Verb("wait db", code=3),
    "pause": Verb("pause web"),
    "unpause": Verb("unpause web", code=1),  # it is not paused
    "top": Verb("top"),
    "stats": Verb("stats", streams=True),
    "watch": Verb("watch", code=1, unread=(1,), **NOWHERE),  # nothing of the file is watched
    "port": Verb("port web 80"),
    "images": Verb("images"),
    "volumes": Verb("volumes"),
    "inspect": Verb("inspect web", absent=(1, "there is no object web")),
    "ls": Verb("ls", **BESIDE),
    "events": Verb("events", streams=True, absent=None),  # of what may come
    "why": Verb("why web", absent=None),  # the controller says what there is
    "config": Verb("config", **NOWHERE),
    "lint": Verb("lint", **NOWHERE),
    "network": Verb("network ls", **BESIDE),
    "volume": Verb("volume ls", **BESIDE),
    "secret": Verb("secret ls", **BESIDE),
    "node": Verb("node ls", **BESIDE),
    "context": Verb("context ls", **NOWHERE),
    "upgrade": Verb("upgrade --dry-run", unread=(0,), **BESIDE),
    "lab": Verb("lab ls", **NOWHERE),
    "state": Verb("state", **BESIDE),
    "doctor": Verb("doctor", **BESIDE),
    "metrics": Verb("metrics", **BESIDE),
    "backup": Verb("backup ls", **BESIDE),
    "restore": Verb("restore no-such-file", code=1, unread=(1,), **NOWHERE),
    "controller": Verb("controller status", **NOWHERE),
    "agent": Verb("agent --help", unread=(0,), **NOWHERE),
    "supervise": Verb("supervise --help", unread=(0,), **NOWHERE),
    "version": Verb("version", **NOWHERE),
    "completion": Verb("completion bash", **NOWHERE),
    "man": Verb("man --help", unread=(0,), **NOWHERE),
}


FIGURES = b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\nConnection: close\r\n\r\ncorral_epoch 1"


def test_every_verb_has_a_row():
    assert list(VERBS) == list(COMMANDS)
    for verb, row in VERBS.items():
        assert row.words.split()[0] == verb


def row(service: str, **more):
    return {
        "id": f"t-{service}",
        "name": f"shop-{service}-1",
        "service": service,
        "slot": 1,
        "image": "busybox",
        "node": "alpha",
        "state": "running",
        "status": "running",
        "ready": True,
        "created_at": NOW - 9,
        "started_at": NOW - 8,
        "finished_at": None,
        "restarts": 0,
        "ports": ["0.0.0.0:8080->80/tcp"] if service == "web" else [],
        **more,
    }


class Shop:
    """A stack that answers every verb: web runs and does what it is asked, db has ended."""

    def __init__(self, fake) -> None:
        self.fake, self.there = fake, True
        self.began = threading.Event()  # a stream that never ends has been opened
        self.renew()
        stack, end = "/v1/stacks/shop", {"kind": "end", "ok": True, "release": 3}
        release = {"stack": "shop", "number": 3, "state": "pending", "created_at": NOW}
        detail = {"name": "shop", "status": "running", "release": 3, "running": 1}
        web = {"name": "web", "wanted": 1, "running": 1, "ready": 1, "replicas": 1}
        for method, path, answer in (
            ("GET", "/v1/stacks", {"stacks": [detail]}),
            ("GET", stack, {**detail, "services": [web], "volumes": []}),
            ("GET", f"{stack}/tasks", lambda _: {"tasks": [self.web, *self.ended]}),
            ("GET", f"{stack}/progress", lambda _: Lines([end])),
            ("GET", f"{stack}/history", {"releases": [{**release, "running": True}]}),
            ("POST", f"{stack}/rollback", {**release, "to": 1, "changes": [], "warnings": []}),
            ("GET", f"{stack}/diff", {"stack": "shop", "before": 2, "after": 3, "changes": []}),
            ("GET", f"{stack}/logs", lambda _: self._goes_on({"name": "web-1", "line": "y"})),
            ("GET", f"{stack}/usage", lambda _: self._told({"tasks": [self.web]})),
            ("GET", f"{stack}/processes", {"tasks": [{**self.web, "processes": [PROCESS]}]}),
            ("POST", f"{stack}/plan", {"stack": "shop", "release": 3, "unchanged": True}),
            ("POST", f"{stack}/releases", {**release, "warnings": []}),
            ("POST", f"{stack}/runs", lambda _: Lines([{**end, "task": "t-web", "name": "once"}])),
            ("POST", f"{stack}/scale", lambda _: detail),
            ("GET", f"{stack}/rollout", ROLLOUT),
            ("POST", f"{stack}/start", {**release, "release": 3, "completed": []}),
            ("POST", f"{stack}/restart", lambda _: self._again({"tasks": ["t-web"]})),
            ("POST", f"{stack}/stop", lambda _: self._ends(detail)),
            ("POST", f"{stack}/pause", self._pause),
            ("POST", f"{stack}/forget", lambda _: self._forgets()),
            ("POST", f"{stack}/oneoffs", {"names": []}),
            ("POST", f"{stack}/signal", {"tasks": ["shop-web-1"], "missed": {}, "stopping": []}),
            ("DELETE", stack, detail),
            ("GET", "/v1/tasks/t-web", {"state": "complete", "status": {"runs": []}}),
            ("GET", "/v1/tasks/t-web/streams", {"tty": False, "stdin_open": False}),
            ("GET", "/v1/tasks/t-web/attach", lambda _: Exec(said)),
            ("GET", "/v1/tasks/t-web/exec", lambda _: Exec(said)),
            ("GET", "/v1/tasks/t-web/archive", ARCHIVE),
            ("GET", "/v1/events", lambda _: self._goes_on({"time": NOW, "kind": "task.running"})),
            ("GET", "/v1/why/web", {"answer": "web of shop: 1 of 1 serve"}),
            ("GET", "/v1/nodes", {"nodes": [{"id": "n1", "name": "alpha", "status": "ready"}]}),
            ("GET", "/v1/schedules", {"schedules": []}),
            ("GET", "/v1/networks", {"networks": []}),
            ("GET", "/v1/volumes", {"volumes": []}),
            ("GET", "/v1/secrets", {"contents": []}),
            ("GET", "/v1/state", {"behind": ""}),
            ("GET", "/v1/backups", {"files": []}),
            ("GET", "/v1/metrics", FIGURES),
            ("GET", "/v1/nodes/[^/]+/metrics", FIGURES),
            ("GET", "/v1/state/(?:check|export)", {"state": {}, "records": 1}),
            ("POST", "/v1/upgrade", lambda _: Lines([{"kind": "end", "ok": True}])),
        ):
            fake.on(method, path, self._or_absent(path, answer))

    def renew(self) -> None:
        """Be as it was before anybody asked."""
        self.web = row("web")
        db = row("db", state="failed", exit_code=3, finished_at=NOW - 1, status="exited")
        self.ended = [db]
        self.began.clear()
        self.fake.requests.clear()

    def _or_absent(self, path, answer):
        def answered(request, *_):
            if not self.there and path.startswith("/v1/stacks/shop"):
                problem = {"type": "not-found", "title": "Not found", "status": 404}
                raise Problem(404, {**problem, "detail": NO_STACK, "hint": "corral ls"})
            return answer(request) if callable(answer) else answer

        return answered

    def _goes_on(self, line):
        self.began.set()
        return Lines([line] * 100 + [Hold()])

    def _told(self, answer):
        self.began.set()
        return answer

    def _again(self, answer):
        self.web = {**self.web, "started_at": NOW, "restarts": 1}
        return answer

    def _ends(self, answer):
        self.web = {**self.web, "state": "shutdown", "finished_at": NOW}
        return answer

    def _forgets(self):
        found = [db["name"] for db in self.ended]
        self.ended = []
        return {"tasks": found, "running": []}

    def _pause(self, request):
        self.web = {**self.web, "paused": request.body["paused"]}
        return {"tasks": ["t-web"]}

    @property
    def did(self) -> list[tuple[str, str]]:
        """What was changed, as it was asked for."""
        return [(r.method, r.path) for r in self.fake.requests if r.method != "GET"]


ROLLOUT = {
    "stack": "shop",
    "release": 3,
    "state": "deploying",
    "running": 2,
    "services": [
        {
            "service": "web",
            "way": "canary",
            "state": "canary",
            "updated": 0,
            "total": 4,
            "unavailable": 0,
            "waits": "1 canary of 4 beside the old tasks",
        }
    ],
}
PROCESS = {"pid": 1, "parent": 0, "user": "root", "cpu": 0.0, "started": NOW, "command": "sleep"}
TAR = bytes(1 << 20)
ARCHIVE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-tar\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(TAR)
) + TAR


def said(node) -> None:
    """Say something, and end with 7, as the node of an exec or attach."""
    node.read()
    node.send({"attached": True})
    node.send(b"\x01y\n")
    node.send({"exit": 7})
    node.read()


@pytest.fixture
def shop(fake, clean_environment):
    (clean_environment.work / "compose.yaml").write_text(FILE)
    return Shop(fake)


class Spoken:
    """What a command said: a pipe, read by a thread."""

    def __init__(self) -> None:
        ours, self.theirs = os.pipe()
        self._data: list[bytes] = []
        self._thread = threading.Thread(target=self._read, args=(ours,))
        self._thread.start()

    def _read(self, ours: int) -> None:
        with open(ours, "rb") as file:
            self._data.append(file.read())

    def text(self) -> str:
        """Return it once the command has ended."""
        os.close(self.theirs)
        self._thread.join()
        return self._data[0].decode(errors="replace")


def unread() -> int:
    """Return the end of a pipe that nobody reads."""
    ours, theirs = os.pipe()
    os.close(ours)
    return theirs


@pytest.fixture
def typed(clean_environment):
    """Type a verb's words; return its code and what it said on its outputs."""

    def type_(words, situation="", *, host="", until=None):
        where = clean_environment
        env = {"CORRAL_RUN_DIR": str(where.run), "CORRAL_STATE_DIR": str(where.state)}
        env |= {"XDG_CACHE_HOME": str(where.run / "cache"), "HOME": str(where.run)}
        env |= {"CORRAL_HOST": host} if host else {}
        out, err, null = Spoken(), Spoken(), os.open(os.devnull, os.O_RDONLY)
        broken = unread()
        streams = {
            "": (null, out.theirs, err.theirs),
            "stdin closed": (None, out.theirs, err.theirs),
            "output unread": (null, broken, err.theirs),
            "errors unread": (null, out.theirs, broken),
            "all closed": (None, None, None),
        }[situation]
        begun = warm.Begun(None, *words.split(), streams=streams, env=env, cwd=str(where.work))
        try:
            if until is not None:
                assert until.wait(60)
                begun.signal(signal.SIGINT)
            code = begun.end(60)
        finally:
            begun.kill()
            for descriptor in (null, broken):
                os.close(descriptor)
            told = out.text(), err.text()
        assert "Traceback" not in told[1], told[1]
        assert "Exception ignored" not in told[1], told[1]
        return code, *told

    return type_


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_in_each_situation(verb, shop, typed):
    row = VERBS[verb]
    ends = shop.began if row.streams else None
    code, _, err = typed(row.words, until=ends)
    did = shop.did
    assert code == (130 if row.streams else row.code), err
    for situation in ("stdin closed", "output unread", "errors unread", "all closed"):
        shop.renew()
        unheard = situation == "output unread"
        found = typed(row.words, situation, until=None if unheard else ends)
        undone = row.undone if unheard else ()
        assert shop.did == [*did, *undone], f"law: {situation}: the same is asked for"
        if unheard:
            assert found[0] in row.unread, (situation, found)
            assert TIMES.sub("", found[2]) == TIMES.sub("", err), "law: quietly"
        else:
            assert found[0] == code, (situation, found)


@pytest.mark.parametrize("verb", [verb for verb, row in VERBS.items() if row.absent])
def test_a_verb_of_a_stack_that_is_not_there(verb, shop, typed):
    shop.there = False
    code, said = VERBS[verb].absent
    found = typed(VERBS[verb].words)
    assert (found[0], said in found[2]) == (code, True), found
    assert "shop" not in found[1]


@pytest.mark.parametrize("verb", [verb for verb, row in VERBS.items() if row.nobody])
def test_a_verb_where_nobody_answers(verb, typed, clean_environment):
    (clean_environment.work / "compose.yaml").write_text(FILE)
    code, said = VERBS[verb].nobody
    found = typed(VERBS[verb].words, host=f"unix://{clean_environment.run}/none.sock")
    assert found[0] == code, found
    assert said in found[1] + found[2], found
