"""What becomes of the clients that speak HTTP/2, or something like it."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from torture_fates import AT_ONCE, SECURE, Fate, path
from torture_wire import ANSWER, Broken, Stream, Visit, close, read_on, reset

# How many streams one client opens and resets at once.
RAPID: Final = 30


class Client:
    """A client of HTTP/2 on a connection, with nothing that would keep it from harm."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.h2 = H2Connection(
            H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
        )
        self.h2.initiate_connection()

    async def flush(self) -> None:
        """Send what is to be sent."""
        await self.stream.send_all(self.h2.data_to_send())

    def ask(self, target: bytes, *, method: bytes = b"GET", end: bool = True) -> int:
        """Put a request into what is to be sent, and return its stream."""
        number = self.h2.get_next_available_stream_id()
        headers = [
            (b":method", method),
            (b":path", target),
            (b":scheme", b"https"),
            (b":authority", b"torture"),
        ]
        self.h2.send_headers(number, headers, end_stream=end)
        return number

    async def receive(self, *, take: bool = True) -> list[Event] | None:
        """Receive some events, and open the window again for what is taken. None: it is over."""
        try:
            data = await self.stream.receive_some(65536)
            events = self.h2.receive_data(data) if data else []
            for event in events:
                if take and isinstance(event, DataReceived) and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            await self.flush()
        except (trio.BrokenResourceError, OSError, ProtocolError):
            return None
        return events if data else None

    async def until(self, *kinds: type[Event], take: bool = True) -> None:
        """Receive until an event of such a kind, or until it is over."""
        while (events := await self.receive(take=take)) is not None:
            if any(isinstance(event, kinds) for event in events):
                return


async def open_h2(visit: Visit) -> Client:
    """Open a connection: over TLS, or over plain text, as one may who knows what is spoken."""
    client = Client(await visit.open(secure=visit.rng.random() < SECURE, alpn="h2"))
    await client.flush()
    return client


async def ask(visit: Visit, target: str, *, streams: int = 1) -> Client:
    """Open a connection, and streams on it; wait for the answer."""
    client = await open_h2(visit)
    for _ in range(streams):
        client.ask(target.encode())
    await client.flush()
    with trio.move_on_after(ANSWER):
        await client.until(ResponseReceived, StreamReset, ConnectionTerminated)
        return client
    raise Broken(f"no answer over HTTP/2 within {ANSWER:g} s")


async def behave(visit: Visit, client: Client) -> None:
    """Read the streams as one should, for a while.

    Raises:
      Broken: the server ended one.
    """
    with visit.staying():
        await client.until(StreamReset, StreamEnded, ConnectionTerminated)
        raise Broken("cut while it behaved")


async def polite(visit: Visit) -> None:
    """Read, and say goodbye."""
    client = await ask(visit, path(visit.rng))
    await behave(visit, client)
    client.h2.close_connection()
    await client.flush()
    await client.stream.aclose()


async def leaves(visit: Visit) -> None:
    """Close or reset the connection of several streams, without a word of HTTP/2."""
    client = await ask(visit, path(visit.rng), streams=visit.rng.randrange(1, 4))
    await behave(visit, client)
    visit.rng.choice((close, reset))(client.stream)


async def resets_streams(visit: Visit) -> None:
    """Reset the streams, one by one, and ask again on the same connection."""
    client = await ask(visit, "/idle", streams=3)
    await behave(visit, client)
    for number in (1, 3, 5):
        client.h2.reset_stream(number, ErrorCodes.CANCEL)
    client.ask(b"/idle")
    await client.flush()
    with trio.move_on_after(AT_ONCE):
        await client.until(ResponseReceived, ConnectionTerminated)
        close(client.stream)
        return
    raise Broken(f"no answer within {AT_ONCE:g} s after other streams were reset")


async def resets_rapidly(visit: Visit) -> None:
    """Open streams and reset each in the same breath, many times over."""
    client = await open_h2(visit)
    await visit.stay()
    for _ in range(RAPID):
        client.h2.reset_stream(client.ask(b"/idle"), ErrorCodes.CANCEL)
    await client.flush()
    await visit.pause(0.5)
    close(client.stream)


