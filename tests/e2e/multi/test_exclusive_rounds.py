"""Rounds of cut, freeze, hang and heal: of an exclusive service never two copies are heard.

``CORRAL_ROUNDS`` (20) rounds from ``CORRAL_SEED`` (1), each of some faults at random times to hosts
at random. The figures are printed; docs/reliability.md has those of the last long run.
"""

from __future__ import annotations

import os
import random
import time

import pytest

from tests.e2e.multi.test_exclusive import LONG, Scene

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(7200)]
ROUNDS = int(os.environ.get("CORRAL_ROUNDS", "20"))
SEED = int(os.environ.get("CORRAL_SEED", "1"))
FAULTS = ("cut", "cut", "freeze", "freeze", "hang", "kill", "between")


def test_rounds_of_faults_never_have_two_copies_heard(cluster, capsys):
    scene = Scene(cluster)
    rng = random.Random(SEED)
    moved, senders = 0, 1
    for number in range(1, ROUNDS + 1):
        node, fault = rng.choice(("n2", "n3")), rng.choice(FAULTS)
        seconds = rng.choice((3.0, 9.0, 14.0, 18.0, 25.0)) + rng.random()
        inflict(cluster, node, fault, seconds)
        begun = time.time()
        cluster.until("a copy is heard", lambda at=begun: scene.seen(at), LONG)
        scene.check()
        now = len({packet.sender for packet in scene.seen()})
        moved, senders = moved + (now > senders), now
        with capsys.disabled():
            print(f"\nround {number}: {fault} {node} {seconds:.1f} s, {now} copies so far", end="")
    time.sleep(5.0)
    scene.check()
    with capsys.disabled():
        print(
            f"\n{ROUNDS} rounds from seed {SEED}: {senders} copies one after the other, never two"
        )
    assert moved, "or nothing was tried"


def inflict(cluster, node: str, fault: str, seconds: float) -> None:
    """Do a fault to a host, wait, and heal it."""
    host = cluster.host(node)
    match fault:
        case "cut":
            cluster.lab.cut(node)
            time.sleep(seconds)
            cluster.lab.heal(node)
        case "between":
            cluster.lab.cut("n2", "n3")
            time.sleep(seconds)
            cluster.lab.heal("n2")
        case "freeze":
            host.freeze()
            try:
                time.sleep(seconds)
            finally:
                host.freeze(frozen=False)
        case "hang":
            pids = [str(pid) for pid in cluster.daemons(node, "agent")]
            host.run(["kill", "-STOP", *pids], check=False)
            try:
                time.sleep(seconds)
            finally:
                host.run(["kill", "-CONT", *pids], check=False)
        case "kill":
            for pid in cluster.daemons(node, "agent"):
                host.run(["kill", "-9", str(pid)], check=False)
            time.sleep(seconds / 3)
