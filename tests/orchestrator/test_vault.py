"""Secrets at rest: sealed values open only whole and under their key; the key file is guarded."""

from __future__ import annotations

import os
import random
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import Unavailable
from orchestrator.keys import vault
from orchestrator.keys.vault import Broken, Vault

KEY = bytes(range(32))


@given(st.binary(max_size=200))
def test_what_was_sealed_opens(data):
    assert Vault(KEY).open(Vault(KEY).seal(data)) == data


@given(st.binary(max_size=40), st.data())
def test_a_changed_value_does_not_open(data, draw):
    sealed = bytearray(Vault(KEY).seal(data))
    place = draw.draw(st.integers(0, len(sealed) - 1))
    sealed[place] ^= draw.draw(st.integers(1, 255))
    with pytest.raises(Broken):
        Vault(KEY).open(bytes(sealed))


@given(st.binary(max_size=120))
def test_garbage_does_not_open(data):
    with pytest.raises(Broken):
        Vault(KEY).open(data)


def test_a_cut_value_does_not_open():
    sealed = Vault(KEY).seal(b"secret")
    for length in range(len(sealed)):
        with pytest.raises(Broken):
            Vault(KEY).open(sealed[:length])


def test_another_key_does_not_open():
    with pytest.raises(Broken, match="another cluster's"):
        Vault(os.urandom(32)).open(Vault(KEY).seal(b"secret"))


def test_sealing_twice_looks_different_but_has_one_fingerprint():
    box = Vault(KEY)
    assert box.seal(b"secret") != box.seal(b"secret")
    assert b"secret" not in box.seal(b"secret")
    assert box.fingerprint(b"secret") == box.fingerprint(b"secret")
    assert box.fingerprint(b"secret") != box.fingerprint(b"secre")
    assert box.fingerprint(b"secret") != Vault(os.urandom(32)).fingerprint(b"secret")


def test_nothing_of_the_key_shows():
    assert repr(Vault(KEY)) == "Vault(***)"


def test_version_ids_are_random():
    rng = random.Random(1)
    ids = {Vault.new_version(rng) for _ in range(100)}
    assert len(ids) == 100
    assert all(len(each) == 21 for each in ids)


def test_the_key_file_is_made_once_and_closed_to_others(tmp_path):
    path = tmp_path / "key"
    sealed = vault.load(path, fresh=True).seal(b"x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert vault.load(path, fresh=False).open(sealed) == b"x"
    assert vault.load(path, fresh=True).open(sealed) == b"x", "an existing key is never replaced"
    assert [p.name for p in tmp_path.iterdir()] == ["key"]


def test_a_missing_key_beside_a_store_is_a_loss_not_a_new_key(tmp_path):
    with pytest.raises(Unavailable, match="is missing") as refused:
        vault.load(tmp_path / "key", fresh=False)
    assert "backup" in refused.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_key_others_can_read_is_refused(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(KEY)
    path.chmod(0o640)
    with pytest.raises(Unavailable, match="mode 0640"):
        vault.load(path, fresh=False)


def test_a_cut_key_is_refused(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(KEY[:31])
    path.chmod(0o600)
    with pytest.raises(Unavailable, match="31 bytes instead of 32"):
        vault.load(path, fresh=False)