async def says_goaway(visit: Visit) -> None:
    """Send GOAWAY, which lets its stream go on, and close after a while."""
    client = await ask(visit, path(visit.rng))
    await behave(visit, client)
    client.h2.close_connection()
    await client.flush()
    await visit.pause(0.2)
    close(client.stream)


async def shuts_window(visit: Visit) -> None:
    """Read, but never open the window again, and wait to be thrown out."""
    client = await open_h2(visit)
    await visit.stay()
    client.ask(b"/flood")
    await client.flush()
    await visit.until_gone(
        lambda: client.until(StreamReset, ConnectionTerminated, take=False), visit.limit
    )
    close(client.stream)


async def stops_reading(visit: Visit) -> None:
    """Open the window wide, stop reading, and close after a while."""
    client = await open_h2(visit)
    await visit.stay()
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**24})
    client.h2.increment_flow_control_window(2**24)
    client.ask(b"/flood")
    await client.flush()
    await visit.pause(visit.limit / 2)
    visit.rng.choice((close, reset))(client.stream)


def frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    """Return a frame, right or wrong."""
    length = struct.pack(">I", len(payload))[1:]
    return length + struct.pack(">BBI", kind, flags, number) + payload


async def garbage(visit: Visit) -> None:
    """Send what is no HTTP/2: noise, or frames that ought not to be."""
    client = await ask(visit, "/idle")
    await behave(visit, client)
    noise = visit.rng.randbytes(visit.rng.randrange(9, 2048))
    # DATA on a stream that was never opened; SETTINGS of seven bytes; HEADERS that do not unpack;
    # an empty WINDOW_UPDATE; CONTINUATION of nothing; a frame that is too large.
    choices = (
        frame(0, 0, 77, noise),
        frame(4, 0, 0, b"1234567"),
        frame(1, 5, 9, b"\xff" * 64),
        frame(8, 0, 0, b"\0" * 4),
        frame(9, 4, 1, noise),
        frame(0, 0, 1, b"x" * 20_000),
    )
    await client.stream.send_all(visit.rng.choice(choices))
    await visit.until_gone(lambda: read_on(client.stream), AT_ONCE)
    close(client.stream)


async def offends(visit: Visit) -> None:
    """Send what HTTP/2's grammar allows and an unguarded server dies of; then go."""
    client = await open_h2(visit)
    await visit.stay()
    match visit.rng.randrange(5):
        case 0:  # more of a body whose response is over
            number = client.ask(b"/nowhere", method=b"POST", end=False)
            await client.flush()
            with trio.move_on_after(ANSWER):
                await client.until(StreamEnded, ConnectionTerminated)
            await client.stream.send_all(frame(0, 1, number, b"more"))
        case 1:
            client.ask(b"/caf\xc3\xa9\xff")
        case 2:
            client.ask(b"/idle", method=b"G\xcbT")
        case 3:  # a tree of priorities, larger than any server's
            for number in range(1, 2 * 1001, 2):
                client.h2.prioritize(number, weight=16)
        case 4:  # the beginning of a frame of 16 MB
            await client.stream.send_all(b"\xff\xff\xff" + frame(0, 0, 1, b"x" * 10_000)[3:])
    await client.flush()
    await visit.pause(1)
    close(client.stream)


FATES_H2: Final[Mapping[str, tuple[Fate, float]]] = {
    "HTTP/2: leave": (leaves, 6),
    "HTTP/2: RST_STREAM": (resets_streams, 4),
    "HTTP/2: rapid reset": (resets_rapidly, 3),
    "HTTP/2: GOAWAY": (says_goaway, 4),
    "HTTP/2: window shut": (shuts_window, 2),
    "HTTP/2: stop reading": (stops_reading, 2),
    "HTTP/2: garbage": (garbage, 4),
    "HTTP/2: offend": (offends, 3),
}
