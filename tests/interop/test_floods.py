"""What one client's bytes can buy: of the event loop, and of memory."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
import trustme
from guarded import config_for, connect, guarded, settled
from hypercorn.config import Config
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from quart import request, websocket
from quart_trio import QuartTrio
from raw_http2 import CALM, RawHTTP2, goodbyes, reset, unknown

from penstock import ServerSentEvent
from penstock.quart import EventSourceResponse, require_trio

Events = trio.abc.SendChannel[ServerSentEvent]

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
MASK = bytes(4)

# GET, http, / and the authority x, for HPACK.
PSEUDO = b"\x82\x86\x84\x01\x01x"


@pytest.fixture
def app() -> QuartTrio:
    app = QuartTrio(__name__)
    require_trio(app)

    async def endless(events: Events) -> None:
        while True:
            await events.send(ServerSentEvent("tick"))
            await trio.sleep(0.01)

    async def fast(events: Events) -> None:
        while True:
            await events.send(ServerSentEvent("tick"))

    @app.get("/fast")
    async def fast_stream() -> EventSourceResponse:
        return EventSourceResponse(fast)

    @app.route("/sse", methods=["GET", "POST"])
    async def stream() -> EventSourceResponse:
        return EventSourceResponse(endless)

    @app.get("/")
    async def plain() -> str:
        return "plain"

    @app.post("/upload")
    async def upload() -> str:
        return str(len(await request.get_data()))

    @app.websocket("/ws")
    async def echo() -> None:
        while True:
            await websocket.send(str(len(await websocket.receive())))

    return app


def logged() -> Config:
    """Return a configuration whose error log the test sees."""
    config = config_for()
    logger = logging.getLogger("floods")
    config.errorlog = logger
    return config


def empty_data(client: RawHTTP2) -> list[bytes | Frame]:
    return [client.headers(1, "/upload", end=False, method="POST"), *[DataFrame(1)] * 3000]


def padding_only(client: RawHTTP2) -> list[bytes | Frame]:
    padded = DataFrame(1, pad_length=5)
    padded.flags.add("PADDED")
    return [client.headers(1, "/upload", end=False, method="POST"), *[padded] * 3000]


def unknown_frames(client: RawHTTP2) -> list[bytes | Frame]:
    return [unknown()] * 3000


def toggled_windows(client: RawHTTP2) -> list[bytes | Frame]:
    streams = [client.headers(stream_id, "/sse") for stream_id in range(1, 201, 2)]
    return streams + [SettingsFrame(0, settings={4: n % 2}) for n in range(300)]


def toggled_tables(client: RawHTTP2) -> list[bytes | Frame]:
    return [SettingsFrame(0, settings={1: n % 2 * 2**30}) for n in range(300)]


def heads_of_streams_that_are_over(client: RawHTTP2) -> list[bytes | Frame]:
    return [client.headers(1), reset(1), *[client.headers(1)] * 300]


def pings(client: RawHTTP2) -> list[bytes | Frame]:
    return [PingFrame(0, opaque_data=b"x" * 8)] * 3000


def priorities(client: RawHTTP2) -> list[bytes | Frame]:
    return [PriorityFrame(1)] * 3000


def window_updates(client: RawHTTP2) -> list[bytes | Frame]:
    return [WindowUpdateFrame(0, window_increment=1)] * 3000


def resets(client: RawHTTP2) -> list[bytes | Frame]:
    both = [(client.headers(n, "/sse"), reset(n)) for n in range(1, 6001, 2)]
    return [frame for pair in both for frame in pair]


def resets_of_nothing(client: RawHTTP2) -> list[bytes | Frame]:
    return [client.headers(1), *[reset(1)] * 3000]


def refused_paths(client: RawHTTP2) -> list[bytes | Frame]:
    return [client.headers(n, "?x") for n in range(1, 6001, 2)]


def references(client: RawHTTP2) -> list[bytes | Frame]:
    """Each request has a field of 3.9 kB sixteen times, by reference."""
    first = client.headers(1, "/", cookie="x" * 3900)
    blocks: list[bytes | Frame] = [first]
    for stream_id in range(3, 2000, 2):
        frame = HeadersFrame(stream_id, PSEUDO + b"\xbe" * 16)
        frame.flags = {"END_HEADERS", "END_STREAM"}  # type: ignore[assignment]
        blocks.append(frame)
    return blocks


def empty_continuations(client: RawHTTP2) -> list[bytes | Frame]:
    flood: list[bytes | Frame] = []
    for stream_id in range(1, 200, 2):
        head = HeadersFrame(stream_id, PSEUDO)
        head.flags.add("END_STREAM")
        last = ContinuationFrame(stream_id)
        last.flags.add("END_HEADERS")
        flood += [head, *[ContinuationFrame(stream_id)] * 60, last]
    return flood


FLOODS: list[Callable[[RawHTTP2], list[bytes | Frame]]] = [
    empty_data,
    padding_only,
    unknown_frames,
    toggled_windows,
    toggled_tables,
    heads_of_streams_that_are_over,
    pings,
    priorities,
    window_updates,
    resets,
    resets_of_nothing,
    refused_paths,
    references,
    empty_continuations,
]


@pytest.mark.parametrize("flood", FLOODS, ids=[flood.__name__ for flood in FLOODS])
async def test_a_flood_of_useless_frames_ends(
    app: QuartTrio, flood: Callable[[RawHTTP2], list[bytes | Frame]]
) -> None:
    """The client is told ENHANCE_YOUR_CALM, its connection ends, and nothing is left of it."""
    async with guarded(app, http2=True) as (server, port):
        before = server.statistics().tasks
        client = await RawHTTP2.connect(port)
        frames = flood(client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, *frames)
            received = await client.until_closed()
            nursery.cancel_scope.cancel()
        assert goodbyes(received)[-1] == CALM
        await client.stream.aclose()
        await settled(server, connections_open=0, requests_open=0, tasks=before)


async def test_what_entails_useless_frames_pays_for_them(app: QuartTrio) -> None:
    """A client may answer each piece of a body with the WINDOW_UPDATEs that it has to send."""
    async with guarded(app, http2=True) as (_, port):
        client = await RawHTTP2.connect(port)
        await client.send(client.headers(1, "/fast"))
        for _ in range(1500):
            size = len((await client.until(DataFrame, 1)).data)
            update = {"window_increment": max(1, size)}
            await client.send(WindowUpdateFrame(0, **update), WindowUpdateFrame(1, **update))
        await client.stream.aclose()


async def test_others_run_while_a_flood_is_worked_off(app: QuartTrio) -> None:
    """Between two slices of one client's chunks, other tasks have their turn."""
    async with guarded(app) as (_, port):
        client = await connect(port)
        chunks = b"1\r\na\r\n" * 50_000
        head = b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        turns = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.stream.send_all, head + chunks + b"0\r\n\r\n")

            async def count() -> None:
                nonlocal turns
                while True:
                    await trio.lowlevel.checkpoint()
                    turns += 1

            nursery.start_soon(count)
            answer = b""
            while not answer.endswith(b"\r\n\r\n50000"):
                answer += await client.stream.receive_some(65536)
            nursery.cancel_scope.cancel()
        # 300 kB in reads of 64 KiB: without slices, some five.
        assert turns > 50
        await client.stream.aclose()


