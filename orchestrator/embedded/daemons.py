"""Start and stop the controller and agent of this machine.

`corral up` calls :func:`ensure` before its first request; `corral controller
start|stop|status` call the rest. Where systemd runs the machine, two units do the
work, elsewhere orchestrator.embedded.supervisor. Nothing here touches a container: they
live on whatever is stopped, and are adopted by whatever is started.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.client.client import Client, refuse_member
from orchestrator.client.errors import ClientError, Forbidden, NoAnswer, NoController
from orchestrator.client.places import run_dir as sockets_dir
from orchestrator.client.places import state_dir as durable_dir
from orchestrator.embedded import boot, supervisor, systemd
from specs.kit import programs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

API_DEADLINE = 30.0  # seconds until the controller must answer
NODE_DEADLINE = 60.0  # seconds until this machine's agent must be ready
LOCK_DEADLINE = API_DEADLINE + NODE_DEADLINE + 10.0
STOP_DEADLINE = 45.0
REFUSED = "code:3"  # a daemon's word for: it said why, and trying again will not help
HOPELESS = 3  # crashes in a row after which waiting longer is no use
TAIL = 10
GROUP = "corral"
USUAL = ("/var/lib/corral", "/run/corral")  # other folders are experiments: /etc stays as it is
DAEMON_PYTHON = sys.executable  # the interpreter that has our packages

# What a daemon may inherit from the shell that happened to start it.
_KEPT = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "PYTHONPATH", "XDG_RUNTIME_DIR", "DOCKER_CONFIG")
_KEPT_PREFIXES = ("LC_", "CORRAL_", "SSL_CERT_", "REGISTRY_", "PYTHONDONTWRITE", "PYTHONFAULT")


class StartFailed(ClientError):
    """The local controller or agent did not come up; the message holds its last words."""


def log_dir() -> Path:
    """Return where the daemons' logs are when there is no systemd."""
    return Path(durable_dir()) / "log"


def ensure(
    client: Client, say: Callable[[str], None], step: Callable[[str], None] = lambda _: None
) -> bool:
    """Make sure the controller answers; start one here if that is allowed.

    ``step`` is told what takes its time while it does. Returns whether something was started.
    Raises ClientError with the reason.
    """
    if client.local and os.geteuid() == 0:
        _revive()
    if _answers(client):
        return False
    if not client.local:
        client.get("/v1/version")  # raises what is wrong with that host
    refuse_member()
    if os.geteuid() != 0:
        raise NoController(
            "no controller runs on this machine, and only root can start one",
            hint="sudo corral up; or name another machine's controller with CORRAL_HOST",
        )
    Path(sockets_dir()).mkdir(mode=0o755, parents=True, exist_ok=True)
    with locked(client, say):
        if _answers(client):
            return False
        step("starting controller and agent on this machine")
        start(client, say)
    return True


def _answers(client: Client) -> bool:
    here = Client(client.host)
    here.patient = False
    try:
        here.request("GET", "/v1/version", timeout=5.0)
    except Forbidden:
        raise
    except NoAnswer:
        return False
    return True


