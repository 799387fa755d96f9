"""Rounds in which a command runs while daemons are ended at named places, and what must hold.

A round is written as it is replayed: ``change controller=pass.decided agent=net.after_veth cli``.
First the command (:data:`COMMANDS`), then what happens to whom: a name of
specs/kit/failpoints.py, with ``:error`` and such for another kind than ``kill``, or the seconds
after which it is killed wherever it is. ``cli``: the command itself is killed as well, and nobody
was promised anything.
"""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from specs.kit import failpoints

if TYPE_CHECKING:
    import random

FOLDER = "/root/failpoints"
BUILDS = "/root/stack/built"
BACKUP = "/root/backups"
PRINTS = "i=0; while [ $i -lt 400 ]; do echo line $i of what fills a log; i=$((i+1)); done"
SERVICE = """
    image: busybox
    command: [sh, -c, "trap 'exit 0' TERM; sleep inf & wait"]
    init: false
"""
STACK = f"""
services:
  keep:{SERVICE}    deploy: {{replicas: 2}}
  roll:
    image: busybox
    command: [sh, -c, "trap 'exit 0' TERM; {PRINTS}; sleep inf & wait"]
    init: false
    environment: {{VERSION: "${{VERSION}}"}}
    healthcheck: {{test: ["CMD", "true"], interval: 1s, start_interval: 0.1s, start_period: 5s}}
    logging: {{options: {{max-size: 4k, max-file: "3"}}}}
    volumes: ["data:/data"]
    secrets: [key]
    depends_on: [keep]
  job:
    image: busybox
    command: ["true"]
    profiles: [never]
volumes: {{data: {{name: "data${{VERSION}}"}}}}
secrets: {{key: {{environment: VERSION}}}}
"""
OTHER = f"""
services:
  still:{SERVICE}
"""
BUILT = f"""
services:
  made:{SERVICE.replace("busybox", "made")}    build: {{context: .}}
"""
# Where another command than `change` leads a daemon there.
COMMANDS_OF = {
    "store.checkpoint": "controller",
    "epoch.before_write": "controller",
    "epoch.after_write": "controller",
    "epoch.noted": "controller",
    "journal.mid_forget": "controller",
    "adopt.mid_scan": "agent",
    "adopt.after_scan": "agent",
    "backup.mid": "backup",
    "image.before_rename": "build",
    "image.before_layer": "build",
    "image.before_record": "build",
    "image.before_name": "build",
}
# Reached on no single machine whose stack changes: other tests are named in docs/failpoints.md.
ELSEWHERE = frozenset(
    (
        *("store.created", "store.mid_migration", "pass.mid"),
        *("backup.before_rename", "backup.after_rename"),
        *("restore.before_rename", "restore.after_rename"),
        *("node.after_login", "node.after_step", "node.after_hello", "node.after_record"),
    )
)
COMMANDS = ("change", "scale", "restart", "run", "again", "stop", "volume")
# What is changed or built is new each time: a host lives through many tests, and what it has seen
# (a secret's version, a layer) leads a daemon past the places where it is made.
NUMBERS = itertools.count(1)
LATER = 3.0  # seconds after which a request of a killed command has been heard, or never is
LATE = 30.0  # seconds in which a place must be reached that the command leads to


def command_of(daemon: str, point: str) -> str:
    """Return the command that leads a daemon to a place."""
    if daemon == "controller" and point.startswith("disk."):
        return "backup"  # the one file that a controller writes at a command
    return COMMANDS_OF.get(point, "change")


def points(daemon: str) -> list[str]:
    """Return the places that a daemon reaches here."""
    return [name for name in failpoints.names_of(daemon) if name not in ELSEWHERE]


@dataclass(frozen=True)
class Round:
    """One round; see the module."""

    command: str
    controller: str = ""
    agent: str = ""
    cli: bool = False

    @classmethod
    def parse(cls, text: str) -> Round:
        command, *words = text.split()
        more = dict(word.split("=") for word in words if "=" in word)
        return cls(command, cli="cli" in words, **more)

    def __str__(self) -> str:
        told = [f"{who}={what}" for who, what in self.victims.items()]
        return " ".join([self.command, *told, *(["cli"] if self.cli else [])])

    @property
    def victims(self) -> dict[str, str]:
        return {who: what for who in ("controller", "agent") if (what := str(getattr(self, who)))}

    @property
    def kinds(self) -> set[str]:
        return {kind_of(what) for what in self.victims.values()}


