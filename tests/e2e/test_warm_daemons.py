"""Daemons that tests start warm (tests/warm_daemons.py) are, to the kernel, those a user starts."""

from __future__ import annotations

import json
import re

import pytest

from tests import warm_daemons

LOOK = """
import json, os, re, sys, time
DIGITS = re.compile("[0-9]+")
def links(folder):
    found = {}
    for name in os.listdir(folder):
        try:
            found[name] = os.readlink(f"{folder}/{name}")
        except FileNotFoundError:
            pass  # a living process closes what it has no more use for
    return found
def opened(pid):
    fds = links(f"/proc/{pid}/fd")
    return {DIGITS.sub("N", name) for number, name in fds.items() if int(number) > 2}
def of(pid):
    p = f"/proc/{pid}"
    text = lambda name: open(f"{p}/{name}", errors="replace").read()
    status = dict(line.split(":", 1) for line in text("status").splitlines())
    fds = links(f"{p}/fd")
    kept = ("Name", "Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "SigCgt", "CapEff",
            "NoNewPrivs", "Seccomp")
    return {
        "command": text("cmdline"),
        "environment": sorted(text("environ").split(chr(0))),
        "program": os.readlink(f"{p}/exe"),
        "folder": os.readlink(f"{p}/cwd"),
        "status": {name: status[name].strip() for name in kept},
        "namespaces": links(f"{p}/ns"),
        "groups": sorted(text("cgroup").splitlines()),
        "limits": text("limits"),
        "oom": text("oom_score_adj"),
        "session": [os.getsid(int(pid)) == int(pid), os.getpgid(int(pid)) == int(pid)],
        "nice": os.getpriority(os.PRIO_PROCESS, int(pid)),
        "parent": text("stat").rpartition(")")[2].split()[1],
        "standard": [fds.get(str(number)) for number in range(3)],
    }
pids = dict(zip(sys.argv[1::2], sys.argv[2::2]))
kept = {name: opened(pid) for name, pid in pids.items()}
for _ in range(10):  # a file that is read or a request that is answered comes and goes
    time.sleep(0.2)
    for name, pid in pids.items():
        kept[name] &= opened(pid)
found = {name: of(pid) | {"open": sorted(kept[name])} for name, pid in pids.items()}
print(json.dumps(found))
"""
NAMES = ("supervisor", "controller", "agent")


def started(corral, *, warm):
    """Start the cluster; return what /proc shows of its daemons, whatever their pids, and the kB
    of the agent's memory that it shares with the process that forked it."""
    corral("controller", "stop")
    left = {
        name: corral.sh(f"cat /proc/{pid}/stat") for name in NAMES if (pid := corral.daemon(name))
    }
    assert left == {}
    start = lambda: corral("controller", "start", code=None, daemons=warm)  # noqa: E731 - short
    corral.until("the controller runs", lambda: start().returncode == 0, 240)
    pids = {name: corral.daemon(name) for name in NAMES}
    assert all(pids.values()), pids
    words = [word for name, pid in pids.items() for word in (name, str(pid))]
    found = json.loads(corral.host.run(["python3", "-c", LOOK, *words]).stdout)
    for name in ("controller", "agent"):
        assert found[name].pop("parent") == str(pids["supervisor"])
    maps = corral.host.read(f"/proc/{pids['agent']}/smaps_rollup")
    return found, int(re.search(r"Shared_Dirty:\s+(\d+)", maps)[1])


def test_a_warm_daemon_is_the_process_that_an_exec_makes(corral):
    if not warm_daemons.possible():
        pytest.skip("this kernel has no CONFIG_CHECKPOINT_RESTORE: all daemons start cold")
    corral.folder = "/root"
    forked, shared = started(corral, warm=True)
    executed, alone = started(corral, warm=False)
    for name in NAMES:
        for what, value in executed[name].items():
            assert forked[name][what] == value, f"{name}: {what}"
    assert shared > 10_000 > alone, "these were two ways to start"
