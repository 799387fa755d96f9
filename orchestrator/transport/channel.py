"""HTTP over channels of one SSH connection: every connection of the connector is one channel.

sshd on the node opens the agent's unix socket for each ("direct-streamlocal"), which is not a
session, so sshd's limit of ten sessions does not apply and no socket of ours is in between.
``ssh.py`` makes the SSH connection and gives this connector to aiohttp; it never knows what is
said over it.
"""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Any

import aiohttp
import asyncssh
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp.client_proto import ResponseHandler

OPEN_TIMEOUT = 10.0  # seconds sshd has to open the agent's socket


class ChannelTransport(asyncio.Transport):
    """An SSH channel as the transport asyncio protocols expect."""

    def __init__(self, channel: asyncssh.SSHUNIXChannel[bytes]) -> None:
        super().__init__()
        self._channel = channel

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        if data:
            self._channel.write(bytes(data))

    @override
    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    @override
    def close(self) -> None:
        self._channel.close()

    @override
    def abort(self) -> None:
        self._channel.abort()

    @override
    def is_closing(self) -> bool:
        return self._channel.is_closing()

    @override
    def can_write_eof(self) -> bool:
        return True

    @override
    def write_eof(self) -> None:
        self._channel.write_eof()

    @override
    def pause_reading(self) -> None:
        self._channel.pause_reading()

    @override
    def resume_reading(self) -> None:
        self._channel.resume_reading()

    @override
    def get_write_buffer_size(self) -> int:
        return self._channel.get_write_buffer_size()

    @override
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._channel.set_write_buffer_limits(high, low)

    @override
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        # The SSH connection's own socket is not this stream's: nobody may set options on it.
        return default


class _Session(asyncssh.SSHUNIXSession[bytes]):
    """Hands a channel's events to an asyncio protocol."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        self._protocol = protocol

    @override
    def connection_made(self, chan: asyncssh.SSHUNIXChannel[bytes]) -> None:
        self._protocol.connection_made(ChannelTransport(chan))

    @override
    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        self._protocol.data_received(data)

    @override
    def eof_received(self) -> bool:
        return bool(self._protocol.eof_received())

    @override
    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    @override
    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        # Callers know sockets' errors, not asyncssh's.
        reason = ConnectionResetError(errno.ECONNRESET, f"SSH: {exc}") if exc else None
        self._protocol.connection_lost(reason)


class ChannelConnector(aiohttp.BaseConnector):
    """Opens a channel to ``path`` on the other side for every HTTP connection."""

    def __init__(self, connection: asyncssh.SSHClientConnection, path: str, *, limit: int) -> None:
        super().__init__(limit=limit)
        self._connection = connection
        self._path = path

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: Any,  # noqa: ARG002 - aiohttp's signature
        timeout: aiohttp.ClientTimeout,
    ) -> ResponseHandler:
        protocol: ResponseHandler = self._factory()
        try:
            await self.open_stream(protocol, timeout.sock_connect or OPEN_TIMEOUT)
        except OSError as error:
            raise aiohttp.ClientConnectorError(req.connection_key, error) from error
        return protocol

    async def open_stream(self, protocol: asyncio.Protocol, timeout: float = OPEN_TIMEOUT) -> None:
        """Open a channel for somebody who speaks for himself. Raises OSError."""
        try:
            async with asyncio.timeout(timeout):
                await self._connection.create_unix_connection(
                    lambda: _Session(protocol), self._path
                )
        except asyncssh.ChannelOpenError as error:
            # sshd says "open failed" when nobody listens: the agent is down or restarting.
            raise ConnectionRefusedError(errno.ECONNREFUSED, error.reason) from error
        except (asyncssh.Error, OSError, TimeoutError) as error:
            raise OSError(errno.EPIPE, f"SSH: {str(error) or 'no answer'}") from error
