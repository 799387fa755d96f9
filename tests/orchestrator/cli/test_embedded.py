"""Starting, supervising and stopping the daemons of this machine, with fake daemons."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from orchestrator.client import client as clients
from orchestrator.client.client import Client
from orchestrator.client.errors import ClientError, ControllerElsewhere, NoController
from orchestrator.embedded import daemons, supervisor, systemd
from specs.kit import alive

# Plays both daemons: it is the "Python" the supervisor runs with -P -m MODULE.
DAEMON = """#!{python} -IS
import json, os, signal, socket, sys, time
module = sys.argv[3]
name = "controller" if module == "orchestrator" else "agent"
run = os.environ["CORRAL_RUN_DIR"]
mode = os.environ.get("CORRAL_FAKE_" + name.upper(), "")
with open(run + "/starts", "a") as file:
    file.write(f"{{name}} {{os.getpid()}} {{os.getppid()}}\\n")
print(name, "says hello from", os.getcwd(), flush=True)
if mode == "crash":
    print("cannot do it: no such thing", flush=True)
    sys.exit(7)
if mode == "refuse":
    print("this machine belongs to another cluster", flush=True)
    sys.exit(3)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
path = f"{{run}}/{{name}}.sock"
if os.path.exists(path + ".new"):
    os.unlink(path + ".new")
server = socket.socket(socket.AF_UNIX)
server.bind(path + ".new")
server.listen(16)
os.rename(path + ".new", path)  # who sees it may connect
began = time.monotonic()
while True:
    try:
        peer, _ = server.accept()
    except OSError:
        break
    with peer:
        request = peer.recv(65536).decode()
        if "/v1/nodes" in request:
            ready = mode not in ("unready", "behind") and time.monotonic() - began > 0.2
            body = {{"nodes": [{{"name": "alpha", "status": "ready" if ready else "unknown",
                                "reason": "" if ready else "the agent is probing the kernel"}}]}}
        elif "/v1/state" in request:
            body = {{"behind": "shop is older here" if mode == "behind" else ""}}
        elif "/v1/hello" in request:
            body = {{"stamp": {{"cluster": "other"}} if mode == "foreign" else None}}
        elif "/tasks" in request:
            body = {{"tasks": [{{"state": "running"}}] * 3 + [{{"state": "complete"}}]}}
        elif "/v1/stacks" in request:
            body = {{"stacks": [{{"name": "shop", "tasks": "3/3"}}]}}
        else:
            body = {{"version": "0.1.0", "api": 1, "cluster": "c1", "epoch": 1}}
        data = json.dumps(body).encode()
        code = 404 if "/progress" in request else 200
        try:
            head = b"HTTP/1.1 %d X\\r\\nContent-Length: %d\\r\\n\\r\\n"
            peer.sendall(head % (code, len(data)) + data)
        except OSError:
            pass
"""


def wait_for(condition, what, seconds=300.0):
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, what
        time.sleep(0.01)
    return found


@pytest.fixture
def machine(tmp_path, clean_environment, monkeypatch):
    """A machine without systemd whose daemons are fakes; nothing is left running after."""
    program = tmp_path / "daemon"
    program.write_text(DAEMON.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr(daemons, "DAEMON_PYTHON", str(program))
    monkeypatch.setattr(daemons, "_make_group", lambda _say: None)
    monkeypatch.setattr(systemd, "RUNS", tmp_path / "no-systemd")
    yield clean_environment
    daemons.stop(Client())
    for line in starts(clean_environment):
        assert supervisor.start_time(int(line[1])) == "", f"{line} still runs"


def starts(machine):
    try:
        return [line.split() for line in (machine.run / "starts").read_text().splitlines()]
    except FileNotFoundError:
        return []


def both_started(machine):
    """Wait until both have said so: readiness is the controller's word, an agent may be slower."""
    wait_for(lambda: len(starts(machine)) >= 2, "not both were started")
    log = machine.state / "log" / "agent.log"
    wait_for(lambda: log.read_text() == "agent says hello from /\n", "the agent says nothing")


def said():
    lines: list[str] = []
    return lines, lines.append


def pids(machine):
    return {name: row[0] for name, row in supervisor.read_status(str(machine.run)).items()}


