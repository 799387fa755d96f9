"""Envelope encryption of what must not be readable in the store: secrets and configs.

The control loops seal contents before they write them and open them only to send
them to a node. The cluster key is a file beside the state file, never in it, so a
copy of the store alone tells nothing. AES-256-GCM; a fresh random data key for each
sealed value, wrapped by the root key, so that changing the root key later rewraps
keys and not contents.

The vault never logs, and nothing it raises contains content.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from orchestrator.errors import Unavailable
from specs.kit.disk import write_file

if TYPE_CHECKING:
    import random
    from pathlib import Path

KEY = 32
NONCE = 12
TAG = 16
VERSION = b"\x01"
_WRAPPED = NONCE + KEY + TAG


class Broken(Exception):
    """A sealed value was changed, or the cluster key is not the one it was sealed under."""


class Vault:
    """``seal``, ``open`` and ``fingerprint`` under one cluster key."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY:
            raise ValueError("a cluster key has 32 bytes")
        # One key, one use: sealing and fingerprints never share.
        self._root = AESGCM(_derive(key, b"corral seal"))
        self._mac = _derive(key, b"corral fingerprint")

    def __repr__(self) -> str:
        return "Vault(***)"

    def seal(self, data: bytes) -> bytes:
        """Return the data encrypted and authenticated."""
        data_key = AESGCM.generate_key(KEY * 8)
        outer, inner = os.urandom(NONCE), os.urandom(NONCE)
        wrapped = self._root.encrypt(outer, data_key, VERSION)
        return VERSION + outer + wrapped + inner + AESGCM(data_key).encrypt(inner, data, VERSION)

    def open(self, sealed: bytes) -> bytes:
        """Return what was sealed. Raises Broken."""
        head, rest = sealed[:1], sealed[1:]
        if head != VERSION or len(rest) < _WRAPPED + NONCE + TAG:
            raise Broken("this is not a sealed value of this version")
        outer, wrapped = rest[:NONCE], rest[NONCE:_WRAPPED]
        inner, body = rest[_WRAPPED : _WRAPPED + NONCE], rest[_WRAPPED + NONCE :]
        try:
            data_key = self._root.decrypt(outer, wrapped, VERSION)
            return AESGCM(data_key).decrypt(inner, body, VERSION)
        except InvalidTag as exc:
            raise Broken(
                "a sealed value does not open: it was changed, or the key file is another cluster's"
            ) from exc

    def fingerprint(self, data: bytes) -> str:
        """Return a keyed hash: equal data, equal fingerprint; tells nothing without the key."""
        return hmac.new(self._mac, data, hashlib.sha256).hexdigest()

    @staticmethod
    def new_version(rng: random.Random | random.SystemRandom) -> str:
        """Return a random id for a content version: says nothing of the content, nor its order."""
        return f"v{rng.getrandbits(80):020x}"


def load(path: Path, *, fresh: bool) -> Vault:
    """Return the vault of the key file, which is made only for a ``fresh`` cluster.

    A missing key beside an existing store is a loss the operator must hear of: a new key
    would open none of the secrets.
    """
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        if not fresh:
            raise Unavailable(
                f"the cluster key {path} is missing, so the secrets in the store cannot be read",
                hint="put the key file back from a backup (it is not in the state file)",
            ) from None
        key = _make(path)
    if len(key) != KEY:
        raise Unavailable(
            f"{path} is not a cluster key: {len(key)} bytes instead of {KEY}",
            hint="put the key file back from a backup",
        )
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise Unavailable(
            f"the cluster key {path} can be read by others (mode {mode:04o})",
            hint=f"chmod 600 {path}, and consider its secrets known",
        )
    return Vault(key)


def _make(path: Path) -> bytes:
    """Write a new key so that at ``path`` there is never half of one."""
    key = os.urandom(KEY)
    write_file(path, key, mode=0o600)
    return key


def _derive(key: bytes, purpose: bytes) -> bytes:
    return hmac.new(key, purpose, hashlib.sha256).digest()
