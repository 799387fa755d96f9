"""A working day of somebody who knows Docker Compose, as a table.

Each step is what is typed, the exit code, what is said, and whose containers it touched: one
that was started, replaced or ended by it. A step that says nothing of ``touches`` must leave
every container as it was. The steps go on where the last one stopped and know nothing of how
many hosts there are: ``tests/e2e/test_day.py`` walks through them on one,
``tests/e2e/multi/test_day.py`` on three. A new verb is a few more lines here.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.client.client import Client
from orchestrator.client.errors import ApiNotFound
from orchestrator.lab.host import CHECKOUT
from tests import warm
from tests.e2e import day_files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from orchestrator.lab.host import LabHost

STACK = "shop"
PORT = 8080
PATIENCE = 120.0  # seconds until what was promised for "soon" is there


@dataclass(frozen=True)
class Step:
    """One command and what comes of it."""

    typed: str
    code: int = 0
    says: tuple[str, ...] = ()  # regular expressions, each found in what is printed or said
    never: tuple[str, ...] = ()
    prints: str | None = None  # all of standard output
    touches: str = ""  # services, one of whose containers is another one afterwards
    edits: Mapping[str, str] = field(default_factory=dict)  # saved in the editor before it
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: str = ""
    until: str = ""  # it is followed until this was printed, then ended by Ctrl-C
    meanwhile: str = ""  # a command typed in another window once it runs
    then: tuple[Callable[[Day], None], ...] = ()


class Day:
    """The folder on one host, and what the last command said."""

    def __init__(self, host: LabHost, addresses: list[str], folder: str) -> None:
        self.host = host
        self.addresses = addresses  # where the published port answers: every node
        self.folder = folder
        self.out = ""
        self.client = Client(f"unix:///proc/{host.pid}/root/run/corral/controller.sock")

    def run(self, steps: tuple[Step, ...]) -> None:
        """Walk through the table."""
        for path, text in day_files.FILES.items():
            self.save(path, text)
        for number, step in enumerate(steps, 1):
            self.take(step, f"step {number}")

    def take(self, step: Step, name: str) -> None:
        """Do one step and hold what comes of it against the table."""
        before, begun = self.containers(), time.monotonic()
        for path, text in step.edits.items():
            self.save(path, text)
        code, out, err = self._followed(step) if step.until else self._ended(step)
        self.out = out
        print(f"{time.monotonic() - begun:.1f} s: corral {step.typed}")
        where = f"{name}: corral {step.typed}\n-> {code}\n{out}-- stderr\n{err}"
        assert code == step.code, where
        assert "Traceback" not in out + err, where
        for words in step.says:
            assert re.search(words, out + err, re.MULTILINE), f"not said: {words}\n{where}"
        for words in step.never:
            assert not re.search(words, out + err, re.MULTILINE), f"said: {words}\n{where}"
        assert step.prints in (None, out), where
        after = self.containers()
        services = {*before, *after}
        touched = {service for service in services if before.get(service) != after.get(service)}
        assert touched == set(step.touches.split()), f"touched: {sorted(touched)}\n{where}"
        for check in step.then:
            check(self)

    def save(self, path: str, text: str) -> None:
        self.host.write(f"{self.folder}/{path}", text)

    def _ended(self, step: Step) -> tuple[int, str, str]:
        done = warm.corral(
            self.host,
            *shlex.split(step.typed),
            check=False,
            cwd=self.folder,
            env=dict(step.env),
            stdin=step.stdin,
            timeout=180,
        )
        return done.returncode, done.stdout, done.stderr

    def _followed(self, step: Step) -> tuple[int, str, str]:
        """Start it, wait for what is to be seen, press Ctrl-C."""
        argv = [sys.executable, "-m", "orchestrator.cli.main", *shlex.split(step.typed)]
        # The shell's pid becomes the command's, whose namespace has numbers of its own.
        with self.host.popen(
            ["sh", "-c", 'echo $$ >&2; exec "$@"', "sh", *argv],
            env={"PYTHONPATH": str(CHECKOUT), **step.env},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as said:
            out, err = self._read_until(said, step)
        return said.returncode, out, err

    def _read_until(self, said: subprocess.Popen[str], step: Step) -> tuple[str, str]:
        assert said.stdout is not None
        assert said.stderr is not None
        pid = said.stderr.readline().strip()
        end_it = ["kill", "-KILL", pid]  # what we started is but the door to the host
        late = threading.Timer(PATIENCE, self.host.run, (end_it,), {"check": False})
        late.start()
        seen = threading.Event()
        window = threading.Thread(target=self._again_until, args=(step.meanwhile, seen))
        window.start()
        out = ""
        try:
            while not re.search(step.until, out, re.MULTILINE):
                line = said.stdout.readline()
                assert line, f"corral {step.typed} ended before it said {step.until}\n{out}"
                out += line
            seen.set()
            self.host.run(["kill", "-INT", pid])
            rest, err = said.communicate(timeout=PATIENCE)
        finally:
            seen.set()
            window.join()
            late.cancel()
            self.host.run(end_it, check=False)
        return out + rest, err

    def _again_until(self, typed: str, seen: threading.Event) -> None:
        """Type it in another window: again, because the first may be before anybody listens."""
        while typed and not seen.is_set():
            warm.corral(self.host, *shlex.split(typed), cwd=self.folder)
            seen.wait(1.0)

    # ---- what is ----------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        try:
            found: list[dict[str, Any]] = self.client.get(f"/v1/stacks/{STACK}/tasks")["tasks"]
        except ApiNotFound:
            return []
        return found

    def containers(self) -> dict[str, set[tuple[str, str, float]]]:
        """Return service -> its running containers: name, task, when it was started."""
        found: dict[str, set[tuple[str, str, float]]] = {}
        for row in self.rows():
            if row["started_at"] and not row["finished_at"]:
                mark = (row["name"], row["id"], row["started_at"])
                found.setdefault(row["service"], set()).add(mark)
        return found

    def page(self, address: str) -> str:
        """Return what a browser gets, "" where it gets nothing."""
        url = f"http://{address}:{PORT}/cgi-bin/page"
        return self.host.run(["curl", "-sS", "--fail", "-m", "5", url], check=False).stdout


def runs(**wanted: int) -> Callable[[Day], None]:
    """Check how many ready containers each service has, and that no other has any."""

    def check(day: Day) -> None:
        found: dict[str, int] = {}
        for row in day.rows():
            if row["ready"]:
                found[row["service"]] = found.get(row["service"], 0) + 1
        assert found == wanted

    return check


def serves(*words: str) -> Callable[[Day], None]:
    """Check that the page has ``words`` at every node's address.

    `up` ends when every task is ready; other nodes hear of the last one a moment later.
    """

    def check(day: Day) -> None:
        deadline = time.monotonic() + PATIENCE
        for address in day.addresses:
            while not all(word in (shown := day.page(address)) for word in words):
                assert time.monotonic() < deadline, f"{words} not at {address}: {shown!r}"
                time.sleep(0.05)

    return check


def table(*headers: str, rows: int) -> Callable[[Day], None]:
    """Check the columns of what was printed, and how many rows there are."""

    def check(day: Day) -> None:
        lines = day.out.splitlines()
        assert tuple(lines[0].split()) == headers
        assert len(lines) == rows + 1, day.out

    return check


def objects(*keys: str, rows: int) -> Callable[[Day], None]:
    """Check that one JSON object a line was printed, each with ``keys``."""

    def check(day: Day) -> None:
        import json

        found = [json.loads(line) for line in day.out.splitlines()]
        assert len(found) == rows
        assert all(set(keys) <= set(row) for row in found), found

    return check


def spread(service: str) -> Callable[[Day], None]:
    """Check that the service is on as many nodes as there are."""

    def check(day: Day) -> None:
        assert len({r["node"] for r in day.rows() if r["service"] == service}) == len(day.addresses)

    return check
