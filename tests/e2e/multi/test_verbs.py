"""Every verb about a stack whose containers are on other nodes: one stack, a table of situations.

n1 has the controller, the client is a laptop with an ssh key; web runs on n2, far and shell on n3.
What needs no container, and a reader that goes, is tests/orchestrator/cli/test_situations.py.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shlex
import signal
import struct
import termios
import time
from typing import Any

import pytest

from orchestrator.cli.registry import COMMANDS
from tests import warm
from tests.e2e.multi.cluster import NODES

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]
STACK = """
services:
  web:
    image: busybox
    command: [sh, -c, "trap 'exit 0' TERM; while :; do echo tick; sleep 0.2; done"]
    environment: {COLOUR: green}
    working_dir: /tmp
    ports: ["8099:80"]
    stop_grace_period: 0s
    volumes: ["data:/data"]
    deploy: {placement: {constraints: [node.hostname == n2]}}
  far:
    image: busybox
    command: [sh, -c, "while read line; do echo got $$line; done; exit 4"]
    stdin_open: true
    stop_grace_period: 0s
    deploy: {placement: {constraints: [node.hostname == n3]}}
  shell:
    image: busybox
    command: [sh]
    tty: true
    stdin_open: true
    stop_grace_period: 0s
    deploy: {placement: {constraints: [node.hostname == n3]}}
