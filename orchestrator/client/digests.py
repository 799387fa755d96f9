"""Digests without OpenSSL, whose library takes longer to load than `corral ps` may take in all.

CPython has SHA in modules of its own; where they are missing, hashlib is as good.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def sha1(data: bytes) -> bytes:
    """Return SHA-1, which a WebSocket's handshake is made of; it protects nothing there."""
    return bytes(_module("_sha1").sha1(data, usedforsecurity=False).digest())


def sha256(data: bytes) -> str:
    """Return SHA-256 in hexadecimal."""
    return str(_module("_sha256").sha256(data, usedforsecurity=False).hexdigest())


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return importlib.import_module("hashlib")
