"""The fakes keep the promises that tasks rely on; the real parts keep the same (see contract)."""

from __future__ import annotations

import pytest

from specs.stack import BuildSpec
from tests.agent import contract
from tests.fakes.node import DIGEST, FakeImages, FakeNetwork, FakeVolumes


@pytest.fixture
def images(tmp_path):
    return FakeImages(tmp_path)


@pytest.fixture
def known():
    return DIGEST


@pytest.fixture
def buildable():
    return BuildSpec(context="/x")


@pytest.fixture
def volumes(tmp_path):
    return FakeVolumes(tmp_path / "volumes")


@pytest.fixture
def network():
    return FakeNetwork()


@pytest.fixture
def has_namespace(network):
    return lambda name: name in network.attached


class TestFakeImages(contract.ImagesContract):
    pass


class TestFakeVolumes(contract.VolumesContract):
    pass


class TestFakeNetwork(contract.NetworkContract):
    pass