volumes: {data: {}}
"""
ELSEWHERE = "this machine is a node of the cluster"
UNKNOWN = "there is no service nope in app (services: far, shell, web)"
NO_TASKS = "services with tasks: far, shell, web"

# verb: words of it; its code and what it prints; words about what is not there, and what is said
# then. "" in their place: it is about no stack, or asks no controller.
Row = tuple[str, int, str, str, str]
VERBS: dict[str, Row] = {
    "up": ("up -d", 0, "", "up -d nope", "no such service: nope"),
    "ps": ("ps", 0, "app-web-1", "ps nope", "nope"),
    "logs": ("logs --tail 1 web-1", 0, "tick", "logs nope", NO_TASKS),
    "exec": ("exec -T web sh -c 'echo $COLOUR; exit 7'", 7, "green",
             "exec -T nope true", NO_TASKS),
    "run": ("run --rm -T web sh -c 'echo $COLOUR; exit 6'", 6, "green",
            "run -T nope true", "no such service: nope"),
    "attach": ("attach web", -1, "tick", "attach nope", NO_TASKS),
    "cp": ("cp app-web-1:/etc/hostname -", 0, "app-web-1", "cp nope:/x -", NO_TASKS),
    "scale": ("scale web=1", 0, "", "scale nope=1", "nope"),
    "history": ("history", 0, "new: web, far, shell", "history nope", "has a service nope"),
    "rollback": ("rollback --dry-run 1", 0, "runs already", "rollback 77",
                 "there is no release 77 of app"),
    "diff": ("diff 1", 0, "ask for the same", "diff 77", "there is no release 77 of app"),
    "schedule": ("schedule ls", 0, "SERVICE", "schedule run nope", "no schedule nope"),
    "rollout": ("rollout status", 0, "is deployed", "rollout pause nope", UNKNOWN),
    "pause": ("pause app-web-1", 0, "app-web-1 paused", "pause nope", UNKNOWN),
    "unpause": ("unpause", 0, "app-web-1 goes on", "unpause nope", UNKNOWN),
    "top": ("top app-web-1", 0, " n2 ", "top nope", "nope"),
    "stats": ("stats --no-stream", 0, " n3 ", "stats --no-stream nope", "nope"),
    "port": ("port app_web_1 80", 0, "0.0.0.0:8099", "port nope 80", NO_TASKS),
    "volumes": ("volumes", 0, "app_data", "", ""),
    "images": ("images web", 0, "app-web-1 ", "images nope", "nope"),
    "inspect": ("inspect -f '{{.Node}} {{.State.Status}}' web-1", 0, "n2 running", "inspect nope",
                "there is no object nope"),
    "ls": ("ls", 0, "app ", "", ""),
    "why": ("why web", 0, "serve", "why nope", "there is no"),
    "events": ("events --no-follow web", 0, "task.running app/web ", "", ""),
    "kill": ("kill -s CONT far-1", 0, "app-far-1 CONT", "kill -s CONT nope", UNKNOWN),
    "restart": ("restart -t 0 web", 0, "", "restart nope", UNKNOWN),
    "create": ("create", 0, "", "create nope", "no such service: nope"),
    "network": ("network ls -q", 0, "", "network inspect nope", "no network nope"),
    "volume": ("volume ls -q", 0, "app_data", "volume inspect nope", "no volume nope"),
    "secret": ("secret ls", 0, "", "secret inspect nope", "no secret nope"),
    "node": ("node ls -q", 0, "n2", "node inspect nope", "nope"),
    "state": ("state check", 0, " 0 errors", "", ""),
    "doctor": ("doctor", 0, "3 of 3 are ready", "", ""),
    "metrics": ("metrics n2", 0, 'corral_tasks{state="running"} ', "metrics nope", "no node nope"),
    "backup": ("backup ls", 0, "no backups are made by themselves", "backup verify nope", "nope"),
    "stop": ("stop -t 0 web", 0, "", "stop nope", UNKNOWN),
    "wait": ("wait app-web-1", 137, "container 'app-web-1' exited with status code 137",
             "wait nope", NO_TASKS),
    "rm": ("rm -f web", 0, "app-web-1 removed", "rm -f nope", UNKNOWN),
    "start": ("start web", 0, "", "start nope", UNKNOWN),
    "upgrade": ("upgrade --dry-run", 0, "", "", ""),
    "controller": ("controller status", 0, "", "", ""),
    "down": ("down -v -t 0", 0, "", "", ""),
}  # fmt: skip
# Those that change nothing are typed again, with a closed input and on the laptop.
READS = {"ps", "logs", "exec", "run", "cp", "top", "stats", "port", "volumes", "inspect", "ls",
         "network", "volume", "secret", "node", "state", "backup", "metrics", "doctor", "kill",
         "schedule", "scale", "rollout", "history", "diff", "rollback"}  # fmt: skip
TERMINALS = {"ps", "logs", "top", "port", "volumes", "ls", "node", "kill", "pause", "wait"}
# Files of this machine, and what it becomes; what another test of these hosts is about.
OTHERS = {
    "plan": "test_plan.py", "watch": "test_watch.py", "restore": "test_backup.py",
    "config": "", "lint": "", "context": "test_laptop.py", "lab": "", "agent": "",
    "supervise": "", "version": "", "completion": "", "man": "",
}  # fmt: skip


def test_every_verb_has_a_row():
    assert set(VERBS) | set(OTHERS) == set(COMMANDS)
    assert not set(VERBS) & set(OTHERS)


class Typed:
    """A command on a host of the cluster, with streams as a shell or a terminal gives them."""

    def __init__(
        self, cluster: Any, host: str, words: list[str], *, tty: bool = False, stdin: str = "null"
    ) -> None:
        """``stdin``: "null", "pipe" or "closed"."""
        self.said = b""
        self.terminal = self.input = -1
        null = os.open(os.devnull, os.O_RDONLY)
        self.output, theirs = pty.openpty() if tty else os.pipe()
        feed = null
        if tty:
            self.input, self.terminal, feed = self.output, theirs, theirs
            self._size(24, 80)
        elif stdin == "pipe":
            feed, self.input = os.pipe()
        self.begun = warm.Begun(
            cluster.host(host),
            *words,
            streams=(None if stdin == "closed" else feed, theirs, theirs),
            cwd=cluster.folder,
        )
        for descriptor in {null, feed, theirs} - {self.terminal}:
            os.close(descriptor)

    def _size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def resize(self, rows: int, columns: int) -> None:
        self._size(rows, columns)
        self.begun.signal(signal.SIGWINCH)

    def type(self, text: str) -> None:
        os.write(self.input, text.encode())

    def until(self, wanted: str, within: float = 60.0) -> str:
        """Read until it has said this; return what it said before, since the last time."""
        deadline, mark = time.monotonic() + within, wanted.encode()
        while mark not in self.said:
            left = max(0.0, deadline - time.monotonic())
            ready = select.select([self.output], [], [], left)[0]
            assert ready, f"{wanted!r} was not said: {self.said!r}"
            assert self._read(), f"it ended without {wanted!r}: {self.said!r}"
        before, _, self.said = self.said.partition(mark)
        return before.decode(errors="replace")

    def unread(self) -> None:
        """Let nobody read its output from now on."""
        os.close(self.output)
        self.output = -1

    def end(self) -> tuple[int, str]:
        """Return its code and all it said that was not read."""
        if self.terminal >= 0:
            os.close(self.terminal)
            self.terminal = -1
        elif self.input >= 0:
            os.close(self.input)
            self.input = -1
        while self.output >= 0 and self._read():
            pass
        code, text = self.begun.end(), self.said.decode(errors="replace")
        assert "Traceback" not in text, text
        return code, text

    def _read(self) -> bool:
        try:
            data = os.read(self.output, 65536)
        except OSError:
            return False  # a terminal that nobody has open any more
        self.said += data
        return bool(data)

    def heard(self) -> str:
        """Return what it has said that was not read, for whoever looks at a failure."""
        return self.said.decode(errors="replace")

    def close(self) -> None:
        self.begun.kill()
        while self.output >= 0 and select.select([self.output], [], [], 0)[0] and self._read():
            pass
        for descriptor in {self.output, self.input, self.terminal} - {-1}:
            os.close(descriptor)


@pytest.fixture
def app(cluster):
    """The stack, a laptop that may log in, and ``app.typed``: a command with its streams."""
    here = f"ssh://root@{cluster.ip('n1')}"
    known = f"{cluster.ip('n1')} {cluster.first.host_key}\n"
    cluster.client.write("/root/.ssh/known_hosts", known)
    cluster.compose(STACK)
    for host in ("n2", "client"):
        cluster.host(host).write(f"{cluster.folder}/compose.yaml", STACK)
    cluster("up", "-d")
    begun: list[Typed] = []

    def typed(line: str, host: str = "n1", **how: Any) -> Typed:
        before = ["-H", here] if host == "client" else []
        begun.append(Typed(cluster, host, [*before, *shlex.split(line)], **how))
        return begun[-1]

    cluster.typed = typed
    try:
        yield cluster
    finally:
        for one in begun:
            one.close()
        end = "for c in /root/.cache/corral-ssh/*.ctl; do ssh -S $c -O exit n1; done"
        cluster.client.run(["sh", "-c", end], check=False)
        cluster.client.run(["rm", "-rf", "/root/.cache", "/root/.ssh/known_hosts", "/root/stack"])
        cluster.until(
            "no login is left",
            lambda: "ssh -M" not in cluster.client.run(["ps", "-eo", "args"]).stdout,
        )


def test_each_verb_where_the_containers_are_elsewhere(app):
    """On the controller's machine, on a member that has the container, and from a laptop."""
    wrong = []

    def check(what: str, found: tuple[int, str], code: int, said: str) -> None:
        if found[0] != code or said not in found[1]:
            wrong.append(f"{what}: {found}, expected {code} {said!r}")

    for verb, (line, code, said, missing, why) in VERBS.items():
        check(f"n2: {line}", app.typed(line, "n2").end(), 1, ELSEWHERE)
        if missing:
            check(missing, app.typed(missing).end(), 1, why)
            stdin = {"stdin": "closed"}
            check(f"laptop: {missing}", app.typed(missing, "client", **stdin).end(), 1, why)
        if code < 0:
            continue
        how: dict[str, Any] = {"tty": True} if verb in TERMINALS else {}
        check(line, app.typed(line, **how).end(), code, said)
        if verb in READS:
            check(f"closed: {line}", app.typed(line, stdin="closed").end(), code, said)
            check(f"laptop: {line}", app.typed(line, "client").end(), code, said)
    assert not wrong, "\n".join(wrong)