async def test_a_server_that_stops_ends_a_flood(app: QuartTrio) -> None:
    """A client that floods is cut off at the end of the drain window, as any other."""
    async with trio.open_nursery() as nursery:
        async with guarded(app, drain_window=0.5) as (server, port):
            client = await connect(port)
            head = b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            await client.stream.send_all(head)

            async def flood() -> None:
                with suppress(trio.BrokenResourceError):
                    while True:
                        await client.stream.send_all(b"1\r\na\r\n" * 10_000)

            nursery.start_soon(flood)
            await settled(server, requests_open=1)
        assert server.statistics().connections_open == 0
    await client.stream.aclose()


def fragment(
    data: bytes = b"", *, first: int = 0, last: bool = False, deflated: bool = False
) -> bytes:
    """Return a frame of a WebSocket message, masked with zeros."""
    size = len(data)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    if size >= 2**16:
        length = b"\xff" + size.to_bytes(8, "big")
    flags = (0x80 if last else 0) | (0x40 if deflated else 0)
    return bytes([first | flags]) + length + MASK + data


async def websocket_to(port: int, *, deflate: bool = False) -> Any:
    """Return a client whose handshake was accepted."""
    client = await connect(port)
    extension = b"Sec-WebSocket-Extensions: permessage-deflate\r\n" if deflate else b""
    await client.stream.send_all(HANDSHAKE + extension + b"\r\n")
    answer = bytes(await client.stream.receive_some(4096))
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    assert (b"permessage-deflate" in answer) is deflate
    return client


