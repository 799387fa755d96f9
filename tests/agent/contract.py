"""What tasks rely on of images, volumes and network, whoever plays them.

The unit tests hold the fakes against it (test_seams.py), the kernel tests the real parts
(tests/real/images/inside_seams.py): a promise that only one side keeps is found here. Each
method is repeated, and called for tasks nobody knows, because after a kill the runner does
exactly that.

Whoever plays them gives the fixtures ``images``, ``volumes``, ``network``; ``known``, the digest
of ``busybox``, which is there; and ``buildable``, something that can be built.
"""

from __future__ import annotations

import os

import pytest

from agent.errors import Later, Refusal
from agent.network.wanted import Wanted
from agent.vocabulary import Attachment, ImageConfig
from specs.images import StackImage
from specs.stack import FileRef, Mount
from specs.wire import BuildImage, Content, NodeSelf, ResolveImage
from tests.agent.test_lifecycle import task

NOWHERE = "sha256:" + "f" * 64
IMAGE = ImageConfig(digest=NOWHERE)
OWNER = (0, 0)


class ImagesContract:
    async def test_the_digest_decides_what_is_ensured(self, images, known):
        for name in ("busybox", "moved:on"):
            config = await images.ensure(name, known)
            assert config.digest == known
        assert "PATH" in config.environment

    async def test_a_root_keeps_what_was_written_until_it_is_discarded(self, images, known):
        root = await images.mount("t1", known)
        assert await images.mount("t1", known) == root
        assert (root / "bin").is_dir()
        (root / "tmp/mine").write_text("x")
        for _ in range(2):
            await images.unmount("t1")
        assert (await images.mount("t1", known) / "tmp/mine").read_text() == "x"
        for _ in range(2):
            await images.discard("t1")
        assert not (await images.mount("t1", known) / "tmp/mine").exists()
        await images.discard("t1")

    async def test_roots_of_two_tasks_are_apart(self, images, known):
        one, two = await images.mount("t1", known), await images.mount("t2", known)
        (one / "tmp/mine").write_text("x")
        assert not (two / "tmp/mine").exists()
        await images.discard("t1")
        assert (two / "bin").is_dir()
        await images.discard("t2")

    async def test_tasks_nobody_knows_are_fine(self, images):
        for _ in range(2):
            await images.unmount("never-seen")
            await images.discard("never-seen")

    async def test_what_does_not_exist_is_refused_or_comes_later(self, images, known):
        with pytest.raises(Refusal, match="nosuch"):
            await images.resolve(ResolveImage(image="nosuch", policy="never"))
        with pytest.raises((Refusal, Later), match="nosuch"):
            await images.ensure("nosuch", NOWHERE)
        found = await images.resolve(ResolveImage(image="busybox", policy="never"))
        assert (found.image, found.digest) == ("busybox", known)

    async def test_what_is_used_stays_and_what_nobody_has_goes(self, images, known):
        asked = (StackImage(name="busybox", digests=(known,)),)
        done = await images.forget(asked, {known: "stack shop"})
        assert (done.removed, done.kept) == ((), {"busybox": "stack shop uses it"})
        assert (await images.ensure("busybox", known)).digest == known
        gone = await images.forget((StackImage(name="never-here"),), {})
        assert (gone.removed, gone.kept) == ((), {})

    async def test_a_build_ends_with_its_digest_and_is_there(self, images, buildable):
        events = [e async for e in images.build(BuildImage(tag="mine", build=buildable))]
        digest = events[-1].digest
        assert digest
        assert not any(event.digest or event.error for event in events[:-1])
        assert any("mine" in name for i in await images.list() for name in i.names)
        found = await images.resolve(ResolveImage(image="mine", policy="never"))
        assert found.digest == digest