def test_ensure_starts_both_daemons_once_and_waits_for_the_node(machine):
    lines, say = said()
    assert daemons.ensure(Client(), say) is True
    both_started(machine)
    assert [line[0] for line in sorted(starts(machine))] == ["agent", "controller"]
    assert "started controller and agent on this machine" in lines[-1]
    assert daemons.ensure(Client(), say) is False
    assert len(starts(machine)) == 2


def test_several_at_once_start_one(machine):
    outcomes = []

    def start():
        outcomes.append(daemons.ensure(Client(), lambda _text: None))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert sorted(outcomes) == [False, False, False, True]
    both_started(machine)
    assert len(starts(machine)) == 2


@pytest.mark.parametrize("name", ["controller", "agent"])
def test_a_killed_daemon_is_started_again(machine, name):
    daemons.ensure(Client(), lambda _text: None)
    before = pids(machine)
    os.kill(before[name], signal.SIGKILL)
    wait_for(lambda: pids(machine)[name] not in (0, before[name]), f"{name} did not come back")
    after = pids(machine)
    assert {key for key in after if after[key] != before[key]} == {name}
    assert supervisor.read_status(str(machine.run))[name][2:] == (1, "signal:9")


def test_reading_waits_for_a_controller_that_is_being_restarted(machine, corral, monkeypatch):
    monkeypatch.setattr(clients, "RESTART_TIMEOUT", 300.0)
    daemons.ensure(Client(), lambda _text: None)
    os.kill(pids(machine)["controller"], signal.SIGKILL)
    assert corral("ls").code == 0


def test_crashes_of_earlier_days_do_not_make_a_start_hopeless(machine):
    daemons.ensure(Client(), lambda _text: None)
    for count in range(1, 4):
        controller = pids(machine)["controller"]
        os.kill(controller, signal.SIGKILL)
        wait_for(lambda n=count: daemons.restarts()["controller"] == n, "not noticed")
        wait_for(lambda: daemons._answers(Client()), "the controller did not come back")
    controller = pids(machine)["controller"]
    os.kill(controller, signal.SIGKILL)
    # Not until nobody answers: on a busy machine the next one does before we have looked.
    wait_for(lambda: not supervisor.start_time(controller), "the controller lives on")
    daemons.ensure(Client(), lambda _text: None)
    assert daemons._answers(Client())


def test_a_killed_supervisor_is_replaced_and_adopts(machine):
    daemons.ensure(Client(), lambda _text: None)
    both_started(machine)
    before, first = pids(machine), daemons.supervisor_pid()
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: daemons.supervisor_pid() is None, "the supervisor lives on")
    assert daemons.ensure(Client(), lambda _text: None) is False
    assert wait_for(daemons.supervisor_pid, "no new supervisor") != first
    assert pids(machine) == before
    assert len(starts(machine)) == 2
    # and it looks after what it adopted
    os.kill(before["agent"], signal.SIGKILL)
    wait_for(lambda: len(starts(machine)) == 3, "the adopted agent was not started again")


def _emptied(machine):
    for path in machine.run.iterdir():
        path.unlink()


def _unwritable(machine):
    # As on a tmpfs that is full: neither file can be written any more.
    for name in ("supervisor.status.new", "supervisor.pid.new"):
        (machine.run / name).mkdir()


