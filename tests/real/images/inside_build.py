"""Builds with buildah: bases from everywhere, cached, taken over, failing in words."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from specs.stack import BuildSpec, Healthcheck
from specs.wire import BuildImage
from tests.agent.images import tars

if TYPE_CHECKING:
    from pathlib import Path

    from agent.images.store import ImageStore


@pytest.fixture
def context(tmp_path: Path) -> Path:
    path = tmp_path / "context"
    path.mkdir()
    (path / "file").write_text("from the context\n")
    (path / "ignored").write_text("not for the image\n")
    (path / ".dockerignore").write_text("ignored\n")
    return path


async def build(
    store: ImageStore, context: Path, text: str, tag: str = "app", **more: object
) -> tuple[str, list[str]]:
    """Build an inline Dockerfile; returns digest and lines. A failure raises AssertionError."""
    spec = BuildSpec(context=str(context), dockerfile_inline=text, **more)  # type: ignore[arg-type]
    events = [event async for event in store.build(BuildImage(tag=tag, build=spec))]
    assert not events[-1].error, events[-1].error
    return events[-1].digest, [event.line for event in events[:-1]]


async def failing(store: ImageStore, context: Path, text: str, **more: object) -> str:
    with pytest.raises(AssertionError) as error:
        await build(store, context, text, **more)
    return str(error.value)


async def test_a_build_from_a_local_image(store, busybox, context) -> None:
    digest, lines = await build(
        store,
        context,
        "ARG BASE\nFROM ${BASE:-nothing}\n"
        "ARG GREETING\nRUN echo $GREETING > /greeting\n"
        "COPY . /ctx/\n"
        'HEALTHCHECK --interval=2s CMD ["true"]\nVOLUME /data\nUSER 7\nSTOPSIGNAL SIGQUIT\n'
        'ENTRYPOINT ["/bin/sh"]\nCMD []\n',
        args={"BASE": "busybox", "GREETING": "hello"},
        labels={"made": "here"},
        tags=("app:second",),
    )
    image = await store.ensure("app", "")
    assert image.digest == digest
    assert (await store.ensure("app:second", "")).digest == digest
    assert (image.entrypoint, image.command, image.user) == (("/bin/sh",), (), "7")
    assert (image.stop_signal, image.volumes) == ("SIGQUIT", ("/data",))
    assert image.healthcheck == Healthcheck(test=("CMD", "true"), interval=2.0)
    assert image.labels["made"] == "here"
    root = await store.mount("t1", digest)
    assert (root / "greeting").read_text() == "hello\n"
    assert sorted(os.listdir(root / "ctx")) == [".dockerignore", "file"]
    await store.discard("t1")
    assert any(line.startswith("STEP ") for line in lines)


async def test_the_same_build_is_cached_and_means_the_same_image(store, busybox, context) -> None:
    text = "FROM busybox\nRUN echo once\nCOPY file /file\n"
    first, lines = await build(store, context, text)
    assert "once" in lines
    again, lines = await build(store, context, text)
    assert again == first
    assert "once" not in lines
    (context / "file").write_text("changed\n")
    second, lines = await build(store, context, text)
    assert second != first
    assert "once" not in lines
    fresh, lines = await build(store, context, text, no_cache=True)
    assert "once" in lines
    assert fresh != second


async def test_two_services_with_one_build_get_one_image(store, busybox, context) -> None:
    text = "FROM busybox\nRUN sleep 0.2; echo x > /x\n"
    async with asyncio.TaskGroup() as group:
        jobs = [
            group.create_task(build(store, context, text, tag=tag)) for tag in ("web", "migrate")
        ]
    assert jobs[0].result()[0] == jobs[1].result()[0]
    assert "x" not in "".join(jobs[1].result()[1]) or len(store.content.records()) == 2


async def test_layers_of_the_base_are_not_copied_again(store, busybox, context) -> None:
    before = {path.name: path.stat().st_ino for path in store.content.blobs.iterdir()}
    digest, _ = await build(store, context, "FROM busybox\nCOPY file /file\n")
    after = {path.name: path.stat().st_ino for path in store.content.blobs.iterdir()}
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 3  # manifest, config, the one new layer
    base, made = store.content.record(busybox), store.content.record(digest)
    assert made.blobs[:1] == base.blobs


async def test_scratch_stages_and_images_of_other_builds(store, busybox, context) -> None:
    await build(store, context, "FROM scratch\nCOPY file /only\n", tag="only")
    root = await store.mount("t1", (await store.ensure("only", "")).digest)
    assert os.listdir(root) == ["only"]
    digest, _ = await build(
        store,
        context,
        "FROM busybox AS make\nRUN echo made > /made\n"
        "FROM unused:nowhere AS unused\n"
        "FROM scratch\nCOPY --from=make /made /made\nCOPY --from=only /only /copied\n",
    )
    root = await store.mount("t1", digest)
    assert sorted(os.listdir(root)) == ["copied", "made"]
    await store.discard("t1")


async def test_a_base_in_a_registry(store, registry, busybox_tar, context) -> None:
    registry.push("base/box:1", [busybox_tar.read_bytes()])
    base = f"{registry.address}/base/box:1"
    digest, _ = await build(store, context, f"FROM {base}\nRUN echo hi > /hi\n")
    record = store.content.record(digest)
    pulled = store.content.record(store.content.ref(base).digest)
    # The base's layer stays in the form the registry has.
    assert record.blobs[0] == pulled.blobs[0]
    newer = registry.push("base/box:1", [busybox_tar.read_bytes(), tars.archive(tars.file(b"n"))])
    again, _ = await build(store, context, f"FROM {base}\nRUN echo hi > /hi\n")
    assert again == digest
    fresh, _ = await build(store, context, f"FROM {base}\nRUN echo hi > /hi\n", pull=True)
    assert store.content.ref(base).digest == newer
    assert fresh != digest


async def test_a_base_that_changed_here_is_taken_anew(store, busybox, context) -> None:
    await build(store, context, "FROM busybox\nRUN echo 1 > /v\n", tag="base")
    one, _ = await build(store, context, "FROM base\nRUN cat /v\n")
    await build(store, context, "FROM busybox\nRUN echo 2 > /v\n", tag="base")
    two, lines = await build(store, context, "FROM base\nRUN cat /v\n")
    assert "2" in lines
    assert one != two


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "FROM busybox\nRUN echo before; false\n",
            "build of app failed at STEP 2/2: RUN echo before; false: exit status 1",
        ),
        ("FROM busybox\nCOPY nowhere /x\n", "STEP 2/2: COPY nowhere /x"),
        ("FROM busybox\nNONSENSE x\n", "Unknown instruction"),
        ("FROM nowhere:1\n", "cannot reach the registry for nowhere:1"),
        ("FROM Bad:1\n", "lower case"),
        ("", "build of app failed"),
    ],
)
async def test_failures_say_what_and_where(store, busybox, context, text, words) -> None:
    assert words in await failing(store, context, text)


async def test_bad_requests_are_refused_in_words(store, context) -> None:
    assert "is not a directory" in await failing(store, context / "no", "FROM scratch\n")
    text = "FROM scratch\nCOPY file /\n"
    assert "network 'bridge' is not supported" in await failing(
        store, context, text, network="bridge"
    )
    assert "lower case" in await failing(store, context, text, tag="App")
    spec = BuildSpec(context=str(context), dockerfile="Missing")
    [event] = [event async for event in store.build(BuildImage(tag="a", build=spec))]
    assert f"cannot read {context}/Missing: No such file" in event.error


async def test_build_arguments_are_not_on_the_command_line(store, busybox, context) -> None:
    await build(
        store,
        context,
        "FROM busybox\nARG TOKEN\n"
        'RUN test -n "$TOKEN" && ! grep -l canary-[7] /proc/[0-9]*/cmdline\n',
        args={"TOKEN": "canary-7"},
    )


async def test_no_network_when_asked(store, busybox, context) -> None:
    text = "FROM busybox\nRUN grep -q eth /proc/net/dev || echo none\n"
    _, lines = await build(store, context, text, network="none")
    assert "none" in lines


async def test_a_build_that_is_given_up_leaves_no_process_or_mount(store, busybox, context) -> None:
    spec = BuildSpec(
        context=str(context), dockerfile_inline="FROM busybox\nRUN echo started; sleep 600\n"
    )
    events = store.build(BuildImage(tag="app", build=spec))
    async with asyncio.timeout(30):
        async for event in events:
            if event.line == "started":
                break
    await events.aclose()
    # The next build clears what the killed one left, and works.
    store._builder._ready = False
    await build(store, context, "FROM busybox\nRUN echo fine\n")
