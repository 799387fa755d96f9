"""Keeps controller and agent running on a machine without systemd.

Started by orchestrator.embedded.daemons as a script with `python -I -S`, so it must import
nothing but the standard library, and little of that: it is resident for as long as
the cluster is (about 9 MB). It restarts what ends, with back-off, kills and restarts what
hangs (specs/kit/alive.py writes NAME.alive while its event loop turns), and never touches
a container: it signals only the two processes it started, by pid, never a group.

Files in the run directory: ``supervisor.lock`` (held for life), ``supervisor.pid``
and ``supervisor.status``, one line per child: NAME PID STARTTIME RESTARTS LASTEXIT.
A supervisor that was killed is started again by its daemons, which hold its command in
CORRAL_SUPERVISOR; the new one adopts living children by pid and start time. What was ended in
order meanwhile stays ended: such a start wants the killed one's pid file. Files that somebody
removed are made again; that they cannot be written, or a daemon not be started, ends nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# The rule of specs/kit/backoff.py, by hand: the bare interpreter sees none of our packages.
FIRST_DELAY = 0.2  # seconds before the first restart; doubles
LAST_DELAY = 10.0
ANOTHER = b"another supervisor runs already"
ENDED = b"the killed supervisor's daemons were ended in order meanwhile"
EXIT_ANOTHER = 4  # says either to the program that started us
AGAIN = "CORRAL_SUPERVISOR_AGAIN"  # specs/kit/alive.py sets it
CALM = 10.0  # alive this long forgets earlier crashes
GRACE = 15.0  # seconds between SIGTERM and SIGKILL of a daemon
TICK = 1.0  # adopted children are not ours to wait for: they are looked at
HUNG = 30.0  # seconds without a beat after which a daemon is taken to hang (a beat: 2 s)
LOOKS = 6  # times in that span that its beat is looked at
LOG_LIMIT = 16 * 1024 * 1024
LOG_CHECK = 60.0
LOCK, PID, STATUS = "supervisor.lock", "supervisor.pid", "supervisor.status"
WAKE = frozenset({signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


def start_time(pid: int) -> str:
    """Return the process's start time in clock ticks, or "" if there is no such process.

    With the pid this names one process for as long as the machine is up (proc(5), field 22).
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as file:
            fields = file.read().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    # A zombie is not running; field 3 is the state.
    return "" if fields[0] in "ZX" else fields[19]


def resolved(argv: list[str]) -> list[str]:
    """Return the command, and make our environment, without the link to the present version.

    A daemon keeps to the folder it was started from: it imports and starts things later on,
    and `corral upgrade` changes the link while it runs.
    """
    link = os.environ.get("PYTHONPATH", "")
    if not os.path.islink(link):
        return argv
    folder = os.path.realpath(link)
    os.environ["PYTHONPATH"] = folder
    program = argv[0]
    return [folder + program[len(link) :] if program.startswith(f"{link}/") else program, *argv[1:]]


def write_atomically(path: str, text: str) -> None:
    """Replace the file's content in one step; where nothing fits any more in its place."""
    temporary = f"{path}.new"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError:
        if not os.path.exists(path):
            raise
        # Less than the page it has: a stale one would have another supervisor start daemons twice.
        data = text.encode()
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            if os.pwrite(descriptor, data, 0) == len(data):
                os.ftruncate(descriptor, len(data))
        finally:
            os.close(descriptor)


