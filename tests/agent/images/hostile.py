"""Archives that try to get out of their directory, lie, or eat the node: as data.

``CASES`` maps a name to a function of the sentinel directory's path giving (members, verdict).
The verdict is the words of the refusal, or "" when the archive may be unpacked, contained.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.agent.images import tars
from tests.agent.images.tars import device, directory, file, hardlink, header, pax, symlink

Case = Callable[[bytes], tuple[list[bytes], str]]
CASES: Final[dict[str, Case]] = {}


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


def simple(name: str, verdict: str, *members: bytes | Callable[[bytes], bytes]) -> None:
    def build(out: bytes) -> tuple[list[bytes], str]:
        return [member(out) if callable(member) else member for member in members], verdict

    CASES[name] = build


OUT = "leads out of the layer"
# names
simple("parent", OUT, file(b"../evil", b"x"))
simple("parent_inside", OUT, directory(b"a"), file(b"a/../../evil", b"x"))
simple("absolute_parent", OUT, file(b"/../evil", b"x"))
simple("many_parents", OUT, file(b"../" * 30 + b"evil", b"x"))
simple("absolute", "", lambda out: file(out + b"/evil", b"x"))
simple("lexical_parent", "", directory(b"a"), file(b"a/../b", b"x"))
simple("prefix_parent", OUT, header(b"evil", prefix=b"../.."))
simple("pax_path_parent", OUT, pax([("path", b"../evil")]), file(b"good", b"x"))
simple("gnu_name_parent", OUT, tars.extended(b"L", b"../evil\0"), file(b"good", b"x"))
simple("directory_parent", OUT, directory(b"../evildir"))
simple("root_as_link", "", lambda out: symlink(b"./", out), file(b"evil", b"x"))
simple("too_deep", "nested too deeply", pax([("path", b"d/" * 600 + b"f")]), file(b"f", b"x"))
simple("component_too_long", "too long", pax([("path", b"n" * 300)]), file(b"f", b"x"))
simple("path_max", "too long", pax([("path", b"/".join([b"n" * 200] * 30))]), file(b"f", b"x"))

# writing through links
simple(
    "link_then_file", "is not a directory", lambda out: symlink(b"a", out), file(b"a/evil", b"x")
)
simple("relative_link_then_file", "", symlink(b"a", b"../../../../.."), file(b"a/evil", b"x"))
simple("link_to_root_then_file", "", symlink(b"a", b"/"), file(b"a/evil", b"x"))
simple("link_then_directory", "", lambda out: symlink(b"a", out), directory(b"a", 0o777))
simple(
    "link_then_chmod_file",
    "",
    lambda out: symlink(b"a", out + b"/keep"),
    file(b"a", b"x", mode=0o777),
)
simple("directory_becomes_link", "is not a directory", directory(b"d"), file(b"d/f", b"1"),
       lambda out: symlink(b"d", out), file(b"d/evil", b"x"))  # fmt: skip
simple("link_chain", "is not a directory", lambda out: symlink(b"a", out), symlink(b"b", b"a"),
       symlink(b"c", b"b"), file(b"c/evil", b"x"))  # fmt: skip
simple("link_loop", "symbolic links", symlink(b"a", b"b"), symlink(b"b", b"a"), file(b"a/x", b"x"))
simple(
    "proc_magic_link",
    "is not a directory",
    symlink(b"a", b"/proc/self/root"),
    file(b"a/evil", b"x"),
)
simple(
    "proc_cwd_link",
    "is not a directory",
    symlink(b"a", b"/proc/self/cwd/.."),
    file(b"a/evil", b"x"),
)
simple(
    "descriptor_link",
    "is not a directory",
    symlink(b"a", b"/proc/self/fd/0"),
    file(b"a/evil", b"x"),
)
simple(
    "link_under_link",
    "is not a directory",
    lambda out: symlink(b"a", out),
    symlink(b"a/evil", b"/etc/passwd"),
)
simple(
    "fifo_under_link",
    "is not a directory",
    lambda out: symlink(b"a", out),
    header(b"a/evil", kind=b"6"),
)

# hard links
simple("hardlink_outside", "which is not there", lambda out: hardlink(b"h", out + b"/keep"))
simple("hardlink_parent", OUT, hardlink(b"h", b"../../../../etc/passwd"))
simple(
    "hardlink_through_link",
    "which is not there",
    lambda out: symlink(b"d", out),
    hardlink(b"h", b"d/keep"),
)
simple("hardlink_to_link_then_write", "", lambda out: symlink(b"s", out + b"/keep"),
       hardlink(b"h", b"s"), file(b"h", b"overwritten"))  # fmt: skip
simple("hardlink_to_directory", "Operation not permitted", directory(b"d"), hardlink(b"h", b"d"))
simple("hardlink_missing", "which is not there", hardlink(b"h", b"nowhere"))
simple("hardlink_to_itself", "", file(b"f", b"1"), hardlink(b"f", b"f"))
simple("hardlink_via_proc", "which is not there", hardlink(b"h", b"/proc/self/exe"))

# whiteouts
simple("whiteout_parent", "not a valid whiteout", directory(b"a"), file(b"a/.wh..."))
simple("whiteout_self", "not a valid whiteout", file(b".wh.."))
simple("whiteout_nothing", "not a valid whiteout", file(b".wh."))
simple("whiteout_parent_path", OUT, file(b"../.wh.keep"))
simple(
    "whiteout_through_link",
    "is not a directory",
    lambda out: symlink(b"a", out),
    file(b"a/.wh.keep"),
)
simple(
    "opaque_through_link",
    "is not a directory",
    lambda out: symlink(b"a", out),
    file(b"a/.wh..wh..opq"),
)
simple("below_whiteout", "below a whiteout", file(b".wh.foo/bar", b"x"))
simple(
    "aufs_bookkeeping",
    "",
    directory(b".wh..wh.plnk"),
    file(b".wh..wh.plnk/1.2", b"x"),
    file(b".wh..wh.aufs"),
)

# special files and attributes
simple("disk_device", "", device(b"disk", b"4", 8, 0))
simple("memory_device", "", device(b"mem", b"3", 1, 1))
simple("whiteout_as_device", "", device(b"gone", b"3", 0, 0))
simple("device_over_link", "", lambda out: symlink(b"n", out + b"/keep"), device(b"n", b"3", 1, 3))
simple("overlay_attributes", "", pax([
    ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
    ("SCHILY.xattr.trusted.overlay.redirect", b"/../../etc"),
    ("SCHILY.xattr.trusted.overlay.metacopy", b""),
    ("SCHILY.xattr.user.overlay.opaque", b"y"),
    ("SCHILY.xattr.security.selinux", b"x"),
    ("SCHILY.xattr.system.posix_acl_access", b"x"),
]), directory(b"d"))  # fmt: skip
simple(
    "bad_capability",
    "Invalid argument",
    pax([("SCHILY.xattr.security.capability", b"x")]),
    file(b"f", b"x"),
)
simple(
    "attribute_on_link",
    "",
    lambda out: pax([("SCHILY.xattr.user.a", b"x")]) + symlink(b"s", out + b"/keep"),
)
simple("unknown_type", "unknown type", header(b"f", kind=b"Z"))

# lies
simple("cut_short", "cut short", header(b"f", size=5000))
simple("bad_checksum", "checksum", header(b"f", checksum=False))
simple("huge_size", "beyond all bounds", header(b"f", size=2**63))
simple("huge_long_name", "the limit is", header(b"x", kind=b"L", size=1 << 30))
simple("huge_pax", "the limit is", header(b"x", kind=b"x", size=1 << 30))
simple("bad_pax", "pax header", tars.extended(b"x", b"1000 path=x\n"))
simple("sparse_beyond", "unpacks to more than", pax([
    ("GNU.sparse.size", b"%d" % 2**50), ("GNU.sparse.map", b"0,1"),
]), file(b"f", b"x"))  # fmt: skip
simple("file_as_parent", "Not a directory", file(b"f", b"x"), file(b"f/evil", b"x"))


@case
def path_max_chain(out: bytes) -> tuple[list[bytes], str]:
    """Links so long together that a resolver gives up half way (CVE-2025-4517)."""
    long = b"d" * 247
    members, path = [], b""
    for step in b"abcdefghijklmnop":
        members += [directory_long(path + long), symlink(path + bytes([step]), long)]
        path += long + b"/"
    steps = b"/".join(bytes([step]) for step in b"abcdefghijklmnop")
    link = steps + b"/" + b"l" * 254
    members += [
        symlink(link, b"../" * 16),
        symlink(b"escape", link + b"/../../../../../../../.." + out),
        hardlink(b"flag", b"escape/keep"),
        file(b"flag", b"overwritten"),
    ]
    return members, "which is not there"


@case
def path_max_chain_write(out: bytes) -> tuple[list[bytes], str]:
    """The same, ending in a write below the link."""
    members, _ = path_max_chain(out)
    return [*members[:-2], file(b"escape/evil", b"x")], "is not a directory"


def directory_long(name: bytes) -> bytes:
    return pax([("path", name)]) + directory(name[:100])


def all_cases() -> list[str]:
    return sorted(CASES)
