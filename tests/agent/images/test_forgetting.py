"""Images a stack leaves: which names and digests go from a node, and why others stay."""

from __future__ import annotations

import errno
import types

import pytest

from agent.errors import Later, NoRoom
from agent.images.collect import forget, forget_halves
from agent.images.content import ImageFiles, ImageRecord, Ref
from agent.images.reference import parse
from agent.images.store import ImageStore
from specs.images import StackImage
from specs.wire import ResolveImage

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")
HALF = "sha256:" + "4" * 64
BASE, ONLY = "sha256:" + "1" * 64, {A: "sha256:" + "2" * 64, B: "sha256:" + "3" * 64}


class Node:
    def __init__(self, root, refs, tasks=()):
        self.content = ImageFiles(root)
        self.tasks = dict(tasks)
        self.gone = []
        for digest in (A, B):
            layers = (BASE, ONLY[digest])
            for one in (digest, *layers):
                self.content.blob(one).write_bytes(b"x")
            for layer in layers:
                (self.content.layers / layer.removeprefix("sha256:")).mkdir(exist_ok=True)
            self.content.set_record(
                ImageRecord(digest, digest, digest, layers, layers, "1970-01-01T00:00:00Z", 1)
            )
        for name, digest in refs.items():
            self.content.set_ref(Ref(parse(name).name, digest, "built"))

    def forget(self, asked, used=()):
        images = tuple(StackImage(name=name, digests=tuple(ds)) for name, ds in asked.items())
        layers = types.SimpleNamespace(remove=self.gone.append)
        rootfs = types.SimpleNamespace(tasks=lambda: self.tasks)
        return forget(self.content, layers, rootfs, images, dict(used))

    @property
    def names(self):
        return {parse(ref.name).familiar: ref.digest for ref in self.content.refs()}

    @property
    def digests(self):
        return {record.digest for record in self.content.records()}


# what the node's names mean, what is asked, who uses what -> names left, digests left, said
CASES = {
    "nobody uses it": ({"a": A, "b": B}, {"a": [A]}, {}, {"b:latest": B}, {B}, ["a"], {}),
    "a task of another stack does": (
        {"a": A}, {"a": [A]}, {A: "stack other"}, {"a:latest": A}, {A, B}, [],
        {"a": "stack other uses it"},
    ),
    "it has another name": ({"a": A, "z": A}, {"a": [A]}, {}, {"z:latest": A}, {A, B}, ["a"], {}),
    "both of its names are asked": (
        {"a": A, "z": A}, {"a": [A], "z": [A]}, {}, {}, {B}, ["a", "z"], {},
    ),
    "an older build has no name": ({"a": B}, {"a": [A, B]}, {}, {}, set(), ["a"], {}),
    "the name means another image now": (
        {"a": B}, {"a": [A]}, {B: "container x-1"}, {"a:latest": B}, {B}, [],
        {"a": "container x-1 uses it"},
    ),
    "an older digest is in use": (
        {"a": B}, {"a": [A, B]}, {A: "stack o"}, {}, {A}, [], {"a": "stack o uses it"},
    ),
    "it was never here": ({"b": B}, {"c": [C]}, {}, {"b:latest": B}, {A, B}, [], {}),
    "asked by its digest alone": ({}, {f"a@{A}": [A]}, {}, {}, {B}, [f"a@{A}"], {}),
    "asked by its digest, which has a name": (
        {"z": A}, {f"a@{A}": [A]}, {}, {"z:latest": A}, {A, B}, [],
        {f"a@{A}": "it is z:latest too"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_goes(tmp_path, case):
    refs, asked, used, names, digests, removed, kept = CASES[case]
    node = Node(tmp_path, refs)
    done = node.forget(asked, used)
    assert (node.names, node.digests) == (names, digests)
    assert (list(done.removed), done.kept) == (removed, kept)
    assert node.forget(asked, used).removed == (), "twice is harmless"


def test_layers_others_stand_on_stay(tmp_path):
    node = Node(tmp_path, {"a": A, "b": B})
    node.forget({"a": [A]})
    assert node.gone == [ONLY[A]]
    assert not node.content.has_blob(A)
    assert not node.content.has_blob(ONLY[A])
    assert all(map(node.content.has_blob, (B, BASE, ONLY[B])))


def test_a_writable_layer_on_it_keeps_it(tmp_path):
    node = Node(tmp_path, {"a": A}, tasks={"t1": A})
    assert node.forget({"a": [A]}).kept == {"a": "task t1 uses it"}
    assert A in node.digests


def test_nothing_goes_while_images_are_added(tmp_path):
    node = Node(tmp_path, {"a": A})
    with node.content.using(), pytest.raises(Later):
        node.forget({"a": [A]})
    assert node.names == {"a:latest": A}


def half(node):
    """Two layers came of an image, one is unpacked: its node had no room for the rest."""
    for one in (C, HALF):
        node.content.blob(one).write_bytes(b"x")
    (node.content.layers / HALF.removeprefix("sha256:")).mkdir()


def forget_half(node):
    layers = types.SimpleNamespace(remove=node.gone.append)
    forget_halves(node.content, layers, types.SimpleNamespace(tasks=lambda: node.tasks))


def test_the_half_of_an_image_that_did_not_fit_goes(tmp_path):
    node = Node(tmp_path, {"a": A}, tasks={"t1": B})
    half(node)
    forget_half(node)
    assert node.gone == [HALF]
    assert not any(map(node.content.has_blob, (C, HALF)))
    assert all(map(node.content.has_blob, (A, B, BASE, *ONLY.values())))
    assert (node.names, node.digests) == ({"a:latest": A}, {A, B})


def test_nothing_goes_that_a_task_may_stand_on(tmp_path):
    """The record of its image was damaged: which layers are its own nobody knows."""
    node = Node(tmp_path, {}, tasks={"t1": C})
    half(node)
    forget_half(node)
    assert node.gone == []
    assert node.content.has_blob(HALF)


@pytest.mark.parametrize(
    ("error", "goes"),
    [
        (NoRoom("the image needs 9 MiB"), True),
        (OSError(errno.ENOSPC, "no"), True),
        (Later("the registry is away"), False),
        (OSError(errno.EIO, "no"), False),
    ],
)
@pytest.mark.parametrize("asked", ["for a task", "by name"])
async def test_who_waited_for_room_takes_the_half_along(tmp_path, monkeypatch, error, goes, asked):
    async with ImageStore(tmp_path / "state", tmp_path / "run") as store:

        async def obtain(*_):
            store.content.blob(HALF).write_bytes(b"x")
            raise error

        async def manifest(_):
            return b"{}"

        monkeypatch.setattr(store._assembly, "obtain", obtain)
        monkeypatch.setattr(store.registry, "manifest", manifest)
        by_name = asked == "by name"
        asking = store.resolve(ResolveImage(image="a")) if by_name else store.ensure("a", C)
        with pytest.raises(type(error)):
            await asking
        assert store.content.has_blob(HALF), "for as long as it waits what came stays"
        with store.content.using():  # another is fetched
            await store.discard("t1")
        assert store.content.has_blob(HALF)
        await store.discard("t1")
        assert store.content.has_blob(HALF) is not goes