@contextlib.contextmanager
def locked(client: Client, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of everybody who starts a controller here; wait while another does."""
    path = f"{sockets_dir()}/embedded.lock"
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        until = time.monotonic() + LOCK_DEADLINE
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    say("another corral is starting the controller of this machine; waiting")
                    told = True
            else:
                break
            if time.monotonic() > until:
                raise StartFailed(
                    f"another corral has been starting the controller for {LOCK_DEADLINE:.0f} s",
                    hint=f"who holds it: fuser {path}",
                )
            time.sleep(0.1)
            if told and _answers(client):
                break
        yield
    finally:
        os.close(lock)


def start(client: Client, say: Callable[[str], None]) -> None:
    """Start controller and agent and wait until work can be handed over."""
    began = time.monotonic()
    _make_group(say)
    units = systemd.running()
    crashes = restarts()
    how, missing = "systemd units", ""
    if units:
        ours = not systemd.installed()
        systemd.install(environment())
    else:
        ours = start_supervisor()
        how, missing = start_at_boot()
    try:
        question = _wait_until_ready(client, crashes)
    except BaseException:
        # A start that failed must not go on failing in the background.
        if ours:
            stop(client)
        raise
    seconds = time.monotonic() - began
    say(
        f"corral: started controller and agent on this machine in {seconds:.1f} s "
        f"({how}); "
        "they stay after `down`, `corral controller stop` ends them"
    )
    if missing:
        say(f"warning: nothing starts them after a boot: {missing}")
    if question:
        say(f"warning: {question}")


def environment(source: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment the daemons get, of what a shell or a daemon has."""
    kept = {
        name: value
        for name, value in (os.environ if source is None else source).items()
        if name in _KEPT
        or name.startswith(_KEPT_PREFIXES)
        or name.lower() in ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
    }
    for ours in ("CORRAL_HOST", "CORRAL_SUPERVISOR"):
        kept.pop(ours, None)
    have = kept.get("PATH", "").split(":")
    missing = [folder for folder in programs.SYSTEM_PATH.split(":") if folder not in have]
    kept["PATH"] = ":".join([folder for folder in have if folder] + missing)
    return kept


def _make_group(say: Callable[[str], None]) -> None:
    """Members of the group corral may use the sockets; without it only root may."""
    with contextlib.suppress(KeyError):
        grp.getgrnam(GROUP)
        return
    tool = programs.find("groupadd")
    if tool is None:
        say(f"warning: there is no group {GROUP} and no groupadd: only root can use corral")
        return
    done = subprocess.run(
        [tool, "--system", GROUP], capture_output=True, text=True, check=False, timeout=30
    )
    if done.returncode not in (0, 9):  # 9: somebody made it meanwhile
        say(f"warning: could not make the group {GROUP}: {done.stderr.strip()}")


def supervisor_command(*, foreground: bool = False, names: tuple[str, ...] = ()) -> list[str]:
    """Return the supervisor's argv; -I -S keeps it to the bare interpreter."""
    return [
        sys.executable,
        "-I",
        "-S",
        str(supervisor.__file__),
        *(["--foreground"] if foreground else []),
        sockets_dir(),
        str(log_dir()),
        DAEMON_PYTHON,
        *names,
    ]


def start_supervisor(
    command: list[str] | None = None, environ: Mapping[str, str] | None = None
) -> bool:
    """Start the supervisor; False = one runs already. Raises StartFailed.

    A `controller stop` under way holds its lock without one that runs: its end is waited for.
    """
    until = time.monotonic() + STOP_DEADLINE
    while True:
        done = _started(command or supervisor_command(), environ or environment())
        if done.returncode != supervisor.EXIT_ANOTHER:
            break
        if supervisor_pid() is not None or time.monotonic() > until:
            return False
        time.sleep(0.05)
    if done.returncode != 0:
        raise StartFailed(
            f"the supervisor did not start: {done.stderr.strip() or 'no reason given'}",
            hint=f"see {log_dir()}/supervisor.log",
        )
    return True


def _started(command: list[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=15,
        )
    except subprocess.TimeoutExpired:
        raise StartFailed(
            "the supervisor did not start in 15 s", hint=f"see {log_dir()}/supervisor.log"
        ) from None


def start_at_boot(
    environ: Mapping[str, str] | None = None, command: list[str] | None = None
) -> tuple[str, str]:
    """Have the supervisor started after every boot; return how it is kept, and what is missing."""
    if (durable_dir(), sockets_dir()) != USUAL:
        return "supervised", ""
    missing = boot.install(
        _starter(), dict(environ or environment()), command or supervisor_command()
    )
    if missing:
        return "supervised", missing
    looked_after = ", looked after by cron" if boot.has_cron() else ""
    return f"supervised; after a boot by {boot.RC}{looked_after}", ""


def _starter() -> Path:
    return Path(durable_dir()) / "start"


def restarts() -> dict[str, int]:
    """Return how often each daemon has been restarted so far."""
    return {name: row[2] for name, row in supervisor.read_status(sockets_dir()).items()}


def _revive() -> None:
    """Replace a supervisor that was killed while its daemons live on."""
    if supervisor.read_status(sockets_dir()) and supervisor_pid() is None:
        with contextlib.suppress(StartFailed):
            start_supervisor()


def _wait_until_ready(client: Client, crashes: dict[str, int]) -> str:
    """Wait until work can be handed over; return the question that is in the way of it, or ""."""
    until = time.monotonic() + API_DEADLINE
    while not _answers(client):
        _give_up_if_hopeless("controller", crashes)
        if time.monotonic() > until:
            raise StartFailed(
                f"the controller did not answer in {API_DEADLINE:.0f} s{last_words('controller')}"
            )
        time.sleep(0.03)
    until = time.monotonic() + NODE_DEADLINE
    while True:
        ready, reason = _node_ready(client)
        if ready:
            return ""
        if question := _question(client):
            return question  # no node is told anything, nor gets ready, before it is answered
        _give_up_if_hopeless("agent", crashes)
        if time.monotonic() > until:
            raise StartFailed(
                f"this machine's agent is not ready after {NODE_DEADLINE:.0f} s: "
                f"{reason}{last_words('agent')}"
            )
        time.sleep(0.05)


def _node_ready(client: Client) -> tuple[bool, str]:
    try:
        rows = client.get("/v1/nodes")["nodes"]
    except NoAnswer as exc:
        return False, str(exc)
    local = [row for row in rows if not row.get("address")] or rows
    if not local:
        return False, "the controller does not know this machine yet"
    if any(row.get("status") == "ready" for row in local):
        return True, ""
    return False, str(local[0].get("reason") or local[0].get("status"))


def _question(client: Client) -> str:
    """Return what a controller wants decided whose state is older than what runs."""
    try:
        return str(client.get("/v1/state", patience=30.0).get("behind") or "")
    except (ClientError, AttributeError):
        return ""  # an earlier version does not ask


def _give_up_if_hopeless(name: str, before: dict[str, int]) -> None:
    """Raise when the daemon only crashes; crashes of earlier days do not count."""
    _, _, restarts, last = supervisor.read_status(sockets_dir()).get(name, (0, "", 0, ""))
    crashes = restarts - before.get(name, 0)
    if crashes >= HOPELESS or (crashes > 0 and last == REFUSED):
        raise StartFailed(f"the {name} ends as soon as it starts ({last}){last_words(name)}")


def last_words(name: str) -> str:
    """Return the end of a daemon's log as an indented block, with where the rest is."""
    if systemd.running():
        lines, place = systemd.journal(name, TAIL), f"journalctl -u {systemd.unit(name)}"
    else:
        path = log_dir() / f"{name}.log"
        place = str(path)
        try:
            text = path.read_text(encoding="utf-8", errors="replace")[-20_000:]
        except OSError:
            return f"\n  it wrote no log ({place})"
        lines = text.splitlines()[-TAIL:]
    shown = "".join(f"\n    | {line}" for line in lines)
    return f"\n  last lines of {place}:{shown}"


# Stopping and looking


def supervisor_pid() -> int | None:
    """Return the living supervisor's pid."""
    try:
        text = Path(sockets_dir(), "supervisor.pid").read_text(encoding="utf-8")
        pid, started = text.split()
        return int(pid) if supervisor.start_time(int(pid)) == started else None
    except (OSError, ValueError):
        return None


def daemon_pids() -> dict[str, int]:
    """Return the pids of controller and agent, by who listens on their sockets."""
    found = {}
    for name in ("controller", "agent"):
        pid = _listener(f"{sockets_dir()}/{name}.sock")
        if pid is not None:
            found[name] = pid
    return found


def _listener(path: str) -> int | None:
    """Return the pid that listens on a unix socket (SO_PEERCRED, unix(7))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(2.0)
        try:
            sock.connect(path)
            data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return None
    pid = int(struct.unpack("3i", data)[0])
    return pid or None  # 0: it lives in a pid namespace we cannot see


def stop(client: Client) -> list[str]:
    """End supervisor, controller and agent; return what was ended. Containers go on."""
    ended: list[str] = []
    if systemd.running() and systemd.installed():
        systemd.remove()
        ended += ["controller", "agent"]
    if (durable_dir(), sockets_dir()) == USUAL:
        boot.remove(_starter())
    with _unsupervised() as (known, supervised):
        ended += [*known, "supervisor"] if supervised else []
        # What a killed supervisor left, and what was started by hand.
        for name, (child, started, *_) in known.items():
            if child and supervisor.start_time(child) == started:
                end(child, name)
                ended.append(name)
        if client.local:
            for name, listener in daemon_pids().items():
                end(listener, name)
                ended.append(name)
    return list(dict.fromkeys(ended))


@contextlib.contextmanager
def _unsupervised() -> Iterator[tuple[dict[str, tuple[int, str, int, str]], bool]]:
    """End the supervisor and hold its lock, so that none starts what is ended in here.

    Yields the daemons by name as it noted them, and whether one ran. One that a daemon is just
    starting again has the lock before its pid is known: it is waited for.
    """
    known = supervisor.read_status(sockets_dir())
    lock, supervised = None, False
    until = time.monotonic() + STOP_DEADLINE
    while Path(sockets_dir()).is_dir():
        pid = supervisor_pid()
        if pid is not None:
            known = supervisor.read_status(sockets_dir()) or known
            end(pid, "supervisor")
            supervised = True
        with contextlib.suppress(PermissionError):  # not ours to lock: whatever runs says so
            lock = supervisor.take_lock(sockets_dir())
            if lock is None and time.monotonic() < until:
                time.sleep(0.02)
                continue
        break
    try:
        if lock is not None:  # who is about to start one again sees that it is not wanted
            Path(sockets_dir(), supervisor.PID).unlink(missing_ok=True)
        yield known, supervised
    finally:
        if lock is not None:
            os.close(lock)


def end(pid: int, name: str) -> None:
    """SIGTERM one process and wait for its end; it ends its own work in order."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        poller = select.poll()
        poller.register(handle, select.POLLIN)
        if not poller.poll(STOP_DEADLINE * 1000):
            raise StartFailed(
                f"the {name} (pid {pid}) does not end in {STOP_DEADLINE:.0f} s",
                hint=f"its log says why: {log_dir()}/{name}.log; kill -9 {pid} harms no container",
            )
    except ProcessLookupError:
        return
    except PermissionError:
        raise StartFailed(
            f"this user may not end the {name} (pid {pid})", hint="sudo corral controller stop"
        ) from None
    finally:
        os.close(handle)
