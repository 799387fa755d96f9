"""The controller's machine is brought to another version, or back: with fake daemons, for real.

The law: an answer as the new version, or as the former one with the reason; agents and what they
run are not touched by a controller that changes, and doing it again finishes it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from types import SimpleNamespace

import pytest

from orchestrator.client.client import Client
from orchestrator.embedded import daemons, renewal, supervisor, systemd
from specs.kit import versions
from tests.orchestrator.cli.test_embedded import DAEMON, pids, starts, wait_for

# The interpreter the fakes run under has this version of corral: it is "still installed".
OLD, NEW = versions.installed(), "9.0.0"


def program(folder, version, *, controller="", agent=""):
    """Write a fake of both daemons that has a version, and perhaps a fault."""
    text = DAEMON.format(python=sys.executable)
    text = text.replace(
        'mode = os.environ.get("CORRAL_FAKE_" + name.upper(), "")',
        f'mode = {{"controller": {controller!r}, "agent": {agent!r}}}[name]',
    )
    text = text.replace('{"version": "0.1.0",', f'{{"version": {version!r},')
    text = text.replace(
        'body = {"stamp"', f'body = {{"facts": {{"agent_version": {version!r}}}, "stamp"'
    )
    text = text.replace(
        'elif "/v1/hello"', 'elif "/v1/held" in request:\n            body = {"tasks": {}}\n'
        '        elif "/v1/hello"',
    )  # fmt: skip
    made = folder / f"daemon-{version}-{controller}-{agent}"
    made.write_text(text)
    made.chmod(0o755)
    return str(made)


@pytest.fixture
def machine(tmp_path, clean_environment, monkeypatch):
    """A machine whose daemons have the old version, and what makes the new one installed."""
    monkeypatch.setattr(daemons, "_make_group", lambda _say: None)
    monkeypatch.setattr(systemd, "RUNS", tmp_path / "no-systemd")
    monkeypatch.setattr(daemons, "DAEMON_PYTHON", program(tmp_path, OLD))

    def install(version=NEW, **faults):
        monkeypatch.setattr(daemons, "DAEMON_PYTHON", program(tmp_path, version, **faults))
        monkeypatch.setattr(versions, "installed", lambda: version)

    clean_environment.install = install
    daemons.ensure(Client(), lambda _text: None)
    yield clean_environment
    daemons.stop(Client())
    for line in starts(clean_environment):
        assert supervisor.start_time(int(line[1])) == "", f"{line} still runs"


def renew(*, agent=True):
    lines = []
    renewal.renew(Client(), lines.append, agent=agent)
    return lines


def answers():
    return renewal._controllers_version()


def agents():
    from specs.kit import changeover

    path = f"{os.environ['CORRAL_RUN_DIR']}/agent.sock"
    return changeover.version_of(changeover.ask(path, "/v1/hello"))


def test_controller_first_then_this_machines_agent(machine):
    before = pids(machine)
    machine.install()
    lines = renew()
    assert lines == [
        f"controller: {OLD} -> {NEW}",
        f"controller: {NEW} (was {OLD})",
        f"this machine's agent: {OLD} -> {NEW}",
        f"this machine's agent: {NEW} (was {OLD}); 0 containers kept running",
    ]
    assert (answers(), agents()) == (NEW, NEW)
    wait_for(lambda: 0 not in pids(machine).values(), "both are kept")
    assert not set(before.values()) & set(pids(machine).values())
    assert renew() == [f"controller: {NEW} already"]


def test_without_its_agent_that_is_not_touched(machine):
    before = pids(machine)["agent"]
    machine.install()
    renew(agent=False)
    assert (answers(), agents()) == (NEW, OLD)
    assert pids(machine)["agent"] == before
    os.kill(before, signal.SIGKILL)  # the new supervisor keeps it, as the new version
    wait_for(lambda: agents() == NEW, "the agent is started as the new version")


def test_a_controller_that_does_not_come_up_is_taken_back(machine):
    before = pids(machine)["agent"]
    machine.install(controller="crash")
    with pytest.raises(daemons.StartFailed) as caught:
        renew()
    said = str(caught.value)
    assert f"the new controller ({NEW}) is no good: it ends as soon as it starts" in said
    assert f"{OLD} is in place again" in said
    assert "cannot do it: no such thing" in said
    assert (answers(), agents()) == (OLD, OLD)
    assert pids(machine)["agent"] == before
    # Once the cause is mended it goes through.
    machine.install()
    renew()
    assert (answers(), agents()) == (NEW, NEW)


def test_one_that_answers_as_another_version_is_taken_back(machine, monkeypatch, tmp_path):
    ask, seen = renewal._controllers_version, []

    def version():
        found = ask()
        seen.extend([found] * (found == "8.0.0"))
        return found

    def now():  # it has all its time until it has answered so
        return time.monotonic() + bool(seen) * 2 * renewal.PATIENCE

    monkeypatch.setattr(renewal, "_controllers_version", version)
    monkeypatch.setattr(renewal, "time", SimpleNamespace(monotonic=now, sleep=time.sleep))
    machine.install()
    monkeypatch.setattr(daemons, "DAEMON_PYTHON", program(tmp_path, "8.0.0"))
    with pytest.raises(daemons.StartFailed, match=r"it answers as 8\.0\.0 within 60 s"):
        renew()
    assert answers() == OLD


def test_where_the_former_code_is_gone_that_is_said(machine, monkeypatch):
    machine.install(controller="crash")
    monkeypatch.setattr(renewal, "ASKS_VERSION", "print('7.7.7')")
    with pytest.raises(daemons.StartFailed, match="is not installed here any more") as caught:
        renew()
    assert "in a folder of its own" in caught.value.hint


def test_an_agent_that_does_not_come_up_goes_back_alone(machine):
    machine.install(agent="crash")
    with pytest.raises(daemons.StartFailed) as caught:
        renew()
    said = str(caught.value)
    assert "this machine's new agent is no good: it ends as soon as it starts" in said
    assert f"{OLD} is in place again" in said
    assert "cannot do it: no such thing" in said
    assert (answers(), agents()) == (NEW, OLD)
    # And is kept so.
    agent = pids(machine)["agent"]
    os.kill(agent, signal.SIGKILL)
    wait_for(lambda: agents() == OLD and pids(machine)["agent"] != agent, "it is kept")
    machine.install()
    assert renew()[0] == f"controller: {NEW} already"
    assert agents() == NEW


@pytest.mark.parametrize("step", ["_replace", "_end", "keep"])
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_interrupted_at_each_step_doing_it_again_finishes(machine, monkeypatch, step, done):
    machine.install()
    original = getattr(renewal._Supervised, step)

    def interrupted(self, *words):
        if done:
            original(self, *words)
        raise KeyboardInterrupt

    monkeypatch.setattr(renewal._Supervised, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        renew()
    monkeypatch.setattr(renewal._Supervised, step, original)
    wait_for(lambda: answers() in (OLD, NEW) and agents() == OLD, "old or new, both run")
    renew()
    assert (answers(), agents()) == (NEW, NEW)


def test_one_started_by_hand_is_refused(machine):
    os.kill(daemons.supervisor_pid(), signal.SIGKILL)
    wait_for(lambda: daemons.supervisor_pid() is None, "the supervisor lives on")
    machine.install()
    with pytest.raises(daemons.StartFailed, match="nothing keeps the controller"):
        renew()
    assert answers() == OLD
