"""The real images, volumes and network keep the promises that tasks rely on (see contract)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.network.node import NodeNetwork
from agent.volumes.store import VolumeStore
from specs.stack import BuildSpec
from tests.agent import contract

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from agent.images.store import ImageStore


@pytest.fixture
def images(store: ImageStore, busybox: str) -> ImageStore:
    """The store, with busybox in it."""
    assert busybox
    return store


@pytest.fixture
def known(busybox: str) -> str:
    return busybox


@pytest.fixture
def buildable(tmp_path: Path) -> BuildSpec:
    (tmp_path / "context").mkdir()
    text = "FROM busybox\nLABEL built=here\n"
    return BuildSpec(context=str(tmp_path / "context"), dockerfile_inline=text)


@pytest.fixture
async def volumes(tmp_path: Path) -> AsyncIterator[VolumeStore]:
    async with VolumeStore(tmp_path / "state", tmp_path / "run") as store:
        yield store


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: there is a unix socket in it."""
    with tempfile.TemporaryDirectory(prefix="cr-", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
async def network(folder: Path) -> AsyncIterator[NodeNetwork]:
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    node = NodeNetwork(folder / "run", folder / "state", resolv_conf=folder / "resolv.conf")
    yield node
    await node.leave()
    await node.close()


@pytest.fixture
def has_namespace(folder: Path) -> Callable[[str], bool]:
    return lambda task: (folder / "run/agent/netns" / task).exists()


class TestImages(contract.ImagesContract):
    pass


class TestVolumes(contract.VolumesContract):
    pass


class TestNetwork(contract.NetworkContract):
    pass
