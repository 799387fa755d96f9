"""The grammar of image references: what may stand where an image is named.

After the distribution project's reference grammar, as Docker reads it: ``[HOST[:PORT]/]PATH[:TAG]
[@DIGEST]``, where the first part is a host if it has a dot, a colon or a capital, or is
``localhost``. :mod:`specs.compile.naming` refuses by it with the place in the user's file;
``agent.images.reference`` reads by it once more what reaches a node from elsewhere. Pure, stdlib
only.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
HUB: Final = "docker.io"
LONGEST_NAME: Final = 255  # host and path together
LONGEST_TAG: Final = 128
_DOMAIN = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)"
_HOST: Final = re.compile(rf"(?:{_DOMAIN}(?:\.{_DOMAIN})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH: Final = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG: Final = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{LONGEST_TAG - 1}}}")
_ID: Final = re.compile(r"[0-9a-f]{64}")
_UNFIT: Final = re.compile(r"[^a-z0-9]+")
_SHOWN = 60


class ReferenceParts(NamedTuple):
    """The parts as written, host and ``library/`` filled in; ``tag`` and ``digest`` may be ""."""

    host: str
    path: str
    tag: str = ""
    digest: str = ""


def split(text: str) -> tuple[ReferenceParts, str]:
    """Return the parts of a reference, and why it is none: "" where it is one."""
    rest, at, digest = text.partition("@")
    head, slash, tail = rest.partition("/")
    is_host = slash and ("." in head or ":" in head or head == "localhost" or head != head.lower())
    host, remainder = (head, tail) if is_host else (HUB, rest)
    path, colon, tag = remainder.partition(":")
    written = path
    if host == "index.docker.io":
        host = HUB
    if host == HUB and "/" not in path:
        path = f"library/{path}"
    why = (
        _host_fault(host)
        or _path_fault(written, text)
        or (f"the name is longer than {LONGEST_NAME} characters" if _long(host, path) else "")
        or (_tag_fault(tag) if colon else "")
        or (_digest_fault(digest) if at else "")
    )
    return ReferenceParts(host, path, tag, digest), why


def reference_fault(text: str) -> str:
    """Return why a text does not name an image."""
    why = split(text)[1]
    return f"{_shown(text)} is not an image reference: {why}" if why else ""


def tag_fault(text: str) -> str:
    """Return why an image that is built cannot get this name: its digest comes out of the build."""
    if why := reference_fault(text):
        return why
    if "@" in text:
        return f"{_shown(text)} has a digest, which only the build itself can give"
    return ""


def built_name(stack: str, service: str) -> str:
    """Return the name of what a service builds that gives none: Compose's STACK-SERVICE.

    Where that is no reference (a service ``Web``, a project ``my_``), it is one after making it
    lower case with single dashes between.
    """
    name = f"{stack}-{service}"
    return name if not reference_fault(name) else _UNFIT.sub("-", name.lower()).strip("-")


def _host_fault(host: str) -> str:
    if _HOST.fullmatch(host):
        return ""
    if host.endswith(":"):
        return "leave out the scheme, as in registry.example.com/team/app:1.2"
    return f"{_shown(host)} is not the host of a registry"


def _path_fault(path: str, text: str) -> str:
    if not path:
        return "it has no name" if text[:1] in (":", "@", "") else "the name ends with a slash"
    if _ID.fullmatch(path):
        return "64 hex digits alone are an image's id, not a name"
    if _PATH.fullmatch(path):
        return ""
    if _PATH.fullmatch(path.lower()):
        return f"names are lower case: {_shown(path.lower())}"
    return (
        f"{_shown(path)} is not a name: lower-case letters and digits, with single '.', '_', '/' "
        "or dashes between"
    )


def _tag_fault(tag: str) -> str:
    if not tag:
        return "the tag behind ':' is empty: is a variable not set?"
    if len(tag) > LONGEST_TAG:
        return f"the tag is longer than {LONGEST_TAG} characters"
    if _TAG.fullmatch(tag):
        return ""
    return f"{_shown(tag)} is not a tag: letters, digits, '_', '.' and '-'"


def _digest_fault(digest: str) -> str:
    if DIGEST.fullmatch(digest):
        return ""
    return f"{_shown(digest)} is not a digest: want sha256: and 64 lower-case hex digits"


def _long(host: str, path: str) -> bool:
    return len(host) + 1 + len(path) > LONGEST_NAME


def _shown(text: str) -> str:
    return ascii(text[:_SHOWN]) + ("..." if len(text) > _SHOWN else "")
