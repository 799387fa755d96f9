"""Requests and answers: rows, commands, refusals; every error is problem+json with words."""

from __future__ import annotations

import asyncio
import io
import os
import pwd
import resource
import socket
import zlib
from pathlib import Path

import aiohttp
import pytest
from jsonschema import Draft202012Validator

from orchestrator.api import app as api_app
from orchestrator.api import routes
from orchestrator.errors import Conflict, Invalid, NotFound
from orchestrator.store import base as store
from specs.api import Deploy, Start
from specs.kit import door
from specs.made_by import MadeBy
from specs.node import NodeCondition
from specs.problems import Position, Problem
from specs.states import Desired, TaskState
from specs.task import TaskStatus
from tests.orchestrator.api.conftest import mode


async def test_version(api):
    assert await api.call("GET", "/v1/version") == (
        200,
        {"version": "1.2.3", "api": 1, "cluster": "c1", "epoch": 4},
    )


async def test_only_root_and_the_group_may_open_the_socket(api):
    assert mode(api.path) in (0o600, 0o660)


async def test_a_socket_left_by_a_killed_controller_is_replaced(tmp_path):
    path = tmp_path / "c.sock"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    sock = door.listen(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    sock.close()


async def test_stacks_are_rows_with_counts(api):
    api.add_stack()
    await api.add_node()
    api.cluster.conditions["n1"] = NodeCondition(status="ready")
    await api.add_task("t1")
    await api.add_task("t2", slot=2, status=TaskStatus(state=TaskState.STARTING))
    await api.add_task("t3", service="migrate", status=TaskStatus(state=TaskState.COMPLETE))

    status, answer = await api.call("GET", "/v1/stacks")
    assert (status, answer) == (
        200,
        {
            "undecided": "",
            "warnings": [],
            "stacks": [
                {
                    "name": "shop",
                    "status": "degraded",
                    "release": 1,
                    "services": 2,
                    "tasks": "2/3",
                    "reason": "",
                    "orphans": [],
                    "containers": {"created": 1, "exited": 1, "running": 1},
                    "config_files": [],
                }
            ],
        },
    )
    _, detail = await api.call("GET", "/v1/stacks/shop")
    web = detail["services"][1]
    assert (web["name"], web["replicas"], web["tasks"], web["ready"]) == ("web", 2, 2, 1)
    assert web["ports"] == ["0.0.0.0:8080->80/tcp"]


async def test_scale_shows_as_an_override(api):
    api.add_stack(overrides={"web": 5})
    _, detail = await api.call("GET", "/v1/stacks/shop")
    assert (detail["services"][1]["replicas"], detail["services"][1]["scaled"]) == (5, True)


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"desired": "removed"}, "removing"), ({"desired": "stopped"}, "stopped")],
)
async def test_what_is_being_done_with_a_stack_comes_first(api, changes, status):
    api.add_stack(**changes)
    _, detail = await api.call("GET", "/v1/stacks/shop")
    assert detail["status"] == status


async def test_ps_lists_what_has_not_ended_and_with_all_everything(api):
    api.add_stack()
    await api.add_node()
    api.cluster.conditions["n1"] = NodeCondition(status="ready")
    await api.add_task("t2", slot=2)
    await api.add_task("t1")
    await api.add_task("t0", slot=3, status=TaskStatus(state=TaskState.FAILED))

    _, answer = await api.call("GET", "/v1/stacks/shop/tasks")
    assert [row["id"] for row in answer["tasks"]] == ["t1", "t2"]
    row = answer["tasks"][0]
    assert (row["node"], row["image"], row["ports"]) == (
        "node-n1",
        "nginx",
        ["0.0.0.0:8080->80/tcp"],
    )
    assert row["status"].startswith("running ")
    _, answer = await api.call("GET", "/v1/stacks/shop/tasks?all=1")
    assert [row["id"] for row in answer["tasks"]] == ["t1", "t2", "t0"]


