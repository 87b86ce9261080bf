"""The clients: real connections to the server's own address, and what each does to its own."""

from __future__ import annotations

import ssl
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Self, final

import h11
import trio

from penstock.decode import EventStreamDecoder
from penstock.demo.fates.silence import fall_silent

__all__ = ["KEY", "Client", "Unanswered", "Where"]

# The header in which a client shows whose stream it wants.
KEY: Final = "Penstock-Fate-Key"

# Bytes of the kernel's receive buffer for a client that does not read: then it is the server that
# has what it does not take. The kernel doubles it.
_SMALL: Final = 4096


class Unanswered(Exception):
    """The server did not answer with a stream; the message says what it did."""


@final
@dataclass(frozen=True, slots=True)
class Where:
    """The server's own address."""

    host: str
    port: int
    tls: bool

    @classmethod
    def of(cls, scope: Mapping[str, Any]) -> Self | None:
        """Return where a request came to, or None if that was no TCP port."""
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
        """The origin that is served there."""
        return f"{'https' if self.tls else 'http'}://{self.authority}"


@final
class Client:
    """A connection that reads one event stream over HTTP/1.1.

    Attributes:
      socket: under TLS, if the server speaks it.
      heard: how many events with data have come.
    """

    def __init__(self, socket: trio.socket.SocketType, stream: trio.abc.Stream, host: str) -> None:
        self.socket: trio.socket.SocketType = socket
        self.heard: int = 0
        self._stream = stream
        self._host = host
        self._h11 = h11.Connection(h11.CLIENT)
        self._decoder = EventStreamDecoder()

    @classmethod
    @asynccontextmanager
    async def connected(cls, where: Where, *, small: bool) -> AsyncIterator[Client]:
        """Connect for the length of the block.

        Args:
          where: to what server. Its certificate is not looked at: it is ourselves.
          small: whether the kernel is to keep little for it.

        Raises:
          OSError: there is no connection.
          trio.BrokenResourceError: there is no TLS on it.
        """
        family = trio.socket.AF_INET6 if ":" in where.host else trio.socket.AF_INET
        with trio.socket.socket(family) as connection:
            if small:
                connection.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, _SMALL)
            await connection.connect((where.host, where.port))
            stream: Any = trio.SocketStream(connection)
            if where.tls:
                stream = trio.SSLStream(
                    stream, _unverified(), server_hostname=where.host, https_compatible=True
                )
                await stream.do_handshake()
            yield cls(connection, stream, where.authority)

    async def ask(self, path: str, key: str) -> None:
        """Ask for a stream, and wait until its first bytes have come.

        Args:
          path: of the stream.
          key: shows that the stream is this client's; a header, since paths are there for all to
            see in the tree.

        Raises:
          Unanswered: something else came.
        """
        headers = [("Host", self._host), ("Accept", "text/event-stream"), (KEY, key)]
        head = self._h11.send(h11.Request(method="GET", target=path, headers=headers))
        self._h11.send(h11.EndOfMessage())
        await self._stream.send_all(head or b"")
        response = await self._event()
        if not isinstance(response, h11.Response) or response.status_code != 200:
            status = getattr(response, "status_code", "nothing")
            raise Unanswered(f"the server answered {status}")
        await self.read()

    async def read(self) -> bool:
        """Read what there is, at least something; tell whether the stream goes on."""
        event = await self._event()
        if isinstance(event, h11.Data):
            self.heard += sum(1 for _ in self._decoder.feed(bytes(event.data)))
            return True
        return False

    async def read_to_the_end(self) -> None:
        """Read until the stream is over."""
        while await self.read():
            pass

    async def read_for(self, seconds: float) -> None:
        """Read for a time, or until the stream is over."""
        with trio.move_on_after(seconds):
            await self.read_to_the_end()

    async def sip(self) -> None:
        """Take a byte a second from the kernel, under any TLS, until the server has closed."""
        try:
            while await self.socket.recv(1):  # noqa: ASYNC110 - the bytes are what it is about
                await trio.sleep(1)
        except OSError:
            pass  # it has reset what was not read

    def close(self) -> None:
        """Close as a process does that ends."""
        self.socket.close()

    def reset(self) -> None:
        """Close with a RST."""
        self._linger_not()
        self.socket.close()

    def vanish(self) -> None:
        """Receive nothing from now on, without a word; the block's end sends a RST.

        Raises:
          OSError: this system cannot do that.
        """
        fall_silent(self.socket)
        # A FIN would wait for an acknowledgement that is not received.
        self._linger_not()

    def _linger_not(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)

    async def _event(self) -> Any:
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            self._h11.receive_data(bytes(await self._stream.receive_some(65536)))
        return event


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
