"""The straight line of README.md, walked: one service from YAML to a process and back.

Every file the README names is a station, and has one function here that says by what it leaves
that the service came through it. A station without a function, a function without a station and
a file that is not there fail without a machine; the walk itself is a real ``corral up``.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import zlib
from typing import TYPE_CHECKING

import pytest

from orchestrator.lab.host import CHECKOUT
from specs.states import TaskState
from tests.e2e.traces import RUN, STATE, Events, Traces, Wire, stations

if TYPE_CHECKING:
    from collections.abc import Callable

STACK = "line"
FILE = """\
services:
  web:
    image: busybox
    command: [sh, -c, "echo $$MARK; exec sleep inf"]
    environment: {MARK: "${MARK}"}
    volumes: ["data:/data"]
    configs: [note]
    stop_grace_period: 0s
volumes: {data: }
configs: {note: {file: ./note.txt}}
"""
NOTE = "read where the file is"
SLACK = 0.05  # seconds: the kernel's file times and clock ticks are that much coarser

# What says that a station was passed; one that leaves a moment returns it.
PASSED: dict[str, Callable[[Traces], float | None]] = {}


def station(path: str):
    def note(check):
        assert path not in PASSED, f"{path} has two assertions"
        PASSED[path] = check
        return check

    return note


# Where the file is.


@station("examples/guestbook/compose.yaml")
def _file(line: Traces):
    assert line.host.read(f"{line.corral.folder}/compose.yaml") == FILE
    return line.changed_at(f"{line.corral.folder}/compose.yaml")


@station("orchestrator/cli/main.py")
def _main(line: Traces):
    assert "-m orchestrator.cli.main up -d" in line.post.argv


@station("orchestrator/cli/commands/up.py")
def _up(line: Traces):
    asked = [e.line.split()[1].partition("?")[0] for e in line.exchanges]
    posted = asked.index(f"/v1/stacks/{STACK}/releases")
    assert asked[posted + 1] == f"/v1/stacks/{STACK}/progress", "made, then followed"


@station("orchestrator/cli/project.py")
def _project(line: Traces):
    assert base64.b64decode(line.request["contents"]["configs.note"]).decode() == NOTE
    assert line.request["directory"] == line.corral.folder


@station("specs/compose/load.py")
def _load(line: Traces):
    web = line.request["project"]["services"]["web"]
    assert web["environment"] == {"MARK": line.mark}, "interpolated"
    assert web["volumes"][0]["type"] == "volume", "short forms are spelled out"
    assert "compose.yaml" in str(line.request["origins"]["services.web.environment.MARK"])


@station("orchestrator/cli/reaching.py")
def _ensure(line: Traces):
    first = line.exchanges[0]
    assert first.line.startswith("POST "), "nothing is asked first: nearly always one answers"
    assert "--embedded" in line.proc("cmdline", line.corral.daemon("controller"))
    return first.time


@station("orchestrator/cli/deploy.py")
def _request(line: Traces):
    assert len(line.request["key"]) == 32
    boot = line.host.read("/proc/sys/kernel/random/boot_id").strip()
    assert line.request["client"] == {"hostname": line.host.name, "boot_id": boot}


@station("orchestrator/client/client.py")
def _post(line: Traces):
    assert line.post.line == f"POST /v1/stacks/{STACK}/releases HTTP/1.1"
    return line.post.time


# In the controller.


@station("orchestrator/api/stacks.py")
def _answer(line: Traces):
    status, (row,) = line.post.answer
    assert status in (200, 201)
    assert (row["stack"], row["number"]) == (STACK, line.release["number"])
    assert row["state"] == "pending", "acknowledged before anything is done"


@station("orchestrator/control/control.py")
def _loop(line: Traces):
    assert [e.line.split()[0] for e in line.exchanges].count("POST") == 1, "one wish"
    states = [p["state"] for p in line.progress if p["kind"] == "release"]
    assert states[-2:] == ["deploying", "deployed"], "the loop did the rest by itself"


@station("orchestrator/control/deploy/commands.py")
def _command(line: Traces):
    made, _ = line.store[f"/idempotency/{line.request['key']}"]
    assert (made["stack"], made["number"]) == (STACK, line.release["number"])
    again = line.corral.client.request("POST", f"/v1/stacks/{STACK}/releases", body=line.request)
    assert again["number"] == line.release["number"], "said twice, made once"
    return made["at"]


@station("orchestrator/control/deploy/release.py")
def _release(line: Traces):
    assert line.release["key"] == line.request["key"]
    assert line.store[f"/stacks/{STACK}"][0]["release"] == line.release["number"]
    (content,) = [c for c in line.records("/contents/") if c["stack"] == STACK]
    assert NOTE not in json.dumps(content), "sealed"
    return line.release["created_at"]


@station("specs/compile/stack.py")
def _compiled(line: Traces):
    spec, _ = line.store[f"/parts/{line.release['spec']}"]
    task = spec["services"]["web"]["task"]
    assert task["environment"]["MARK"] == line.mark
    assert task["command"] == ["sh", "-c", "echo $MARK; exec sleep inf"]


@station("orchestrator/control/mirror/draft.py")
def _draft(line: Traces):
    (content,) = [
        k for k in line.store if k.startswith("/contents/") and STACK in str(line.store[k])
    ]
    keys = (f"/parts/{line.release['spec']}", content, f"/idempotency/{line.request['key']}")
    assert len({line.store[key][1] for key in keys}) == 1, "one transaction, one revision"


@station("orchestrator/store/sqlite.py")
def _store(line: Traces):
    assert f"/releases/{STACK}/{line.release['number']:08d}" in line.store
    assert line.files_with(line.mark, f"{STATE}/controller") == [], "sealed: no environment in it"


@station("orchestrator/control/notices.py")
def _notices(line: Traces):
    kinds = [e["kind"] for e in line.events if e["kind"].startswith("release.")]
    assert kinds == ["release.pending", "release.deploying", "release.deployed"]


@station("orchestrator/control/deploy/background.py")
def _beside(line: Traces):
    (deploying,) = [e for e in line.events if e["kind"] == "release.deploying"]
    assert deploying["time"] >= line.release["created_at"]
    return deploying["time"]


@station("orchestrator/control/deploy/images.py")
def _digests(line: Traces):
    here = {image["digest"] for image in line.agent("/v1/images")["images"]}
    assert line.release["images"]["web"] in here


@station("orchestrator/control/planning/stacks.py")
def _look(line: Traces):
    assert line.network["name"] == f"{STACK}_default", "networks come before tasks"


@station("orchestrator/control/planning/services.py")
def _tasks(line: Traces):
    assert (line.task["name"], line.task["slot"]) == (f"{STACK}-web-1", 1)
    assert line.task["release"] == line.release["number"]
    assert line.task["desired"] == "running", "no dependency keeps it"
    return line.task["created_at"]


@station("orchestrator/control/planning/placement.py")
def _placed(line: Traces):
    address = line.task["addresses"][line.network["id"]]
    leases = [b for b in line.records("/blocks/") if b["network"] == line.network["id"]]
    assert line.task["node"] in {lease["node"] for lease in leases}
    assert address.startswith("10.210.")
    assert line.store[f"/volumes/{STACK}_data"][0]["node"] == line.task["node"]


@station("scheduler/place.py")
def _decided(line: Traces):
    assert line.task["node"] == line.node["id"]
    assert line.task.get("pending_reason", "") == "", "nothing refused it"


@station("orchestrator/control/wanted.py")
def _wanted(line: Traces):
    assert line.assignment["spec"]["image_digest"] == line.release["images"]["web"]
    assert line.assignment["volumes"] == {"data": f"{STACK}_data"}
    (attachment,) = line.assignment["networks"]
    assert attachment["address"] == line.task["addresses"][line.network["id"]]


@station("orchestrator/dispatch/dispatcher.py")
def _epoch(line: Traces):
    version = line.corral.get("/v1/version")
    stamp = line.instructions[-1]["stamp"]
    assert (stamp["cluster"], stamp["epoch"]) == (version["cluster"], version["epoch"])


@station("orchestrator/dispatch/session.py")
def _instruction(line: Traces):
    assert line.instructions[0].get("base") is None, "the whole set first"
    for before, after in itertools.pairwise(line.instructions):
        assert after["base"] == before["stamp"]["generation"], "then one change on the other"
    assert line.instructions[-1]["me"]["node"] == line.node["id"]


# On the node.


@station("agent/server.py")
def _served(line: Traces):
    hello = line.agent("/v1/hello")
    assert hello["node"] == line.node["id"]
    assert hello["stamp"]["generation"] >= line.instructions[-1]["stamp"]["generation"]


@station("agent/tasks/worker.py")
def _worker(line: Traces):
    assert line.report["full"]
    assert line.report["applied"] >= line.instructions[-1]["stamp"]["generation"]
    assert line.report["tasks"][line.task["id"]]["state"] == "running"


@station("agent/tasks/journal.py")
def _journal(line: Traces):
    for check, text in line.journal:
        assert int(check, 16) == zlib.crc32(text.encode())
    said = json.dumps(line.instructions)
    assert line.mark in said
    assert NOTE not in said, "contents have their own files"
    folders = (f"{STATE}/agent/journal", f"{RUN}/agent/records")
    assert line.files_with(line.mark, *folders) == [], "sealed: no environment in it"
    assert line.files_with(NOTE, *folders) == []
    kept = line.files_with(line.mark, f"{STATE}/agent/tasks", f"{RUN}/agent/tasks")
    # What the runtime and conmon must have, in folders that are root's alone; and what it printed.
    # A log file has a second name, by which a full one is kept.
    allowed = {"config.json", "000001.log", "000001.000001.log"}
    assert {path.rpartition("/")[2] for path in kept} <= allowed, kept


@station("agent/tasks/runner.py")
def _runner(line: Traces):
    assert line.record["phase"] == "running"
    assert line.record["process"]["pid"] == line.pid
    assert line.record["touched"], "written before the first effect"


@station("agent/tasks/lifecycle.py")
def _steps(line: Traces):
    kinds = [e["kind"] for e in line.events if e.get("task")]
    states = [kind.removeprefix("task.") for kind in kinds if kind.startswith("task.")]
    order = list(TaskState)
    places = [order.index(TaskState(state)) for state in states]
    assert places == sorted(places), f"states only move forward: {states}"
    assert states[-1] == "running"
    assert (line.record["runs"][-1]["number"], line.record.get("restarts", 0)) == (1, 0)


@station("agent/tasks/preparation.py")
def _prepared(line: Traces):
    folder = f"{STATE}/agent/tasks/{line.task['id']}/etc"
    assert line.host.read(f"{folder}/hostname") == line.inside("/etc/hostname")
    assert "127.0.0.11" in line.inside("/etc/resolv.conf")
    return line.changed_at(f"{folder}/hostname")


@station("agent/images/store.py")
def _root(line: Traces):
    root = next(m for m in line.proc("mountinfo").splitlines() if m.split()[4] == "/")
    assert " - overlay " in root
    assert line.task["id"] in root, "its own writable layer"


@station("agent/volumes/store.py")
def _volumes(line: Traces):
    line.host.write(f"{STATE}/agent/volumes/{STACK}_data/_data/seen", line.mark)
    assert line.inside("/data/seen") == line.mark
    assert line.inside("/note") == NOTE


@station("agent/network/node.py")
def _network(line: Traces):
    address = line.task["addresses"][line.network["id"]]
    found = line.corral.sh(f"nsenter -t {line.pid} -n ip -4 -o addr show dev eth0")
    assert f"inet {address}/32 " in found
    (own,) = [n for n in line.config["linux"]["namespaces"] if n["type"] == "network"]
    assert own["path"] == f"{RUN}/agent/netns/{line.task['id']}"


@station("agent/runtime/bundle.py")
def _bundle(line: Traces):
    assert f"MARK={line.mark}" in line.config["process"]["env"]
    assert line.config["process"]["args"] == ["sh", "-c", "echo $MARK; exec sleep inf"]


@station("agent/runtime/containers.py")
def _containers(line: Traces):
    assert int(line.host.read(line.bundle("pid"))) == line.pid
    assert f"/corral/{line.task['id']}" in line.proc("cgroup")
    return line.changed_at(line.bundle("config.json"))


@station("agent/runtime/conmon.py")
def _conmon(line: Traces):
    monitor = int(line.host.read(line.bundle("conmon.pid")))
    assert monitor == line.record["monitor"]["pid"]
    words = line.proc("cmdline", monitor).split("\n")
    assert words[words.index("--cid") + 1] == line.task["id"]
    assert f"\nPPid:\t{monitor}\n" in line.proc("status"), "the container's parent"
    assert "PPid:\t1\n" in line.proc("status", monitor), "and nobody of ours is above it"
    return line.changed_at(line.bundle("conmon.pid"))


@station("agent/runtime/crun.py")
def _process(line: Traces):
    assert line.proc("cmdline").split() == ["sleep", "inf"], "the command, not the runtime"
    assert f"MARK={line.mark}" in line.proc("environ").split("\n")
    logged = line.corral.sh(f"cat {STATE}/agent/tasks/{line.task['id']}/log/*")
    assert logged.endswith(f" {line.mark}")
    return line.task["status"]["runs"][-1]["started_at"]


# And back.


@station("orchestrator/control/planning/ingest.py")
def _reported(line: Traces):
    assert line.task["status"] == {**line.task["status"], "state": "running", "ready": True}
    assert line.task["status"]["runs"] == line.report["tasks"][line.task["id"]]["runs"]


@station("orchestrator/control/planning/releases.py")
def _judged(line: Traces):
    assert line.release["state"] == "deployed"
    assert line.store[f"/stacks/{STACK}"][0]["running"] == line.release["number"]
    return line.release["finished_at"]


@station("orchestrator/control/telling/progress.py")
def _told(line: Traces):
    tasks = [p for p in line.progress if p["kind"] == "task"]
    assert tasks[-1]["ready"]
    assert (line.progress[-1]["kind"], line.progress[-1]["ok"]) == ("end", True)
    return line.progress[-1]["time"]


@station("orchestrator/cli/show/watch.py")
def _seen(line: Traces):
    assert f"web-1 on {line.host.name}: running" in line.said
    assert f"release {line.release['number']} done" in line.said
    return line.ended


# The walk.


def test_every_station_of_the_readme_is_a_file_and_has_an_assertion():
    found = list(stations((CHECKOUT / "README.md").read_text()))
    assert [path for path in found if not (CHECKOUT / path).is_file()] == []
    assert [path for path in found if path not in PASSED] == [], "nothing says these were passed"
    assert [path for path in PASSED if path not in found] == [], "not named in README.md"
    assert len(found) == len(set(found)), "each once"


@pytest.mark.real
def test_a_service_passes_every_station_in_order(corral):
    line = Traces(corral, STACK)
    line.mark = f"mark-{os.urandom(4).hex()}"
    corral.compose(FILE, STACK, **{"note.txt": NOTE})
    with Wire(corral) as wire, Events(corral, STACK) as events:
        # A process of its own, started cold: its command line is one of the stations.
        env = {"MARK": line.mark, "CORRAL_HOST": wire.host}
        done = corral.host.corral("up", "-d", cwd=corral.folder, env=env, timeout=180.0)
        line.ended = float(corral.sh("date +%s.%N"))
        corral.until("the last event", lambda: _deployed(events.seen))
    line.exchanges, line.events, line.said = wire.exchanges, events.seen, done.stderr

    missed, moments = [], []
    for path in stations((CHECKOUT / "README.md").read_text()):
        try:
            moment = PASSED[path](line)
        except Exception as error:
            missed.append(f"{path}: {type(error).__name__}: {error}")
            continue
        if moment is not None:
            moments.append((moment, path))
    assert not missed, "not passed:\n" + "\n".join(missed)
    for (before, one), (after, other) in itertools.pairwise(moments):
        assert before <= after + SLACK, f"{one} comes before {other}: {before} > {after}"
    assert len(moments) > 12, "the order is seen from the moments"

    corral("down", "-v")
    agent = (f"{STATE}/agent/journal", f"{STATE}/agent/tasks", f"{STATE}/agent/volumes")
    left = line.files_with(line.mark, f"{STATE}/controller", f"{STATE}/log", *agent, RUN)
    assert left == [], "law: nothing on the machine has the environment of what went"


def _deployed(events) -> bool:
    return any(event["kind"] == "release.deployed" for event in events)
