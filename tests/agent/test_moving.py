"""A volume's move between two agents' own servers and disks: what comes is what was there."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from agent.errors import Refusal
from agent.moving import Moving
from agent.saving import Saving
from agent.server import problems
from agent.tasks.holdings import Holdings
from agent.volumes import listing, replacing
from agent.volumes.store import VolumeStore
from orchestrator.control.deploy.moving import differences

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners are kept")


class End:
    """One agent's part of moves, behind HTTP."""

    def __init__(self, path):
        path.mkdir()
        self.store = VolumeStore(path / "state", path / "run")
        self.saving = Saving(Holdings(), self.store)
        self.moving = Moving(self.saving, self.store)
        self.volumes = path / "state" / "volumes"
        self.data = self.volumes / "v" / "_data"

    async def __aenter__(self):
        app = web.Application(middlewares=[problems], client_max_size=1 << 30)
        app.add_routes(self.moving.routes())
        self.client = TestClient(TestServer(app))
        await self.client.start_server()
        return self

    async def __aexit__(self, *_):
        await self.client.close()
        self.store.close()

    async def do(self, method, path, data=b"", code=200):
        async with self.client.request(method, f"/v1/volumes/v{path}", data=data) as answer:
            body = await answer.read()
            assert answer.status == code, body
            return body

    async def tree(self, **query):
        words = "&".join(f"{key}={value}" for key, value in query.items())
        found = {}
        for record in (await self.do("GET", f"/tree?{words}")).split(b"\0"):
            digest, _, path = record.partition(b" ")
            if path:
                found[path] = digest
        return found


@contextlib.asynccontextmanager
async def ends(path):
    async with End(path / "one") as source, End(path / "two") as target:
        source.data.mkdir(parents=True)
        yield source, target


async def sync(source, target, *, first=False):
    """Make the target's draft what the source is; return what was sent and removed."""
    ours = await source.tree(sums=1)
    theirs = {} if first else await target.tree(sums=1, draft="m1")
    send, drop = differences(ours, theirs)
    if drop:
        await target.do("POST", "/drafts/m1/drop", b"\0".join(drop))
    if send:
        archive = await source.do("POST", "/differences", b"\0".join([*send, b""]))
        await target.do("PUT", "/drafts/m1/archive", archive)
    return send, drop


def sh(folder, text):
    subprocess.run(["sh", "-ec", text], cwd=folder, check=True, capture_output=True)


FILL = """
chown 999:998 .; chmod 0700 .
echo text > file; chmod 0640 file; chown 7:8 file; ln file second; mkdir deep; ln file deep/third
ln -s /etc/passwd link; ln -s ../.. up; mkdir -p deep/er
touch -d '2001-02-03 04:05:06.789' deep/er/old
mkfifo pipe; truncate -s 64M holes; echo end >> holes; mkdir empty
: > none; echo x > -n; echo x > '*'
printf 'x' > "$(printf 'new\\nline')"; printf 'x' > "$(printf '\\377\\376')"
printf x > 'back\\nslash'
mkdir .git; echo a > .git/a; chmod u+s .git/a; touch -d 2001-01-01 deep
"""
CHANGES = {
    "content": "echo other > file",
    "same length and time": 't=$(stat -c %y file); echo tixt > file; touch -d "$t" file',
    "a new file": "echo new > deep/new",
    "gone": "rm .git/a",
    "a folder gone": "rm -r deep",
    "a link's end": "ln -sfn /elsewhere link",
    "a link is a folder": "rm link; mkdir link; echo x > link/x",
    "a folder is a link": "rm -r deep; ln -s .git deep",
    "a folder is a file": "rm -r deep; echo x > deep",
    "a file is a folder": "rm none; mkdir none; echo x > none/x",
    "one more name": "ln file fourth",
    "the first name gone": "rm deep/third file",
    "names parted": "cp -p second copy; mv copy second",
    "renamed": "mv deep/er empty/er",
    "owner": "chown 1:2 pipe",
    "mode": "chmod 0600 second",
    "time": "touch -d '2011-01-01 01:01:01.5' none",
    "a hole filled": "printf x | dd of=holes bs=1 seek=5000000 conv=notrunc",
    "shorter": "truncate -s 1M holes",
    "the folder itself": "chmod 0755 .; chown 0:0 .",
    "nothing left": "find . -mindepth 1 -delete",
}


