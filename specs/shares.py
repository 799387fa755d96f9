"""``driver_opts`` of a local volume: what may be mounted in place of a folder of the node. Pure.

A share of a server (NFS, CIFS) is the same on every node; memory (tmpfs) and a folder of the node
(``type: none, o: bind``) are their node's. Nothing else is mounted: a file system of any kind on a
device of the node would be the node's disks, its /proc, or somebody's parser of hostile images.
Options are known words only, each file system's own; what ends as root's argument to mount(2) is
read here, once: the compiler refuses by it with file and line, the agent once more.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from specs import names

if TYPE_CHECKING:
    from collections.abc import Mapping

HIDDEN: Final = "***"
_KEYS: Final = ("type", "o", "device")
# For every kind: what the mount is allowed, and words of /etc/fstab that mean nothing here.
GENERIC: Final = frozenset(
    ("ro", "noexec", "noatime", "nodiratime", "relatime", "strictatime", "sync", "dirsync")
)
_OF_COURSE: Final = frozenset(
    (
        *("rw", "nosuid", "nodev", "exec", "async", "atime", "defaults"),
        *("auto", "noauto", "nofail", "_netdev"),
    )
)
_NFS: Final = """
addr vers nfsvers minorversion proto port mountaddr mountport mountproto mountvers mounthost
clientaddr soft softerr hard intr nointr timeo retrans retry rsize wsize bsize namlen acregmin
acregmax acdirmin acdirmax actimeo ac noac cto nocto lookupcache lock nolock local_lock sec
sharecache nosharecache resvport noresvport rdirplus nordirplus acl noacl nconnect max_connect
trunkdiscovery notrunkdiscovery fsc nofsc tcp udp bg fg posix noposix
"""
_CIFS: Final = """
addr ip username user password pass domain dom workgroup vers sec uid gid forceuid forcegid
noforceuid noforcegid file_mode dir_mode port iocharset nobrl brl cache actimeo acregmax acdirmax
closetimeo handletimeout rsize wsize bsize soft hard noperm perm dynperm serverino noserverino
mfsymlinks seal sign nosharesock echo_interval max_credits mapposix mapchars nomapchars nocase
posix noposix unix nounix handlecache nohandlecache persistenthandles nopersistenthandles guest
nodfs noautotune rasize snapshot nodelete multichannel max_channels
"""
_TMPFS: Final = "size nr_blocks nr_inodes mode uid gid huge mpol"
# type -> (name for the kernel, its own options)
_KINDS: Final[dict[str, tuple[str, frozenset[str]]]] = {
    "nfs": ("nfs", frozenset(_NFS.split())),
    "nfs4": ("nfs4", frozenset(_NFS.split())),
    "cifs": ("cifs", frozenset(_CIFS.split())),
    "smb3": ("smb3", frozenset(_CIFS.split())),
    "tmpfs": ("tmpfs", frozenset(_TMPFS.split())),
    "none": ("bind", frozenset()),
    "bind": ("bind", frozenset()),
}
NETWORK: Final = frozenset({"nfs", "nfs4", "cifs", "smb3"})
_SECRET: Final = frozenset({"password", "pass"})
_VALUE: Final = re.compile(r"[^\s\\'\"\x00-\x1f\x7f]*")
_LONGEST: Final = 3000  # the kernel takes a page
_HINT: Final = (
    "type: nfs | cifs | tmpfs, or type: none with o: bind; anything else is mounted on the node"
    " by its owner, and used by o: bind"
)


class VolumeFault(ValueError):
    """These options make no volume; ``hint`` says what does."""

    def __init__(self, message: str, hint: str = _HINT) -> None:
        self.hint = hint
        super().__init__(message)


class Share(NamedTuple):
    """What to mount: ``kind`` nfs, nfs4, cifs, smb3, tmpfs, or bind, which needs no mount.

    ``flags`` are words of GENERIC, ``data`` the file system's own options in their order.
    ``host``: the server by name or address, empty where there is none.
    """

    kind: str
    source: str
    flags: tuple[str, ...] = ()
    data: tuple[tuple[str, str], ...] = ()
    host: str = ""
    recursive: bool = False

    @property
    def network(self) -> bool:
        """Whether it is the same on every node."""
        return self.kind in NETWORK


def read(options: Mapping[str, str]) -> Share | None:
    """Return what the options mean; None = a folder of the node, as ever. Raises VolumeFault."""
    given = {key: str(value) for key, value in options.items() if value not in (None, "")}
    if not given:
        return None
    for key in given:
        if key not in _KEYS:
            raise VolumeFault(f"a local volume has no option {names.shown(key)}", "type, o, device")
    words = [word.strip() for word in given.get("o", "").split(",") if word.strip()]
    kind, own = _kind(given.get("type", ""), words)
    flags, data = _sorted(kind, own, [w for w in words if w not in ("bind", "rbind")])
    source = given.get("device", "")
    if why := names.line_fault(source):
        raise VolumeFault(f"device: {why}", "one line of text")
    if kind == "bind":
        return Share(kind, _folder(source), flags, (), "", "rbind" in words)
    if kind == "tmpfs":
        return Share(kind, "tmpfs", flags, data)
    return Share(kind, source, flags, data, _host(kind, source, dict(data)))


def is_shared(options: Mapping[str, str]) -> bool:
    """Say whether a volume is the same on every node; what makes no sense is not."""
    try:
        share = read(options)
    except VolumeFault:
        return False
    return share is not None and share.network


def is_bind(options: Mapping[str, str]) -> bool:
    """Say whether a volume is a folder of the node that its owner chose."""
    try:
        share = read(options)
    except VolumeFault:
        return False
    return share is not None and share.kind == "bind"


def shown(options: Mapping[str, str]) -> dict[str, str]:
    """Return options as they may be shown: without a password."""
    return {key: _masked(text) if key == "o" else text for key, text in options.items()}


def _masked(text: str) -> str:
    parts = (part.partition("=") for part in text.split(","))
    return ",".join(
        f"{key}={HIDDEN}" if mark and key.strip() in _SECRET else key + mark + value
        for key, mark, value in parts
    )


def _kind(word: str, words: list[str]) -> tuple[str, frozenset[str]]:
    bind = "bind" in words or "rbind" in words
    found = _KINDS.get(word.lower() or ("none" if bind else ""))
    if found is None:
        raise VolumeFault(
            f"a volume of type {names.shown(word)} is not available" if word else "no type is given"
        )
    kind, own = found
    if bind is not (kind == "bind"):
        raise VolumeFault(
            f"type {word} is no bind" if bind else "type: none needs o: bind",
            "type: none, o: bind, device: /a/folder/of/the/node",
        )
    return kind, own


def _sorted(
    kind: str, own: frozenset[str], words: list[str]
) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    flags, data = [], []
    for word in words:
        key, mark, value = word.partition("=")
        if key in own:
            if not _VALUE.fullmatch(value):
                raise VolumeFault(f"option {key} has a value that is no word", "no spaces, quotes")
            data.append((key, value if mark else ""))
        elif word in GENERIC:
            flags.append(word)
        elif word not in _OF_COURSE:
            raise VolumeFault(_unknown(kind, key), _known(kind, own))
    if sum(len(key) + len(value) + 2 for key, value in data) > _LONGEST:
        raise VolumeFault(f"the options are longer than {_LONGEST} characters", "leave some out")
    return tuple(flags), tuple(data)


def _unknown(kind: str, key: str) -> str:
    if key in ("suid", "dev"):
        return f"o: {key} is not possible: a volume is data, without programs that become root"
    if key == "credentials":
        return "o: credentials is read by a program of the node that is not asked"
    return f"o: {names.shown(key)} is no option of {kind}"


def _known(kind: str, own: frozenset[str]) -> str:
    if kind in ("cifs", "smb3"):
        return "write username= and password=; ro, noexec, uid, gid, file_mode, dir_mode, vers ..."
    return "one of " + ", ".join(sorted({"ro", "rw", "noexec", *own} - {"bg", "fg"})[:40])


def _folder(source: str) -> str:
    if not source.startswith("/") or ".." in source.split("/"):
        raise VolumeFault(
            f"device {names.shown(source)} is not an absolute path" if source else "no device",
            "device: /a/folder/of/the/node",
        )
    return source.rstrip("/") or "/"


def _host(kind: str, source: str, data: Mapping[str, str]) -> str:
    given = data.get("addr") or data.get("ip") or ""
    if kind in ("cifs", "smb3"):
        found = re.fullmatch(r"//([^/]+)/.+", source.replace("\\", "/"))
        if found is None:
            raise VolumeFault(
                f"device {names.shown(source)} names no share", "device: //HOST/SHARE"
            )
        return given or found[1]
    host, colon, path = source.rpartition(":/")
    if not colon or path.startswith(".."):
        raise VolumeFault(f"device {names.shown(source)} names no export", 'device: "HOST:/PATH"')
    if not (given or host):
        raise VolumeFault("no server is named", "o: addr=HOST, or device: HOST:/PATH")
    return given or host.strip("[]")