def kind_of(what: str) -> str:
    name, _, kind = what.partition(":")
    return "kill" if name[0].isdigit() else kind or "kill"


def drawn(rng: random.Random, count: int) -> list[Round]:
    """Return that many rounds, each of which kills the controller and the agent once.

    Every place comes before any comes again; a third of all is at a random moment.
    """
    found, bags = [], {daemon: [] for daemon in ("controller", "agent")}

    def place(daemon: str) -> str:
        if not bags[daemon]:
            bags[daemon] = points(daemon)
            rng.shuffle(bags[daemon])
        return bags[daemon].pop()

    for number in range(count):
        somewhere = number % 3 == 2
        what = {
            daemon: f"{rng.uniform(0.0, 0.9):.2f}" if somewhere else place(daemon)
            for daemon in bags
        }
        commands = {command_of(d, one) for d, one in what.items() if not one[0].isdigit()}
        if not commands:
            one = Round(rng.choice(COMMANDS), **what, cli=rng.random() < 0.3)
            found.append(one)
        elif len(commands) == 1:
            found.append(Round(commands.pop(), **what, cli=rng.random() < 0.25))
        else:  # no command leads to both
            for daemon, one in what.items():
                other = {d: f"{rng.uniform(0.0, 0.9):.2f}" for d in bags if d != daemon}
                found.append(Round(command_of(daemon, one), **{daemon: one}, **other))
    return found[:count]