@pytest.mark.parametrize("change", CHANGES)
async def test_what_changed_while_it_was_copied_is_sent_and_then_both_are_the_same(
    tmp_path, change
):
    async with ends(tmp_path) as (source, target):
        sh(source.data, FILL)
        with socket.socket(socket.AF_UNIX) as sock:
            where = os.getcwd()
            os.chdir(source.data)  # a longer name is none for a socket
            sock.bind("sock")
            os.chdir(where)
        os.setxattr(source.data / "second", "user.note", b"x")
        assert (await sync(source, target, first=True))[0]
        assert await sync(source, target) == ([], []), "law: what was sent is what there is"
        sh(source.data, CHANGES[change])
        assert await sync(source, target) != ([], []), "law: every change is seen"
        assert await sync(source, target) == ([], [])
        await target.do("POST", "/drafts/m1/place")
        await target.do("POST", "/drafts/m1/place")  # again, as after a kill
        assert not (target.data / "sock").exists()
        # A folder's own size and count are its file system's.
        folders, others = (
            "-type d -printf '%P %m %U %G %y\\n'",
            "-printf '%P %m %U %G %y %l %s %n\\n'",
        )
        show = f"find . {folders} -o ! -type s {others} | sort"
        shown = [
            subprocess.run(["sh", "-c", show], cwd=end.data, check=True, capture_output=True).stdout
            for end in (source, target)
        ]
        assert shown[0] == shown[1]
        if (source.data / "holes").exists():
            assert (target.data / "holes").stat().st_blocks * 512 < 8 << 20, "law: holes stay"
        assert await source.tree(sums=1) == await target.tree(sums=1, draft="m1")
        assert target.store.held() == ("v",)


def test_a_content_is_the_same_however_its_holes_are_written(tmp_path):
    found = []
    for name, fill in (("a", "truncate -s 3M f"), ("b", "head -c 3145728 /dev/zero > f")):
        folder = tmp_path / name
        folder.mkdir()
        sh(folder, f"{fill}; printf x | dd of=f bs=1 seek=1000000 conv=notrunc; touch -d @1 f .")
        fd = os.open(folder, os.O_RDONLY)
        found.append([*listing.records(fd, sums=True)])
        os.close(fd)
    assert found[0] == found[1]


async def test_one_that_is_used_is_neither_compared_for_good_nor_set_aside(tmp_path):
    async with ends(tmp_path) as (source, _target):
        source.saving.users = lambda name: ["app-db-1"]
        for method, path in (
            ("GET", "/tree?unused=1"),
            ("POST", "/aside"),
            ("POST", "/drafts/m1/place"),
        ):
            assert b"in use by app-db-1" in await source.do(method, path, code=422)


async def test_what_is_set_aside_comes_back_or_goes(tmp_path):
    async with ends(tmp_path) as (source, _):
        sh(source.data, "echo x > x")
        for _ in range(2):
            await source.do("POST", "/aside")
            assert source.store.held() == ()
        for _ in range(2):
            await source.do("POST", "/aside?back=1")
            assert (source.data / "x").exists()
        await source.do("POST", "/aside")
        for _ in range(2):
            await source.do("DELETE", "/aside")
        assert [*source.volumes.iterdir()] == []
        await source.do("POST", "/aside", code=404)


async def test_nobody_begins_on_an_empty_volume_beside_what_a_move_left(tmp_path):
    """As with a controller's state from before the move."""
    async with ends(tmp_path) as (source, _):
        sh(source.data, "echo x > x")
        await source.do("POST", "/aside")
        with pytest.raises(Refusal, match="was moved to another node"):
            source.store._create(source.volumes / "v", tmp_path, None)
        assert [path.name for path in source.volumes.iterdir()] == [".kept-v"]


@pytest.mark.parametrize("placed", [True, False])
async def test_a_move_that_is_taken_back_leaves_nothing(tmp_path, placed):
    async with ends(tmp_path) as (source, target):
        sh(source.data, "echo x > x")
        await sync(source, target, first=True)
        if placed:
            await target.do("POST", "/drafts/m1/place")
        for _ in range(2):
            await target.do("DELETE", "/drafts/m1")
        assert [*target.volumes.iterdir()] == []


async def test_nothing_is_written_over_and_nobody_elses_volume_goes(tmp_path):
    async with ends(tmp_path) as (source, target):
        sh(source.data, "echo x > x")
        target.data.mkdir(parents=True)
        sh(target.data, "echo mine > mine")
        await sync(source, target, first=True)
        assert b"holds data already" in await target.do("POST", "/drafts/m1/place", code=422)
        await target.do("DELETE", "/drafts/m1")
        assert (target.data / "mine").read_text() == "mine\n"
        assert [path.name for path in target.volumes.iterdir()] == ["v"]


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/x", "."])
async def test_no_path_leads_out(tmp_path, path):
    async with ends(tmp_path) as (_, target):
        assert b"out of the volume" in await target.do(
            "POST", "/drafts/m1/drop", path.encode(), code=422
        )


async def test_what_nobody_goes_on_with_goes_after_a_week(tmp_path):
    async with End(tmp_path / "one") as end:
        for name, age in (("old", replacing.ABANDONED + 60), ("new", 60)):
            folder = end.volumes / f"{replacing.MOVE}{name}"
            (folder / "_data").mkdir(parents=True)
            now = folder.stat().st_mtime
            os.utime(folder, (now - age, now - age))
    VolumeStore(tmp_path / "one" / "state", tmp_path / "one" / "run").close()
    assert [path.name for path in end.volumes.iterdir()] == [".move-new"]