async def test_a_task_is_found_by_id_and_by_the_live_ones_name(api):
    api.add_stack()
    await api.add_task("t0", status=TaskStatus(state=TaskState.FAILED))
    await api.add_task("t1")
    assert (await api.call("GET", "/v1/tasks/t0"))[1]["id"] == "t0"
    assert (await api.call("GET", "/v1/tasks/shop-web-1"))[1]["id"] == "t1"
    problem = await api.problem("GET", "/v1/tasks/nope", 404)
    assert problem["detail"] == "there is no task nope"


@pytest.mark.parametrize(("desired", "code"), [("running", 200), ("removed", 404)])
async def test_what_has_ended_is_found_by_name_until_it_is_removed(api, desired, code):
    """Its exit code is asked for exactly then, as by `docker inspect`."""
    api.add_stack()
    ended = TaskStatus(state=TaskState.FAILED)
    await api.add_task("t0", name="shop-job", status=ended, created_at=1.0, desired=desired)
    await api.add_task("t1", name="shop-job", status=ended, created_at=2.0, desired=desired)
    status, found = await api.call("GET", "/v1/tasks/shop-job")
    assert status == code
    assert code == 404 or found["id"] == "t1"


# Commands.


def by(kind):
    """Who makes a release over this socket: we."""
    return MadeBy(kind=kind, user=pwd.getpwuid(os.getuid()).pw_name, uid=os.getuid())


async def test_a_deploy_reaches_the_control_loops(api):
    body = {"key": "k1", "project": {"services": {}}, "contents": {"secrets.a": "YQ=="}}
    status, row = await api.call("POST", "/v1/stacks/shop/releases", json=body)
    assert (status, row["number"], row["state"]) == (200, 1, "pending")
    assert api.control.calls == [("deploy", "shop", Deploy(**body, by=by("up")))]


async def test_commands_on_a_stack(api):
    api.add_stack()
    await api.call("POST", "/v1/stacks/shop/scale", json={"services": {"web": 3}})
    await api.call("POST", "/v1/stacks/shop/stop", json={"timeout": 2})
    body = {"key": "k1", "services": ["web"]}
    _, started = await api.call("POST", "/v1/stacks/shop/start", json=body)
    _, restarted = await api.call("POST", "/v1/stacks/shop/restart", json={"services": ["web"]})
    status, row = await api.call("DELETE", "/v1/stacks/shop?volumes=1&timeout=1.5")

    assert started == {"stack": "shop", "release": 1, "completed": []}
    assert restarted == {"tasks": ["t1"], "started": ["job"]}
    assert (status, row["name"]) == (200, "shop")
    assert api.control.calls == [
        ("scale", "shop", {"web": 3}),
        ("stop", "shop", 2.0),
        ("start", "shop", Start(**body, by=by("start"))),
        ("restart", "shop", ("web",), None),
        ("remove", "shop", True, 1.5),
    ]


@pytest.mark.parametrize(
    ("method", "path"), [("DELETE", "/v1/stacks/shop"), ("POST", "/v1/stacks/shop/stop")]
)
async def test_what_a_deploy_under_way_makes_is_removed_and_stopped_too(api, method, path):
    api.control.arriving.append(api.add_stack)
    status, row = await api.call(method, path)
    assert (status, row["name"]) == (200, "shop")


async def test_an_empty_body_means_the_defaults(api):
    api.add_stack()
    status, _ = await api.call("POST", "/v1/stacks/shop/stop")
    assert status == 200
    assert api.control.calls == [("stop", "shop", None)]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/stacks/none"),
        ("GET", "/v1/stacks/none/tasks"),
        ("GET", "/v1/stacks/none/releases"),
        ("GET", "/v1/stacks/none/progress"),
        ("GET", "/v1/stacks/none/logs"),
        ("DELETE", "/v1/stacks/none"),
        ("POST", "/v1/stacks/none/stop"),
    ],
)
async def test_an_unknown_stack_is_named(api, method, path):
    problem = await api.problem(method, path, 404)
    assert problem["type"] == "not-found"
    assert "there is no stack none" in problem["detail"]
    assert problem["hint"]
    assert api.control.calls == []


