"""Build images with buildah and take them into the node's store.

Called by the store for POST /v1/builds. Bases come through the store's ``resolve`` first (so that a
locally built name, a registry's image and a pull policy mean the same as everywhere), then
buildah builds with its layer cache below our state directory, then only blobs the store
does not have are taken over. Each buildah runs in its own mount and pid namespaces: when
it or the agent is killed, every process and mount of the build is gone with it.

RUN steps run chrooted as root with the host's network (or none): a Dockerfile is trusted
like the person who runs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.errors import Later, Refusal
from agent.images import dockerfile
from agent.images.manifest import Manifest, docker_type, parse_manifest
from agent.images.proxy import opened
from agent.images.pull import PROXY, run, said
from agent.images.reference import check_digest, parse
from specs.base import canonical_json, content_hash
from specs.kit import disk, reading
from specs.kit.errnos import in_words
from specs.wire import BuildEvent, ResolveImage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from agent.images.assemble import Assembly
    from specs.stack import BuildSpec
    from specs.wire import BuildImage, ResolvedImage

log = logging.getLogger(__name__)
BUILD_SECONDS: Final = 7200.0
TOOL_SECONDS: Final = 900.0
_LINE: Final = 8192
_STEP: Final = re.compile(r"(?:\[\d+/\d+\] )?STEP (\d+/\d+: .*)")
# buildah's own log, and what the error event says better.
_NOISE: Final = re.compile(r"Error: |error: |subprocess exited with|time=\"\S+ level=")
_PRIVATE: Final = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount")
_CONFINED: Final = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"),
)
_IGNORE_FILES: Final = (".containerignore", ".dockerignore")
_PROXIES: Final = ("http_proxy", "https_proxy", "no_proxy")


class Builder:
    """buildah and its storage, for one image store."""

    def __init__(
        self,
        assembly: Assembly,
        resolve: Callable[[ResolveImage], Awaitable[ResolvedImage]],
        environment: Mapping[str, str],
        run_dir: Path,
    ) -> None:
        self._assembly = assembly
        self._content = assembly.content
        self._resolve = resolve
        self._given = environment
        self._home = self._content.root / "build"
        self._run = run_dir / "build"
        self._imported = self._home / "storage" / "corral-bases.json"
        self._bases = asyncio.Lock()
        self._same: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._ready = False
        self._environment: dict[str, str] = {}

    async def build(self, request: BuildImage) -> AsyncIterator[BuildEvent]:
        """Yield output lines; the last event has ``digest`` or ``error``.

        Builds of one Dockerfile wait for each other: where two services have the same build, the
        second one finds the first one's layers, and both mean the same image; other targets
        and arguments find the steps that they share, and do not install everything twice.
        """
        build = request.build
        key = content_hash((build.context, build.dockerfile, build.dockerfile_inline))
        lock = self._same.setdefault(key, asyncio.Lock())
        async with lock:
            async for event in self._build(request):
                yield event

    async def _build(self, request: BuildImage) -> AsyncIterator[BuildEvent]:
        step = ""
        try:
            with self._content.stage() as stage:
                names = [parse(name).name for name in (request.tag, *request.build.tags)]
                # In a thread: what the user calls a Dockerfile may be a pipe that is waited for.
                text, path = await asyncio.to_thread(_dockerfile, request.build, stage)
                await self._prepare()
                for image in dockerfile.bases(text, request.build.args, request.build.target):
                    yield BuildEvent(line=f"FROM {image}: {await self._base(image, request.build)}")
                command = self._command(request.build, path, stage / "id")
                last = ""
                async with asyncio.timeout(BUILD_SECONDS):
                    async for line in self._lines(command, request.build, stage):
                        if line.startswith(("Error: ", "error: ")):
                            last = line
                        if _NOISE.match(line):
                            continue
                        match = _STEP.match(line)
                        step = match[1] if match else step
                        yield BuildEvent(line=line)
                if not (stage / "id").exists():
                    yield BuildEvent(error=_failure(request.tag, step, last))
                    return
                image_id = check_digest((stage / "id").read_text().strip())
                yield BuildEvent(digest=await self._take(image_id, names))
        except TimeoutError:
            yield BuildEvent(error=_failure(request.tag, step, f"no end in {BUILD_SECONDS:.0f} s"))
        except (Refusal, Later) as error:
            yield BuildEvent(error=f"build of {request.tag}: {error}")
        except OSError as error:
            yield BuildEvent(error=f"build of {request.tag}: {error.filename}: {in_words(error)}")

    # before: storage and bases

    async def _prepare(self) -> None:
        """Make buildah's directories and settings, and clear what a killed build left."""
        async with self._bases:
            if self._ready:
                return
            await asyncio.to_thread(self._write_settings)  # onto a disk: not the loop's to wait for
            given = self._given
            self._environment = {
                "PATH": given.get("PATH", os.defpath),
                "HOME": str(self._home),
                "LC_ALL": "C.UTF-8",
                "CONTAINERS_STORAGE_CONF": str(self._home / "storage.conf"),
                "CONTAINERS_REGISTRIES_CONF": str(self._home / "registries.conf"),
                "CONTAINERS_CONF": str(self._home / "containers.conf"),
            }
            for name in _PROXIES:
                for spelling in (name, name.upper()):
                    if spelling in given:
                        self._environment[spelling] = given[spelling]
            if (self._home / "storage").exists():
                await self._tool("buildah", "rm", "--all")
            self._ready = True

    def _write_settings(self) -> None:
        for path in (self._home, self._run):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        settings = {
            "storage.conf": (
                f'[storage]\ndriver = "overlay"\ngraphroot = "{self._home}/storage"\n'
                f'runroot = "{self._run}"\n'
            ),
            "registries.conf": (
                'unqualified-search-registries = ["docker.io"]\nshort-name-mode = "permissive"\n'
            ),
            "policy.json": '{"default": [{"type": "insecureAcceptAnything"}]}\n',
            "containers.conf": "",
        }
        for name, text in settings.items():
            path = self._home / name
            if not path.exists() or path.read_text() != text:
                disk.write_file(path, text.encode())

    async def _base(self, image: str, build: BuildSpec) -> str:
        """Make a base known to buildah; returns its digest for people."""
        reference = parse(image)
        ref = self._content.ref(reference.name)
        # What was built or imported here has no registry to be newer.
        local = ref is not None and ref.source != "pulled"
        policy = "always" if build.pull and not local else "missing"
        resolved = await self._resolve(ResolveImage(image=image, policy=policy))
        async with self._bases:
            known = self._read_imported()
            if known.get(str(reference)) != resolved.digest:
                await self._hand_over(str(reference), resolved.digest)
                known[str(reference)] = resolved.digest
                text = json.dumps(known, sort_keys=True)
                await asyncio.to_thread(disk.write_file, self._imported, text.encode())
        return resolved.digest[7:19]

    def _read_imported(self) -> dict[str, str]:
        try:
            value = json.loads(self._imported.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    async def _hand_over(self, name: str, digest: str) -> None:
        """Copy an image of ours into buildah's storage."""
        content = self._content
        record = content.record(digest)
        if record is None:
            raise Later(f"image {digest[:19]} was removed from this node meanwhile")
        with content.stage() as stage:
            for blob in {record.config, *record.blobs}:
                (stage / blob.removeprefix("sha256:")).hardlink_to(content.blob(blob))
            (stage / "manifest.json").hardlink_to(content.blob(record.manifest))
            (stage / "version").write_text("Directory Transport Version: 1.1\n")
            await self._tool(
                *("skopeo", "--insecure-policy", "copy", "--quiet"),
                f"dir:{stage}",
                f"containers-storage:{name}",
            )

    async def _tool(self, *command: str) -> bytes:
        async with asyncio.timeout(TOOL_SECONDS):
            code, out, err = await run(["unshare", "--mount", *command], self._environment)
        if code:
            raise Later(f"{command[0]}: {said(err.decode(errors='replace'))}")
        return out

    # the build itself

    def _command(self, build: BuildSpec, path: str, id_file: Path) -> list[str]:
        ignore = Path(build.context) / f"{build.dockerfile}.dockerignore"
        command = [
            *_CONFINED,
            *(("--net",) if build.network == "none" else ()),
            *("buildah", "build", "--isolation", "chroot", "--format", "docker", "--layers"),
            *("--pull=false", "--iidfile", str(id_file), "--file", path),
            *("--signature-policy", str(self._home / "policy.json")),
        ]
        for name, value in sorted(build.args.items()):
            # Values go through the environment where they can: argv is for all to read.
            taken = name in self._environment or not name.isidentifier()
            command += ["--build-arg", f"{name}={value}" if taken else name]
        for name, value in sorted(build.labels.items()):
            command += ["--label", f"{name}={value}"]
        for host, address in build.extra_hosts:
            command += ["--add-host", f"{host}:{address}"]
        if build.dockerfile_inline is None and ignore.is_file():
            command += ["--ignorefile", str(ignore)]
        if build.target:
            command += ["--target", build.target]
        if build.no_cache:
            command.append("--no-cache")
        return [*command, build.context]

    async def _lines(self, command: list[str], build: BuildSpec, stage: Path) -> AsyncIterator[str]:
        arguments = {key: value for key, value in build.args.items() if key.isidentifier()}
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=arguments | self._environment | {"TMPDIR": str(stage)},
        )
        try:
            assert process.stdout is not None
            rest = b""
            while chunk := await process.stdout.read(65536):
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    yield _text(line)
                while len(rest) > _LINE:
                    yield _text(rest[:_LINE])
                    rest = rest[_LINE:]
            if rest:
                yield _text(rest)
            await process.wait()
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    # after: into the store

    async def _take(self, image_id: str, names: list[str]) -> str:
        """Take the built image over; layers the store has are not copied again."""
        source = f"containers-storage:@{image_id.removeprefix('sha256:')}"
        raw = await self._tool("skopeo", "inspect", "--raw", source)
        command = [*_PRIVATE[3:], "skopeo", "--insecure-policy", PROXY]
        diff_ids = await self._diff_ids(source)
        manifest = await asyncio.to_thread(self._own_manifest, raw, diff_ids)

        def explain(words: str) -> Exception:
            return Later(f"cannot take the image over from buildah: {words}")

        stage = self._content.stage
        async with opened(command, source, self._environment, explain, stage) as blobs:
            digest = await self._assembly.adopt(manifest, names[0], "built", blobs)
        for name in names[1:]:
            await self._assembly.name(name, digest, "built")
        return digest

    async def _diff_ids(self, source: str) -> list[str]:
        config = json.loads(await self._tool("skopeo", "inspect", "--config", "--raw", source))
        return [check_digest(item) for item in config["rootfs"]["diff_ids"]]

    def _own_manifest(self, raw: bytes, diff_ids: list[str]) -> bytes:
        """Return buildah's manifest with layers the store has packed in their packed form."""
        parsed = parse_manifest(raw)
        value = json.loads(raw)
        if not isinstance(parsed, Manifest) or len(parsed.layers) != len(diff_ids):
            raise Later("buildah made an image that is not understood")
        known = self._assembly.packed()
        for layer, diff_id in zip(value["layers"], diff_ids, strict=True):
            have = known.get(diff_id)
            if have:
                kind = docker_type(have.media_type)
                layer |= {"digest": have.digest, "size": have.size, "mediaType": kind}
        return canonical_json(value)


