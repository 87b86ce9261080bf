"""Connections of clients that mean harm, and what can be done to one."""

from __future__ import annotations

import ctypes
import random
import select
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import trio
from torture_child import SLACK

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]

# Bytes that a client's kernel takes for it: so few that a client who stops reading is felt soon.
RECEIVE_BUFFER: Final = 8192

# Seconds in which a server must have answered a connection, a handshake or a request.
ANSWER: Final = 10.0 * SLACK

# From <asm-generic/socket.h>, which Python's socket module does not have.
SO_ATTACH_FILTER: Final = 26
# One instruction of a classic packet filter: return 0, take nothing of the packet.
DROP_ALL: Final = struct.pack("HBBI", 0x06, 0, 0, 0)


class Broken(Exception):
    """The server did not keep a promise; the text says which."""


@dataclass
class Visit:
    """One client's time: where the server is, how long to stay, and chance."""

    rng: random.Random
    ports: tuple[int, int]
    tls: Mapping[str, ssl.SSLContext]
    """What to shake hands with, by the protocol to be spoken."""
    life: float
    """Seconds of good behaviour before the deed."""
    limit: float
    """Seconds within which the server must let go of a client that does not take its data."""
    stays: set[trio.CancelScope]
    """The scopes of all who stay: the round ends them early."""
    waited: list[float] = field(default_factory=list)
    """How long the server took to let go."""
    sockets: list[trio.socket.SocketType] = field(default_factory=list)
    """What belongs to those that vanished: kept open, since closing it would say something."""

    @contextmanager
    def staying(self) -> Iterator[None]:
        """Leave the block when this client's good time is over."""
        with trio.move_on_after(self.life) as scope:
            self.stays.add(scope)
            try:
                yield
            finally:
                self.stays.remove(scope)

    async def stay(self) -> None:
        """Do nothing for a while."""
        with self.staying():
            await trio.sleep_forever()

    async def pause(self, longest: float) -> None:
        """Wait for a moment between two deeds."""
        await trio.sleep(self.rng.uniform(0, longest))

    async def connect(self, *, secure: bool) -> trio.SocketStream:
        """Open a connection, to the port for plain text or for TLS."""
        client = trio.socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        try:
            with trio.move_on_after(ANSWER):
                await client.connect(("127.0.0.1", self.ports[secure]))
                return trio.SocketStream(client)
        except ConnectionRefusedError:
            client.close()
            raise Broken("connection refused") from None
        except BaseException:
            client.close()
            raise
        client.close()
        raise Broken(f"no connection within {ANSWER:g} s")

    async def open(self, *, secure: bool, alpn: str = "http/1.1") -> Stream:
        """Open a connection and shake hands."""
        plain = await self.connect(secure=secure)
        if not secure:
            return plain
        stream = trio.SSLStream(
            plain, self.tls[alpn], server_hostname="127.0.0.1", https_compatible=True
        )
        with trio.move_on_after(ANSWER):
            await stream.do_handshake()
            if stream.selected_alpn_protocol() != alpn:
                raise Broken(f"the server does not speak {alpn}")
            return stream
        reset(stream)
        raise Broken(f"no TLS within {ANSWER:g} s")

    async def until_gone(self, wait: Callable[[], Awaitable[None]], limit: float) -> None:
        """Wait for the server to end it, and note how long that took."""
        begun = trio.current_time()
        with trio.move_on_after(limit) as scope:
            await wait()
        if scope.cancelled_caught:
            raise Broken(f"not let go within {limit:g} s")
        self.waited.append(trio.current_time() - begun)


def socket_of(stream: Stream) -> trio.socket.SocketType:
    """Return what is underneath."""
    plain = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    return plain.socket


def close(stream: Stream) -> None:
    """Close without a word of TLS: the kernel sends FIN, or RST if there are bytes unread."""
    socket_of(stream).close()


def reset(stream: Stream) -> None:
    """Close with RST."""
    client = socket_of(stream)
    # Zero seconds of lingering: closing sends RST in the place of FIN.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def vanish(visit: Visit, stream: Stream) -> None:
    """Answer nothing any more, not even with an acknowledgement, as a machine without power.

    A packet filter on the client's own socket drops what arrives. It needs no privilege.
    """
    client = socket_of(stream)
    program = ctypes.create_string_buffer(DROP_ALL)
    client.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program))
    )
    visit.sockets.append(client)


def cut(client: trio.socket.SocketType) -> bool:
    """Tell, without reading, whether the server has ended the connection."""
    poll = select.poll()
    poll.register(client, select.POLLRDHUP)
    return bool(poll.poll(0))


async def until_cut(client: trio.socket.SocketType) -> None:
    """Wait, without reading, for the server to end the connection."""
    while not cut(client):  # noqa: ASYNC110 - there is no event for what is not read
        await trio.sleep(0.02)


async def read_on(stream: Stream) -> None:
    """Read until the server ends the connection."""
    try:
        while await stream.receive_some(65536):
            pass
    except (trio.BrokenResourceError, OSError):
        pass  # ended by RST


async def behave(visit: Visit, stream: Stream) -> None:
    """Read a stream as one should, for a while.

    Raises:
      Broken: the server ended it.
    """
    with visit.staying():
        await read_on(stream)
        raise Broken("cut while it behaved")