DAMAGE = {
    "the run directory is gone": lambda machine: shutil.rmtree(machine.run),
    "all its files are gone": _emptied,
    "only the lock is gone": lambda machine: (machine.run / "supervisor.lock").unlink(),
    "only its pid is gone": lambda machine: (machine.run / "supervisor.pid").unlink(),
    "its files cannot be written": _unwritable,
    "the folder of logs is gone": lambda machine: shutil.rmtree(machine.state / "log"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_supervisor_goes_on_whatever_becomes_of_its_files(machine, damage):
    daemons.ensure(Client(), lambda _text: None)
    both_started(machine)
    first, agent = daemons.supervisor_pid(), pids(machine)["agent"]
    started = supervisor.start_time(first)
    DAMAGE[damage](machine)
    os.kill(agent, signal.SIGKILL)
    again = wait_for(lambda: [n for n in children(first) if n != agent], "no agent was started")
    assert supervisor.start_time(first) == started, "law: it is the same supervisor"
    if damage != "its files cannot be written":
        wait_for(lambda: daemons.supervisor_pid() == first, "it is not known any more")
        wait_for(lambda: pids(machine).get("agent") in again, "its daemons are not known any more")
    else:
        for path in machine.run.glob("*.new"):
            path.rmdir()
        wait_for(lambda: pids(machine).get("agent") in again, "it never wrote again")
    assert supervisor.take_lock(str(machine.run)) is None, "law: there is no second one"


def children(pid):
    """Return the pids of a process' agents."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    named = {}
    for n in found:
        with contextlib.suppress(OSError):  # one that ends meanwhile is none
            named[int(n)] = Path(f"/proc/{n}/cmdline").read_bytes().split(b"\0")
    return {n for n, words in named.items() if b"agent" in words}


def test_a_supervisor_whose_place_was_taken_leaves_without_a_word_to_its_daemons(machine):
    daemons.ensure(Client(), lambda _text: None)
    both_started(machine)
    first, before = daemons.supervisor_pid(), pids(machine)
    (machine.run / "supervisor.lock").unlink()
    taken = supervisor.take_lock(str(machine.run))
    try:
        if taken is None:  # it was quicker
            return
        wait_for(lambda: not supervisor.start_time(first), "it does not leave")
        assert all(supervisor.start_time(pid) for pid in before.values())
    finally:
        if taken is not None:
            os.close(taken)


def test_a_daemon_that_cannot_be_forked_is_tried_again(monkeypatch, tmp_path):
    """No memory or no process ids: the supervisor lives on and tries with back-off."""
    child = supervisor.Child("agent", ["/bin/true"], str(tmp_path / "log" / "agent.log"))
    kept = supervisor.Supervisor(str(tmp_path), [child], supervisor.take_lock(str(tmp_path)))

    def full():
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", full)
    kept._step(100.0)
    assert (child.alive, child.restarts, child.last_exit) == (False, 1, f"errno:{errno.EAGAIN}")
    assert child.due > 100.0
    assert supervisor.read_status(str(tmp_path))["agent"][2] == 1
    os.close(kept.lock)


def test_a_daemon_that_always_crashes_gives_its_last_words(machine, monkeypatch):
    monkeypatch.setenv("CORRAL_FAKE_AGENT", "crash")
    monkeypatch.setenv("CORRAL_FAKE_CONTROLLER", "unready")
    with pytest.raises(daemons.StartFailed) as caught:
        daemons.ensure(Client(), lambda _text: None)
    assert "the agent ends as soon as it starts (code:7)" in str(caught.value)
    assert "    | cannot do it: no such thing" in str(caught.value)
    assert daemons.supervisor_pid() is None  # and nothing goes on failing


def supervised_by(tmp_path, monkeypatch, was, now):
    """Shorten or lengthen a time of the supervisor's own process: it runs a copy that has it."""
    source = Path(supervisor.__file__).read_text()
    assert was in source
    copy = tmp_path / "supervisor.py"
    copy.write_text(source.replace(was, now))
    command = daemons.supervisor_command()
    command[command.index(str(supervisor.__file__))] = str(copy)
    monkeypatch.setattr(daemons, "supervisor_command", lambda: command)


def test_a_daemon_that_refuses_is_not_tried_again(machine, monkeypatch, tmp_path):
    # Whoever looks may be late; who would wait for another try waits for its own deadline.
    supervised_by(tmp_path, monkeypatch, "FIRST_DELAY = 0.2", "FIRST_DELAY = 60.0")
    monkeypatch.setenv("CORRAL_FAKE_CONTROLLER", "refuse")
    with pytest.raises(daemons.StartFailed, match="belongs to another cluster"):
        daemons.ensure(Client(), lambda _text: None)
    assert sum(line[0] == "controller" for line in starts(machine)) == 1


def test_a_node_that_never_gets_ready_has_a_deadline_and_a_reason(machine, monkeypatch):
    monkeypatch.setenv("CORRAL_FAKE_CONTROLLER", "unready")
    monkeypatch.setattr(daemons, "NODE_DEADLINE", 0.3)
    with pytest.raises(daemons.StartFailed, match="probing the kernel"):
        daemons.ensure(Client(), lambda _text: None)


def test_a_state_that_is_older_than_what_runs_is_asked_about_and_not_waited_for(
    machine, monkeypatch
):
    """No node gets ready before that is decided: a start that waits for one waits for nothing."""
    monkeypatch.setenv("CORRAL_FAKE_CONTROLLER", "behind")
    lines, say = said()
    assert daemons.ensure(Client(), say) is True
    assert lines[-1] == "warning: shop is older here"
    assert set(pids(machine)) == {"controller", "agent"}, "they stay: they are asked"


def test_a_node_of_another_cluster_refuses(machine, monkeypatch, spawn_program, corral):
    monkeypatch.setenv("CORRAL_FAKE_AGENT", "foreign")
    monkeypatch.setattr(clients, "HELLO_TIMEOUT", 300.0)
    agent = spawn_program(
        "import os, sys; os.execv(sys.argv[1], sys.argv[1:])",
        daemons.DAEMON_PYTHON, "-P", "-m", "agent",
    )  # fmt: skip
    wait_for((machine.run / "agent.sock").exists, "the agent did not start")
    words = "this machine is a node of the cluster other, whose controller runs elsewhere"
    with pytest.raises(ControllerElsewhere, match=words):
        daemons.ensure(Client(), lambda _text: None)
    # The supervisor of its agent is no reason to wait for a controller either.
    (machine.run / "supervisor.pid").write_text(f"{os.getpid()}\n")
    for line in (
        ["node", "ls"], ["ls"], ["-p", "app", "ps"], ["-p", "app", "logs"], ["-p", "app", "events"],
        ["volume", "ls"], ["-p", "app", "stop"], ["controller", "start"],
    ):  # fmt: skip
        done = corral(*line)
        assert (done.code, words in done.err) == (1, True), (line, done.err)
        assert "corral -H ssh://user@it" in done.err
        assert "being started" not in done.err
    # On the controller's own machine one that is away comes back.
    state = machine.state / "controller/state.db"
    state.parent.mkdir(parents=True, exist_ok=True)
    state.touch()
    (machine.run / "supervisor.pid").unlink()
    assert "no controller answers" in corral("node", "ls").err
    assert agent.poll() is None  # it is not ours to end
    agent.kill()
    agent.wait(300)


def test_stop_ends_everything_and_says_so(machine, corral):
    daemons.ensure(Client(), lambda _text: None)
    status = json.loads(corral("controller", "status", "--format", "json").out)
    assert status["running"] is True
    assert status["kept_by"] == "supervisor"
    rows = {row["name"]: row["memory"] for row in status["processes"]}
    assert set(rows) == {"controller", "agent", "supervisor"}
    assert rows["supervisor"] < 12 * 1024 * 1024
    done = corral("controller", "stop")
    assert done.code == 0
    assert "ended: controller, agent, supervisor" in done.err
    assert "containers that keep running: 3" in done.err
    assert daemons.daemon_pids() == {}
    again = corral("controller", "stop")
    assert "neither controller nor agent runs" in again.err
    assert corral("controller", "status").code == 1


def test_stop_kills_a_daemon_that_does_not_end(machine, monkeypatch, tmp_path):
    supervised_by(tmp_path, monkeypatch, "GRACE = 15.0", "GRACE = 0.3")
    monkeypatch.setenv("CORRAL_FAKE_CONTROLLER", "stubborn")
    daemons.ensure(Client(), lambda _text: None)
    assert daemons.stop(Client()) == ["controller", "agent", "supervisor"]


@pytest.mark.parametrize("moment", ["starting", "adopting"])
def test_stop_ends_a_supervisor_that_is_just_being_started(machine, monkeypatch, tmp_path, moment):
    """A daemon starts a killed one again: it holds the lock before anybody knows its pid."""
    daemons.ensure(Client(), lambda _text: None)
    wait_for(lambda: len(supervisor.read_status(machine.run)) == 2, "no status")
    os.kill(daemons.supervisor_pid(), signal.SIGKILL)
    wait_for(lambda: daemons.supervisor_pid() is None, "it lives")
    line = {
        "starting": "signal.pthread_sigmask(signal.SIG_BLOCK, WAKE)",
        "adopting": "self._adopt()",
    }
    slow = f"open(self.run_dir + '/slow', 'w').close(); time.sleep(1); {line[moment]}"
    supervised_by(tmp_path, monkeypatch, line[moment], slow)
    start = threading.Thread(target=daemons.start_supervisor)
    start.start()
    wait_for((machine.run / "slow").exists, "it did not start")
    assert set(daemons.stop(Client())) == {"controller", "agent", "supervisor"}
    start.join()
    assert daemons.supervisor_pid() is None
    assert daemons.daemon_pids() == {}
    with contextlib.closing(os.fdopen(supervisor.take_lock(machine.run))):
        for _, pid, _ in starts(machine):
            assert supervisor.start_time(int(pid)) == ""


def test_a_start_beside_a_stop_waits_for_its_end(machine):
    machine.run.mkdir(parents=True, exist_ok=True)
    lock = supervisor.take_lock(machine.run)  # as a stop holds it
    said = threading.Event()
    starting = threading.Thread(
        target=daemons.ensure, args=(Client(), lambda _text: None, lambda _step: said.set())
    )
    starting.start()
    assert said.wait(300)
    time.sleep(0.3)  # the first try finds it held, most likely
    os.close(lock)
    starting.join(300)
    # The controller answers, and its agent is just being started.
    both = {"controller", "agent"}
    wait_for(lambda: set(daemons.daemon_pids()) == both, "not both were started")


@pytest.mark.parametrize("stopped", [True, False])
def test_a_daemon_that_starts_a_killed_supervisor_late_starts_none_after_a_stop(
    machine, monkeypatch, stopped
):
    daemons.ensure(Client(), lambda _text: None)
    wait_for(lambda: len(supervisor.read_status(machine.run)) == 2, "no status")
    os.kill(daemons.supervisor_pid(), signal.SIGKILL)
    wait_for(lambda: daemons.supervisor_pid() is None, "it lives")
    assert alive.was_killed(machine.run / "supervisor.pid")
    if stopped:
        assert set(daemons.stop(Client())) == {"controller", "agent"}
    for name, value in daemons.environment().items():
        monkeypatch.setenv(name, value)
    alive._start(daemons.supervisor_command())
    assert (daemons.supervisor_pid() is None) == stopped
    assert (len(daemons.daemon_pids()) == 0) == stopped
    if not stopped:  # what it starts later on knows nothing of that
        environ = Path(f"/proc/{daemons.supervisor_pid()}/environ").read_bytes()
        assert supervisor.AGAIN.encode() in environ
        old = daemons.daemon_pids()["agent"]
        os.kill(old, signal.SIGKILL)
        # Its socket may be heard of for a moment longer than it lives.
        another = lambda: (pid := daemons.daemon_pids().get("agent")) != old and pid  # noqa: E731
        pid = wait_for(another, "it was not started again")
        assert supervisor.AGAIN.encode() not in Path(f"/proc/{pid}/environ").read_bytes()


def test_stop_ends_a_controller_that_was_started_by_hand(machine, spawn_program):
    process = spawn_program(
        "import os, sys; os.execv(sys.argv[1], sys.argv[1:])",
        daemons.DAEMON_PYTHON, "-P", "-m", "orchestrator",
    )  # fmt: skip
    wait_for(daemons.daemon_pids, "the controller did not start")
    # Reaped by a thread: a zombie child of ours would look alive to nobody but us.
    threading.Thread(target=process.wait, daemon=True).start()
    assert daemons.stop(Client()) == ["controller"]


def test_down_starts_a_stopped_controller_because_containers_may_run(machine, corral):
    assert corral("-p", "shop", "down").code == 1
    assert starts(machine) == []  # there never was one: nothing can run
    (machine.state / "controller").mkdir(parents=True)
    (machine.state / "controller" / "state.db").touch()
    corral("-p", "shop", "down", "-t", "1")
    assert daemons.supervisor_pid() is not None


def test_only_root_starts_one(machine, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NoController, match="only root can start one"):
        daemons.ensure(Client(), lambda _text: None)


def test_another_host_is_never_replaced_by_a_local_controller(machine, tmp_path):
    with pytest.raises(ClientError, match="no controller answers"):
        daemons.ensure(Client(f"unix://{tmp_path}/elsewhere.sock"), lambda _text: None)
    assert starts(machine) == []


def test_the_environment_of_the_daemons_is_small(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("https_proxy", "http://proxy")
    monkeypatch.setenv("PATH", "/opt/bin")
    found = daemons.environment()
    assert "AWS_SECRET_ACCESS_KEY" not in found
    assert found["https_proxy"] == "http://proxy"
    assert found["PATH"].startswith("/opt/bin:/usr/local/sbin:")


def test_a_reused_pid_is_not_taken_for_ours(clean_environment):
    """After a reboot, or when the pid belongs to somebody else by now."""
    (clean_environment.run / "supervisor.pid").write_text(f"{os.getpid()} 1\n")
    assert daemons.supervisor_pid() is None
    child = supervisor.Child("agent", ["/bin/true"], "/dev/null")
    assert not child.adopt(os.getpid(), "1", 0.0)
    assert child.adopt(os.getpid(), supervisor.start_time(os.getpid()), 0.0)


def test_backoff_doubles_and_is_forgotten_after_a_calm_spell():
    child = supervisor.Child("agent", [], "")
    dues = []
    for _ in range(8):
        child.pid, child.born = 1, 100.0
        child.ended("code:1", 101.0)
        dues.append(round(child.due - 101.0, 2))
    assert dues == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    child.pid, child.born = 1, 100.0
    child.ended("code:1", 100.0 + supervisor.CALM)
    assert child.due - (100.0 + supervisor.CALM) == pytest.approx(0.2)


def test_a_long_log_keeps_its_newer_half(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "LOG_LIMIT", 1000)
    log = tmp_path / "agent.log"
    log.write_text("".join(f"line {i}\n" for i in range(1000)))
    child = supervisor.Child("agent", [], str(log))
    child.trim_log()
    kept = log.read_text().splitlines()
    assert kept[-1] == "line 999"
    assert kept[0].startswith("line ")
    assert 400 < log.stat().st_size <= 500


# systemd


def test_units_leave_containers_alone(monkeypatch):
    text = systemd.unit_text("agent", {"CORRAL_RUN_DIR": '/run/a "b" 100%'}, python="/opt/p y/bin")
    assert 'ExecStart="/opt/p y/bin" "-P" "-m" "agent"\n' in text
    assert 'Environment="CORRAL_RUN_DIR=/run/a \\"b\\" 100%%"\n' in text
    assert "KillMode=process\n" in text
    assert "Delegate=yes\n" in text
    assert "Restart=always\n" in text
    assert "StartLimitIntervalSec=0\n" in text, "however often it ends"
    assert "WatchdogSec=30\n" in text
    assert "WatchdogSignal=SIGKILL\n" in text, "what was stopped with SIGSTOP takes no other"
    assert "NotifyAccess=main\n" in text


@pytest.mark.parametrize(
    ("beats", "limit", "killed"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8, 9], 30.0, False),  # it beats
        ([1, 1, 1, 1, 1, 1], 30.0, False),  # 30 s have not passed since it was first seen
        ([1, 1, 1, 1, 1, 1, 1], 30.0, True),
        ([1, 1, 1, 1, 1, 1, 2, 2, 2], 30.0, False),  # a slow machine
        ([1, 2, 2, 2, 2, 2, 2, 2], 6.0, True),
        ([None] * 20, 30.0, False),  # of an earlier version, or it has not begun yet
        ([1, *[None] * 20], 30.0, False),  # its folder was removed under it
        (["other", *["other"] * 20], 30.0, False),  # what the one before it left
    ],
)
def test_a_daemon_hangs_when_it_beats_no_more(tmp_path, beats, limit, killed):
    child = supervisor.Child("agent", [], "")
    child.pid, now, found = 77, 1000.0, []
    child.hangs(str(tmp_path), now, limit)
    for beat in beats:
        now += limit / supervisor.LOOKS
        pid = 76 if beat == "other" else 77
        (tmp_path / "agent.alive").unlink(missing_ok=True)
        if beat is not None:
            (tmp_path / "agent.alive").write_text(f"{pid:>10} {beat:>20}\n")
        found.append(child.hangs(str(tmp_path), now, limit))
    assert any(found) == killed


def test_a_machine_that_stood_still_is_no_daemon_that_hangs(tmp_path):
    child = supervisor.Child("agent", [], "")
    child.pid = 77
    (tmp_path / "agent.alive").write_text(f"{77:>10} {1:>20}\n")
    assert not child.hangs(str(tmp_path), 1000.0, 30.0)
    assert not child.hangs(str(tmp_path), 1005.0, 30.0)
    assert not child.hangs(str(tmp_path), 5000.0, 30.0), "frozen for an hour, looked once"


def test_install_and_remove_units(tmp_path, monkeypatch):
    calls = tmp_path / "calls"
    tool = tmp_path / "bin" / "systemctl"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(systemd, "UNIT_DIR", tmp_path)
    assert not systemd.installed()
    systemd.install({"PATH": "/bin"})
    assert systemd.installed()
    systemd.remove()
    assert not systemd.installed()
    assert calls.read_text().splitlines() == [
        "daemon-reload",
        "enable --now corral-controller.service corral-agent.service",
        "disable --now corral-controller.service corral-agent.service",
        "daemon-reload",
    ]