def _dockerfile(build: BuildSpec, stage: Path) -> tuple[str, str]:
    """Return the Dockerfile's text, and the path of what buildah is to read. Raises Refusal."""
    context = Path(build.context)
    if not context.is_absolute() or not context.is_dir():
        raise Refusal(f"the build context {build.context} is not a directory on this machine")
    if build.network not in (None, "", "default", "host", "none"):
        raise Refusal(f"build.network {build.network!r} is not supported: host or none")
    path = context / build.dockerfile
    text = build.dockerfile_inline
    try:
        if text is None:
            text = reading.read(str(path)).decode(errors="surrogateescape")
        for path in (context / name for name in _IGNORE_FILES):
            if path.exists():  # buildah would wait for a pipe
                reading.read(str(path))
    except OSError as error:
        raise Refusal(f"cannot read {path}: {in_words(error)}") from None
    made = dockerfile.keyed(text, build.args)
    if made == text and build.dockerfile_inline is None:
        return text, str(context / build.dockerfile)
    (stage / "Dockerfile").write_text(made, errors="surrogateescape")
    return text, str(stage / "Dockerfile")


def _text(line: bytes) -> str:
    """Return a line as it looks in the end: what a progress display wrote over is not told."""
    return line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace")[:_LINE]


def _failure(tag: str, step: str, words: str) -> str:
    """Say which step failed and what buildah said, once."""
    reason = re.sub(r"^[Ee]rror: (building at STEP \".*\": )?", "", words)
    reason = (
        reason.partition(" &imagebuilder.Step")[0].removeprefix("while running runtime: ")
        or "buildah ended without a word"
    )
    where = f" at STEP {step}" if step else ""
    return f"build of {tag} failed{where}: {reason}"
