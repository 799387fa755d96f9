"""Sealing that a test can look through."""

from __future__ import annotations

import hashlib


class PlainSealer:
    """Sealing that a test can look through."""

    def seal(self, data: bytes) -> bytes:
        return b"sealed:" + data

    def open(self, sealed: bytes) -> bytes:
        assert sealed.startswith(b"sealed:")
        return sealed.removeprefix(b"sealed:")

    def fingerprint(self, data: bytes) -> str:
        return f"fp-{hashlib.sha256(data).hexdigest()}"
