"""The client of a scenario: a real connection to the server's own address, over HTTP/1.1."""

from __future__ import annotations

import array
import ssl
import struct
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Self, final

import h11
import trio

from penstock.decode import EventStreamDecoder

__all__ = ["KEY", "Client", "ServerAddress", "UnexpectedResponse", "why_not_vanish"]

# The header in which a client proves that the stream it requests is its own.
KEY: Final = "Penstock-Scenario-Key"

# Bytes of the kernel's receive buffer for a client that does not read, so that unread data is left
# to the server. The kernel doubles it.
_SMALL_BUFFER: Final = 4096

# Of Linux's <asm-generic/socket.h>; the module `socket` does not have it.
_SO_ATTACH_FILTER: Final = 26

# A program of the classic Berkeley packet filter (socket(7)): one instruction, `ret #0`, which
# drops every packet.
_DROP_ALL: Final = struct.pack("HBBI", 0x06, 0, 0, 0)


class UnexpectedResponse(Exception):
    """The server did not answer with a stream; the message says what it answered."""


@final
@dataclass(frozen=True, slots=True)
class ServerAddress:
    """The server's own address."""

    host: str
    port: int
    tls: bool

    @classmethod
    def from_scope(cls, scope: Mapping[str, Any]) -> Self | None:
        """Return the address that a request was sent to, or None if that was no TCP port."""
        server: Any = scope.get("server")
        if not server or server[1] is None:
            return None
        return cls(server[0], server[1], scope["scheme"] == "https")

    @property
    def authority(self) -> str:
        """Host and port, as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The origin of its URLs."""
        return f"{'https' if self.tls else 'http'}://{self.authority}"


@final
class Client:
    """A connection that reads one event stream over HTTP/1.1.

    Attributes:
      socket: the TCP socket, below any TLS.
      received: the number of events with data received so far.
      ended: whether the stream came to its proper end.
    """

    def __init__(self, socket: trio.socket.SocketType, stream: trio.abc.Stream, host: str) -> None:
        self.socket: trio.socket.SocketType = socket
        self.received: int = 0
        self.ended: bool = False
        self._stream = stream
        self._host = host
        self._h11 = h11.Connection(h11.CLIENT)
        self._decoder = EventStreamDecoder()

    @classmethod
    @asynccontextmanager
    async def connect(cls, address: ServerAddress, *, small_buffer: bool) -> AsyncIterator[Client]:
        """Connect for the length of the block.

        Args:
          address: the server. Its certificate is not verified: it is this process.
          small_buffer: whether the kernel is to buffer little for this client.

        Raises:
          OSError: connecting failed.
          trio.BrokenResourceError: the TLS handshake failed.
        """
        family = trio.socket.AF_INET6 if ":" in address.host else trio.socket.AF_INET
        with trio.socket.socket(family) as connection:
            if small_buffer:
                connection.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, _SMALL_BUFFER)
            await connection.connect((address.host, address.port))
            stream: Any = trio.SocketStream(connection)
            if address.tls:
                stream = trio.SSLStream(
                    stream, _unverified(), server_hostname=address.host, https_compatible=True
                )
                await stream.do_handshake()
            yield cls(connection, stream, address.authority)

    async def request(self, path: str, key: str) -> None:
        """Request a stream, and wait for its first bytes.

        Args:
          path: of the stream.
          key: proves that the stream is this client's; sent in a header, since the tree shows the
            path to everybody.

        Raises:
          UnexpectedResponse: the response is something else.
        """
        headers = [("Host", self._host), ("Accept", "text/event-stream"), (KEY, key)]
        head = self._h11.send(h11.Request(method="GET", target=path, headers=headers))
        self._h11.send(h11.EndOfMessage())
        await self._stream.send_all(head or b"")
        response = await self._event()
        if not isinstance(response, h11.Response) or response.status_code != 200:
            status = getattr(response, "status_code", "nothing")
            raise UnexpectedResponse(f"the server answered {status}")
        await self.read()

    async def read(self) -> bool:
        """Read what has arrived, waiting for something; return whether the stream continues."""
        event = await self._event()
        if isinstance(event, h11.Data):
            self.received += sum(1 for _ in self._decoder.feed(bytes(event.data)))
            return True
        self.ended = True
        return False

    async def read_to_the_end(self) -> None:
        """Read until the stream ends."""
        while await self.read():
            pass

    async def read_for(self, seconds: float) -> None:
        """Read for a time, or until the stream ends."""
        with trio.move_on_after(seconds):
            await self.read_to_the_end()

    async def read_a_byte_a_second(self) -> None:
        """Read a byte a second from the kernel, below any TLS, until the server closes."""
        try:
            while await self.socket.recv(1):  # noqa: ASYNC110 - reading slowly is the purpose
                await trio.sleep(1)
        except OSError:
            pass  # the server has reset the connection

    def close(self) -> None:
        """Close the connection, as the end of a process does."""
        self.socket.close()

    def reset(self) -> None:
        """Close the connection by RST."""
        self._reset_on_close()
        self.socket.close()

    def vanish(self) -> None:
        """Drop all incoming packets from now on, acknowledgements included; sending still works.

        To the server it looks as if a cable had been pulled. The filter is on the client's own
        socket, so this needs no privileges. The end of the `connect` block sends RST.

        Raises:
          OSError: this kernel refuses the filter.
        """
        program = array.array("B", _DROP_ALL)
        where, _ = program.buffer_info()
        attached = struct.pack("HP", 1, where)
        self.socket.setsockopt(trio.socket.SOL_SOCKET, _SO_ATTACH_FILTER, attached)
        # A FIN would wait for an acknowledgement that never arrives.
        self._reset_on_close()

    def _reset_on_close(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)

    async def _event(self) -> Any:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            self._h11.receive_data(bytes(await self._stream.receive_some(65536)))
        return event


def why_not_vanish() -> str | None:
    """Return why a client cannot `vanish` on this system, in a sentence, or None."""
    if sys.platform == "linux":
        return None
    return f"it needs a socket filter of Linux, and this is {sys.platform}"


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
