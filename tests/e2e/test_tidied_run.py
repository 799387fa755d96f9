"""Somebody empties /run/corral under the living daemons: what runs runs on, new tasks start."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.real
ONE = """
services:
  web: {image: busybox, command: [sleep, inf], init: true}
"""
TWO = ONE + "  more: {image: busybox, command: [sleep, inf], init: true}\n"


def test_tasks_start_again_after_the_run_directory_was_emptied(corral):
    corral.compose(ONE)
    corral("up", "-d")
    before = corral.pid("web-1")
    # Mounts stay, as for any rm; everything else that may be removed is.
    corral.host.run(["sh", "-c", "rm -rf --one-file-system /run/corral 2>/dev/null; true"])
    corral.until("the sockets are there again", lambda: corral("ps", code=None).returncode == 0)
    corral.compose(TWO)
    corral("up", "-d")
    corral.until("it runs", lambda: corral.row("more-1")["ready"])
    assert corral.pid("web-1") == before, "law: what runs is not touched"
    zones = "ls /run/corral/agent/dns/zones.json 2>/dev/null || true"
    corral.until("names are kept again", lambda: corral.sh(zones))

    def node():
        (row,) = corral.get("/v1/nodes")["nodes"]
        return row["status"], row.get("reason") or ""

    corral.until("nothing is wrong with the node", lambda: node() == ("ready", ""))
    corral("down", "-t", "0")
    # Nobody needed these again; the comparison with before knows them.
    corral.host.run(["sh", "-c", "cd /run/corral/agent && mkdir -p files subpaths mounted shm"])