async def rest_of(client: Any) -> bytes:
    """Read what comes until the connection is closed."""
    received = b""
    with suppress(trio.BrokenResourceError):
        async for data in client.stream:
            received += data
    return received


@pytest.mark.parametrize("what", ["empty fragments", "pings"])
async def test_a_websocket_that_says_nothing_is_closed(app: QuartTrio, what: str) -> None:
    """Fragments without data, and pings, have a budget; then comes 1008, and the end."""
    async with guarded(app) as (server, port):
        before = server.statistics().tasks
        client = await websocket_to(port)
        flood = fragment() * 3000 if what == "empty fragments" else b""
        await client.stream.send_all(
            fragment(first=1) + flood if flood else fragment(first=9, last=True) * 3000
        )
        assert b"\x88\x02\x03\xf0" in await rest_of(client)
        await client.stream.aclose()
        await settled(server, connections_open=0, requests_open=0, tasks=before)


async def test_a_deflate_bomb_is_not_inflated(
    app: QuartTrio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message is inflated up to the size that it may have; then comes 1009, and the end."""
    config = config_for()
    config.websocket_max_message_size = 100_000
    async with guarded(app, config=config) as (server, port):
        client = await websocket_to(port, deflate=True)
        for size in (5, 99_999):
            await client.stream.send_all(
                fragment(deflated_of(b"x" * size), first=1, last=True, deflated=True)
            )
            assert str(size).encode() in await inflated_answer(client)
        inflated = 0

        def counting(*args: Any) -> Any:
            decompressor = decompressobj(*args)

            class Counting:
                eof = False

                def decompress(self, data: bytes, *limit: int) -> bytes:
                    nonlocal inflated
                    out = decompressor.decompress(data, *limit)
                    inflated += len(out)
                    return out

            return Counting()

        decompressobj = zlib.decompressobj
        monkeypatch.setattr(zlib, "decompressobj", counting)
        bomber = await websocket_to(port, deflate=True)
        bomb = deflated_of(bytes(50_000_000))
        await bomber.stream.send_all(fragment(bomb, first=2, last=True, deflated=True))
        assert b"\x88\x02\x03\xf1" in await rest_of(bomber)
        assert 0 < inflated <= 100_001
        for each in (client, bomber):
            await each.stream.aclose()
        await settled(server, connections_open=0)


async def test_a_message_is_inflated_in_pieces(
    app: QuartTrio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fits into one packet is up to a thousand times as large: others run in between."""
    largest = 0
    decompressobj = zlib.decompressobj

    class Measuring:
        eof = False

        def __init__(self, *args: Any) -> None:
            self._inner = decompressobj(*args)

        def decompress(self, data: bytes, *limit: int) -> bytes:
            nonlocal largest
            out = self._inner.decompress(data, *limit)
            largest = max(largest, len(out))
            return out

        def flush(self) -> bytes:
            return self._inner.flush()

    size = 16_000_000
    async with guarded(app) as (server, port):
        client = await websocket_to(port, deflate=True)
        with monkeypatch.context() as patch:
            patch.setattr(zlib, "decompressobj", Measuring)
            data = fragment(deflated_of(bytes(size)), first=2, last=True, deflated=True)
            await client.stream.send_all(data)
            frame = bytes(await client.stream.receive_some(4096))
        inflated = decompressobj(-15).decompress(frame[2:] + b"\0\0\xff\xff")
        assert inflated == str(size).encode()
        assert 500_000 < largest < 1_100_000
        await client.stream.aclose()
        await settled(server, connections_open=0)


def deflated_of(data: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


async def inflated_answer(client: Any) -> bytes:
    """Return a short message that was deflated without context."""
    frame = bytes(await client.stream.receive_some(4096))
    if not hasattr(client, "inflater"):
        client.inflater = zlib.decompressobj(-15)
    inflated: bytes = client.inflater.decompress(frame[2:] + b"\0\0\xff\xff")
    return inflated


@pytest.mark.parametrize("bits", ["abc", "", "99", "9" * 5000])
async def test_an_impossible_window_is_declined(app: QuartTrio, bits: str) -> None:
    """The WebSocket is accepted, and the offer of permessage-deflate is not."""
    offer = f"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits={bits}\r\n\r\n"
    async with guarded(app) as (_, port):
        client = await connect(port)
        await client.stream.send_all(HANDSHAKE + offer.encode())
        answer = bytes(await client.stream.receive_some(4096))
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert b"permessage-deflate" not in answer
        await client.stream.send_all(fragment(b"hello", first=1, last=True))
        assert await client.stream.receive_some(4096) == b"\x81\x015"
        await client.stream.aclose()


async def test_a_websocket_that_talks_too_early(app: QuartTrio) -> None:
    """Bytes behind the handshake are answered 400, and the connection ends, with its task."""
    async with guarded(app) as (server, port):
        before = server.statistics().tasks
        client = await connect(port)
        await client.stream.send_all(HANDSHAKE + b"\r\n" + fragment(b"hello", first=1, last=True))
        assert (await rest_of(client)).startswith(b"HTTP/1.1 400 ")
        await client.stream.aclose()
        await settled(server, connections_open=0, requests_open=0, tasks=before)


async def test_websockets_that_talk_too_early_on_http2(app: QuartTrio) -> None:
    """Each such stream is answered 400 and leaves no task; the connection lives on."""
    async with guarded(app, http2=True) as (server, port):
        client = await RawHTTP2.connect(port)
        for stream_id in range(1, 401, 2):
            handshake = client.headers(
                stream_id,
                "/ws",
                end=False,
                method="CONNECT",
                protocol="websocket",
                sec_websocket_version="13",
            )
            await client.send(handshake, DataFrame(stream_id, fragment(b"hi", first=1, last=True)))
            assert await client.status(stream_id) == "400"
        await settled(server, requests_open=0)
        await client.send(client.headers(401))
        assert await client.status(401) == "200"
        await client.stream.aclose()


async def test_a_websocket_that_is_not_read_deafens_nobody_on_http2() -> None:
    """Its own window bounds it: pings, requests and RST_STREAM are heard; nothing is lost."""
    app = QuartTrio(__name__)
    listens, ended = trio.Event(), trio.Event()
    received = 0

    async def endless(events: Events) -> None:
        try:
            while True:
                await events.send(ServerSentEvent("tick"))
                await trio.sleep(0.01)
        finally:
            ended.set()

    @app.get("/sse")
    async def stream() -> EventSourceResponse:
        return EventSourceResponse(endless)

    @app.get("/")
    async def plain() -> str:
        return "plain"

    @app.websocket("/ws")
    async def deaf() -> None:
        nonlocal received
        await websocket.accept()
        await listens.wait()
        while True:
            assert len(await websocket.receive()) == 1000
            received += 1

    async with guarded(app, http2=True) as (server, port):
        client = await RawHTTP2.connect(port)
        handshake = {"method": "CONNECT", "protocol": "websocket", "sec_websocket_version": "13"}
        await client.send(
            client.headers(1, "/sse"),
            client.headers(3, "/ws", end=False, **handshake),
        )
        assert await client.status(3) == "200"
        message = fragment(b"x" * 1000, first=2, last=True)
        room, sent = 2**16 - 1, 0
        while room >= len(message):
            while room >= len(message):
                await client.send(DataFrame(3, message))
                room -= len(message)
                sent += 1
            # The answer to a ping is behind all the room that it gives.
            await client.send(PingFrame(0, opaque_data=b"x" * 8))
            assert "ACK" in (await client.until(PingFrame)).flags
            room += sum(
                frame.window_increment
                for frame in client.frames
                if isinstance(frame, WindowUpdateFrame) and frame.stream_id == 3
            )
            client.frames = [f for f in client.frames if not isinstance(f, WindowUpdateFrame)]
        assert 64 < sent < 200
        await client.send(client.headers(5))
        assert await client.status(5) == "200"
        await client.send(reset(1))
        await ended.wait()
        listens.set()
        for _ in range(100):  # more than the window takes at once
            while room < len(message):
                room += (await client.until(WindowUpdateFrame, 3)).window_increment
            await client.send(DataFrame(3, message))
            room -= len(message)
            sent += 1
        while received < sent:  # noqa: ASYNC110 - a figure has no event
            await trio.sleep(0.002)
        await client.stream.aclose()
        await settled(server, connections_open=0, requests_open=0)


async def test_one_byte_references_do_not_become_megabytes(app: QuartTrio) -> None:
    """A head of 1,800 fields by reference is answered 431 on its stream, others live on."""
    async with guarded(app, http2=True) as (server, port):
        client = await RawHTTP2.connect(port)
        await client.send(client.headers(1, "/sse", a="b"))
        await client.until_data(1, b"tick")
        for stream_id in (3, 5):
            block = PSEUDO + b"\xbe" * (300 if stream_id == 3 else 900)
            frame = HeadersFrame(stream_id, block)
            frame.flags = {"END_HEADERS", "END_STREAM"}  # type: ignore[assignment]
            await client.send(frame)
            assert await client.status(stream_id) == "431"
        await client.until_data(1, b"tick")
        assert server.statistics().requests_open == 1
        await client.stream.aclose()


async def test_a_block_that_is_too_long_to_be_answered(app: QuartTrio) -> None:
    """An encoded header block of more than twice the limit ends the connection."""
    async with guarded(app, http2=True) as (_, port):
        client = await RawHTTP2.connect(port)
        head = HeadersFrame(1, PSEUDO + bytes(16_000))
        await client.send(head, *[ContinuationFrame(1, bytes(16_000))] * 3)
        assert goodbyes(await client.until_closed()) == [CALM]
        await client.stream.aclose()


@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_an_event_stream_keeps_no_body(app: QuartTrio, version: str) -> None:
    """The body of a GET that is answered with an event stream is read, and kept by nobody."""
    size = 4_000_000
    kept = 0

    async def spying(scope: Any, receive: Any, send: Any) -> None:
        async def spy() -> Any:
            nonlocal kept
            message = await receive()
            kept += len(message.get("body", b""))
            return message

        await inner(scope, spy, send)

    inner, app.asgi_app = app.asgi_app, spying  # type: ignore[method-assign]
    async with guarded(app, http2=True) as (server, port):
        if version == "1.1":
            client = await connect(port)
            await client.stream.send_all(
                b"GET /sse HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
            )
            await client.stream.receive_some()
            await client.stream.send_all(bytes(size))
            for _ in range(3):
                assert b"tick" in await client.stream.receive_some()
            (connection,) = server._connections
            assert connection.requests.unconsumed < 1000
            await client.stream.aclose()
        else:
            raw = await RawHTTP2.connect(port)
            await raw.send(raw.headers(1, "/sse", end=False))
            await raw.until_data(1, b"tick")
            for _ in range(size // 16_000):
                await raw.send(DataFrame(1, bytes(16_000)))
                await raw.until_data(1, b"tick")
            await raw.stream.aclose()
        await settled(server, requests_open=0)
        assert kept < 300_000


async def test_a_body_that_may_be_read_is_kept(app: QuartTrio) -> None:
    """An application that answers a POST with an event stream may read the body meanwhile."""
    read = b""

    async def duplex(scope: Any, receive: Any, send: Any) -> None:
        nonlocal read
        if scope["type"] != "http":
            return
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b":\n", "more_body": True})
        while (message := await receive())["type"] == "http.request":
            read += message["body"]
            if not message["more_body"]:
                break
        await send({"type": "http.response.body", "body": b"data: over\n\n"})

    async with guarded(duplex) as (_, port):
        client = await connect(port)
        head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 300000\r\n\r\n"
        await client.stream.send_all(head)
        assert await client.stream.receive_some()
        await client.stream.send_all(b"x" * 300_000)
        assert b"data: over" in await rest_of(client)
        assert len(read) == 300_000
        await client.stream.aclose()


async def test_a_handshake_that_never_ends(app: QuartTrio, tmp_path: Any) -> None:
    """A TLS handshake has the time that a request's head has, and counts as a connection."""
    identity = trustme.CA().issue_cert("127.0.0.1")
    identity.private_key_pem.write_to_path(tmp_path / "key.pem")
    identity.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    config = config_for()
    config.certfile, config.keyfile = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    async with guarded(app, config=config, head_timeout=0.4) as (server, port):
        for begun in (b"", b"\x16\x03\x01"):
            client = await trio.open_tcp_stream("127.0.0.1", port)
            await client.send_all(begun) if begun else None
            await settled(server, connections_open=1)
            with trio.fail_after(20), suppress(trio.BrokenResourceError):
                assert await client.receive_some() == b""
            await settled(server, connections_open=0)
            await client.aclose()
