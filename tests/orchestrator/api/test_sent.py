"""Files of a machine outside the cluster: what is missing travels, no tree leaves its folder."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.errors import Refusal
from agent.volumes.binds import BindSources
from orchestrator.api import sentfiles
from orchestrator.api.problems import BadRequest
from orchestrator.api.sentfiles import SentFiles
from orchestrator.cli import sending
from orchestrator.cli.errors import CliError
from specs.kit.ignoring import PathPatterns
from specs.sent import CHUNK, AskChunks, PutChunks, SentEntry, SentTree, leaves_tree
from specs.stack import Mount

NOW = 1_800_000_000.0


@pytest.fixture
def files(tmp_path):
    return SentFiles(tmp_path / "sent", wall=lambda: NOW)


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
        ("b/**/x", "b/c/d/x", True),
    ],
)
def test_what_a_build_surely_ignores(pattern, name, out):
    assert sending.LeftOut(PathPatterns([pattern]), ()).out(name) is out


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
    object.__setattr__(api.parts, "sent", SentFiles(tmp_path / "sent", wall=lambda: NOW))
    answer = await api.http.post("/v1/sent/missing", json={"chunks": ["0" * 64]})
    assert await answer.json() == {"missing": ["0" * 64]}
    answer = await api.http.post(
        "/v1/sent/trees", json={"entries": [{"path": "a", "kind": "folder", "mode": 0o755}]}
    )
    told = await answer.json()
    assert os.path.isdir(f"{told['path']}/a")
    assert set(told["client"]) == {"hostname", "boot_id"}


@pytest.mark.parametrize("links", ["/etc/ssl/app.conf", "conf/web.conf", "a link to a link"])
def test_of_a_link_what_it_leads_to_here_is_sent(files, laptop, tmp_path, links):
    target = laptop.top / "conf/web.conf"
    if links == "/etc/ssl/app.conf":
        target = tmp_path / "ssl"
        target.write_text("of the laptop\n")
    elif links == "a link to a link":
        (laptop.top / "conf/two").symlink_to("web.conf")
        target = laptop.top / "conf/two"
    (laptop.top / "app.conf").symlink_to(target)
    laptop.model["services"]["one"]["volumes"][0]["source"] = str(laptop.top / "app.conf")
    laptop.model["services"]["web"]["build"]["dockerfile"] = str(laptop.top / "app.conf")
    model = moved(Direct(files), laptop)[0]
    for there in (
        model["services"]["one"]["volumes"][0]["source"],
        model["services"]["web"]["build"]["dockerfile"],
    ):
        assert os.path.basename(there) == "app.conf"
        assert not os.path.islink(there)
        with open(there, "rb") as file:
            assert file.read() == target.read_bytes()
        assert not leaves_tree(there)


def test_what_is_no_file_behind_a_link_is_not_sent(files, laptop):
    (laptop.top / "app.conf").symlink_to("/dev/null")
    laptop.model["services"]["one"]["volumes"][0]["source"] = str(laptop.top / "app.conf")
    with pytest.raises(CliError, match="neither a file nor a folder"):
        moved(Direct(files), laptop)


@pytest.mark.parametrize(
    ("target", "below", "leaves"),
    [
        ("/etc/passwd", "link", True),
        ("../../chunks", "link", True),
        ("/etc", "link/passwd", True),
        ("file", "link", False),
        ("/etc/passwd", "file", False),
        ("/etc/passwd", "", False),
    ],
)
def test_a_source_that_leaves_its_tree(files, target, below, leaves):
    entries = [
        SentEntry(path="link", kind="link", target=target),
        SentEntry(path="file", chunks=(chunk(files),)),
    ]
    place = str(files.tree(SentTree(entries=entries)) / below)
    assert leaves_tree(place) is leaves
    with tempfile.TemporaryDirectory() as memory:
        binds = BindSources(Path(memory) / "binds.json")
        mount = Mount(type="bind", target="/x", source=place, relative=True)
        if leaves:
            with pytest.raises(Refusal, match="link out of what was sent"):
                binds.source(mount)
        else:
            assert binds.source(mount) == place
    assert not leaves_tree("/etc/passwd")


def test_a_chunk_that_the_disk_spoilt_is_asked_for_again(files):
    digest = chunk(files)
    (files.chunks / digest).write_bytes(b"")
    wanted = SentTree(entries=[SentEntry(path="a", chunks=(digest,))])
    with pytest.raises(BadRequest) as refused:
        files.tree(wanted)
    assert "send it again" in refused.value.problem.detail
    assert files.missing([digest]) == (digest,)
    assert list(files.trees.iterdir()) == []
    chunk(files)
    assert (files.tree(wanted) / "a").read_bytes() == b"x"


def test_what_is_kept_is_on_the_disk_before_its_name(files, monkeypatch):
    """Chunks are written durably, and a tree is synced before it gets its name."""
    done = []
    monkeypatch.setattr(sentfiles.disk, "sync_tree", lambda at: done.append((at, files_of(at))))
    written = sentfiles.disk.write_file
    monkeypatch.setattr(
        sentfiles.disk, "write_file", lambda *a, **more: (done.append(more), written(*a, **more))
    )
    digest = chunk(files)
    place = files.tree(SentTree(entries=[SentEntry(path="a", chunks=(digest,))]))
    (how, (draft, names)) = done
    assert how.get("durable", True)
    assert draft != place
    assert names == ["a"]


def files_of(path):
    return sorted(os.listdir(path))


def test_two_uploads_of_the_same_at_once(files, monkeypatch):
    data = os.urandom(CHUNK)
    digest = hashlib.sha256(data).hexdigest()
    wanted = SentTree(
        entries=[SentEntry(path=f"{n}", chunks=(digest,)) for n in range(3)],
    )
    both = threading.Barrier(6, timeout=60)

    def upload(_):
        both.wait()
        files.put({digest: base64.b64encode(data).decode()})
        both.wait()
        return files.tree(wanted)

    with ThreadPoolExecutor(6) as pool:
        places = set(pool.map(upload, range(6)))
    assert len(places) == 1
    assert files_of(files.trees) == [place.name for place in places]
    assert files_of(files.chunks) == [digest]
    assert all((places.copy().pop() / f"{n}").read_bytes() == data for n in range(3))


def test_drafts_that_a_kill_left_go(files):
    digest = chunk(files)
    old, young = files.chunks / f".{digest}.00", files.chunks / f".{digest}.01"
    tree, own = files.chunks.parent / "trees/x.0.new", files.chunks.parent / "trees/x.1.new"
    for path in (old, young):
        path.write_text("")
    for path in (tree, own):
        path.mkdir(parents=True)
    for path in (old, tree):
        os.utime(path, (NOW - 2 * 3600,) * 2)
    for path in (young, own):
        os.utime(path, (NOW - 60,) * 2)
    files.sweep(frozenset())
    assert [path.exists() for path in (old, tree, young, own)] == [False, False, True, True]


@pytest.mark.parametrize("mask", [0o077, 0o022, 0o777])
def test_modes_are_those_sent_whatever_the_umask(files, mask):
    if mask == 0o777 and os.geteuid():
        pytest.skip("only root makes files in folders it may not enter")
    digest = chunk(files)
    entries = [
        SentEntry(path="d", kind="folder", mode=0o755),
        SentEntry(path="d/f", mode=0o644, chunks=(digest,)),
        SentEntry(path="p", mode=0o600, chunks=(digest,)),
        SentEntry(path="not/listed/f", mode=0o666, chunks=(digest,)),
    ]
    before = os.umask(mask)
    try:
        place = files.tree(SentTree(entries=entries))
    finally:
        os.umask(before)
    names = (".", "d", "d/f", "p", "not", "not/listed", "not/listed/f")
    modes = [stat.S_IMODE((place / name).stat().st_mode) for name in names]
    assert modes == [0o755, 0o755, 0o644, 0o600, 0o755, 0o755, 0o666]
