"""network, volume, secret, config and volumes against a scripted controller."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
from types import SimpleNamespace

import pytest
from fake import Problem

AT = 1_700_000_000.0


def network(name, **more):
    base = {"id": f"n-{name}", "subnets": ["10.0.0.0/26"], "driver": "overlay", "mtu": None}
    return {**base, "internal": False, "attachable": False, "tasks": {}, **common(name), **more}


def volume(name, **more):
    base = {"driver": "local", "node": "alpha", "options": {}, "services": []}
    return {**base, "removing": False, "reason": "", **common(name), **more}


def content(name, **more):
    return {"id": f"s-{name}", "size": 4, "data": "", **common(name), **more}


def common(name):
    return {"name": name, "stack": "", "labels": {}, "created_at": AT, "used_by": []}


def refused(status, detail):
    def answer(_):
        kind = "not-found" if status == 404 else "conflict"
        raise Problem(status, {"type": kind, "title": "", "status": status, "detail": detail})

    return answer


SHOP = {"stack": "shop", "used_by": ["shop"]}
ROWS = {
    "network": [network("front", labels={"team": "a"}), network("shop_default", **SHOP)],
    "volume": [
        volume("free", labels={"team": "a"}),
        volume("shop_data", node="beta", services=["shop/db"], **SHOP),
    ],
    "secret": [content("key"), content("shop_key", **SHOP)],
    "config": [content("page"), content("shop_page", **SHOP)],
}
KINDS = list(ROWS)


@pytest.fixture
def cluster(fake):
    for kind, rows in ROWS.items():
        key = "contents" if kind in ("secret", "config") else f"{kind}s"
        fake.on("GET", f"/v1/{kind}s", {key: rows})
        fake.on("POST", f"/v1/{kind}s", {"id": "made-1", "name": "made"})
        for row in rows:
            fake.on("GET", f"/v1/{kind}s/{row['name']}", row)
            answer = {"name": row["name"], "left": ""}
            if row["used_by"]:
                answer = refused(409, f"{kind} {row['name']} is in use by stack shop")
            fake.on("DELETE", f"/v1/{kind}s/{row['name']}", answer)
        fake.on("GET", f"/v1/{kind}s/nope", refused(404, f"there is no {kind} nope"))
        fake.on("DELETE", f"/v1/{kind}s/nope", refused(404, f"there is no {kind} nope"))
    return fake


@pytest.mark.parametrize("kind", KINDS)
def test_ls(cluster, corral, kind):
    first, second = (row["name"] for row in ROWS[kind])
    done = corral(kind, "ls")
    assert done.code == 0
    head, one, two = done.out.splitlines()
    assert "NAME" in head
    assert first in one
    assert second in two
    assert "shop" in two.replace(second, "")
    assert corral(kind, "ls", "-q").out.split() == [first, second]
    rows = list(map(json.loads, corral(kind, "ls", "--format", "json").out.splitlines()))
    assert [row["Name"] for row in rows] == [first, second]
    assert corral(kind, "ls", "--format", "{{.Name}}").out.split() == [first, second]


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["label=team"], [0]),
        (["label=team=b"], []),
        (["name=shop"], [1]),
        (["stack=shop"], [1]),
        (["dangling=true"], [0]),
        (["dangling=false"], [1]),
    ],
)
@pytest.mark.parametrize("kind", ["network", "volume"])
def test_ls_filtered(cluster, corral, kind, words, left):
    flags = [word for i, one in enumerate(words) for word in (("--filter", "-f")[i % 2], one)]
    found = corral(kind, "ls", "-q", *flags).out.split()
    assert found == [ROWS[kind][i]["name"] for i in left]


@pytest.mark.parametrize("kind", KINDS)
def test_inspect(cluster, corral, kind):
    name = ROWS[kind][0]["name"]
    done = corral(kind, "inspect", name, "nope")
    assert done.code == 1
    assert f"no {kind} nope" in done.err
    (found,) = json.loads(done.out)
    assert found["Name"] == name
    assert found["CreatedAt"].startswith("2023-11-14T")
    assert corral(kind, "inspect", "-f", "{{.Name}}", name).out == f"{name}\n"


@pytest.mark.parametrize("kind", KINDS)
def test_rm(cluster, corral, kind):
    first, second = (row["name"] for row in ROWS[kind])
    done = corral(kind, "rm", first, second, "nope")
    assert (done.code, done.out) == (1, f"{first}\n")
    assert "in use by stack shop" in done.err
    assert f"no {kind} nope" in done.err
    if kind in ("network", "volume"):
        assert corral(kind, "rm", "-f", "nope").code == 0


def test_rm_of_a_volume_whose_node_is_silent_says_so(cluster, corral):
    answer = {"name": "free", "left": "being removed: node beta does not answer"}
    cluster.on("DELETE", "/v1/volumes/free", answer)
    done = corral("volume", "rm", "free")
    assert (done.code, done.out) == (0, "free\n")
    assert "node beta does not answer" in done.err


@pytest.mark.parametrize("kind", ["secret", "config"])
def test_rm_of_a_version_that_releases_had_says_which(cluster, corral, kind):
    needed = "releases 1, 2 of stack shop had it: corral rollback to that is refused now"
    cluster.on("DELETE", f"/v1/{kind}s/key", {"name": "key", "left": "", "needed": needed})
    done = corral(kind, "rm", "key")
    assert (done.code, done.out) == (0, "key\n")
    assert f"{kind} key: {needed}" in done.err


MAKING = [
    (["network", "create", "net"], {"name": "net", "subnets": [], "internal": False}),
    (
        ["network", "create", "--internal", "--subnet", "10.1.0.0/24", "--label", "a=b", "net"],
        {"name": "net", "subnets": ["10.1.0.0/24"], "internal": True, "labels": {"a": "b"}},
    ),
    (
        ["network", "create", "-d", "overlay", "--attachable", "-o", "mtu=1400", "net"],
        {"driver": "overlay", "attachable": True, "options": {"mtu": "1400"}},
    ),
    (["volume", "create", "vol"], {"name": "vol", "node": "", "driver": ""}),
    (["volume", "create"], {"name": ""}),
    (
        ["volume", "create", "--node", "beta", "--label", "a", "-o", "type=tmpfs", "vol"],
        {"name": "vol", "node": "beta", "labels": {"a": ""}, "options": {"type": "tmpfs"}},
    ),
    (["secret", "create", "-l", "a=b", "key", "FILE"], {"secret": True, "labels": {"a": "b"}}),
    (["config", "create", "key", "FILE"], {"secret": False, "name": "key"}),
]


@pytest.mark.parametrize(("words", "body"), MAKING, ids=" ".join)
def test_create(cluster, corral, tmp_path, words, body):
    file = tmp_path / "value"
    file.write_bytes(b"deep\0\n")
    done = corral(*(file if word == "FILE" else word for word in words))
    assert done.code == 0, done.err
    assert done.out.strip() in ("made", "made-1")
    sent = cluster.requests[-1].body
    assert {key: sent[key] for key in body} == body
    if "data" in sent:
        assert base64.b64decode(sent["data"]) == b"deep\0\n"
        assert "deep" not in done.out + done.err


def test_a_secret_comes_from_standard_input(cluster, corral, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"typed")))
    assert corral("secret", "create", "key", "-").code == 0
    assert base64.b64decode(cluster.requests[-1].body["data"]) == b"typed"


@pytest.mark.parametrize(
    ("size", "said"), [(0, "is empty"), (500 * 1024 + 1, "more than 500"), (None, "No such file")]
)
@pytest.mark.parametrize("kind", ["secret", "config"])
def test_contents_that_cannot_be_taken(cluster, corral, tmp_path, kind, size, said):
    file = tmp_path / "value"
    if size is not None:
        file.write_bytes(b"x" * size)
    done = corral(kind, "create", "key", file)
    assert done.code == 1
    assert said in done.err
    assert cluster.requests == []


@pytest.mark.parametrize("kind", ["network", "volume"])
def test_prune_takes_what_nothing_uses(cluster, corral, kind):
    every = ["-a"] if kind == "volume" else []
    asked = corral(kind, "prune", *every)
    assert (asked.code, "nobody is there" in asked.err) == (2, True), "no terminal, no -f"
    done = corral(kind, "prune", "-f", *every)
    assert (done.code, done.out.split()) == (0, [ROWS[kind][0]["name"]])
    assert [r.path for r in cluster.requests if r.method == "DELETE"] == [
        f"/v1/{kind}s/{ROWS[kind][0]['name']}"
    ]
    done = corral(kind, "prune", "-f", "--filter", "label=team=b", *every)
    assert (done.code, done.out) == (0, "")


@pytest.mark.parametrize(("answer", "taken"), [("y", True), ("n", False), ("", False)])
def test_prune_asks_on_a_terminal(cluster, corral, monkeypatch, answer, taken):
    monkeypatch.setattr(os, "isatty", lambda _: True)
    monkeypatch.setattr("builtins.input", lambda _: answer)
    done = corral("volume", "prune", "-a")
    assert done.code == 0
    assert "free" in done.out
    assert any(r.method == "DELETE" for r in cluster.requests) is taken


def test_prune_of_volumes_leaves_those_with_a_name_as_dockers_does(cluster, corral):
    done = corral("volume", "prune", "-f")
    assert (done.code, done.out) == (0, "")
    assert "-a" in done.err
    assert cluster.requests == []


def test_volumes_of_a_stack(cluster, corral):
    services = [{"name": "db"}, {"name": "web"}]
    cluster.on("GET", "/v1/stacks/shop", {"name": "shop", "services": services})
    head, line = corral("-p", "shop", "volumes").out.splitlines()
    assert head.split() == ["DRIVER", "VOLUME", "NAME", "NODE"]
    assert line.split() == ["local", "shop_data", "beta"]
    assert corral("-p", "shop", "volumes", "-q", "db").out == "shop_data\n"
    assert corral("-p", "shop", "volumes", "-q", "web").out == ""
    done = corral("-p", "shop", "volumes", "wbe")
    assert (done.code, "no service 'wbe'" in done.err) == (1, True)


def test_config_alone_is_about_the_file(corral, clean_environment):
    (clean_environment.work / "compose.yaml").write_text("services: {ls: {image: i}}\n")
    assert corral("config", "--services").out == "ls\n"
    assert "image: i" in corral("config", "--format", "yaml", "ls").out


@pytest.mark.parametrize("words", [["network"], ["volume", "make"], ["secret", "create", "key"]])
def test_usage(corral, words):
    done = corral(*words)
    assert done.code == 2
    assert "hint:" in done.err


def no_answer():
    raise EOFError


@pytest.mark.parametrize(
    "words",
    [
        ["network", "ls"],
        ["network", "create", "net"],
        ["volume", "rm", "vol"],
        ["volume", "prune", "-af"],
        ["secret", "inspect", "key"],
        ["config", "ls"],
        ["-p", "shop", "volumes"],
    ],
    ids=" ".join,
)
def test_no_controller(corral, words):
    done = corral(*words)
    assert (done.code, done.out) == (1, "")
    assert "corral: " in done.err
    assert "hint:" in done.err


def test_a_closed_standard_input_is_no_secret_and_no_yes(cluster, corral, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO()))
    done = corral("secret", "create", "key", "-")
    assert (done.code, "standard input is empty" in done.err) == (1, True)
    monkeypatch.setattr(os, "isatty", lambda _: True)
    monkeypatch.setattr("builtins.input", lambda _: no_answer())
    assert corral("network", "prune").code == 0
    assert not [r for r in cluster.requests if r.method in ("DELETE", "POST")]


def test_a_tab_knows_the_names(cluster, capsys, monkeypatch):
    from orchestrator.cli import complete

    monkeypatch.setattr(complete, "ANSWER", 300.0)
    for line, wanted in (
        ("network rm ", {"front", "shop_default"}),
        ("volume inspect ", {"free", "shop_data"}),
        ("secret rm ", {"key", "shop_key"}),
        ("volume create ", set()),
    ):
        complete.run(["zsh", *complete.split(f"corral {line}")])
        rows = capsys.readouterr().out.splitlines()
        assert {row.partition("\t")[0] for row in rows} == wanted, line


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ({}, "/var/lib/corral/agent/volumes/v/_data"),
        ({"node": ""}, ""),
        ({"options": {"type": "none", "o": "bind", "device": "/srv"}}, "/srv"),
        ({"options": {"type": "nfs", "o": "addr=h", "device": ":/x"}}, ""),
    ],
)
def test_where_the_data_is(fake, corral, more, place):
    fake.on("GET", "/v1/volumes/v", volume("v", **more))
    assert corral("volume", "inspect", "-f", "{{.Mountpoint}}", "v").out.strip() == place


def test_a_network_has_its_addresses_where_docker_has_them(cluster, corral):
    name = ROWS["network"][0]["name"]
    (found,) = json.loads(corral("network", "inspect", name).out)
    subnets = ROWS["network"][0]["subnets"]
    assert found["IPAM"]["Config"] == [{"Subnet": subnet} for subnet in subnets]
    assert "ID" not in found
    form = "{{range .IPAM.Config}}{{.Subnet}} {{end}}{{.ID}}"
    shown = corral("network", "inspect", "-f", form, name).out.split()
    assert shown == [*subnets, found["Id"]]
    for task, address in ROWS["network"][0].get("tasks", {}).items():
        assert found["Containers"][task] == {"Name": task, "IPv4Address": address}


@pytest.mark.parametrize("kind", KINDS)
def test_inspect_for_people(cluster, corral, kind):
    name = ROWS[kind][0]["name"]
    done = corral(kind, "inspect", "--pretty", name)
    assert done.code == 0
    lines = done.out.splitlines()
    assert f"Name: {name}" in lines
    assert not [line for line in lines if line.endswith(": ")], "what is empty is left out"
    if ROWS[kind][0]["labels"]:
        assert lines[lines.index("Labels:") + 1] == " - team = a"
    assert corral(kind, "ls", "--no-trunc", "-q").out.split()
