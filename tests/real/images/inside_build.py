"""Builds with buildah: bases from everywhere, cached, taken over, failing in words."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from agent.images.store import ImageStore
from specs.kit.programs import SYSTEM_PATH
from specs.stack import BuildSpec, Healthcheck
from specs.wire import BuildImage
from tests.agent.images import tars

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def context(tmp_path: Path) -> Path:
    path = tmp_path / "context"
    path.mkdir()
    (path / "file").write_text("from the context\n")
    (path / "ignored").write_text("not for the image\n")
    (path / ".dockerignore").write_text("ignored\n")
    return path


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
async def with_busybox(kept: Path, busybox_tar: Path) -> AsyncIterator[ImageStore]:
    """A store with busybox, where each test finds what earlier ones built and cached.

    For what does not ask for an empty store: buildah takes the base over once, not each time.
    """
    async with ImageStore(kept / "state", kept / "run") as images:
        if not images.has("busybox", "kept"):
            config = {"config": {"Cmd": ["sh"], "Env": [f"PATH={SYSTEM_PATH}"]}}
            await images.add("busybox", busybox_tar, config, "kept")
        yield images


async def build(
    store: ImageStore, context: Path, text: str, tag: str = "app", **more: object
) -> tuple[str, list[str]]:
    """Build an inline Dockerfile; returns digest and lines. A failure raises AssertionError."""
    spec = BuildSpec(context=str(context), dockerfile_inline=text, **more)  # type: ignore[arg-type]
    events = [event async for event in store.build(BuildImage(tag=tag, build=spec))]
    assert not events[-1].error, events[-1].error
    return events[-1].digest, [event.line for event in events[:-1]]


def from_cache(lines: list[str], step: str) -> bool:
    """Say whether buildah found the step in its cache."""
    at = next(i for i, line in enumerate(lines) if line.startswith("STEP ") and step in line)
    rest = lines[at + 1 :]
    end = next((i for i, line in enumerate(rest) if line.startswith("STEP ")), len(rest))
    return any("Using cache" in line for line in rest[:end])


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
    assert not from_cache(lines, "RUN echo once")
    again, lines = await build(store, context, text)
    assert again == first
    assert from_cache(lines, "RUN echo once")
    (context / "file").write_text("changed\n")
    second, lines = await build(store, context, text)
    assert second != first
    assert from_cache(lines, "RUN echo once")
    fresh, lines = await build(store, context, text, no_cache=True)
    assert not from_cache(lines, "RUN echo once")
    assert fresh != second


async def test_two_services_with_one_build_get_one_image(store, busybox, context) -> None:
    text = "FROM busybox\nRUN sleep 0.2; echo x > /x\n"
    async with asyncio.TaskGroup() as group:
        jobs = [
            group.create_task(build(store, context, text, tag=tag)) for tag in ("web", "migrate")
        ]
    assert jobs[0].result()[0] == jobs[1].result()[0]
    assert "x" not in "".join(jobs[1].result()[1]) or len(store.content.records()) == 2


async def test_targets_of_one_dockerfile_take_their_common_steps_once(
    with_busybox, context
) -> None:
    text = "FROM busybox AS base\nRUN sleep 0.2; echo common\nFROM base AS a\nFROM base AS b\n"
    async with asyncio.TaskGroup() as group:
        jobs = [
            group.create_task(build(with_busybox, context, text, tag=tag, target=tag))
            for tag in ("a", "b")
        ]
    cached = [any("Using cache" in line for line in job.result()[1]) for job in jobs]
    assert sorted(cached) == [False, True]


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
    text = 'FROM base\nRUN test "$(cat /v)" = {}\n'
    one, _ = await build(store, context, text.format(1))
    await build(store, context, "FROM busybox\nRUN echo 2 > /v\n", tag="base")
    two, _ = await build(store, context, text.format(2))
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
async def test_failures_say_what_and_where(with_busybox, context, text, words) -> None:
    assert words in await failing(with_busybox, context, text)


async def test_bad_requests_are_refused_in_words(store, context) -> None:
    assert "is not a directory" in await failing(store, context / "no", "FROM scratch\n")
    text = "FROM scratch\nCOPY file /\n"
    assert "network 'bridge' is not supported" in await failing(
        store, context, text, network="bridge"
    )
    assert "lower case" in await failing(store, context, text, tag="App")
    spec = BuildSpec(context=str(context), dockerfile="Missing")
    [event] = [event async for event in store.build(BuildImage(tag="a", build=spec))]
    assert f"cannot read {context}/Missing: it is not there" in event.error


async def test_build_arguments_are_not_on_the_command_line(with_busybox, context) -> None:
    await build(
        with_busybox,
        context,
        "FROM busybox\nARG TOKEN\n"
        'RUN test -n "$TOKEN" && ! grep -l canary-[7] /proc/[0-9]*/cmdline\n',
        args={"TOKEN": "canary-7"},
    )


async def test_no_network_when_asked(with_busybox, context) -> None:
    text = "FROM busybox\nRUN ! grep -q eth /proc/net/dev\n"
    await build(with_busybox, context, text, network="none")


async def test_a_build_that_is_given_up_leaves_no_process_or_mount(store, busybox, context) -> None:
    spec = BuildSpec(
        context=str(context), dockerfile_inline="FROM busybox\nRUN echo started; sleep 600\n"
    )
    events = store.build(BuildImage(tag="app", build=spec))
    async with asyncio.timeout(120):
        async for event in events:
            if event.line == "started":
                break
    await events.aclose()
    # The next build clears what the killed one left, and works.
    store._builder._ready = False
    await build(store, context, "FROM busybox\nRUN echo fine\n")


@pytest.mark.parametrize(
    ("steps", "kept_as"),
    [
        ("ARG TAG\nENV VALUE=v$TAG", "env"),
        ("ARG TAG=0\nENV OTHER=1 VALUE=v${TAG}", "env"),
        ("ARG TAG\nARG MORE=v$TAG\nENV VALUE=$MORE", "env"),
        ("ARG TAG\nLABEL value=v$TAG", "label"),
        ("ARG TAG\nWORKDIR /v$TAG", "directory"),
        ("ARG TAG\nUSER v$TAG", "user"),
        ("ARG TAG\nCOPY file /v$TAG", "file"),
        ("ARG TAG\nRUN echo v$TAG > /v$TAG", "file"),
        ("ARG TAG\nENV VALUE=v$TAG\nRUN echo > /$VALUE", "file"),
    ],
)
async def test_each_build_has_the_values_of_its_own_arguments(
    with_busybox, context, steps, kept_as
) -> None:
    """buildah finds `ENV VALUE=$TAG` in its cache, whatever TAG was when it was made."""
    text = f"FROM busybox\nRUN echo for {steps.encode().hex()}\n{steps}\n"
    found: dict[str, str] = {}
    for turn, tag in enumerate(("1", "2", "1")):
        digest, lines = await build(with_busybox, context, text, args={"TAG": tag})
        # What it printed is no sign: buildah may lose the output of a command that ends at once.
        assert from_cache(lines, "RUN echo for") is (turn > 0), "the cache serves what is above"
        assert found.setdefault(tag, digest) == digest  # and the same build again
        image = await with_busybox.ensure("app", "")
        root = await with_busybox.mount("t1", digest)
        files = os.listdir(root)
        await with_busybox.discard("t1")
        assert (
            f"v{tag}"
            in {
                "env": [image.environment.get("VALUE")],
                "label": [image.labels.get("value")],
                "directory": [image.working_dir.removeprefix("/")],
                "user": [image.user],
                "file": files,
            }[kept_as]
        ), (turn, tag)
    assert len(set(found.values())) == 2


async def test_another_default_is_another_build(with_busybox, context) -> None:
    for tag in ("1", "2", "1"):
        await build(with_busybox, context, f"FROM busybox\nARG TAG={tag}\nENV VALUE=$TAG\n")
        assert (await with_busybox.ensure("app", "")).environment["VALUE"] == tag


async def test_a_dockerfile_has_its_own_ignore_file(with_busybox, context) -> None:
    """Also when what buildah reads is a copy with the cache's key in it."""
    (context / "Own").write_text("FROM busybox\nARG TAG\nENV A=$TAG\nCOPY . /ctx/\n")
    (context / "Own.dockerignore").write_text("file\nOwn*\n.*\n")
    spec = BuildSpec(context=str(context), dockerfile="Own", args={"TAG": "1"})
    events = [event async for event in with_busybox.build(BuildImage(tag="app", build=spec))]
    root = await with_busybox.mount("t1", events[-1].digest)
    assert os.listdir(root / "ctx") == ["ignored"]
    await with_busybox.discard("t1")


@pytest.mark.parametrize("name", ["Dockerfile", ".dockerignore", ".containerignore"])
async def test_a_pipe_instead_of_a_file_ends_the_build(with_busybox, context, name) -> None:
    if name != "Dockerfile":
        (context / "Dockerfile").write_text("FROM busybox\n")
    (context / name).unlink(missing_ok=True)
    os.mkfifo(context / name)
    spec = BuildSpec(context=str(context))
    async with asyncio.timeout(60):
        events = [event async for event in with_busybox.build(BuildImage(tag="app", build=spec))]
    assert "named pipe" in events[-1].error


async def test_a_pipe_in_the_context_does_not_hold_the_build(with_busybox, context) -> None:
    os.mkfifo(context / "pipe")
    async with asyncio.timeout(120):
        await build(with_busybox, context, "FROM busybox\nCOPY file /file\n")
