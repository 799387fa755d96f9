"""Files of a machine outside the cluster: what is missing travels, no tree leaves its folder."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from types import SimpleNamespace

import pytest

from orchestrator.api import sent
from orchestrator.api.problems import BadRequest
from orchestrator.cli import sending
from orchestrator.cli.errors import CliError
from specs.sent import CHUNK, AskChunks, PutChunks, SentEntry, SentTree

NOW = 1_800_000_000.0


@pytest.fixture
def files(tmp_path):
    return sent.SentFiles(tmp_path / "sent", wall=lambda: NOW)


class Direct:
    """The client's requests, answered by the handlers' own functions; counts what was sent."""

    def __init__(self, files):
        self.files = files
        self.bytes = 0
        self.asked = []
        self.ssh = None

    def get(self, path):
        self.asked.append(path)

    def request(self, method, path, *, body, timeout):
        self.asked.append(path)
        if path == "/v1/sent/missing":
            return {"missing": self.files.missing(AskChunks(**body).chunks)}
        if path == "/v1/sent/chunks":
            chunks = PutChunks(**body).chunks
            self.bytes += sum(len(base64.b64decode(text)) for text in chunks.values())
            self.files.put(chunks)
            return {"missing": ()}
        place = self.files.tree(SentTree(**body))
        return {"path": str(place), "client": {"hostname": "n1", "boot_id": "b"}}


@pytest.fixture
def laptop(tmp_path):
    """A project: a build context and a folder of configuration."""
    top = tmp_path / "laptop"
    (top / "app/node_modules").mkdir(parents=True)
    (top / "app/Dockerfile").write_text("FROM busybox\n")
    (top / "app/run.sh").write_text("#!/bin/sh\n")
    (top / "app/run.sh").chmod(0o755)
    (top / "app/link").symlink_to("run.sh")
    (top / "app/big").write_bytes(b"x" * (CHUNK + 10))
    (top / "app/node_modules/much").write_text("much")
    (top / "app/.dockerignore").write_text("# not these\nnode_modules\n**/*.log\n")
    (top / "app/a.log").write_text("log")
    (top / "conf").mkdir()
    (top / "conf/web.conf").write_text("listen 80\n")
    model = {
        "services": {
            "web": {
                "build": {"context": str(top / "app"), "dockerfile": "Dockerfile"},
                "volumes": [
                    {
                        "type": "bind",
                        "source": str(top / "conf"),
                        "target": "/c",
                        "read_only": True,
                    },
                    {"type": "bind", "source": "/etc/hostname", "target": "/h"},
                    {"type": "volume", "source": "data", "target": "/d"},
                ],
            },
            "one": {
                "image": "x",
                "volumes": [
                    {
                        "type": "bind",
                        "source": str(top / "conf/web.conf"),
                        "target": "/web.conf",
                        "read_only": True,
                    }
                ],
            },
        }
    }
    return SimpleNamespace(top=top, model=model)


def moved(direct, laptop, **options):
    of = set(laptop.model["services"])
    options = {"of": of, "builds": True, "say": lambda _: None, **options}
    return sending.moved(direct, laptop.model, str(laptop.top), **options)


def test_contexts_and_read_only_binds_are_the_controllers_then(files, laptop):
    direct = Direct(files)
    model, machine, top = moved(direct, laptop)
    web, one = model["services"]["web"], model["services"]["one"]
    context = web["build"]["context"]
    assert sorted(os.listdir(context)) == [".dockerignore", "Dockerfile", "big", "link", "run.sh"]
    assert os.path.getsize(f"{context}/big") == CHUNK + 10
    assert stat.S_IMODE(os.stat(f"{context}/run.sh").st_mode) == 0o755
    assert os.readlink(f"{context}/link") == "run.sh"
    assert os.listdir(web["volumes"][0]["source"]) == ["web.conf"]
    assert web["volumes"][1:] == laptop.model["services"]["web"]["volumes"][1:]
    with open(one["volumes"][0]["source"], encoding="utf-8") as file:
        assert file.read() == "listen 80\n"
    assert machine == {"hostname": "n1", "boot_id": "b"}
    assert context.startswith(f"{top}/")
    assert laptop.model["services"]["web"]["build"]["context"] == str(laptop.top / "app")


def test_what_did_not_change_is_not_sent_again_and_is_the_same_folder(files, laptop):
    first = moved(Direct(files), laptop)[0]
    again = Direct(files)
    assert moved(again, laptop)[0] == first
    assert again.bytes == 0
    (laptop.top / "conf/web.conf").write_text("listen 8080\n")
    changed = Direct(files)
    model = moved(changed, laptop)[0]
    assert changed.bytes == len("listen 8080\n")
    old, new = (m["services"]["web"]["volumes"][0]["source"] for m in (first, model))
    assert old != new
    with open(f"{old}/web.conf", encoding="utf-8") as file:  # what runs keeps what it began with
        assert file.read() == "listen 80\n"
    assert model["services"]["web"]["build"] == first["services"]["web"]["build"]


@pytest.mark.parametrize(
    ("change", "sent"),
    [
        ({}, ["web", "one"]),
        ({"services": ["web"]}, ["web", "one"]),  # which it depends on
        ({"services": ["web"], "no_deps": True}, ["web"]),
        ({"services": ["one"]}, ["one"]),
        ({"build": "never", "services": ["one"]}, ["one"]),
    ],
)
def test_a_request_is_the_controllers_machines_then(files, laptop, change, sent):
    direct = Direct(files)
    services = laptop.model["services"]
    services["web"]["depends_on"] = {"one": {}}
    here = {"hostname": "laptop", "boot_id": "l"}
    request = {
        "project": laptop.model,
        "directory": str(laptop.top),
        "client": here,
        "services": [],
        "build": "missing",
        "no_deps": False,
        **change,
    }
    before = dict(request)
    sending.from_here(direct, request, lambda _: None)
    assert (request, direct.asked) == (before, []), "no ssh: the paths are good as they are"
    direct.ssh = object()
    sending.from_here(direct, request, lambda _: None)
    assert [n for n in ("web", "one") if request["project"]["services"][n] != services[n]] == sent
    assert request["client"] == {"hostname": "n1", "boot_id": "b"}
    assert request["directory"] == str(files.trees)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"read_only": False}, "named volume"),
        ({"source": "TOP/nothing"}, "there is no"),
    ],
)
def test_what_cannot_be_sent_is_refused_by_its_place(files, laptop, change, says):
    mount = laptop.model["services"]["one"]["volumes"][0]
    mount |= {
        key: str(v).replace("TOP", str(laptop.top)) if key == "source" else v
        for key, v in change.items()
    }
    with pytest.raises(CliError) as refused:
        moved(Direct(files), laptop)
    assert "services.one.volumes[0]" in str(refused.value)
    assert says in f"{refused.value} {refused.value.hint}"


def test_nothing_is_sent_where_nothing_is_needed(files, laptop):
    direct = Direct(files)
    del laptop.model["services"]["one"]
    laptop.model["services"]["web"]["volumes"] = []
    model, machine, top = moved(direct, laptop, builds=False)
    assert (model, machine, top, direct.asked) == (laptop.model, None, "", [])


@pytest.mark.parametrize(
    ("names", "dependencies", "asked"),
    [
        ([], True, {"web", "db", "cron"}),
        (["web"], True, {"web", "db"}),
        (["web"], False, {"web"}),
        (["cron", "nope"], True, {"cron"}),
    ],
)
def test_a_partial_up_sends_what_it_is_about(names, dependencies, asked):
    model = {"services": {"web": {"depends_on": {"db": {}}}, "db": {}, "cron": {}}}
    assert sending.asked(model, names, dependencies=dependencies) == asked


def test_what_a_partial_up_is_not_about_is_neither_sent_nor_refused(files, laptop):
    laptop.model["services"]["one"]["volumes"][0]["read_only"] = False
    model, machine, _ = moved(Direct(files), laptop, of={"web"})
    assert machine
    assert model["services"]["one"] == laptop.model["services"]["one"]


@pytest.mark.parametrize(
    ("pattern", "name", "out"),
    [
        ("node_modules", "node_modules", True),
        ("node_modules", "app/node_modules", False),
        ("*.log", "a.log", True),
        ("*.log", "b/a.log", False),
        ("**/*.log", "b/a.log", True),
        ("b/*.log", "b/a.log", True),
        ("b/**/x", "b/c/d/x", False),  # in doubt it is sent
    ],
)
def test_what_a_build_surely_ignores(pattern, name, out):
    assert sending._out(name, [pattern]) is out


def chunk(files, data=b"x"):
    digest = hashlib.sha256(data).hexdigest()
    files.put({digest: base64.b64encode(data).decode()})
    return digest


@pytest.mark.parametrize(
    "entries",
    [
        [{"path": "../x"}],
        [{"path": "/x"}],
        [{"path": "a/../../x"}],
        [{"path": "a//x"}],
        [{"path": "."}],
        [{"path": "a\0b"}],
        [{"path": "a", "kind": "link", "target": "/etc"}, {"path": "a/x"}],
        [{"path": "a"}, {"path": "a/x"}],
        [{"path": "a"}, {"path": "a"}],
        [{"path": "a", "kind": "link"}],
        [{"path": "a", "chunks": ["../../x"]}],
        [{"path": "a", "chunks": ["0" * 64]}],
    ],
)
def test_no_tree_leaves_its_folder(files, tmp_path, entries):
    with pytest.raises(BadRequest):
        files.tree(SentTree(entries=[SentEntry(**entry) for entry in entries]))
    assert not (tmp_path / "x").exists()
    assert not files.trees.exists() or not list(files.trees.iterdir())


def test_a_chunk_is_what_its_digest_says(files):
    with pytest.raises(BadRequest):
        files.put({"0" * 64: base64.b64encode(b"x").decode()})
    with pytest.raises(BadRequest):
        files.put({"x": ""})
    assert files.missing(["0" * 64]) == ("0" * 64,)
    digest = chunk(files)
    assert files.missing([digest]) == ()


def test_what_nothing_used_for_a_week_goes(files):
    digest = chunk(files)
    trees = [
        files.tree(SentTree(entries=[SentEntry(path=name, chunks=(digest,))])) for name in "abc"
    ]
    for path in (*trees, files.chunks / digest):
        os.utime(path, (NOW - 8 * 24 * 3600,) * 2)
    os.utime(trees[1], (NOW - 3600,) * 2)
    files.sweep(frozenset({trees[2].name}))
    assert [tree.exists() for tree in trees] == [False, True, True]
    assert files.missing([digest]) == (digest,)


async def test_over_http(api, tmp_path, monkeypatch):
    refused = await api.http.post("/v1/sent/missing", json={"chunks": ["0" * 64]})
    assert refused.status == 422
    object.__setattr__(api.parts, "sent", sent.SentFiles(tmp_path / "sent", wall=lambda: NOW))
    answer = await api.http.post("/v1/sent/missing", json={"chunks": ["0" * 64]})
    assert await answer.json() == {"missing": ["0" * 64]}
    answer = await api.http.post(
        "/v1/sent/trees", json={"entries": [{"path": "a", "kind": "folder", "mode": 0o755}]}
    )
    told = await answer.json()
    assert os.path.isdir(f"{told['path']}/a")
    assert set(told["client"]) == {"hostname", "boot_id"}
