"""Image names and digests: the grammar, and the one canonical spelling (pure).

Everything that becomes a file name or an argument of skopeo passes through here first, so
that a digest with a path in it, or a name that looks like an option, never gets further.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from agent.errors import Refusal

DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_DOMAIN = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)"
_HOST: Final = re.compile(rf"(?:{_DOMAIN}(?:\.{_DOMAIN})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH: Final = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HUB: Final = "docker.io"
_MAX_NAME: Final = 255


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
        for prefix in (f"{_HUB}/library/", f"{_HUB}/"):
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
    rest, at, digest = text.partition("@")
    if at:
        check_digest(digest)
    head, slash, tail = rest.partition("/")
    is_host = slash and ("." in head or ":" in head or head == "localhost" or head != head.lower())
    host, remainder = (head, tail) if is_host else (_HUB, rest)
    path, colon, tag = remainder.partition(":")
    if host == "index.docker.io":
        host = _HUB
    if host == _HUB and "/" not in path:
        path = f"library/{path}"
    problem = _problem(host, path, tag, tagged=bool(colon))
    if problem:
        shown = text[:120].encode("unicode_escape").decode()
        raise Refusal(f"image {shown!r} is not a valid reference: {problem}", named=True)
    return Reference(host, path, tag or ("" if digest else "latest"), digest)


def _problem(host: str, path: str, tag: str, *, tagged: bool) -> str:
    if not _HOST.fullmatch(host):
        return f"bad registry host {host[:80]!r}"
    if not _PATH.fullmatch(path):
        hint = "; names are lower case" if path != path.lower() else ""
        return f"bad repository name {path[:80]!r}{hint}"
    if len(host) + 1 + len(path) > _MAX_NAME:
        return f"the name is longer than {_MAX_NAME} characters"
    if tagged and not _TAG.fullmatch(tag):
        return f"bad tag {tag[:80]!r}"
    return ""
