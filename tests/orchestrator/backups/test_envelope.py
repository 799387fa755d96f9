"""The file of a backup: whole, it opens by its passphrase; anything else is refused in words."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.backups import envelope
from orchestrator.backups.envelope import BLOCK, BadBackup, Head, PassphraseKey, WrongPassphrase

CHEAP = (2, 8, 1)  # scrypt's costs where nobody attacks
HEAD = Head(cluster="c1", made_at=1000.0, corral="0.2.0", host="n1", epoch=3, revision=77)
SIZES = (0, 1, BLOCK - 40, BLOCK, 2 * BLOCK + 5)


def cheap(words="tree of words"):
    return PassphraseKey.derive(words, cost=CHEAP)


def made(folder, sizes=(5, 0, 3000), key=None):
    """Write a backup of pieces of these sizes; return its path and the pieces."""
    pieces = []
    for number, size in enumerate(sizes):
        path = folder / f"source{number}"
        path.write_bytes(os.urandom(size))
        pieces.append((f"piece{number}", path))
    path = folder / "b.backup"
    with path.open("wb") as out:
        envelope.write(out, HEAD, pieces, key)
    return path, {name: piece.read_bytes() for name, piece in pieces}


def read(path, into, words="tree of words"):
    into.mkdir()
    head = envelope.read(path, lambda: words, into)
    return head, {piece.name: piece.read_bytes() for piece in into.iterdir()}


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_what_was_put_in_comes_out(tmp_path, size, plain):
    path, pieces = made(tmp_path, (size, 7), None if plain else cheap())
    head, found = read(path, tmp_path / "out")
    assert found == pieces
    assert (head.cluster, head.revision, head.lock is None) == ("c1", 77, plain)
    assert envelope.peek(path) == head, "its head needs no passphrase"
    assert all((tmp_path / "out" / name).stat().st_mode & 0o777 == 0o600 for name in pieces)


def test_the_wrong_passphrase_is_told_from_a_damaged_file(tmp_path):
    path, _ = made(tmp_path, key=cheap())
    with pytest.raises(WrongPassphrase, match="does not open"):
        read(path, tmp_path / "out", "tree of word")


@pytest.mark.parametrize("words", ["", "  ", "\t\n"])
def test_no_passphrase_is_no_passphrase(words):
    with pytest.raises(BadBackup, match="empty"):
        PassphraseKey.derive(words, cost=CHEAP)


def test_the_file_says_nothing_of_what_is_in_it(tmp_path):
    (tmp_path / "source0").write_bytes(b"hunter2-canary" * 100)
    with (tmp_path / "b").open("wb") as out:
        envelope.write(out, HEAD, [("piece0", tmp_path / "source0")], cheap())
    assert b"canary" not in (tmp_path / "b").read_bytes()
    assert b"piece0" not in (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("plain", [False, True])
def test_a_file_cut_anywhere_is_refused(tmp_path, plain):
    path, _ = made(tmp_path, (BLOCK + 100, 10), None if plain else cheap())
    whole = path.read_bytes()
    head = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    cuts = {
        0,
        3,
        20,
        head - 1,
        head,
        head + 5,
        head + 100,
        BLOCK,
        BLOCK + head + 16,
        len(whole) - 1,
    }
    for number, cut in enumerate(sorted(cuts)):
        path.write_bytes(whole[:cut])
        with pytest.raises(BadBackup) as caught:
            read(path, tmp_path / f"out{number}")
        assert caught.value.hint, cut


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_flipped_bit_is_never_taken_for_a_backup(tmp_path, data):
    plain = data.draw(st.booleans())
    folder = tmp_path / os.urandom(6).hex()
    folder.mkdir()
    path, pieces = made(folder, (400, 10), None if plain else cheap())
    whole = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(whole)
    try:
        _, found = read(path, folder / "out")
    except BadBackup:
        return
    # Of a plain one the head is for people only: what is in it is what counts.
    assert plain
    assert found == pieces


def test_blocks_cannot_be_exchanged_nor_given_another_head(tmp_path):
    path, _ = made(tmp_path, (3 * BLOCK,), cheap())
    whole = path.read_bytes()
    begin = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    step = BLOCK + 16
    first, second = whole[begin : begin + step], whole[begin + step : begin + 2 * step]
    cases = {
        "exchanged": whole[:begin] + second + first + whole[begin + 2 * step :],
        "left out": whole[:begin] + first + whole[begin + 2 * step :],
        "another head": whole.replace(b'"host": "n1"', b'"host": "n2"', 1),
    }
    for name, content in cases.items():
        path.write_bytes(content)
        with pytest.raises(BadBackup, match="cut or was changed"):
            read(path, tmp_path / name)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"PK\3\4 something else", "is not a backup"),
        (b"SQLite format 3\0" * 10, "is not a backup"),
        (b"corral-backup x\n{}\n", "is not a backup"),
        (b"corral-backup 2\n{}\n", "made by a newer corral"),
        (b"corral-backup 1\nnot json\n", "its head cannot be read"),
        (b'corral-backup 1\n{"cluster": 3}\n', "its head cannot be read"),
        (b'corral-backup 1\n{"cluster": "c", "made_at": "x"}\n', "its head cannot be read"),
        (b'corral-backup 1\n{"cluster": "c", "made_at": 1, "lock": 3}\n', "head cannot be read"),
        (b'corral-backup 1\n{"cluster": "c", "made_at": Infinity}\n', "its head cannot be read"),
        (b'corral-backup 1\n{"cluster": "c", "made_at": 1, "corral": 5}\n', "head cannot be read"),
        (b'corral-backup 1\n{"cluster": "c", "made_at": 1, "epoch": ""}\n', "head cannot be read"),
        (b'corral-backup 1\n{"cluster": "c", "made_at": 1, "lock": {}}\n', "head cannot be read"),
        (b'corral-backup 1\n{"cluster": "c", "made_at": 1}\n' + b"\xff" * 99, "its list"),
        (b"corral-backup 1\n" + b" " * (1 << 20), "its head cannot be read"),
    ],
)
def test_foreign_files_are_refused_by_what_they_are(tmp_path, content, words):
    path = tmp_path / "x.backup"
    path.write_bytes(content)
    with pytest.raises(BadBackup, match=words):
        read(path, tmp_path / "out")


@pytest.mark.parametrize("change", [{"n": 1 << 40}, {"r": 9999}, {"p": 0}, {"kdf": "md5"}])
def test_a_file_cannot_ask_for_all_of_the_memory(tmp_path, change):
    path, _ = made(tmp_path, key=cheap())
    magic, head, body = path.read_bytes().split(b"\n", 2)
    told = json.loads(head)
    told["lock"].update(change)
    path.write_bytes(b"\n".join((magic, json.dumps(told).encode(), body)))
    with pytest.raises(BadBackup, match="a way this corral does not know"):
        read(path, tmp_path / "out")


def test_a_newer_head_of_the_same_format_is_read(tmp_path):
    path, pieces = made(tmp_path)
    magic, head, body = path.read_bytes().split(b"\n", 2)
    told = {**json.loads(head), "colour": "green"}
    path.write_bytes(b"\n".join((magic, json.dumps(told).encode(), body)))
    assert read(path, tmp_path / "out")[1] == pieces


def test_pieces_have_plain_names(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"x")
    for number, name in enumerate(("../key", "a/b", ".hidden", "")):
        with (tmp_path / "b").open("wb") as out:
            envelope.write(out, HEAD, [(name, source)], None)
        with pytest.raises(BadBackup, match="names in it"):
            read(tmp_path / "b", tmp_path / f"out{number}")
