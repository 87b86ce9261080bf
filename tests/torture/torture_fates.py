"""What becomes of the clients that speak HTTP/1.1, or nothing."""

from __future__ import annotations

import random
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final

import trio
from torture_child import SLACK
from torture_wire import (
    Stream,
    Visit,
    behave,
    close,
    cut,
    read_on,
    reset,
    socket_of,
    until_cut,
    vanish,
)

Fate = Callable[[Visit], Awaitable[None]]

# Seconds for the server to end what is over: half-closed, or garbage. The promise is 50 ms on an
# idle machine; here two thousand others are served by the same processor.
AT_ONCE: Final = 3.0 * SLACK

# The share of clients who come over TLS, where they may choose.
SECURE: Final = 0.3


def path(rng: random.Random) -> str:
    """Choose a stream: most are silent, since so many that speak would be load, not torture."""
    return "/sse" if rng.random() < 0.03 else "/idle"


def request(target: str) -> bytes:
    """Return a request."""
    return f"GET {target} HTTP/1.1\r\nHost: torture\r\n\r\n".encode()


async def either(visit: Visit) -> Stream:
    """Open a connection, to one port or the other."""
    return await visit.open(secure=visit.rng.random() < SECURE)


async def ask(visit: Visit, target: str, *, secure: bool | None = None) -> Stream:
    """Open a connection, to either port if none is named, and send a request."""
    stream = await (either(visit) if secure is None else visit.open(secure=secure))
    await stream.send_all(request(target))
    return stream


async def stop_reading(visit: Visit, *, secure: bool) -> Stream:
    """After a silent while, ask for more than the kernel holds, and do not read it."""
    stream = await visit.open(secure=secure)
    await visit.stay()
    await stream.send_all(request("/flood"))
    return stream


async def polite(visit: Visit) -> None:
    """Read, and say goodbye. What the others are compared with."""
    stream = await ask(visit, path(visit.rng))
    await behave(visit, stream)
    await stream.aclose()


async def closes(visit: Visit) -> None:
    """Close."""
    stream = await ask(visit, path(visit.rng), secure=False)
    await behave(visit, stream)
    close(stream)


async def resets(visit: Visit) -> None:
    """Reset."""
    stream = await ask(visit, path(visit.rng))
    await behave(visit, stream)
    reset(stream)


async def half_closes(visit: Visit) -> None:
    """Send FIN and go on reading: the server takes that for a goodbye."""
    stream = await ask(visit, path(visit.rng), secure=False)
    await behave(visit, stream)
    assert isinstance(stream, trio.SocketStream)
    await stream.send_eof()
    await visit.until_gone(lambda: read_on(stream), AT_ONCE)
    close(stream)


async def stalls_and_goes(visit: Visit) -> None:
    """Stop reading, with more to come than the kernel holds, and close after a while."""
    stream = await stop_reading(visit, secure=visit.rng.random() < SECURE)
    await visit.pause(visit.limit / 2)
    visit.rng.choice((close, reset))(stream)


async def stalls_and_stays(visit: Visit) -> None:
    """Stop reading, and wait to be thrown out."""
    stream = await stop_reading(visit, secure=visit.rng.random() < SECURE)
    await visit.until_gone(lambda: until_cut(socket_of(stream)), visit.limit)
    close(stream)


async def trickles(visit: Visit) -> None:
    """Read a byte now and then, and wait to be thrown out."""
    stream = await stop_reading(visit, secure=False)

    async def sip() -> None:
        client = socket_of(stream)
        while not cut(client):
            await stream.receive_some(1)
            await trio.sleep(0.1)

    await visit.until_gone(sip, visit.limit)
    close(stream)


async def pipelines(visit: Visit) -> None:
    """Send more than was asked for behind the request, and close later."""
    stream = await ask(visit, path(visit.rng))
    more = (b"\r\n", b"GET", request("/idle"), visit.rng.randbytes(64), request("/idle") * 100)
    await stream.send_all(visit.rng.choice(more))
    with visit.staying():
        await read_on(stream)  # a server may end it: the client broke the rules first
    close(stream)


async def garbage(visit: Visit) -> None:
    """Send what is no HTTP."""
    stream = await either(visit)
    await visit.stay()
    await stream.send_all(
        visit.rng.choice(
            (
                visit.rng.randbytes(visit.rng.randrange(1, 4096)) + b"\r\n\r\n",
                b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
                b"GET /idle HTTP/1.1\r\nContent-Length: -1\r\nHost: x\r\n\r\n",
                b"GET /\xff\xfe HTTP/1.1\r\nHost: \xff\r\n\r\n",
                b"A" * 200_000,
            )
        )
    )
    await visit.until_gone(lambda: read_on(stream), AT_ONCE)
    close(stream)


async def half_a_head(visit: Visit) -> None:
    """Begin a request, and go."""
    stream = await either(visit)
    head = request("/idle")
    await stream.send_all(head[: visit.rng.randrange(1, len(head) - 2)])
    await visit.stay()
    visit.rng.choice((close, reset))(stream)


async def half_a_body(visit: Visit) -> None:
    """Begin an upload, and go."""
    stream = await either(visit)
    framing, body = visit.rng.choice(
        (("Content-Length: 100000", b"x" * 50_000), ("Transfer-Encoding: chunked", b"2710\r\nxxx"))
    )
    head = f"POST /upload HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode()
    await stream.send_all(head + body)
    await visit.stay()
    visit.rng.choice((close, reset))(stream)


async def tls_garbage(visit: Visit) -> None:
    """Send to the TLS port what is no TLS."""
    stream = await visit.connect(secure=True)
    await visit.stay()
    # No record begins with a zero: what began as one would have to be waited for.
    await stream.send_all(visit.rng.choice((b"\0" + visit.rng.randbytes(512), request("/idle"))))
    await visit.until_gone(lambda: read_on(stream), AT_ONCE)
    close(stream)


async def tls_abandoned(visit: Visit) -> None:
    """Begin a TLS handshake, and go in the middle of it."""
    stream = await visit.connect(secure=True)
    outgoing = ssl.MemoryBIO()
    hello = visit.tls["http/1.1"].wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="127.0.0.1")
    with suppress(ssl.SSLWantReadError):  # it waits for an answer; what it says first is enough
        hello.do_handshake()
    record = outgoing.read()
    await stream.send_all(record[: visit.rng.choice((3, len(record) // 2, len(record)))])
    await visit.stay()
    visit.rng.choice((close, reset))(stream)


async def tls_ragged(visit: Visit) -> None:
    """Close in the middle of TLS, without its goodbye."""
    stream = await ask(visit, path(visit.rng), secure=True)
    await behave(visit, stream)
    close(stream)


async def vanishes(visit: Visit) -> None:
    """Be gone without a packet."""
    stream = await ask(visit, path(visit.rng))
    await behave(visit, stream)
    vanish(visit, stream)


# How often each comes, relative to the others.
FATES: Final[Mapping[str, tuple[Fate, float]]] = {
    "close": (closes, 12),
    "reset": (resets, 12),
    "half close": (half_closes, 8),
    "stall and go": (stalls_and_goes, 6),
    "stall and stay": (stalls_and_stays, 4),
    "trickle": (trickles, 4),
    "bytes after the request": (pipelines, 6),
    "garbage": (garbage, 6),
    "half a head": (half_a_head, 5),
    "half a body": (half_a_body, 6),
    "TLS garbage": (tls_garbage, 4),
    "TLS abandoned": (tls_abandoned, 4),
    "TLS without goodbye": (tls_ragged, 6),
    "vanish": (vanishes, 2),
}