class Life:
    """A stack that lives through rounds, and another that must not notice."""

    def __init__(self, corral) -> None:
        self.corral = corral
        self.version = next(NUMBERS)
        self.rolls = 1
        self.built = 0
        self.started = False  # the newest release is a start's: the next `up` makes one
        self.kills = dict.fromkeys(("controller", "agent"), 0)
        self.last = 0  # the number of the newest release
        self.epoch = 0

    # ---- begin and end ----

    def begin(self) -> None:
        corral = self.corral
        corral.folder = "/root"  # that of an earlier test is gone
        corral("controller", "stop")
        corral.host.run(["mkdir", "-p", "-m", "700", FOLDER, BACKUP])
        for daemon in self.kills:
            (self.folder / daemon).mkdir(mode=0o700, exist_ok=True)
        corral.env = {"VERSION": str(self.version), failpoints.VARIABLE: FOLDER}
        corral.begin()
        corral.compose(OTHER, "other")
        corral("up", "-d")
        corral.compose(STACK)
        corral("up", "-d")
        self.reached("begin")
        self.others = corral.processes("other")
        self.last = self.newest()["number"]

    def end(self) -> None:
        """Have daemons that know of no places again: others of this process use them, too."""
        corral = self.corral
        corral.folder = "/root"
        corral.begin()
        corral("controller", "stop")
        corral.env = {}
        corral.begin()
        corral.host.run(["rm", "-rf", FOLDER, BACKUP])

    @property
    def folder(self) -> Path:
        return Path(f"/proc/{self.corral.host.pid}/root{FOLDER}")

    # ---- places ----

    def arm(self, daemon: str, what: str) -> None:
        name, _, kind = what.partition(":")
        (self.folder / daemon / "hit" / name).unlink(missing_ok=True)
        new = self.folder / daemon / f".{name}"
        new.write_text(kind or "kill")
        new.rename(self.folder / daemon / name)

    def hit(self, daemon: str, what: str) -> bool:
        return (self.folder / daemon / "hit" / what.partition(":")[0]).exists()

    def been(self, daemon: str) -> set[str]:
        """Return the places that a daemon has reached so far."""
        return {path.name for path in (self.folder / daemon / "reached").iterdir()}

    # ---- one round ----

    def lay_out(self, number: int) -> None:
        """Lay out the folder of what is built, each time with another content."""
        self.corral.host.write(f"{BUILDS}/Dockerfile", "FROM busybox\nCOPY file /file\n")
        self.corral.host.write(f"{BUILDS}/file", f"{number}\n")
        self.corral.host.write(f"{BUILDS}/compose.yaml", BUILT)

    def words(self, command: str) -> tuple[str, ...]:
        """Return what is typed for a command, and take note of what it leads to."""
        if command == "change":
            self.version = next(NUMBERS)
            self.corral.env["VERSION"] = str(self.version)
        elif command == "scale":
            self.rolls = 3 - self.rolls
        elif command in ("build", "backup"):
            self.built = next(NUMBERS)
            self.lay_out(self.built)
        words = {
            "scale": ("scale", f"roll={self.rolls}"),
            "restart": ("restart", "-t", "2", "roll"),
            "stop": ("stop", "-t", "2", "roll"),
            "run": ("run", "--rm", "-T", "job"),
            "volume": ("volume", "create", f"more{self.version}"),
            "backup": ("backup", "--plain", "--to", f"{BACKUP}/{self.built}"),
            "build": ("-f", f"{BUILDS}/compose.yaml", "-p", "built", "up", "-d", "--build"),
        }
        return words.get(command, ("up", "-d"))

    def play(self, one: Round) -> None:
        corral = self.corral
        before, numbers = corral.processes(), self.newest()["number"]
        rows = {row["id"]: row["service"] for row in corral.rows()}
        touched = one.command in ("change", "scale", "restart", "stop")
        kept = {t: p for t, p in before.items() if rows[t] == "keep" or not touched}
        former = (self.version, self.rolls)
        words = self.words(one.command)
        for daemon, what in one.victims.items():
            if not what[0].isdigit():
                self.arm(daemon, what)
        if one.command in ("controller", "agent"):
            corral.kill(one.command)  # and at the place it is killed again, while it comes back
            self.kills[one.command] += 1
        under_way = corral.popen(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            self.happen(one, under_way)
            code, out, err = under_way.finish(120)
        except BaseException:
            under_way.process.kill()
            raise
        assert "Traceback" not in out + err, f"{one}\n{err}"
        may_fail = one.cli or "kill" not in one.kinds or one.command in ("backup", "build", "run")
        # A restart means something else when it is said twice, so nobody repeats it by himself.
        may_fail = may_fail or (one.command == "restart" and "without an answer" in err)
        assert code == 0 or may_fail, f"{one}: exit code {code}\n{out}{err}"
        self.wait_hits(one)
        if code and one.cli:
            self.settle(one, former)
        elif code:
            self.once_more(one, words)
        if one.command == "stop":
            corral("start", "roll")
        started, ups = self.started, ("change", "again", "controller", "agent")
        self.started = one.command == "stop" or (started and one.command not in ups)
        self.reached(str(one))
        after = corral.processes()
        same = {task: after.get(task) for task in kept}
        wrong = {t: (rows[t], p, same[t]) for t, p in kept.items() if same[t] != p}
        assert not wrong, f"{one}: law N5: a container was touched that this is not about: {wrong}"
        assert corral.processes("other") == self.others, f"{one}: law N5: the other stack noticed"
        self.judge(one, numbers, started=started)
        corral.new_supervisor()

    def happen(self, one: Round, under_way) -> None:
        began = time.monotonic()
        times = {d: float(w) for d, w in one.victims.items() if w[0].isdigit()}
        for daemon, moment in sorted(times.items(), key=lambda item: item[1]):
            time.sleep(max(0.0, began + moment - time.monotonic()))
            self.corral.kill(daemon)
            self.kills[daemon] += 1
        if one.cli:
            places = [(d, w) for d, w in one.victims.items() if d not in times]
            with contextlib.suppress(AssertionError):  # it may be over before
                self.corral.until(
                    "a place, or the end",
                    lambda: (
                        under_way.process.poll() is not None
                        or all(self.hit(d, w) for d, w in places)
                    ),
                    20,
                )
            under_way.signal("KILL")

    def wait_hits(self, one: Round) -> None:
        for daemon, what in one.victims.items():
            if what[0].isdigit():
                continue
            if one.cli:  # what nobody asks for any more need not be done
                (self.folder / daemon / what.partition(":")[0]).unlink(missing_ok=True)
                self.kills[daemon] += self.hit(daemon, what)
                continue
            words = f"{one}: {daemon} comes to {what}"
            self.corral.until(words, lambda d=daemon, w=what: self.hit(d, w), LATE)
            if kind_of(what) == "kill":
                self.kills[daemon] += 1

    def once_more(self, one: Round, words: tuple[str, ...]) -> None:
        """What was refused, or broken off, is asked for again: that must do."""
        if one.command == "volume":
            words = ("volume", "create", f"again{self.version}")
        self.corral("controller", "start")
        self.corral(*words)

    def settle(self, one: Round, former: tuple[int, int]) -> None:
        """Find out which it is, all of the command or nothing; nobody was told."""
        wanted = [(self.version, self.rolls), former]

        def whole() -> bool:
            if self.newest()["state"] not in ("deployed", "superseded"):
                return False
            for version, rolls in wanted:
                if self.is_at(version, rolls):
                    self.version, self.rolls = version, rolls
                    return True
            return False

        if one.command == "stop":
            self.corral("start", "roll")
        number = -1
        while number != self.newest()["number"]:  # what was on its way when the command died
            number = self.newest()["number"]
            self.corral.until(f"{one}: all of it or nothing", whole, 90)
            time.sleep(LATER)
        self.corral.env["VERSION"] = str(self.version)

    def tell(self) -> str:
        """Return what there is, for whoever looks for why a round failed."""
        seen = []
        with contextlib.suppress(Exception):
            for row in self.corral.rows(ended=True):
                runs = self.corral.task(row)["status"]["runs"]
                told = [(run["number"], run.get("exit_code"), run.get("reason")) for run in runs]
                seen.append(f"{row['id']} {row['name']} {row['status']} {row['image']} {told}")
        seen.append(self.corral.sh("tail -n 25 /var/lib/corral/log/*.log", check=False))
        return "\n".join(seen)

    # ---- what must be so ----

    def newest(self):
        found = self.corral.get("/v1/stacks/app/releases")["releases"]
        return max(found, key=lambda row: row["number"])

    def is_at(self, version: int, rolls: int) -> bool:
        rows = [row for row in self.corral.rows() if row["service"] in ("keep", "roll")]
        count = {s: sum(r["service"] == s and r["ready"] for r in rows) for s in ("keep", "roll")}
        if count != {"keep": 2, "roll": rolls} or len(rows) != 2 + rolls:
            return False
        for row in rows:
            if row["service"] == "roll":
                pid = self.corral.task(row)["status"]["runs"][-1]["pid"]
                with contextlib.suppress(OSError):
                    environ = Path(f"/proc/{self.corral.host.pid}/root/proc/{pid}/environ")
                    if f"VERSION={version}\0" not in environ.read_text():
                        return False
        return True

    def reached(self, told: str) -> None:
        """Wait for the wanted state, and that nothing else has anything on the host."""
        corral = self.corral
        corral.until(f"{told}: the wanted state", lambda: self.is_at(self.version, self.rolls), 90)
        top = Path(f"/proc/{corral.host.pid}/root/run/corral/agent")
        left: list[str] = []

        def tidy() -> bool:
            stacks = [row["name"] for row in corral.get("/v1/stacks")["stacks"]]
            ids = {row["id"] for name in stacks for row in corral.rows(name)}
            left[:] = [
                f"{kind}/{path.name}"
                for kind in ("netns", "rootfs", "bundles", "subpaths", "files")
                if (top / kind).is_dir()
                for path in (top / kind).iterdir()
                if path.name not in ids and path.name[0] != "."
            ]
            return not left

        try:
            corral.until(f"{told}: nothing left over", tidy, 60)
        except AssertionError as error:
            raise AssertionError(f"{error}; law N2: {left}") from None

    def judge(self, one: Round, numbers: int, *, started: bool) -> None:
        newest = self.newest()
        made = newest["number"] - numbers
        # What `start` left has its former spec: the next `up`, which changes nothing, says so.
        most = 1 if started or one.command in ("change", "again", "stop", "scale", "restart") else 0
        if not one.cli and "kill" in one.kinds:
            assert 0 <= made <= most, f"{one}: law N1: the release is there, once: {newest}"
        if one.command == "change" and not one.cli:
            assert made >= 1, f"{one}: law N1: an acknowledged release is lost"
        epoch = self.corral.get("/v1/version")["epoch"]
        assert epoch >= self.epoch, f"{one}: law N7: the epoch went back"
        if one.controller and kind_of(one.controller) == "kill" and self.hit_or_timed(one):
            # It answers before it takes one.
            epoch = self.corral.until(
                f"{one}: a new controller takes a new epoch",
                lambda: max(0, self.corral.get("/v1/version")["epoch"] - self.epoch),
            )
            epoch += self.epoch
        self.epoch = epoch

    def hit_or_timed(self, one: Round) -> bool:
        """Say whether the controller was killed; with a command that was killed it may live."""
        return one.controller[0].isdigit() or self.hit("controller", one.controller)