class VolumesContract:
    async def prepare(self, volumes, tmp_path, contents=None, **spec):
        (tmp_path / "root").mkdir(exist_ok=True)
        given = contents or {}
        one = task(**spec).model_copy(update={"volumes": {"db": "s_db"}})
        return await volumes.prepare(one, IMAGE, tmp_path / "root", given, OWNER)

    async def test_preparing_again_gives_the_same_in_the_files_order(self, volumes, tmp_path):
        here = tmp_path / "here"
        here.mkdir()
        mounts = (
            Mount(type="tmpfs", target="/b"),
            Mount(type="bind", source=str(here), target="/a"),
            Mount(type="volume", source="db", target="/b/c"),
        )
        first = await self.prepare(volumes, tmp_path, mounts=mounts)
        assert [mount.target for mount in first] == ["/b", "/a", "/b/c"]
        assert [mount.type for mount in first] == ["tmpfs", "bind", "bind"]
        assert all(os.path.exists(mount.source) for mount in first if mount.type == "bind")
        assert await self.prepare(volumes, tmp_path, mounts=mounts) == first

    async def test_a_volume_outlives_its_task_and_goes_once_told(self, volumes, tmp_path):
        mounts = (Mount(type="volume", source="db", target="/data"),)
        (mount,) = await self.prepare(volumes, tmp_path, mounts=mounts)
        for _ in range(2):
            await volumes.release("t1")
        await volumes.adopt(set())
        assert os.path.exists(mount.source), "released, and nobody's: its data stays"
        for _ in range(2):
            await volumes.remove("s_db")
        assert not os.path.exists(mount.source)

    async def test_names_and_tasks_nobody_knows_are_fine(self, volumes):
        await volumes.release("never-seen")
        await volumes.remove("never-seen")
        await volumes.adopt({"never-seen"})

    async def test_a_missing_bind_is_refused(self, volumes, tmp_path):
        missing = str(tmp_path / "no")
        mount = Mount(type="bind", source=missing, target="/x", create_host_path=False)
        with pytest.raises(Refusal, match=missing):
            await self.prepare(volumes, tmp_path, mounts=(mount,))

    async def test_contents_that_are_not_there_yet_are_awaited(self, volumes, tmp_path):
        secret = FileRef(source="hush", target="/run/secrets/hush", content="c1")
        with pytest.raises(Later, match="hush"):
            await self.prepare(volumes, tmp_path, secrets=(secret,))
        contents = {"c1": Content(id="c1", data="eA==", secret=True)}
        (mount,) = await self.prepare(volumes, tmp_path, contents, secrets=(secret,))
        assert mount.target == "/run/secrets/hush"
        with open(mount.source) as file:
            assert file.read() == "x"
        await volumes.release("t1")
        assert not os.path.exists(mount.source), "what was the task's alone"

    async def test_adopting_takes_what_only_others_had(self, volumes, tmp_path):
        secret = FileRef(source="hush", target="/run/secrets/hush", content="c1")
        contents = {"c1": Content(id="c1", data="eA==", secret=True)}
        (mount,) = await self.prepare(volumes, tmp_path, contents, secrets=(secret,))
        await volumes.adopt({"t1"})
        assert os.path.exists(mount.source)
        await volumes.adopt({"another"})
        assert not os.path.exists(mount.source)


class NetworkContract:
    async def test_attaching_again_gives_the_same(self, network):
        one = task(network_mode="none")
        first = await network.attach(one)
        assert isinstance(first, Attachment)
        assert await network.attach(one) == first
        assert "localhost" in first.hosts
        await network.detach("t1")

    async def test_a_namespace_lasts_until_it_is_detached(self, network, has_namespace):
        await network.attach(task(network_mode="none"))
        await network.adopt({"t1"})
        assert has_namespace("t1")
        for _ in range(2):
            await network.detach("t1")
        assert not has_namespace("t1")

    async def test_adopting_takes_what_only_others_had(self, network, has_namespace):
        await network.attach(task(network_mode="none"))
        await network.adopt({"another"})
        assert not has_namespace("t1")

    async def test_the_same_state_may_be_applied_again(self, network):
        one = task(network_mode="none")
        await network.attach(one)
        wanted = Wanted(NodeSelf(node="n", name="n"), {}, {}, {}, {"t1": one}, {"t1": True})
        for _ in range(2):
            await network.apply(wanted)
        await network.detach("t1")

    async def test_tasks_nobody_knows_are_fine(self, network):
        for _ in range(2):
            await network.detach("never-seen")
        await network.adopt({"never-seen"})
