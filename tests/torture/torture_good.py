"""The well-behaved clients: what they hear, whether anything is missing, and how late it is.

    python torture_good.py AUTHORITY PLAIN_PORT TLS_PORT CLIENTS

Event k of a stream is due k periods after its first, or earlier: as zero serves the event that came
earliest against its schedule, so that none is early. The time is the kernel's, taken when the bytes
arrived, and so does not depend on when this process gets to run (as long as it does before the next
event: of two that are read at once, the time is the later one's); where there is none, it is ours.
"""

from __future__ import annotations

import socket
import ssl
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import h11
import trio
from h2.connection import (
    ConnectionInputs,
    ConnectionState,
    H2Connection,
    H2ConnectionStateMachine,
)
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import H2Error
from torture_child import PERIOD, parent

from penstock import EventStreamDecoder

# From <asm-generic/socket.h>, which Python's socket module does not have: for each reception, the
# time when the last of it arrived.
SO_TIMESTAMPNS: Final = 35

TARGET: Final = "/good"

# RFC 9113, 6.8, has streams go on after GOAWAY, to their proper end; h2 takes nothing after it.
H2ConnectionStateMachine._transitions[ConnectionState.CLIENT_OPEN, ConnectionInputs.RECV_GOAWAY] = (
    None,
    ConnectionState.CLIENT_OPEN,
)


class HTTP1:
    """The bytes of an HTTP/1.1 connection, taken apart."""

    def __init__(self) -> None:
        self._h11 = h11.Connection(h11.CLIENT)
        request = h11.Request(method="GET", target=TARGET, headers=[("Host", "torture")])
        self.to_send = b"".join(
            self._h11.send(event) or b"" for event in (request, h11.EndOfMessage())
        )
        self.ended = False
        """Whether the body has ended as it should."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes of the connection; iterate those of the body."""
        if data:  # none would say that the connection is over
            self._h11.receive_data(data)
        while not self.ended and (event := self._h11.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Response) and event.status_code != 200:
                raise ValueError(f"status {event.status_code}")
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            self.ended = isinstance(event, h11.EndOfMessage)


