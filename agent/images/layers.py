"""One extracted directory per layer, by diffID, shared by every image on the node.

Called by the store with a blob; the work is done by the jailed child (agent.images.unpack),
this side checks digests and makes the result appear all at once. A layer is usable when its
``done`` file says that its data is on disk, or was written during this boot: after a power
cut a layer that had not reached the disk is unpacked again instead of trusted.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import os
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from agent.errors import Later, NoRoom, Refusal
from agent.images.reference import check_digest
from agent.linux import calls as kernel
from agent.linux.boot import boot_id
from specs.kit import disk
from specs.kit.failpoints import reached
from specs.kit.room import IMAGES

if TYPE_CHECKING:
    from pathlib import Path

    from agent.images.content import ImageFiles

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    """What one layer may cost at most; beyond it the layer is refused."""

    bytes: int = 64 << 30
    inodes: int = 750_000
    ratio: int = 200  # unpacked to packed ...
    ratio_free: int = 256 << 20  # ... once more than this was unpacked
    floor: int = IMAGES  # bytes left free on the disk
    seconds: int = 1800


@dataclass(frozen=True, slots=True)
class LayerMark:
    """The ``done`` file of a layer."""

    bytes: int
    inodes: int
    opaque_root: bool
    boot: str  # "" once the data is known to be on disk


class DamagedBlob(Exception):
    """The blob's bytes are not what its name says; it must be fetched again."""


_NAME_BITS: Final = 80  # of the diffID in a short link: nobody can aim at another's layer


class LayerStore:
    """The layers directory of one store."""

    def __init__(self, content: ImageFiles, limits: UnpackLimits) -> None:
        self._content = content
        self.limits = limits
        self._slots = asyncio.Semaphore(2)  # one jail per processor of a small machine
        self._boot = boot_id()

    def directory(self, diff_id: str) -> Path:
        """Return where the files of a layer are."""
        return self._content.layers / diff_id.removeprefix("sha256:") / "fs"

    def done(self, diff_id: str) -> LayerMark | None:
        """Return what is known of a usable layer; None = it has to be unpacked."""
        home = self.directory(diff_id).parent
        try:
            done = LayerMark(**json.loads((home / "done").read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        if done.boot not in ("", self._boot) or not (home / "fs").is_dir():
            return None
        return done

    def short_name(self, diff_id: str) -> str:
        """Return ``l/XXXX``, a link so short that 127 of them fit in one mount call."""
        raw = bytes.fromhex(diff_id.removeprefix("sha256:"))[: _NAME_BITS // 8]
        name = base64.b32encode(raw).decode().lower()
        link = self._content.short / name
        target = f"../layers/{diff_id.removeprefix('sha256:')}/fs"
        try:
            link.symlink_to(target)
        except FileExistsError:
            if str(link.readlink()) != target:
                raise Refusal("two layers share the beginning of their digest") from None
        return f"l/{name}"

    async def unpack(self, blob: Path, digest: str, diff_id: str | None) -> str:
        """Make the layer usable from ``blob``, whose digest is verified on the way.

        ``diff_id`` None = whatever it turns out to be. Returns it. Raises DamagedBlob,
        Refusal, Later.
        """
        async with self._slots:
            if diff_id and self.done(diff_id):
                return diff_id
            if self._content.crowded():
                raise Later("what refused images left behind is still being deleted; trying again")
            with self._content.stage() as stage:
                return await self._unpack(stage / "layer", blob, digest, diff_id)

    async def _unpack(self, home: Path, blob: Path, digest: str, diff_id: str | None) -> str:
        files = home / "fs"
        files.mkdir(parents=True)
        files.chmod(0o755)  # the container's "/", whatever the agent's umask is
        result = await self._child(files, blob)
        if "error" in result:
            if result.get("kind") == "space":
                raise NoRoom(f"cannot unpack a layer: {result['error']} ({self._content.root})")
            raise Refusal(f"layer {digest[:19]} cannot be unpacked: {result['error']}")
        if result["blob"] != digest:
            raise DamagedBlob(digest)
        found = check_digest(str(result["diff_id"]))
        if diff_id and found != diff_id:
            raise Refusal(
                f"layer {digest[:19]} holds other files than the image's config promises "
                f"({found[:19]} instead of {diff_id[:19]})"
            )
        done = LayerMark(
            bytes=int(str(result["bytes"])),
            inodes=int(str(result["inodes"])),
            opaque_root=result["opaque_root"] is True,
            boot=self._boot,
        )
        if result["skipped"]:
            log.info(
                "device nodes in a layer were left out",
                extra={"layer": found, "count": result["skipped"]},
            )
        (home / "done").write_text(json.dumps(asdict(done)))
        await asyncio.to_thread(self._place, home, found)  # a busy disk takes its time
        return found

    def _place(self, home: Path, diff_id: str) -> None:
        target = self.directory(diff_id).parent
        reached("image.before_layer")
        try:
            home.rename(target)
        except OSError:
            if self.done(diff_id):
                return  # another process was quicker
            # A leftover of another boot or a damaged one stands there: swap it away.
            target.rename(home.with_name("old"))
            home.rename(target)

    async def _child(self, files: Path, blob: Path) -> dict[str, object]:
        limits = asdict(self.limits) | {"parent": os.getpid()}
        environment = {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "PATH": os.defpath,
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        try:
            source = os.open(blob, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise DamagedBlob(blob.name) from None
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "agent.images.unpack", str(files), json.dumps(limits)),
                stdin=source,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
            )
        finally:
            os.close(source)
        try:
            async with asyncio.timeout(self.limits.seconds):
                out, err = await process.communicate()
        except TimeoutError:
            raise Later(f"unpacking a layer took more than {self.limits.seconds} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        try:
            result = json.loads(out)
        except ValueError:
            tail = err.decode(errors="replace").strip().splitlines()[-1:]
            raise Later(
                f"the unpacking process ended with {process.returncode} "
                f"({tail[0] if tail else 'no message'})"
            ) from None
        if not isinstance(result, dict):
            raise Later("the unpacking process gave no result")
        return result

    def make_durable(self, diff_ids: tuple[str, ...]) -> None:
        """Write layers to disk and say so in their ``done`` files. Blocks."""
        fresh = [d for d in diff_ids if (done := self.done(d)) and done.boot]
        if not fresh:
            return
        fd = os.open(self._content.layers, os.O_RDONLY | os.O_DIRECTORY)
        try:
            kernel.syncfs(fd)
        finally:
            os.close(fd)
        for diff_id in fresh:
            done = self.done(diff_id)
            if done:
                path = self.directory(diff_id).parent / "done"
                with contextlib.suppress(FileNotFoundError):  # collected meanwhile
                    disk.write_file(path, json.dumps(asdict(done) | {"boot": ""}).encode())

    def remove(self, diff_id: str) -> None:
        """Delete a layer nobody mounts."""
        home = self.directory(diff_id).parent
        with self._content.stage() as stage, contextlib.suppress(FileNotFoundError):
            home.rename(stage / "old")
            disk.remove_tree(stage / "old")  # we are in a thread: who prunes wants the room
        name = self.short_name(diff_id)
        (self._content.root / name).unlink(missing_ok=True)
