"""Image names and digests: the one canonical spelling (pure).

Everything that becomes a file name or an argument of skopeo passes through here first, so
that a digest with a path in it, or a name that looks like an option, never gets further. The
grammar is :mod:`specs.references`'.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from agent.errors import Refusal
from specs.references import DIGEST, HUB, split


def check_digest(text: str) -> str:
    """Return ``text`` when it is a sha256 digest; anything else is refused."""
    if not DIGEST.fullmatch(text):
        shown = text[:80].encode("unicode_escape").decode()
        raise Refusal(f"{shown!r} is not a digest: want sha256: and 64 lower-case hex digits")
    return text


def digest_of(data: bytes) -> str:
    """Return the name that bytes go by."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed name. ``tag`` is empty only when there is a digest."""

    host: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        return f"{self.host}/{self.path}"

    @property
    def name(self) -> str:
        """Return the canonical spelling without the digest: the key of a ref."""
        return f"{self.repository}:{self.tag}" if self.tag else self.repository

    @property
    def familiar(self) -> str:
        """Return what people write: ``nginx:1.28`` for docker.io/library/nginx:1.28."""
        text = self.name
        for prefix in (f"{HUB}/library/", f"{HUB}/"):
            if text.startswith(prefix):
                return text.removeprefix(prefix)
        return text

    def at(self, digest: str) -> str:
        """Return ``repository@digest``, what a registry is asked for once pinned."""
        return f"{self.repository}@{check_digest(digest)}"

    def __str__(self) -> str:
        return self.name + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """Parse a name as Docker does: default host docker.io, library/, tag latest. Raises Refusal."""
    (host, path, tag, digest), why = split(text)
    if why:
        shown = text[:120].encode("unicode_escape").decode()
        raise Refusal(f"image {shown!r} is not a valid reference: {why}", named=True)
    return Reference(host, path, tag or ("" if digest else "latest"), digest)


__all__ = ["DIGEST", "Reference", "check_digest", "digest_of", "parse"]