CAUGHT = "trap 'echo caught' INT; echo begun; while :; do sleep 0.1; done"
# what is typed, what it says first, what ends it, and its code then
GOES_ON = [
    ("logs -f --tail 1 web", "tick", "INT", 130),
    ("logs -f --tail 1 web", "tick", "unread", 1),
    ("exec -T web sh -c 'echo begun; exec sleep 100'", "begun", "INT", 130),
    ("exec -T web sh -c 'while echo y; do sleep 0.1; done; exit 3'", "y", "unread", 141),
    ("attach --no-stdin web", "tick", "unread", 141),
    ("attach --sig-proxy=false web", "tick", "INT", 130),
    (f'run --rm -T --no-deps web sh -c "{CAUGHT}"', "begun", "INT INT", 137),
    ("run --rm -T --no-deps far sh -c 'while echo y; do sleep 0.1; done'", "y", "unread", 141),
    ("stats", "app-far-1", "INT", 130),
    ("stats", "app-far-1", "unread", 1),
]
FROM_A_LAPTOP = ("logs", "exec", "run")


@pytest.mark.slow
def test_what_goes_on_ends_with_who_asked(app):
    """Ctrl-C, and a reader that goes; what was entered or listened to runs on."""
    before = app.processes()
    wrong = []
    typed = [("n1", *row) for row in GOES_ON]
    typed += [("client", *row) for row in GOES_ON if row[0].startswith(FROM_A_LAPTOP)]
    for host, line, said, how, code in typed:
        one = app.typed(line, host)
        one.until(said)
        if how == "unread":
            one.unread()
        else:
            one.begun.signal(signal.SIGINT)
        if how == "INT INT":  # the command takes it as its own: a second one stops it
            one.until("caught")
            one.begun.signal(signal.SIGINT)
        found = one.end()
        if found[0] != code:
            wrong.append(f"{host}: {line} ({how}): {found}, expected {code}")
    assert not wrong, "\n".join(wrong)
    assert app.processes() == before, "law: nothing of the stack was touched"
    app.until("what was run has gone", lambda: not oneoffs(app))


