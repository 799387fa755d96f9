"""The agents on other machines: their unix sockets, over one SSH connection each.

The dispatcher asks for a connection per node and keeps it; when it is lost every HTTP connection
on it fails at once and the dispatcher tries again with its own back-off. The key used here can do
nothing on a node but open the agent's socket (nodes/bootstrap/install.py), and a node's
host key is always the one pinned when it joined: asyncssh turns checking off for
``known_hosts=None``, so :func:`options` takes the key, reads no file of the user's, and asserts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

import asyncssh

from orchestrator.errors import Unavailable
from orchestrator.transport.address import SshAddress, parse
from orchestrator.transport.channel import ChannelConnector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import aiohttp

    from specs.node import Node

LOGIN = "corral"  # the user on every node whose key may only open the agent's socket
AGENT_SOCKET = "/run/corral/agent.sock"
CHANNELS = 512  # log followers, exec sessions and builds at once
CONNECT_TIMEOUT = 10.0
LOGIN_TIMEOUT = 15.0
ABORTED = 1.0  # seconds for what a connection that is given up leaves; a turn of the loop does
KEEPALIVE = 3.0  # seconds; with three unanswered the connection is given up
# AES is in every processor's hardware that matters; asyncssh would prefer ChaCha in software.
CIPHERS = (
    "aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com",
    "aes256-ctr", "aes128-ctr",
)  # fmt: skip

logging.getLogger("asyncssh").setLevel(logging.WARNING)  # it tells of every channel otherwise


class SshTransport:
    """Serves nodes with an address, by the cluster's key."""

    def __init__(self, key: asyncssh.SSHKey, socket: str = AGENT_SOCKET) -> None:
        self._key = key
        self._socket = socket

    @contextlib.asynccontextmanager
    async def connect(self, node: Node) -> AsyncIterator[aiohttp.BaseConnector]:
        address = parse(node.address)
        login = SshAddress(LOGIN, address.host, address.port)
        async with dial(login, host_key=node.host_key, keys=[self._key], name=node.name) as link:
            connector = ChannelConnector(link, self._socket, limit=CHANNELS)
            try:
                yield connector
            finally:
                # First: a channel's orderly end waits for an answer, which a cut line never gives.
                # Somebody's log or exec would hold up whoever noticed that the node is silent.
                link.abort()
                # Then its streams hear of the end; the connector would take them from their readers
                # without a word, and a followed log wait for ever.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ABORTED):
                        await link.wait_closed()
                await connector.close()


def options(
    address: SshAddress, *, host_key: str, keys: Sequence[asyncssh.SSHKey]
) -> asyncssh.SSHClientConnectionOptions:
    """Return connection options that trust exactly ``host_key`` (OpenSSH format)."""
    pinned = asyncssh.import_public_key(host_key)
    made = asyncssh.SSHClientConnectionOptions(
        config=None,  # nothing of ~/.ssh/config applies: it can turn host key checking off
        username=address.user,
        client_keys=list(keys),
        known_hosts=([pinned], [], []),
        # Ask for that key; sshd would otherwise offer the kind it likes best.
        server_host_key_algs=[name.decode() for name in pinned.sig_algorithms],
        encryption_algs=CIPHERS,
        compression_algs=("none",),
        preferred_auth="publickey",
        agent_path=None,
        connect_timeout=CONNECT_TIMEOUT,
        login_timeout=LOGIN_TIMEOUT,
        keepalive_interval=KEEPALIVE,
        keepalive_count_max=3,
    )
    assert made.known_hosts is not None, "host keys must be checked"
    return made


@contextlib.asynccontextmanager
async def dial(
    address: SshAddress, *, host_key: str, keys: Sequence[asyncssh.SSHKey], name: str
) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """Log in; everything that goes wrong on the way is Unavailable with words."""
    try:
        chosen = options(address, host_key=host_key, keys=keys)
    except (asyncssh.KeyImportError, ValueError) as error:
        raise Unavailable(f"{name}: its pinned host key cannot be read: {error}") from error
    try:
        # Again here: connect() would read the file for what the options leave open (ProxyCommand).
        link = await asyncssh.connect(address.host, address.port, config=None, options=chosen)
    except (asyncssh.Error, OSError, TimeoutError) as error:
        raise explain(error, address, name) from error
    try:
        async with link:
            yield link
    finally:
        link.abort()  # a cut line would let the orderly goodbye wait for an answer


def explain(error: Exception, address: SshAddress, name: str) -> Unavailable:
    """Return what a failed connection means, and what to do."""
    at = f"{name} ({address})" if name != str(address) else name
    match error:
        case asyncssh.HostKeyNotVerifiable():
            return Unavailable(
                f"the host key of {at} is not the pinned one: nothing was sent to it",
                hint="somebody may be in between. If the machine was reinstalled, remove the node"
                " (corral node rm --force) and add it again",
            )
        case asyncssh.PermissionDenied():
            return Unavailable(
                f"{at} does not accept the key for user {address.user}",
                hint=f"is it in ~{address.user}/.ssh/authorized_keys there, and does sshd_config"
                " allow this user?",
            )
        case asyncssh.KeyExchangeFailed() | asyncssh.ProtocolNotSupported():
            return Unavailable(f"{at}: sshd and corral have no algorithm in common: {error}")
        case TimeoutError() | asyncssh.ConnectionLost():
            reason = str(error) or f"no answer in {CONNECT_TIMEOUT:g} s"
            return Unavailable(f"{at} does not answer over SSH: {reason}")
        case _:
            return Unavailable(f"{at} is not reached over SSH: {error}")
