"""Which node an archive of a volume goes to or comes from, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from orchestrator.api import volume_archive
from orchestrator.errors import Conflict, Invalid, NotFound, Unavailable
from specs.node import Node
from specs.objects import VolumeRow, VolumeRows


class Parts:
    """As much of the API's parts as a choice of node needs."""

    def __init__(self, row=None, nodes=("n1", "n2"), replaces=()):
        found = {name: Node(id=f"id-{name}", name=name) for name in nodes}
        for name in replaces:
            found[name] = found[name].model_copy(update={"replaces": ("id-lost",)})
        self.row = row
        record = SimpleNamespace(node="id-lost" if row is LEFT else "")
        self.cluster = SimpleNamespace(
            nodes={n.id: n for n in found.values()}, volumes={"data": record} if row else {}
        )
        self.control = self
        self.nodes = self
        self.agents = self
        self.by_name = found
        self.made = []
        self.sent = []

    def volumes(self):
        return VolumeRows(volumes=(self.row,) if self.row else ())

    def find(self, name):
        if name not in self.by_name:
            raise NotFound(f"there is no node {name}")
        return self.by_name[name]

    async def write_volume(self, node, name, query, pieces):
        self.sent.append((node, name, dict(query)))

    async def make(self, asked):
        self.made.append((asked.name, asked.node))


class Request:
    def __init__(self, **query):
        self.match_info = {"name": "data"}
        self.query = query


HOME = VolumeRow(name="data", node="n1")
LEFT = VolumeRow(name="data", node="n9", reason="its data is on n9, which left the cluster")
UNUSED = VolumeRow(name="data")
GLOBAL = VolumeRow(name="data", everywhere=True)
SHARE = VolumeRow(name="data", options={"type": "nfs", "device": ":/x"})
GOING = VolumeRow(name="data", node="n1", removing=True, reason="being removed")

WRITES = [
    # the volume, the node asked for, where it goes or the refusal, its words
    (None, "n2", "n2", ""),
    (None, "", Invalid, "which is to have it"),
    (None, "n7", NotFound, "no node n7"),
    (HOME, "", "n1", ""),
    (HOME, "n1", "n1", ""),
    (HOME, "n2", Conflict, "is on n1, not on n2"),
    (LEFT, "n2", "n2", ""),
    (LEFT, "", Invalid, "its data is on n9, which left the cluster"),
    (UNUSED, "n2", "n2", ""),
    (GLOBAL, "n2", "n2", ""),
    (GLOBAL, "", Invalid, "each node has its own"),
    (SHARE, "n1", Invalid, "is not corral's"),
    (GOING, "", Conflict, "is being removed"),
]


@pytest.mark.parametrize(("row", "asked", "expected", "words"), WRITES)
async def test_where_an_archive_goes(row, asked, expected, words):
    parts = Parts(row)
    request = Request(node=asked, replace="1", size="5") if asked else Request()
    if not isinstance(expected, str):
        with pytest.raises(expected, match=words):
            await volume_archive.write(parts, request, None)
        assert (parts.sent, parts.made) == ([], [])
        return
    done = await volume_archive.write(parts, request, None)
    assert done.node == expected
    query = {"replace": "1", "size": "5"} if asked else {}
    assert parts.sent == [(f"id-{expected}", "data", query)]
    # The record says where it is from then on; that of a global service names no node.
    assert parts.made == ([] if row is GLOBAL else [("data", f"id-{expected}")])


@pytest.mark.parametrize(
    ("replaces", "asked", "expected"),
    [
        (("n2",), "", "n2"),  # it has the name and the place of the lost one
        (("n2",), "n1", "n1"),
        (("n1", "n2"), "", None),
        ((), "", None),
    ],
)
async def test_what_a_lost_node_had_goes_to_who_replaced_it(replaces, asked, expected):
    parts = Parts(LEFT, replaces=replaces)
    if expected is None:
        with pytest.raises(Invalid, match="which node is to have it"):
            await volume_archive.write(parts, Request(), None)
        assert (parts.sent, parts.made) == ([], [])
        return
    request = Request(node=asked) if asked else Request()
    assert (await volume_archive.write(parts, request, None)).node == expected
    assert parts.made == [("data", f"id-{expected}")]


async def test_the_only_node_need_not_be_named():
    parts = Parts(None, nodes=("n1",))
    assert (await volume_archive.write(parts, Request(), None)).node == "n1"


@pytest.mark.parametrize(
    ("row", "asked", "expected", "words"),
    [
        (None, "", NotFound, "there is no volume data"),
        (LEFT, "", Unavailable, "its data is on n9, which left"),
        (UNUSED, "", Conflict, "holds nothing yet"),
        (GLOBAL, "", Invalid, "each node has its own"),
        (SHARE, "", Invalid, "is not corral's"),
    ],
)
async def test_what_cannot_be_read(row, asked, expected, words):
    with pytest.raises(expected, match=words):
        await volume_archive.read(Parts(row), Request(**({"node": asked} if asked else {})), None)


@pytest.mark.parametrize("name", ["x/../data", "..", "a/../b", "b?x=1", "../../tmp", "a b", ""])
@pytest.mark.parametrize("act", [volume_archive.read, volume_archive.write])
async def test_a_name_that_is_none_is_refused_before_any_node_hears_it(act, name):
    """Law: a name is one part of an agent's path, whoever wrote it."""
    parts, request = Parts(HOME), Request(node="n1", replace="1")
    request.match_info = {"name": name}
    with pytest.raises(Invalid, match="volume"):
        await act(parts, request, None)
    assert (parts.sent, parts.made) == ([], [])
