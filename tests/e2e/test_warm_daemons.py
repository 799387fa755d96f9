"""Daemons that tests start warm (tests/warm_daemons.py) are, to the kernel, those a user starts."""

from __future__ import annotations

import json
import re

import pytest

from tests import warm_daemons

LOOK = """
import json, os, re, sys
DIGITS = re.compile("[0-9]+")
def of(pid):
    p = f"/proc/{pid}"
    text = lambda name: open(f"{p}/{name}", errors="replace").read()
    status = dict(line.split(":", 1) for line in text("status").splitlines())
    fds = {int(fd): os.readlink(f"{p}/fd/{fd}") for fd in os.listdir(f"{p}/fd")}
    kept = ("Name", "Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "SigCgt", "CapEff",
            "NoNewPrivs", "Seccomp")
    return {
        "command": text("cmdline"),
        "environment": sorted(text("environ").split(chr(0))),
        "program": os.readlink(f"{p}/exe"),
        "folder": os.readlink(f"{p}/cwd"),
        "status": {name: status[name].strip() for name in kept},
        "namespaces": {name: os.readlink(f"{p}/ns/{name}") for name in os.listdir(f"{p}/ns")},
        "groups": sorted(text("cgroup").splitlines()),
        "limits": text("limits"),
        "oom": text("oom_score_adj"),
        "session": [os.getsid(int(pid)) == int(pid), os.getpgid(int(pid)) == int(pid)],
        "nice": os.getpriority(os.PRIO_PROCESS, int(pid)),
        "parent": text("stat").rpartition(")")[2].split()[1],
        "standard": [fds.get(number) for number in range(3)],
        "open": sorted({DIGITS.sub("N", name) for number, name in fds.items() if number > 2}),
    }
print(json.dumps({name: of(pid) for name, pid in zip(sys.argv[1::2], sys.argv[2::2])}))
"""
NAMES = ("supervisor", "controller", "agent")


def started(corral, *, warm):
    """Start the cluster; return what /proc shows of its daemons, whatever their pids, and the kB
    of the agent's memory that it shares with the process that forked it."""
    corral("controller", "stop")
    assert not any(corral.daemon(name) for name in NAMES)
    corral("controller", "start", daemons=warm)
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