def oneoffs(app) -> list[Any]:
    found = app.get("/v1/stacks/app/tasks", all=True, oneoffs=True)["tasks"]
    return [row for row in found if row.get("oneoff")]


def test_terminals(app):
    """A shell there on a terminal here: its size, Ctrl-C, the keys that leave it, its end."""
    for host, line in (
        ("n1", "exec -it web sh"),
        ("client", "exec -it web sh"),
        ("n1", "run --rm -it --no-deps far sh"),
        ("client", "attach --detach-keys ctrl-a,d shell"),
    ):
        one = app.typed(line, host, tty=True)
        one.type("\necho a$((40+2))b; stty size\n")
        one.until("a42b")
        one.until("24 80")
        one.resize(51, 121)
        # It is told a moment later.
        one.type("until stty size | grep 51; do sleep 0.1; done; echo c$((40+2))d\n")
        one.until("51 121")
        one.until("c42d")
        # Its terminal is not the line editor's any more once it has said that.
        one.type("echo g$((40+2))h; sleep 100\n")
        one.until("g42h")
        one.type("\x03")
        one.type("echo e$((40+2))f\n")
        one.until("e42f")
        one.type("\x01d" if "detach" in line else "exit 9\n")
        assert one.end()[0] == (0 if "detach" in line else 9), line
    (row,) = app.rows("shell")
    assert (row["state"], row["restarts"]) == ("running", 0)
    app.until("what was run has gone", lambda: not oneoffs(app))


# of `run`: the words, what is given to it, its code and what it prints
ONCE = [
    ("--rm -T web sh -c 'echo $COLOUR; pwd; id -u; exit 3'", "", 3, "green\n/tmp\n0\n"),
    ("--rm -T -e COLOUR=red -w / -u 65534 web sh -c 'echo $COLOUR; pwd; id -u'", "", 0,
     "red\n/\n65534\n"),
    ("--rm -T --env-from-file my.env web sh -c 'echo $COLOUR'", "", 0, "blue\n"),
    ("--rm -T --no-deps far cat", "from here\n", 0, "from here\n"),
    ("--rm -T --entrypoint 'echo -n' web hi", "", 0, "hi"),
    ("--rm -T -v data:/other web sh -c 'cat /other/mark'", "", 0, "of web\n"),
    ("--rm -T --name once web hostname", "", 0, "once\n"),
    ("--rm -T web sh -c 'exit 255'", "", 255, ""),
    ("--rm -T web nosuch", "", 127, ""),
    ("--rm -T -P web true", "", 1, "port 8099/tcp is already published by app/web"),
    ("--rm -T -p 8099:80 web true", "", 1, "port 8099/tcp is already published by app/web"),
]  # fmt: skip


def test_run_where_its_container_is_elsewhere(app):
    app.first.write(f"{app.folder}/my.env", "COLOUR=blue\n")
    app("exec", "-T", "web", "sh", "-c", "echo of web > /data/mark")
    wrong = []
    for line, given, code, said in ONCE:
        one = app.typed(f"run {line}", stdin="pipe" if given else "null")
        if given:
            one.type(given)
        found = one.end()
        if found[0] != code or said not in found[1]:
            wrong.append(f"run {line}: {found}, expected {code} {said!r}")
    assert not wrong, "\n".join(wrong)
    app.until("they have gone", lambda: not oneoffs(app))

    # In the background, published on every node, and meant by its name in every verb about it.
    serve = "nc -ll -p 80 -e echo hello"
    assert app("run", "-d", "--name", "once", "-p", "8098:80", "web", "sh", "-c", serve)
    app.until("every node answers", lambda: app.answering([app.ip(n) for n in NODES], 8098))
    app.first.write(f"{app.folder}/here", "of the laptop\n")
    for line, code, said in (
        ("port once 80", 0, "0.0.0.0:8098"),
        ("cp here once:/tmp/there", 0, ""),
        ("exec -T once cat /tmp/there", 0, "of the laptop"),
        ("cp once:/etc/hostname -", 0, "once\n"),
        ("top once", 0, "nc -l"),
        ("stats --no-stream once", 0, " n2 "),
        ("pause once", 0, "once paused"),
        ("exec -T once true", 1, "paused"),
        ("unpause once", 0, "once goes on"),
        ("kill -s CONT once", 0, "once CONT"),
        ("restart once", 1, "`run` made of web: it runs once"),
        ("start once", 1, "`run` made of web: it runs once"),
        ("stop -t 0 once", 0, ""),
        ("wait once", 137, "status code 137"),
        ("cp once:/tmp/there -", 0, "of the laptop"),
        ("rm -f once", 0, "once removed"),
    ):
        found = app.typed(line).end()
        if found[0] != code or said not in found[1]:
            wrong.append(f"{line}: {found}, expected {code} {said!r}")
    assert not wrong, "\n".join(wrong)
