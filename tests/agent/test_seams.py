"""What the runner relies on of images, volumes and network: the fakes keep the same promises.

``IMAGES``, ``VOLUMES`` and ``NETWORKS`` are the makers under test; each method is repeated, and
called for tasks nobody knows, because after a kill the runner does exactly that.
"""

from __future__ import annotations

import pytest

from agent.errors import Refusal
from agent.network.plan import Wanted
from agent.vocabulary import Attachment
from specs.stack import BuildSpec, FileRef, Mount
from specs.wire import BuildImage, Content, NodeSelf, ResolveImage
from tests.agent.test_lifecycle import task
from tests.fakes.node import DIGEST, FakeImages, FakeNetwork, FakeVolumes

IMAGES = [FakeImages]
VOLUMES = [FakeVolumes]
NETWORKS = [FakeNetwork]


@pytest.fixture(params=IMAGES)
def images(request, tmp_path):
    return request.param(tmp_path)


@pytest.fixture(params=VOLUMES)
def volumes(request):
    return request.param()


@pytest.fixture(params=NETWORKS)
def network(request):
    return request.param()


async def test_images_keep_the_writable_layer_until_discarded(images):
    config = await images.ensure("busybox", DIGEST)
    assert config.digest == DIGEST
    root = await images.mount("t1", DIGEST)
    assert await images.mount("t1", DIGEST) == root
    (root / "tmp/mine").write_text("x")
    await images.unmount("t1")
    await images.unmount("t1")
    assert (await images.mount("t1", DIGEST) / "tmp/mine").read_text() == "x"
    await images.discard("t1")
    await images.discard("t1")
    assert not (await images.mount("t1", DIGEST) / "tmp/mine").exists()
    await images.discard("never seen")
    await images.unmount("never seen")


async def test_images_refuse_what_does_not_exist(images):
    with pytest.raises(Refusal):
        await images.resolve(ResolveImage(image="nosuch"))
    with pytest.raises(Refusal):
        await images.ensure("nosuch", "sha256:" + "f" * 64)
    assert (await images.resolve(ResolveImage(image="busybox"))).digest == DIGEST


async def test_a_build_ends_with_its_digest_and_is_listed(images):
    request = BuildImage(tag="mine", build=BuildSpec(context="/x"))
    events = [event async for event in images.build(request)]
    assert events[-1].digest
    assert any("mine" in info.names for info in await images.list())


async def test_volumes_prepare_again_and_release_again(volumes, tmp_path, images):
    config = await images.ensure("busybox", DIGEST)
    one = task(mounts=(Mount(type="tmpfs", target="/x"),))
    first = await volumes.prepare(one, config, tmp_path, {}, (0, 0))
    assert await volumes.prepare(one, config, tmp_path, {}, (0, 0)) == first
    assert [mount.target for mount in first] == ["/x"]
    for _ in range(2):
        await volumes.release("t1")
    await volumes.release("never seen")
    await volumes.remove("never seen")


async def test_volumes_refuse_a_missing_bind_and_wait_for_contents(volumes, tmp_path, images):
    config = await images.ensure("busybox", DIGEST)
    missing = Mount(type="bind", source=str(tmp_path / "no"), target="/x", create_host_path=False)
    with pytest.raises(Refusal, match="does not exist"):
        await volumes.prepare(task(mounts=(missing,)), config, tmp_path, {}, (0, 0))
    secret = FileRef(source="s", target="/run/secrets/s", content="c1")
    with pytest.raises(Exception, match="s"):
        await volumes.prepare(task(secrets=(secret,)), config, tmp_path, {}, (0, 0))
    contents = {"c1": Content(id="c1", data="eA==", secret=True)}
    await volumes.prepare(task(secrets=(secret,)), config, tmp_path, contents, (0, 0))


async def test_network_attaches_and_detaches_any_number_of_times(network):
    one = task(network_mode="none")
    first = await network.attach(one)
    assert isinstance(first, Attachment)
    assert await network.attach(one) == first
    assert "nameserver" in first.resolv_conf
    assert "localhost" in first.hosts
    for _ in range(2):
        me = NodeSelf(node="n", name="n")
        await network.apply(Wanted(me, {}, {}, {}, {"t1": one}, {"t1": True}))
    await network.adopt({"t1"})
    for _ in range(2):
        await network.detach("t1")
    await network.detach("never seen")
    await network.adopt(set())