# Refusals.


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (NotFound("no", hint="h"), 404, "not-found"),
        (Conflict("no", hint="h"), 409, "conflict"),
        (Invalid(detail="no", hint="h"), 422, "invalid"),
        (store.StoreUnavailable("no"), 503, "unavailable"),
        (store.TooLarge("no"), 413, "invalid"),
        (store.Damaged("no"), 503, "unavailable"),
    ],
)
async def test_refusals_keep_their_words(api, error, status, kind):
    api.add_stack()
    api.control.error = error
    problem = await api.problem("POST", "/v1/stacks/shop/stop", status, json={})
    assert (problem["type"], problem["detail"]) == (kind, "no")


async def test_findings_in_the_users_files_come_with_their_place(api):
    api.control.error = Invalid(
        [
            Problem("bad port", code="bad-port", path="services.web.ports[0]",
                    position=Position("compose.yaml", 7, 9), hint="write 80"),
            Problem("unknown key", severity="warning"),
            Problem("no image"),
        ]
    )  # fmt: skip
    problem = await api.problem(
        "POST", "/v1/stacks/shop/releases", 422, json={"key": "k", "project": {}}
    )
    assert problem["detail"] == "bad port (and 1 more)"
    assert problem["problems"][0]["position"] == {"file": "compose.yaml", "line": 7, "column": 9}
    assert [p["severity"] for p in problem["problems"]] == ["error", "warning", "error"]


async def test_a_mistake_of_ours_is_a_bug_with_a_number_and_without_its_text(api, caplog):
    api.add_stack()
    api.control.error = KeyError("the secret hunter2")
    problem = await api.problem("POST", "/v1/stacks/shop/stop", 500, json={})
    assert problem["type"] == "bug"
    assert "hunter2" not in str(problem)
    incident = problem["detail"].split("incident ")[1].rstrip(")")
    assert any(incident in str(vars(record)) for record in caplog.records)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "JSON"),
        (b"[]", "object"),
        (b'{"services": {"web": "many"}}', "services.web"),
        (b'{"servces": {}}', "servces"),
        (b"\xff\xfe", ""),
    ],
)
async def test_a_wrong_body_is_refused_by_path(api, body, words):
    api.add_stack()
    problem = await api.problem("POST", "/v1/stacks/shop/scale", 422, data=body)
    assert words in str(problem["problems"])
    assert api.control.calls == []


async def test_a_wrong_body_is_not_echoed(api):
    body = b'{"key": "k", "project": {}, "contents": {"secrets.a": ["hunter2"]}}'
    problem = await api.problem("POST", "/v1/stacks/shop/releases", 422, data=body)
    assert "hunter2" not in str(problem)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_refused_before_it_is_kept(api, chunked):
    api.add_stack()
    big = b" " * (routes.SMALL + 1)

    async def parts():
        for start in range(0, len(big), 65536):
            yield big[start : start + 65536]

    problem = await api.problem(
        "POST", "/v1/stacks/shop/scale", 413, data=parts() if chunked else big
    )
    assert problem["detail"] == "the request is larger than 256 KiB"


@pytest.mark.parametrize("query", ["timeout=x", "timeout=-1", "timeout=nan", "timeout=inf"])
async def test_a_number_that_is_none_is_refused(api, query):
    api.add_stack()
    problem = await api.problem("DELETE", f"/v1/stacks/shop?{query}", 422)
    assert "timeout" in problem["detail"]
    assert api.control.calls == []


async def test_unknown_paths_and_methods_are_problems_too(api):
    assert (await api.problem("GET", "/v1/nope", 404))["type"] == "not-found"
    await api.problem("PUT", "/v1/version", 405)


async def test_garbage_instead_of_http_harms_nobody(api):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2)
        client.connect(str(api.path))
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, b"\x16\x03\x01 hello\r\n\r\n")
        assert b"400" in await loop.sock_recv(client, 1000)
    assert (await api.call("GET", "/v1/version"))[0] == 200


