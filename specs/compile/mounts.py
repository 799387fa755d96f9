"""What of the node or the stack a container sees as files: mounts, secrets, configs.

Part of the compiler of services; :mod:`specs.compile.service` calls it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from specs import paths
from specs.compile.values import given, listed, mapping, number, octal, size_bytes
from specs.stack import FileRef, Mount

if TYPE_CHECKING:
    from specs.compile.verdicts import Verdicts

Json = dict[str, Any]

# Docker's options of a tmpfs, but for those that every tmpfs has here or that have a field.
_TMPFS = re.compile(
    r"exec|suid|dev|(?:no|rel|strict)?atime|(?:no)?diratime|(?:a)?sync|dirsync|"
    r"size=[0-9]+%|[ug]id=[0-9]{1,10}|nr_(?:inodes|blocks)=[0-9]+[kmgKMG]?|mpol=[a-z0-9:,=-]+"
)
_TMPFS_HINT = "exec, suid, dev, ro, size=, mode=, uid=, gid=, nr_inodes=, nr_blocks=, noatime ..."


def _recursive(word: str | None) -> str | None:
    return word if word in ("disabled", "readonly") else None


class MountCompiler:
    """Compiles the mounts of one stack's services; ``directory`` is the project's."""

    def __init__(self, verdicts: Verdicts, directory: str) -> None:
        self.directory = directory.rstrip("/")
        self.verdicts = verdicts

    def mounts(self, path: str, raw: Json) -> tuple[Mount, ...]:
        """Return the volumes, binds and tmpfs of a service."""
        mounts = []
        for index, volume in enumerate(raw.get("volumes") or ()):
            mount = self._mount(f"{path}.volumes[{index}]", volume)
            if mount is not None:
                mounts.append(mount)
        mounts += [
            self._tmpfs(f"{path}.tmpfs[{index}]", entry)
            for index, entry in enumerate(listed(raw.get("tmpfs")))
        ]
        return tuple(mounts)

    def _tmpfs(self, path: str, entry: str) -> Mount:
        target, _, options = entry.partition(":")
        size = mode = None
        read_only = False
        kept = []
        for option in filter(None, options.split(",")):
            key, _, value = option.partition("=")
            if key == "size" and not value.endswith("%"):
                size = size_bytes(value)
            elif key == "mode":
                mode = octal(value)
            elif key == "ro":
                read_only = True
            elif _TMPFS.fullmatch(option):
                kept.append(option)
            elif key not in ("rw", "noexec", "nosuid", "nodev"):  # what every tmpfs has here
                self.verdicts.refuse(path, f"a tmpfs has no option `{option}`", _TMPFS_HINT)
        return Mount(
            type="tmpfs",
            target=target,
            tmpfs_size=size,
            tmpfs_mode=mode,
            tmpfs_options=tuple(kept),
            read_only=read_only,
        )

    def _mount(self, path: str, volume: Json) -> Mount | None:
        kind = volume.get("type")
        if kind not in ("volume", "bind", "tmpfs"):
            self.verdicts.refuse(
                f"{path}.type",
                f"mounts of type {kind} are not available",
                "use volume, bind or tmpfs",
            )
            return None
        if not str(volume.get("target") or "").startswith("/"):
            self.verdicts.refuse(
                path, "the mount has no absolute target", "add target:, a path in the container"
            )
            return None
        bind = mapping(volume.get("bind"))
        engine = paths.engine_of(volume.get("source") or "") if kind == "bind" else ""
        if engine:
            self.verdicts.warn(
                f"{path}.source",
                f"{volume['source']} shows {engine}'s containers of the node, not corral's",
                "it runs on nodes that have the path; leave it out where corral's are meant",
                code="engine-socket",
            )
        named = mapping(volume.get("volume"))
        tmpfs = mapping(volume.get("tmpfs"))
        subpath = str(named.get("subpath") or "")
        if subpath.startswith("/") or ".." in subpath.split("/"):
            self.verdicts.refuse(
                f"{path}.volume.subpath",
                f"subpath {subpath} does not stay in the volume",
                "write a path below the volume's top, without / at its start and without ..",
            )
            return None
        return Mount(
            type=kind,
            target=volume["target"],
            source=volume.get("source") or None,
            read_only=bool(volume.get("read_only")),
            nocopy=bool(named.get("nocopy")),
            subpath=subpath,
            relative=kind == "bind" and self._in_project(volume.get("source") or ""),
            tmpfs_size=size_bytes(tmpfs.get("size")),
            tmpfs_mode=octal(tmpfs.get("mode")),
            **given(
                create_host_path=bind.get("create_host_path"),
                propagation=bind.get("propagation") or None,
                recursive=_recursive(bind.get("recursive")),
            ),
        )

    def _in_project(self, source: str) -> bool:
        """Say whether a bind's source lies beside the Compose file, so only on its machine."""
        return bool(self.directory) and f"{source}/".startswith(f"{self.directory}/")

    def files(self, path: str, raw: Json, kind: str, base: str) -> tuple[FileRef, ...]:
        """Return the secrets or configs of a service, below ``base`` unless they say where."""
        refs = []
        for index, item in enumerate(raw.get(kind) or ()):
            source = str(item.get("source") or "")
            for key in ("uid", "gid"):
                if item.get(key) not in (None, "") and number(item[key]) is None:
                    self.verdicts.refuse(
                        f"{path}.{kind}[{index}].{key}",
                        f"{item[key]!r} is not a number",
                        "write the numeric id; names are known inside the image only",
                    )
            target = item.get("target") or source
            if not target.startswith("/"):
                target = f"{base.rstrip('/')}/{target}"
            refs.append(
                FileRef(
                    source=source,
                    target=target,
                    uid=number(item.get("uid")),
                    gid=number(item.get("gid")),
                    mode=octal(item.get("mode")),
                )
            )
        return tuple(refs)