class Child:
    """One daemon: its command, its present process, and when to start the next."""

    def __init__(self, name: str, argv: list[str], log: str, command: str = "") -> None:
        self.name = name
        self.command = command  # what starts its supervisor, for itself to use
        self.beat = ""  # what its file said when last looked at
        self.looked = 0.0
        self.silent = 0.0  # seconds that we looked without seeing it beat
        self.argv = argv
        self.log = log
        self.pid = 0
        self.started = ""  # start time of that pid
        self.born = 0.0  # monotonic
        self.adopted = False
        self.restarts = 0
        self.last_exit = "-"
        self.delay = FIRST_DELAY
        self.due = 0.0

    @property
    def alive(self) -> bool:
        return self.pid > 0

    def spawn(self, now: float) -> None:
        """Start the daemon in a session of its own, its output in its log file. Raises OSError."""
        log = self._open_log()
        try:
            pid = os.fork()
            if pid == 0:
                self._become(log)
        finally:
            os.close(log)
        self.pid, self.started, self.born = pid, start_time(pid), now
        self.adopted = False

    def _open_log(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        try:
            os.makedirs(os.path.dirname(self.log), mode=0o750, exist_ok=True)
            return os.open(self.log, flags, 0o640)
        except OSError as exc:  # a full disk: a daemon without a log is better than none
            say(f"{self.name} has no log: {exc}")
            return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)

    def _become(self, log: int) -> NoReturn:
        try:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, WAKE)
            os.chdir("/")
            if self.command:
                os.environ["CORRAL_SUPERVISOR"] = self.command
            argv = resolved(self.argv)
            os.execv(argv[0], argv)  # noqa: S606 - what a supervisor does
        except BaseException as exc:  # noqa: BLE001 - a forked child must never return
            os.write(2, f"supervisor: cannot run {self.argv[0]}: {exc}\n".encode())
        os._exit(127)

    def adopt(self, pid: int, started: str, now: float) -> bool:
        """Take over a process an earlier supervisor started, if it is still that one."""
        if pid <= 1 or not started or start_time(pid) != started:
            return False
        self.pid, self.started, self.born, self.adopted = pid, started, now, True
        return True

    def ended(self, how: str, now: float) -> None:
        """Take note that the process is gone; plan the next start."""
        self.pid, self.last_exit = 0, how
        if now - self.born >= CALM:
            self.delay = FIRST_DELAY
        self.due = now + self.delay
        self.delay = min(self.delay * 2, LAST_DELAY)
        self.restarts += 1

    def hangs(self, run_dir: str, now: float, limit: float) -> bool:
        """Look at its beat; say whether it has shown none for ``limit`` seconds of our looking.

        Only a process that has beaten is judged: one of an earlier version never does. Where
        the whole machine stood still we did not look either, so that counts little.
        """
        gap, self.looked = min(now - self.looked, 2 * limit / LOOKS), now
        try:
            with open(f"{run_dir}/{self.name}.alive", encoding="ascii") as file:
                beat = file.read()
        except (OSError, ValueError):
            beat = ""
        if not self.alive or beat.split()[:1] != [str(self.pid)] or beat != self.beat:
            self.beat, self.silent = beat, 0.0
            return False
        self.silent += gap
        return self.silent >= limit

    def signal(self, number: int) -> None:
        """Signal the process, if it is still the one we know."""
        if self.alive and start_time(self.pid) == self.started:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def trim_log(self) -> None:
        """Keep the newer half of a log that has grown too long (the writer appends)."""
        try:
            size = os.stat(self.log).st_size
            if size <= LOG_LIMIT:
                return
            with open(self.log, "rb+") as file:
                file.seek(size - LOG_LIMIT // 2)
                file.readline()
                kept = file.read()
                file.seek(0)
                file.write(kept)
                file.truncate()
        except OSError:
            return


class Supervisor:
    """The loop: wait for a signal or a due time, then compare wanted with present."""

    def __init__(
        self, run_dir: str, children: list[Child], lock: int, tell: int | None = None
    ) -> None:
        self.run_dir = run_dir
        self.lock = lock
        self.tell = tell  # where to say that we run, for whoever started us
        self.children = children
        self.unwritten = ""  # why our files cannot be written, said once
        self.hung_after = HUNG
        self.stopping = False
        self.next_trim = 0.0

    def run(self) -> int:
        """Supervise until SIGTERM or SIGINT; then stop the daemons and return."""
        signal.pthread_sigmask(signal.SIG_BLOCK, WAKE)
        self._write(PID, f"{os.getpid()} {start_time(os.getpid())}\n")
        if self.tell is not None:
            os.write(self.tell, b"up")
            os.close(self.tell)
        self._adopt()
        while not self.stopping:
            if not self._keep_files():
                say("another supervisor runs: leaving it what we kept")
                return EXIT_ANOTHER
            self._step(time.monotonic())
            self._wait()
        self._stop_children()
        for name in (STATUS, PID):
            with contextlib.suppress(OSError):
                os.unlink(f"{self.run_dir}/{name}")
        return 0

    def _keep_files(self) -> bool:
        """Make again what somebody removed of our files; False when another took our place."""
        if not is_at(self.lock, f"{self.run_dir}/{LOCK}"):
            try:
                os.makedirs(self.run_dir, mode=0o755, exist_ok=True)
                lock = take_lock(self.run_dir)
            except OSError as exc:
                self._complain(exc)
                return True
            if lock is None:
                return False
            os.close(self.lock)
            self.lock = lock
        if not os.path.exists(f"{self.run_dir}/{PID}"):
            self._write(PID, f"{os.getpid()} {start_time(os.getpid())}\n")
        return True

    def _write(self, name: str, text: str) -> None:
        try:
            write_atomically(f"{self.run_dir}/{name}", text)
            self.unwritten = ""
        except OSError as exc:
            self._complain(exc)

    def _complain(self, exc: OSError) -> None:
        if self.unwritten != str(exc):
            self.unwritten = str(exc)
            say(f"cannot say what runs: {exc}")

    def _adopt(self) -> None:
        known = read_status(self.run_dir)
        now = time.monotonic()
        for child in self.children:
            pid, started, *_ = known.get(child.name, (0, ""))
            if child.adopt(pid, started, now):
                say(f"adopted {child.name} (pid {pid})")

    def _step(self, now: float) -> None:
        self._reap(now)
        for child in self.children:
            if now - child.looked >= self.hung_after / LOOKS and child.hangs(
                self.run_dir, now, self.hung_after
            ):
                say(
                    f"{child.name} (pid {child.pid}) hangs: no sign of life for"
                    f" {child.silent:.0f} s; killing it"
                )
                child.silent = 0.0
                child.signal(signal.SIGKILL)
        for child in self.children:
            if not child.alive and now >= child.due:
                self._start(child, now)
        self._write_status()
        if now >= self.next_trim:
            self.next_trim = now + LOG_CHECK
            for child in self.children:
                child.trim_log()

    def _start(self, child: Child, now: float) -> None:
        try:
            child.spawn(now)
        except OSError as exc:  # no memory, no process ids left
            say(f"{child.name} cannot be started: {exc}")
            child.born = now
            child.ended(f"errno:{exc.errno}", now)
            return
        say(f"started {child.name} (pid {child.pid})")

    def _reap(self, now: float) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            for child in self.children:
                if child.pid == pid and not child.adopted:
                    code = os.waitstatus_to_exitcode(status)
                    how = f"signal:{-code}" if code < 0 else f"code:{code}"
                    say(f"{child.name} (pid {pid}) ended: {how}")
                    child.ended(how, now)
        for child in self.children:
            if child.adopted and child.alive and start_time(child.pid) != child.started:
                say(f"{child.name} (pid {child.pid}) is gone")
                child.ended("unknown", now)

    def _wait(self) -> None:
        now = time.monotonic()
        timeout = min(LOG_CHECK, self.hung_after / LOOKS)
        for child in self.children:
            if not child.alive:
                timeout = min(timeout, max(0.01, child.due - now))
            elif child.adopted:
                timeout = min(timeout, TICK)
        caught = signal.sigtimedwait(WAKE, timeout)
        if caught is not None and caught.si_signo in (signal.SIGTERM, signal.SIGINT):
            self.stopping = True

    def _stop_children(self) -> None:
        # In reverse: the controller first, so that it does not see its agent go.
        for child in self.children:
            child.signal(signal.SIGTERM)
            until = time.monotonic() + GRACE
            while child.alive:
                self._reap(time.monotonic())
                if time.monotonic() > until:
                    say(f"{child.name} (pid {child.pid}) does not end: killing it")
                    child.signal(signal.SIGKILL)
                    until = time.monotonic() + GRACE
                signal.sigtimedwait(WAKE, 0.05)

    def _write_status(self) -> None:
        lines = [
            f"{child.name} {child.pid} {child.started or '-'} {child.restarts} {child.last_exit}\n"
            for child in self.children
        ]
        self._write(STATUS, "".join(lines))


def read_status(run_dir: str) -> dict[str, tuple[int, str, int, str]]:
    """Return name -> (pid, start time, restarts, last exit); empty if there is none."""
    found: dict[str, tuple[int, str, int, str]] = {}
    try:
        with open(f"{run_dir}/{STATUS}", encoding="utf-8") as file:
            for line in file:
                name, pid, started, restarts, last = line.split()
                found[name] = (int(pid), started, int(restarts), last)
    except (OSError, ValueError):
        return {}
    return found


def say(text: str) -> None:
    """Write a line to our own log (standard error)."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        os.write(2, f"{stamp} supervisor: {text}\n".encode())
    except OSError:
        return


def take_lock(run_dir: str) -> int | None:
    """Return the descriptor of the lock every supervisor holds for life; None = taken."""
    lock = os.open(f"{run_dir}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def is_at(descriptor: int, path: str) -> bool:
    """Say whether the open file is still the one at that path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


def daemonise(log: str) -> int:
    """Leave terminal and session; return a descriptor to tell the starter that we run.

    The starter's process does not return from here: it waits for that word and exits.
    """
    told, tell = os.pipe()
    if os.fork():
        os.close(tell)
        answer = os.read(told, 64)
        if answer not in (b"", b"up"):
            os.write(2, answer + b"\n")
        os._exit({b"up": 0, ANOTHER: EXIT_ANOTHER, ENDED: EXIT_ANOTHER}.get(answer, 1))
    os.close(told)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    os.umask(0o022)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(out)
    return tell


# -P: the folder a daemon is started in must not shadow our packages.
DAEMONS = {
    "controller": ["-P", "-m", "orchestrator", "--embedded"],
    "agent": ["-P", "-m", "agent"],
}


def main(argv: list[str]) -> int:
    """Run: supervisor.py [--foreground] RUN_DIR LOG_DIR PYTHON [controller] [agent].

    NAME=PROGRAM runs that program instead of the daemon of this version (renewal.py: an agent that
    was put back).
    """
    foreground = argv[:1] == ["--foreground"]
    run_dir, log_dir, python, *names = argv[1:] if foreground else argv
    again = [sys.executable, "-I", "-S", os.path.abspath(__file__), *argv]
    command = "" if foreground else json.dumps(again)  # else somebody else keeps it
    children = [
        Child(name, [program] if program else [python, *DAEMONS[name]], log, command)
        for name, _, program in (word.partition("=") for word in names or DAEMONS)
        for log in (f"{log_dir}/{name}.log",)
    ]
    os.makedirs(run_dir, mode=0o755, exist_ok=True)
    os.makedirs(log_dir, mode=0o750, exist_ok=True)
    after_kill = bool(os.environ.pop(AGAIN, ""))
    tell = None if foreground else daemonise(f"{log_dir}/supervisor.log")
    lock = take_lock(run_dir)
    if lock is None or (after_kill and not os.path.exists(f"{run_dir}/{PID}")):
        os.write(2 if tell is None else tell, ANOTHER if lock is None else ENDED)
        return EXIT_ANOTHER
    return Supervisor(run_dir, children, lock, tell).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
