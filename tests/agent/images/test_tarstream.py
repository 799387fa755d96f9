"""The tar reader gives what tarfile gives, and refuses what is no archive."""

from __future__ import annotations

import contextlib
import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specs.kit.tarstream import BadArchive, TarEntry, TarStream
from tests.agent.images import tars


def read(data: bytes, step: int = 1000) -> list[tuple[TarEntry, bytes]]:
    """Read an archive delivered in pieces of ``step`` bytes."""
    stream = io.BytesIO(data)
    archive = TarStream(lambda: stream.read(step))
    return [
        (entry, b"".join(bytes(piece) for piece in archive.pieces())) for entry in iter(archive)
    ]


names = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=1, max_size=300)
members = st.lists(
    st.tuples(
        names,
        st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]),
        st.binary(max_size=2000),
        st.integers(0, 0o7777),
        st.integers(0, 2**33),
        st.integers(0, 2**40),
    ),
    max_size=6,
)


@given(
    members,
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.integers(1, 2000),
)
@settings(deadline=None)
def test_reads_what_tarfile_writes(what, kind, step) -> None:
    buffer = io.BytesIO()
    written = []
    with tarfile.open(fileobj=buffer, mode="w", format=kind, errors="surrogateescape") as out:
        for name, flag, data, mode, number, mtime in what:
            member = tarfile.TarInfo(name.strip("/") or "x")
            member.type, member.mode, member.mtime = flag, mode, mtime
            member.uid = member.gid = number
            if flag == tarfile.REGTYPE:
                member.size = len(data)
            elif flag != tarfile.DIRTYPE:
                member.linkname = name
            try:
                out.addfile(member, io.BytesIO(data))
            except ValueError:  # does not fit this format
                continue
            written.append((member, data if flag == tarfile.REGTYPE else b""))
    got = read(buffer.getvalue(), step)
    assert len(got) == len(written)
    for (entry, content), (member, data) in zip(got, written, strict=True):
        assert entry.name.rstrip(b"/") == member.name.encode().rstrip(b"/")
        assert bytes([entry.kind]) == member.type
        assert entry.link == member.linkname.encode()
        assert (entry.mode, entry.uid, entry.gid) == (member.mode, member.uid, member.gid)
        assert entry.mtime_ns == member.mtime * 10**9
        assert content == data


@given(st.binary(max_size=4096))
def test_any_bytes_are_an_archive_or_refused(data) -> None:
    with contextlib.suppress(BadArchive):
        read(data)


@given(st.data())
@settings(deadline=None)
def test_a_changed_archive_never_crashes_the_reader(data) -> None:
    good = bytearray(
        tars.archive(
            tars.pax([("path", b"p" * 200), ("SCHILY.xattr.user.a", b"1"), ("mtime", b"1.5")]),
            tars.file(b"a", b"x" * 700),
            tars.extended(b"L", b"long" * 60 + b"\0"),
            tars.file(b"b", b"y" * 10),
            tars.directory(b"d/"),
            tars.symlink(b"s", b"a"),
        )
    )
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadArchive):
        read(bytes(good))


SPARSE_MAP = b"2\n10\n5\n100\n3\n"


def old_sparse(*, real: int = 200, fragments=((10, 5), (100, 3)), data: bytes = b"helloxyz"):
    table = b"".join(tars.octal(number, 12) for pair in fragments for number in pair)
    return tars.header(
        b"sparse", kind=b"S", size=len(data), raw={386: table, 483: tars.octal(real, 12)}
    ) + tars.padded(data)


@pytest.mark.parametrize(
    "member",
    [
        old_sparse(),
        tars.pax(
            [
                ("GNU.sparse.size", b"200"),
                ("GNU.sparse.offset", b"10"),
                ("GNU.sparse.numbytes", b"5"),
                ("GNU.sparse.offset", b"100"),
                ("GNU.sparse.numbytes", b"3"),
            ]
        )
        + tars.file(b"sparse", b"helloxyz"),
        tars.pax([("GNU.sparse.size", b"200"), ("GNU.sparse.map", b"10,5,100,3")])
        + tars.file(b"sparse", b"helloxyz"),
        tars.pax(
            [
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"sparse"),
                ("GNU.sparse.realsize", b"200"),
            ]
        )
        + tars.file(b"other", tars.padded(SPARSE_MAP) + b"helloxyz"),
    ],
    ids=["gnu", "pax-0.0", "pax-0.1", "pax-1.0"],
)
def test_sparse_files_in_every_format(member) -> None:
    [(entry, data), (after, _)] = read(tars.archive(member, tars.file(b"after")))
    assert (entry.name, entry.real_size, entry.size) == (b"sparse", 200, 8)
    assert entry.sparse == [(10, 5), (100, 3)]
    assert data == b"helloxyz"
    assert after.name == b"after"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (tars.header(b"a", checksum=False), "checksum"),
        (tars.header(b"a", size=100) + b"short", "cut short"),
        (tars.header(b"a", raw={124: b"99999999999\0"}), "malformed number"),
        (tars.header(b"a", raw={124: b"1_0        \0"}), "malformed number"),
        (tars.header(b"a", raw={124: b"\xff" * 12}), "negative"),
        (tars.header(b"a", size=2**63), "beyond all bounds"),
        (tars.extended(b"x", b"nonsense"), "pax header"),
        (tars.extended(b"x", b"99 a=b\n"), "pax header"),
        (tars.extended(b"x", b"7 a=bcd"), "pax header"),
        (tars.header(b"x", kind=b"x", size=2 << 20), "extended header"),
        (tars.pax([("size", b"-1")]) + tars.file(b"a"), "malformed number"),
        (tars.pax([("path", b"a")]) + tars.END, "extended header"),
        (tars.file(b"a") + bytes(512) + tars.file(b"b"), "lone zero block"),
        (old_sparse(real=50), "does not fit"),
        (old_sparse(fragments=((10, 5), (12, 3))), "overlaps"),
        (old_sparse(fragments=((10, 5),)), "does not fit"),
        (
            tars.pax([("GNU.sparse.major", b"1")]) + tars.file(b"s", tars.padded(b"9999999\n")),
            "too many fragments",
        ),
        (tars.pax([("GNU.sparse.map", b"1,2")]) + tars.directory(b"d"), "not a file"),
    ],
)
def test_malformed_archives_are_refused_in_words(data, words) -> None:
    with pytest.raises(BadArchive, match=words):
        read(data)


def test_a_pax_size_overrides_the_header_for_the_data_and_the_next_member() -> None:
    lying = tars.header(b"a", size=0) + tars.padded(b"inner")
    got = read(tars.archive(tars.pax([("size", b"5")]) + lying, tars.file(b"b", b"2")))
    assert [(entry.name, data) for entry, data in got] == [(b"a", b"inner"), (b"b", b"2")]


def test_unread_data_is_skipped() -> None:
    stream = io.BytesIO(tars.archive(tars.file(b"a", b"x" * 5000), tars.file(b"b", b"y")))
    archive = TarStream(lambda: stream.read(700))
    assert [entry.name for entry in archive] == [b"a", b"b"]


def test_an_archive_without_its_end_is_accepted_only_at_a_boundary() -> None:
    assert len(read(tars.file(b"a", b"data"))) == 1
    with pytest.raises(BadArchive, match="cut short"):
        read(tars.file(b"a", b"data")[:-1])