LOST = TaskStatus(state=TaskState.FAILED, reason="the monitor (conmon) was lost")
STOPPED = {"stopped_services": ("web",)}


@pytest.mark.parametrize(
    ("tasks", "stack", "said"),
    [
        ([{}], {}, False),  # it runs
        ([{"status": LOST}], {}, True),
        ([{"status": TaskStatus(state=TaskState.REJECTED, reason="no such file")}], {}, True),
        ([{"status": TaskStatus(state=TaskState.ORPHANED)}], {}, True),
        ([{"status": TaskStatus(state=TaskState.COMPLETE)}], {}, False),  # as it should
        ([{"status": TaskStatus(state=TaskState.SHUTDOWN)}], {}, False),
        ([{"status": LOST, "desired": "shutdown"}], {}, False),  # `stop` came to it
        ([{"status": LOST}, {"created_at": 2.0}], {}, False),  # another took its place
        ([{"status": LOST}, {"status": LOST, "created_at": 2.0}], {}, True),  # said once
        ([{"status": LOST, "slot": 3}], {}, False),  # scaled to two
        ([{"status": LOST}], {"desired": "stopped"}, False),
        ([{"status": LOST}], STOPPED, False),
    ],
)
async def test_replicas_that_are_missing_are_told_of(api, tasks, stack, said):
    api.add_stack(**stack)
    for number, task in enumerate(tasks):
        await api.add_task(f"t{number}", **task)
    _, answer = await api.call("GET", "/v1/stacks/shop/tasks")
    assert len(answer["missing"]) == said
    if said:
        (words,) = answer["missing"]
        assert words.startswith("shop-web-1 is missing: ")
        assert words.endswith(" (corral start web starts it again, ps -a shows it)")
    _, answer = await api.call("GET", "/v1/stacks/shop/tasks?all=1")
    assert answer["missing"] == []


async def test_a_superseded_controller_reads_but_does_not_change(api):
    api.add_stack()
    object.__setattr__(api.parts, "superseded", lambda: "a newer controller has spoken")
    problem = await api.problem("POST", "/v1/stacks/shop/stop", 409, json={})
    assert problem["detail"] == "a newer controller has spoken"
    assert (await api.call("GET", "/v1/stacks/shop"))[0] == 200
    assert api.control.calls == []
    # What is listed is no word of what runs, and says so.
    for path in ("/v1/stacks", "/v1/stacks/shop/tasks", "/v1/nodes"):
        _, answer = await api.call("GET", path)
        assert answer["undecided"] == "a newer controller has spoken"
    (row,) = (await api.call("GET", "/v1/stacks"))[1]["stacks"]
    assert row["status"] == "unknown"
    assert row["tasks"].startswith("?/")
    object.__setattr__(api.parts, "superseded", lambda: "")
    (row,) = (await api.call("GET", "/v1/stacks"))[1]["stacks"]
    assert (row["status"], "?" in row["tasks"]) != ("unknown", True)
    assert not (await api.call("GET", "/v1/nodes"))[1].get("undecided")


# Nodes.


async def test_nodes_are_rows(api):
    await api.add_node()
    _, answer = await api.call("GET", "/v1/nodes")
    (row,) = answer["nodes"]
    assert (row["name"], row["status"], row["cpus"]) == ("node-n1", "unknown", 2.0)
    _, detail = await api.call("GET", "/v1/nodes/node-n1")
    assert detail["facts"]["cpus"] == 2.0