class HTTP2:
    """The bytes of an HTTP/2 connection, taken apart."""

    def __init__(self) -> None:
        self._h2 = H2Connection()
        self._h2.initiate_connection()
        self._h2.send_headers(
            1,
            [
                (":method", "GET"),
                (":path", TARGET),
                (":scheme", "https"),
                (":authority", "torture"),
            ],
            end_stream=True,
        )
        self.to_send = self._h2.data_to_send()
        self.ended = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes of the connection; iterate those of the body."""
        for event in self._h2.receive_data(data):
            if isinstance(event, DataReceived):
                assert event.data is not None
                self._h2.acknowledge_received_data(event.flow_controlled_length or 0, 1)
                yield event.data
            elif isinstance(event, ResponseReceived) and (b":status", b"200") not in event.headers:
                raise ValueError(f"status {event.headers}")
            elif isinstance(event, StreamReset):
                raise ValueError("the stream was reset")
            self.ended = self.ended or isinstance(event, StreamEnded)
        self.to_send += self._h2.data_to_send()


class Listener:
    """One client, from its connection to the end of its stream."""

    def __init__(self, http: HTTP1 | HTTP2, tls: ssl.SSLContext | None) -> None:
        self.http = http
        self.heard: list[float] = []
        """When event k arrived."""
        self.gaps = 0
        self.trouble: str | None = None
        self._decoder = EventStreamDecoder()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = None
        if tls is not None:
            self._tls = tls.wrap_bio(self._incoming, self._outgoing, server_hostname="127.0.0.1")

    async def listen(self, port: int) -> None:
        """Connect, and listen until the stream is over."""
        try:
            with trio.socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
                await client.connect(("127.0.0.1", port))
                await self._exchange(client)
        except (OSError, ValueError, h11.ProtocolError, H2Error) as error:
            self.trouble = f"{type(error).__name__}: {error}"
        if self.trouble is None and not self.http.ended:
            self.trouble = "cut in the middle"

    async def _exchange(self, client: trio.socket.SocketType) -> None:
        data, arrived = b"", 0.0
        while True:
            for part in self.http.feed(self._decrypt(data)):
                self._hear(part, arrived)
            for chunk in iter(self._encrypt, b""):
                while chunk:
                    chunk = chunk[await client.send(chunk) :]
            if self.http.ended:
                return
            data, ancillary, _, _ = await client.recvmsg(65536, 64)
            if not data:
                return
            arrived = _arrival(ancillary)

    def _hear(self, data: bytes, arrived: float) -> None:
        for event in self._decoder.feed(data):
            # The number is the one that is expected, or something is missing or came twice.
            self.gaps += event.data != str(len(self.heard))
            self.heard.append(arrived)

    def _decrypt(self, data: bytes) -> bytes:
        if self._tls is None:
            return data
        self._incoming.write(data)
        plain = b""
        with suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            if self._tls.version() is None:
                self._tls.do_handshake()
            while more := self._tls.read(65536):
                plain += more
        return plain

    def _encrypt(self) -> bytes:
        """Return what is to be put on the wire now."""
        if self._tls is None:
            data, self.http.to_send = self.http.to_send, b""
            return data
        with suppress(ssl.SSLWantReadError):
            if self.http.to_send:
                self._tls.write(self.http.to_send)
                self.http.to_send = b""
        return self._outgoing.read()

    def lateness(self) -> list[float]:
        """Return how late each event was."""
        ahead = [arrived - number * PERIOD for number, arrived in enumerate(self.heard)]
        earliest = min(ahead, default=0.0)
        return [each - earliest for each in ahead]


def _arrival(ancillary: list[tuple[int, int, bytes]]) -> float:
    """Return the time of an arrival, on the clock that only goes forward."""
    age = 0.0
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, nanoseconds = struct.unpack("qq", data)
            age = time.time() - seconds - nanoseconds / 1e9
    return time.monotonic() - age


class Audience:
    """All of them."""

    def __init__(self, listeners: list[Listener]) -> None:
        self.listeners = listeners

    def report(self, begun: float, ended: float) -> dict[str, Any]:
        """Return what they heard from one time to another, and all their troubles."""
        late = sorted(
            each
            for listener in self.listeners
            for each, arrived in zip(listener.lateness(), listener.heard, strict=True)
            if begun <= arrived < ended
        )
        troubles = [each.trouble for each in self.listeners if each.trouble]
        return {
            "listening": sum(bool(listener.heard) for listener in self.listeners),
            "events": len(late),
            "gaps": sum(listener.gaps for listener in self.listeners),
            "over": sum(listener.http.ended for listener in self.listeners),
            "troubles": troubles,
            **{name: _quantile(late, at) for name, at in QUANTILES.items()},
        }


QUANTILES: Final[Mapping[str, float]] = {"p50": 0.5, "p99": 0.99, "most": 1.0}


def _quantile(ordered: list[float], at: float) -> float | None:
    return ordered[min(int(at * len(ordered)), len(ordered) - 1)] if ordered else None


async def main(arguments: list[str]) -> None:
    """Listen, and report from time to time, until told to end."""
    authority, plain, secure, clients = arguments
    kinds: list[tuple[str, type[HTTP1] | type[HTTP2], str | None]] = [
        (plain, HTTP1, None),
        (secure, HTTP1, "http/1.1"),
        (secure, HTTP2, "h2"),
    ]
    listeners = []
    async with parent() as told, trio.open_nursery() as nursery:
        for number in range(int(clients)):
            port, http, alpn = kinds[(0, 0, 0, 1, 2)[number % 5]]
            tls = None
            if alpn is not None:
                tls = ssl.create_default_context(cafile=authority)
                tls.set_alpn_protocols([alpn])
            # Not all in the same instant: the periods of their streams would be in step.
            await trio.sleep(PERIOD / 7)
            listeners.append(Listener(http(), tls))
            nursery.start_soon(listeners[-1].listen, int(port))
        audience, since = Audience(listeners), 0.0
        while (command := await told.command()) and command["do"] == "report":
            told.answer(audience.report(since, time.monotonic()))
            since = time.monotonic()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1:])
