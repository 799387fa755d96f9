"""What a name means on a node that got its images by digest: the newest that came by it."""

from __future__ import annotations

import pytest

from agent.images.content import ImageFiles, ImageRecord, Ref
from agent.images.naming import follow
from agent.images.reference import parse
from agent.images.store import ImageStore

OLD, NEW, TWIN, NEVER, GONE = (f"sha256:{letter * 64}" for letter in "abcde")
NAME = parse("shop/web").name
TIMES = {
    OLD: "2026-11-28T08:00:00.123456789Z",
    NEW: "2026-11-28T09:00:00+00:30",  # half an hour later than OLD, of a machine elsewhere
    TWIN: "2026-11-28T08:00:00.123456789Z",
    NEVER: "soon",
}


def record(content, digest):
    content.set_record(ImageRecord(digest, digest, digest, (), (), TIMES[digest], 1))


# what the name means, as what, which digest a task has, whether that came now -> what it means
CASES = {
    "the first that comes": (None, OLD, True, OLD, "pulled"),
    "a newer build": ((OLD, "pulled"), NEW, True, NEW, "pulled"),
    "a newer one that another name had": ((OLD, "pulled"), NEW, False, NEW, "pulled"),
    "an older release's task is placed here": ((NEW, "pulled"), OLD, True, NEW, "pulled"),
    "an older release's task runs on": ((NEW, "pulled"), OLD, False, NEW, "pulled"),
    "the same": ((NEW, "pulled"), NEW, False, NEW, "pulled"),
    "as old, and it came later": ((OLD, "pulled"), TWIN, True, TWIN, "pulled"),
    "as old, and both are here": ((OLD, "pulled"), TWIN, False, OLD, "pulled"),
    "its image is gone": ((GONE, "pulled"), OLD, False, OLD, "pulled"),
    "built here, and newer elsewhere": ((OLD, "built"), NEW, True, NEW, "built"),
    "built here, and older elsewhere": ((NEW, "built"), OLD, True, NEW, "built"),
    "imported here, and built elsewhere": ((NEVER, "imported"), OLD, True, OLD, "imported"),
    "no time anybody can read": ((OLD, "pulled"), NEVER, True, OLD, "pulled"),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_a_name_means_then(tmp_path, case):
    means, digest, came, expected, source = CASES[case]
    content = ImageFiles(tmp_path)
    for one in TIMES:
        record(content, one)
    if means is not None:
        content.set_ref(Ref(NAME, *means))
    for came_then in (came, False):  # a second task of it
        follow(content, NAME, digest, came=came_then)
        assert content.ref(NAME) == Ref(NAME, expected, source)
    assert {one.digest for one in content.records()} == set(TIMES), "former digests stay"


@pytest.mark.parametrize("image", ["shop/web", f"shop/web@{OLD}"])
async def test_three_builds_come_one_after_the_other(tmp_path, monkeypatch, image):
    async with ImageStore(tmp_path / "state", tmp_path / "run") as store:

        async def obtain(_reference, digest, _manifest=b""):
            record(store.content, digest)

        monkeypatch.setattr(store._assembly, "obtain", obtain)
        monkeypatch.setattr(store, "_config", lambda digest: digest)
        tagged = parse(image).tag != ""
        for digest in (OLD, TWIN, NEW, OLD):
            assert await store.ensure(image, digest) == digest
        named = {one.digest: one.names for one in await store.list()}
        assert named == {OLD: (), TWIN: (), NEW: ("shop/web:latest",) if tagged else ()}