async def test_labels_are_merged_and_removed(api):
    await api.add_node(labels={"zone": "a", "old": "x"})
    body = {"labels": {"disk": "ssd", "old": None}, "availability": "drain"}
    status, row = await api.call("PATCH", "/v1/nodes/node-n1", json=body)
    assert (status, row["labels"], row["availability"]) == (
        200,
        {"zone": "a", "disk": "ssd"},
        "drain",
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"availability": "asleep"}, "active, pause, drain"),
        ({"labels": {"a b": "c"}}, "'a b' is not a label"),
        ({"labels": {"a": "c" * 2000}}, "longer"),
    ],
)
async def test_wrong_node_changes_are_refused(api, body, words):
    await api.add_node()
    problem = await api.problem("PATCH", "/v1/nodes/node-n1", 422, json=body)
    assert words in problem["detail"] + problem["hint"]


async def test_an_unknown_node_is_named_with_those_there_are(api):
    await api.add_node()
    problem = await api.problem("GET", "/v1/nodes/x", 404)
    assert problem["hint"] == "nodes are: node-n1"


async def test_removing_a_node_waits_for_its_tasks_and_takes_corral_off_it(api):
    api.add_stack()
    await api.add_node()
    api.cluster.conditions["n1"] = NodeCondition(status="ready")
    await api.add_task("t1")
    stream = asyncio.create_task(api.lines("/v1/nodes/node-n1", method="DELETE"))
    async with asyncio.timeout(300):
        while not api.cluster.nodes["n1"].removing:
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)
    assert api.agents.left == []
    api.cluster.tasks["t1"] = api.cluster.tasks["t1"].model_copy(
        update={"desired": Desired.REMOVED, "status": TaskStatus(state=TaskState.SHUTDOWN)}
    )
    lines = await stream
    assert [line["kind"] for line in lines] == ["step", "step", "end"]
    assert lines[-1]["ok"]
    assert api.agents.left == ["n1"]
    assert api.cluster.nodes == {}


async def test_a_node_that_cannot_be_cleaned_stays_a_member_unless_forced(api):
    await api.add_node()
    api.agents.away.add("n1")
    lines = await api.lines("/v1/nodes/node-n1", method="DELETE")
    assert (lines[-1]["ok"], "--force" in lines[-1]["hint"]) == (False, True)
    assert not api.cluster.nodes["n1"].removing

    lines = await api.lines("/v1/nodes/node-n1?force=1", method="DELETE")
    assert lines[-1]["ok"]
    assert "not cleaned up" in lines[-2]["message"]
    assert api.cluster.nodes == {}


# The document.


async def test_the_openapi_document_describes_every_route_and_resolves(api):
    status, document = await api.call("GET", "/v1/openapi.json")
    assert status == 200
    assert document["openapi"].startswith("3.1")
    described = {(m.upper(), p) for p, ms in document["paths"].items() for m in ms}
    assert described == {(route.method, route.path) for route in api_app.ROUTES}
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


async def test_answers_match_the_document(api):
    api.add_stack()
    await api.add_node()
    api.cluster.conditions["n1"] = NodeCondition(status="ready")
    await api.add_task("t1")
    _, document = await api.call("GET", "/v1/openapi.json")
    for path, url in [
        ("/v1/stacks", "/v1/stacks"),
        ("/v1/stacks/{stack}", "/v1/stacks/shop"),
        ("/v1/stacks/{stack}/tasks", "/v1/stacks/shop/tasks"),
        ("/v1/stacks/{stack}/releases", "/v1/stacks/shop/releases"),
        ("/v1/nodes", "/v1/nodes"),
        ("/v1/nodes/{name}", "/v1/nodes/node-n1"),
        ("/v1/tasks/{id}", "/v1/tasks/t1"),
    ]:
        answer = document["paths"][path]["get"]["responses"]["200"]["content"]
        schema = {**answer["application/json"]["schema"], "components": document["components"]}
        _, body = await api.call("GET", url)
        Draft202012Validator(schema).validate(body)


def references(value):
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


