"""First contact: which host key a machine shows, and whether it is the expected one.

Nothing is sent to the machine here, not even a user name. Without an expected fingerprint the
answer is a question (:class:`HostKeyUnknown`): the CLI shows it, asks, and repeats the request with
the fingerprint confirmed. With one, any other key is refused.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

import asyncssh

from orchestrator.errors import Invalid, RequestError, Unavailable
from orchestrator.transport.ssh import CONNECT_TIMEOUT, explain
from specs.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.transport.address import SshAddress

# One question for each kind of key sshd may have: an operator may know any of the fingerprints.
KINDS = (("ssh-ed25519",), ("ecdsa-sha2-nistp256",), ("rsa-sha2-512", "rsa-sha2-256"))


class HostKeyUnknown(RequestError):
    """Nobody has said yet that this is the machine's key; ``problems[0].message`` is its print."""

    type: ClassVar[str] = "host-key-unknown"
    title: ClassVar[str] = "Host key not confirmed"
    status: ClassVar[int] = 409

    def __init__(self, address: SshAddress, key: asyncssh.SSHKey) -> None:
        self.fingerprint = key.get_fingerprint()
        self.algorithm = key.get_algorithm()
        super().__init__(
            f"{address} shows the host key {self.fingerprint} ({self.algorithm})",
            hint="compare it on the machine's console (ssh-keygen -lf"
            f" /etc/ssh/ssh_host_ed25519_key.pub), then add --host-key {self.fingerprint}",
        )

    @property
    def problems(self) -> tuple[Problem, ...]:
        return (Problem(self.fingerprint, code="host-key-unknown", path="host_key"),)


class HostKeyWrong(RequestError):
    """The machine shows other keys than the one it should have."""

    type: ClassVar[str] = "host-key-wrong"
    title: ClassVar[str] = "Wrong host key"
    status: ClassVar[int] = 409


async def identify(address: SshAddress, expected: str | None) -> str:
    """Return the machine's key in OpenSSH format. Raises HostKeyUnknown, HostKeyWrong, Unavailable.

    ``expected`` is a ``SHA256:`` fingerprint.
    """
    if expected is not None and not expected.startswith("SHA256:"):
        raise Invalid(
            detail=f"{expected!r} is not a fingerprint",
            hint="it looks like SHA256:5Uy...; ssh-keygen -lf shows it",
        )
    if expected is None:
        key = await _ask(address, [kind for group in KINDS for kind in group])
        raise HostKeyUnknown(address, key)
    shown: list[str] = []
    lost: Unavailable | None = None
    for kinds in KINDS:
        try:
            key = await _ask(address, kinds)
        except Unavailable as error:
            # sshd hangs up when it has no key of the kind; a dead machine answers no kind at all.
            if isinstance(error.__cause__, (asyncssh.DisconnectError, ConnectionError)):
                lost = error
                continue
            raise
        if key.get_fingerprint() == expected.rstrip("="):
            return key.export_public_key("openssh").decode().strip()
        shown.append(f"{key.get_fingerprint()} ({key.get_algorithm()})")
    if lost is not None and not shown:
        raise lost
    raise HostKeyWrong(
        f"{address} does not have the host key {expected}: it shows {', '.join(shown)}",
        hint="nothing was sent to it. Somebody may be in between, or the fingerprint is another"
        " machine's",
    )


async def _ask(address: SshAddress, kinds: Sequence[str]) -> asyncssh.SSHKey:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            key = await asyncssh.get_server_host_key(
                address.host, address.port, config=None, server_host_key_algs=list(kinds)
            )
    except (asyncssh.Error, OSError, TimeoutError) as error:
        raise explain(error, address, str(address)) from error
    if key is None:
        raise explain(asyncssh.ConnectionLost("no host key shown"), address, str(address))
    return key
