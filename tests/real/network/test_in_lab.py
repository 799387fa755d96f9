"""The network inside a lab host, which has /proc, /sys and mounts of its own."""

import json
import sys

import pytest

from tests.real.network.hosts import ROOT
from tests.real.network.states import Cluster

pytestmark = pytest.mark.real


def test_a_lab_host_is_machine_enough(host):
    cluster = Cluster({"n1": "192.0.2.1"}, overlay=False)
    task = cluster.task("web", "n1", ["net-a"], number=2).model_dump(mode="json")
    requests = [
        {"op": "apply", "state": cluster.state("n1")},
        {"op": "attach", "assignments": [task]},
        {"op": "verify"},
        {"op": "detach", "tasks": ["web"]},
        {"op": "leave"},
    ]
    host.run(["mkdir", "-p", "/run/t", "/var/lib/t"])
    done = host.run(
        [sys.executable, "-m", "tests.real.network.worker", "/run/t", "/var/lib/t"],
        stdin="".join(json.dumps(request) + "\n" for request in requests),
        cwd=str(ROOT),
    )
    host.run(["rm", "-rf", "/run/t", "/var/lib/t"])

    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert not [answer for answer in answers if "error" in answer], answers
    assert answers[3] == {"repaired": []}
