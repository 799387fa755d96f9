"""Where a node's sshd is: ``user@host[:port]``, parsed and checked (pure)."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from orchestrator.errors import Invalid

PORT = 22
# What OpenSSH itself refuses in names would also confuse logs and terminals here.
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?")
_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?")


@dataclass(frozen=True, slots=True)
class SshAddress:
    user: str
    host: str  # a name or an address, without brackets
    port: int = PORT

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.user}@{host}" + ("" if self.port == PORT else f":{self.port}")


def parse(text: str) -> SshAddress:
    """Return the parts of ``user@host[:port]``; the user defaults to root. Raises Invalid."""
    user, at, rest = text.strip().removeprefix("ssh://").rpartition("@")
    user = user if at else "root"
    host, port = _split_port(rest)
    number = int(port) if port.isascii() and port.isdigit() else 0
    if not _USER.fullmatch(user) or not _is_host(host) or not 0 < number < 65536:
        raise Invalid(
            detail=f"{text!r} is not an SSH address",
            hint="write user@host or user@host:port; an IPv6 address in brackets: root@[fd00::7]",
        )
    return SshAddress(user, host, number)


def _split_port(rest: str) -> tuple[str, str]:
    if rest.startswith("["):
        host, _, after = rest[1:].partition("]")
        return host, after.removeprefix(":") if after.startswith(":") else after or str(PORT)
    if rest.count(":") > 1:  # a bare IPv6 address has no port
        return rest, str(PORT)
    host, colon, port = rest.partition(":")
    return host, port if colon else str(PORT)


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return _HOST.fullmatch(host) is not None
    return True
