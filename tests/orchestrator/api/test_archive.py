"""`cp` over the API: bytes both ways through the controller, and the words of the command."""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import tarfile
from types import SimpleNamespace

import pytest

from orchestrator.cli.commands import cp
from orchestrator.cli.errors import CliError
from orchestrator.client.client import Client
from orchestrator.client.errors import ApiRefusal, NoAnswer
from orchestrator.errors import Invalid, NotFound, Unavailable
from specs.inside import Copied

pytestmark = pytest.mark.asyncio


def archive(*files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content or b""))
    return out.getvalue()


class Agents:
    """Sends ``pieces``, takes what is sent; either way a failure after some pieces."""

    def __init__(self, agents):
        self.pieces, self.fails, self.early = [], None, None
        self.asked, self.got = [], {}
        agents.read_archive, agents.write_archive = self.read, self.write

    async def read(self, node, task, query):
        self.asked.append((node, task, dict(query)))
        for piece in self.pieces:
            yield piece
        if self.fails:
            raise self.fails

    async def write(self, node, task, query, pieces):
        self.asked.append((node, task, dict(query)))
        if self.early:
            raise self.early
        got = b"".join([piece async for piece in pieces])
        self.got[task] = got
        return Copied(files=1, bytes=len(got))


@pytest.fixture
async def shop(api):
    await api.add_node()
    api.add_stack()
    for slot in (1, 2):
        await api.add_task(f"t{slot}", slot=slot)
    return api


@pytest.fixture
def agents(shop):
    return Agents(shop.agents)


def session(api):
    return SimpleNamespace(client=Client(f"unix://{api.path}"), path=lambda *rest: "/".join(
        ["/v1/stacks/shop", *rest]), stack=lambda: "shop")  # fmt: skip


async def run(api, *words):
    parser = argparse.ArgumentParser()
    cp.describe(parser)
    return await asyncio.to_thread(cp.run, parser.parse_args(words), session(api))


FILE = archive(("conf", b"ours"))
DIR = archive(("conf.d", None), ("conf.d/a", b"A"))


@pytest.mark.parametrize(
    ("words", "sent", "there"),
    [
        ("web:/etc/conf new", FILE, {"new": "ours"}),
        ("web:/etc/conf old", FILE, {"old": "ours"}),
        ("web:/etc/conf dir", FILE, {"dir/conf": "ours"}),
        ("web:/etc/conf link", FILE, {"old": "ours"}),  # a link to old: what it points to
        ("web:etc/conf.d new", DIR, {"new/a": "A"}),
        ("web:/etc/conf.d/ dir", DIR, {"dir/conf.d/a": "A"}),
        ("web:/etc/conf.d/. dir", archive((".", None), ("./a", b"A")), {"dir/a": "A"}),
        ("--index 2 web:/etc/conf dir/", FILE, {"dir/conf": "ours"}),
        ("shop-web-2:/etc/conf ./new", FILE, {"new": "ours"}),
    ],
)
async def test_out_of_a_container(shop, agents, tmp_path, monkeypatch, words, sent, there):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").write_text("old")
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to("old")
    agents.pieces = [sent[:100], sent[100:]]
    assert await run(shop, *words.split()) == 0
    assert {path: (tmp_path / path).read_text() for path in there} == there
    assert (tmp_path / "link").is_symlink()
    assert agents.asked[0][1] == ("t2" if "2" in words else "t1")


@pytest.mark.parametrize(
    ("words", "sent", "why"),
    [
        ("web:/etc/conf.d old", DIR, "over a file"),
        ("web:/etc/conf none/", FILE, "no such folder"),
        ("web:/etc/conf none/new", FILE, "there is no folder none"),
        ("web:/etc/conf old/", FILE, "not a folder"),
        ("web:/etc/conf dir", archive(("../evil", b"x")), "leads out"),
        ("web:/etc/conf dir", archive(("other", b"x")), "nobody asked for"),
        ("web:/etc/conf new", b"not an archive" * 100, "malformed"),
        ("nope:/etc/conf new", FILE, "no container found for service 'nope'"),
        ("--index 3 web:/etc/conf new", FILE, "has no replica 3"),
        ("--all web:/etc/conf new", FILE, "--all"),
        ("web:/a web:/b", FILE, "between services"),
        ("a b", FILE, "neither is"),
        ("none web:/b", FILE, "it is not there"),
        ("old/. web:/b", FILE, "folder"),
    ],
)
async def test_what_is_refused_changes_nothing(
    shop, agents, tmp_path, monkeypatch, words, sent, why
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").write_text("old")
    (tmp_path / "dir").mkdir()
    agents.pieces = [sent]
    with pytest.raises(CliError, match=why) as refused:
        await run(shop, *words.split())
    assert refused.value.code == 1
    assert sorted(os.listdir(tmp_path)) == ["controller.sock", "dir", "old"]
    assert os.listdir(tmp_path / "dir") == []
    assert (tmp_path / "old").read_text() == "old"


async def test_an_archive_that_breaks_off_leaves_no_half_file(shop, agents, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sent = archive(("conf", b"x" * 3_000_000))
    agents.pieces = [sent[i : i + 100_000] for i in range(0, 2_000_000, 100_000)]
    agents.fails = Unavailable("node node-n1 is not reached: the connection broke")
    with pytest.raises(NoAnswer):
        await run(shop, "web:/etc/conf", "new")
    assert os.listdir(tmp_path) == ["controller.sock"]


@pytest.mark.parametrize("fault", [NotFound("there is no /x"), Invalid(detail="read-only")])
async def test_a_refusal_of_the_node_is_an_answer(shop, agents, tmp_path, fault):
    agents.fails = fault
    with pytest.raises(ApiRefusal, match=fault.detail):
        await run(shop, "web:/x", str(tmp_path))
    agents.early = fault
    large = tmp_path / "large"  # more than any buffer on the way: nobody takes it
    large.write_bytes(b"x" * 5_000_000)
    with pytest.raises(ApiRefusal, match=fault.detail):
        await run(shop, "--index", "1", str(large), "web:/x")
    assert await run(shop, str(large), "web:/x") == 1, "one after the other, and each is told"


@pytest.mark.parametrize("owner", ["root", "kept"])
async def test_into_every_replica(shop, agents, tmp_path, owner):
    conf = tmp_path / "conf"
    conf.write_bytes(b"x" * 700_000)
    assert await run(shop, *(["-a"] if owner == "kept" else []), str(conf), "web:/etc/") == 0
    assert set(agents.got) == {"t1", "t2"}
    for _, _, query in agents.asked:
        assert query == {"path": "/etc/", "source": "conf", "directory": "0", "contents": "0"}
    with tarfile.open(fileobj=io.BytesIO(agents.got["t2"])) as got:
        (member,) = got.getmembers()
        assert (member.name, member.size) == ("conf", 700_000)
        assert member.uid == (os.getuid() if owner == "kept" else 0)


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("web:/x", ("web", "/x")),
        ("web:", ("web", "")),
        ("./web:x", ("", "./web:x")),
        ("/a:b", ("", "/a:b")),
        ("-", ("", "-")),
        ("web", ("", "web")),
        ("web:a:b", ("web", "a:b")),
    ],
)
async def test_what_is_a_container_path(word, found):
    assert cp.split(word) == found