async def test_a_client_that_goes_away_in_the_middle_harms_nobody(api):
    _, writer = await asyncio.open_unix_connection(str(api.path))
    head = b"POST /v1/stacks/shop/releases HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
    writer.write(head + b"{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await api.call("GET", "/v1/version"))[0] == 200
    assert api.control.calls == []


def packed(size):
    """Return gzip of that many zeros; a hundredth of them is held while it is made."""
    packer, piece = zlib.compressobj(1, zlib.DEFLATED, 31), bytes(1 << 20)
    return b"".join([*(packer.compress(piece) for _ in range(size >> 20)), packer.flush()])


def memory():
    """Return the largest size this process had since it was last asked, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    Path("/proc/self/clear_refs").write_text("5")
    return peak >> 10


RELEASES = "/v1/stacks/shop/releases"


async def test_what_is_too_large_is_refused_before_it_is_there(api):
    bomb, before = packed(300 << 20), memory() and memory()

    async def pieces(data):
        for place in range(0, len(data), 1 << 16):
            yield data[place : place + (1 << 16)]

    gzipped, more = {"Content-Encoding": "gzip"}, {"Content-Length": str(300 << 20)}
    for headers, data, status in (
        (gzipped, io.BytesIO(bomb), 415),
        (gzipped, pieces(bomb), 415),
        (more, b"{", 413),
    ):
        async with api.http.post(RELEASES, data=data, headers=headers) as answer:
            assert answer.status == status
            assert answer.content_type == "application/problem+json"
            assert answer.headers["Connection"] == "close", "the next one need not wait for it"
    assert memory() - before < 48, "nothing was unpacked"
    assert api.control.calls == []


HALF = b"POST /v1/stacks/shop/releases HTTP/1.1\r\nHost: x\r\n"
KEEPING = {
    "ask nothing": (b"", HALF),
    "asked once and stay": (b"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n",),
    "have yet to send a body": (HALF + b"Content-Length: 5000\r\n\r\n{",),
    "all of these": (b"", HALF, b"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n",
                     HALF + b"Content-Length: 5000\r\n\r\n{"),
}  # fmt: skip


@pytest.mark.parametrize("how", KEEPING)
async def test_many_connections_that_keep_us_waiting_stop_nobody(api, how):
    """1,500 of them, of each kind of waiting."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    waiting = []
    try:
        for number in range(1500):
            reader, writer = await asyncio.open_unix_connection(str(api.path))
            writer.write(KEEPING[how][number % len(KEEPING[how])])
            waiting.append((reader, writer))
            if number % 300 == 299:
                connector = aiohttp.UnixConnector(str(api.path))
                async with aiohttp.ClientSession("http://corral", connector=connector) as http:
                    assert (await http.get("/v1/version")).status == 200
        # Sockets of both sides are this process's: what is left is ours, and the others' rest.
        async with asyncio.timeout(300):
            while len(os.listdir("/proc/self/fd")) > 1500 + api_app.MOST_CALLERS + 100:
                await asyncio.sleep(0.01)
        assert (await api.call("GET", "/v1/version"))[0] == 200
    finally:
        for _, writer in waiting:
            writer.transport.abort()
        await asyncio.sleep(0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("stack", ["..%2fx", "a%0ab", "Shop", "a%00b"])
async def test_a_stack_with_a_strange_name_is_an_answer(api, stack):
    for method, path in (("GET", ""), ("GET", "/tasks"), ("DELETE", "")):
        status, problem = await api.call(method, f"/v1/stacks/{stack}{path}")
        assert (status, problem["type"]) == (404, "not-found")


async def test_a_deleted_socket_is_opened_again_and_connections_stay(api, monkeypatch):
    monkeypatch.setattr(door, "EVERY", 0.01)
    guard = asyncio.create_task(door.keep_open(api.path, api.reopen))
    try:
        api.path.unlink()
        async with asyncio.timeout(300):
            while not api.path.exists():
                await asyncio.sleep(0.01)
        assert mode(api.path) in (0o600, 0o660)
        connector = aiohttp.UnixConnector(str(api.path))
        async with aiohttp.ClientSession("http://corral", connector=connector) as http:
            assert (await http.get("/v1/version")).status == 200
        assert (await api.http.get("/v1/version")).status == 200
    finally:
        guard.cancel()
