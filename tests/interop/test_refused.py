"""Requests that the server answers itself, in one line of log, and what they must not harm."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import pytest
import trio
from guarded import config_for, connect, guarded, settled
from hypercorn.config import Config
from hyperframe.frame import DataFrame, RstStreamFrame
from quart import request, websocket
from quart_trio import QuartTrio
from raw_http2 import RawHTTP2, reset

from penstock import ServerSentEvent
from penstock.quart import EventSourceResponse, require_trio

Events = trio.abc.SendChannel[ServerSentEvent]


@pytest.fixture
def app() -> QuartTrio:
    app = QuartTrio(__name__)
    require_trio(app)

    async def endless(events: Events) -> None:
        while True:
            await events.send(ServerSentEvent("tick"))
            await trio.sleep(0.01)

    @app.get("/sse")
    async def stream() -> EventSourceResponse:
        return EventSourceResponse(endless)

    @app.route("/", methods=["GET", "POST"])
    @app.route("/<path:name>", methods=["GET", "POST"])
    async def plain(name: str = "") -> str:
        await request.get_data()
        return f"{request.host}/{name}?{request.query_string.decode()}"

    @app.websocket("/ws")
    async def refusing() -> None:
        await websocket.close(1000)

    return app


@pytest.fixture
def config(caplog: pytest.LogCaptureFixture) -> Config:
    """Return a configuration whose error log the test sees."""
    config = config_for()
    config.errorlog = logging.getLogger("refused")
    caplog.set_level(logging.WARNING, "refused")
    return config


async def answer_to(port: int, *parts: bytes) -> bytes:
    """Send this, each part in a packet of its own, and return what comes until the end."""
    client = await connect(port)
    received = b""
    with suppress(trio.BrokenResourceError):
        for part in parts:
            await client.stream.send_all(part)
            await trio.sleep(0.02)
    with suppress(trio.BrokenResourceError), trio.move_on_after(20):
        async for data in client.stream:
            received += data
    await client.stream.aclose()
    return received


def head(*fields: bytes, line: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"\r\n".join((line, b"Host: x", b"Connection: close", *fields, b"", b""))


LIMIT = Config.h11_max_incomplete_size
FILL = LIMIT - len(head(b"X: "))

# What comes, and the status that is right.
HEADS = {
    "as long as allowed": (head(b"X: " + b"x" * FILL), 200),
    "one byte longer": (head(b"X: " + b"x" * (FILL + 1)), 431),
    "20 kB of cookies": (head(b"Cookie: " + b"x" * 20_000), 431),
    "as many fields as allowed": (head(*[b"x: y"] * 126), 200),
    "one more": (head(*[b"x: y"] * 127), 431),
    "16,000 empty fields": (head(*[b"x:"] * 16_000), 431),
}


@pytest.mark.parametrize("pieces", [1, 2, 40])
@pytest.mark.parametrize("name", HEADS)
async def test_a_head_has_one_limit(
    app: QuartTrio,
    config: Config,
    caplog: pytest.LogCaptureFixture,
    name: str,
    pieces: int,
) -> None:
    """It does not depend on packets, is answered 431, and logged in one line."""
    data, status = HEADS[name]
    async with guarded(app, config=config) as (server, port):
        answer = await answer_to(port, *cut(data, pieces))
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        await settled(server, connections_open=0)
    lines = [record.getMessage() for record in caplog.records]
    if status == 200:
        assert not lines
    else:
        (line,) = lines
        assert "sent a request that was answered 431: its head has more than 1" in line
        assert "\n" not in line


CHUNKED = b"Transfer-Encoding: chunked"
HANDSHAKE = (
    *(b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)
H2C = (b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings")


def trailer(data: bytes) -> bytes:
    """Return a request with a trailer."""
    return head(CHUNKED, line=b"POST / HTTP/1.1") + b"3\r\nabc\r\n0\r\n" + data + b"\r\n\r\n"


def extension(size: int, chunk: bytes = b"3;") -> bytes:
    """Return a request with a chunk that has an extension."""
    line = b"3\r\nabc\r\n" + chunk + b"x" * size
    rest = b"\r\nabc\r\n0\r\n\r\n" if chunk[:1] == b"3" else b"\r\n\r\n"
    return head(CHUNKED, line=b"POST / HTTP/1.1") + line + rest


# What comes behind the head, and the status that is right.
BODIES = {
    "a trailer as long as allowed": (trailer(b"x: " + b"x" * (LIMIT - 7)), 200),
    "one byte longer": (trailer(b"x: " + b"x" * (LIMIT - 6)), 431),
    "a trailer of spaces": (trailer(b"x: " + b" " * 20_000 + b"x"), 431),
    "a hundred fields": (trailer(b"\r\n".join([b"x: y"] * 100)), 200),
    "2,000 fields": (trailer(b"\r\n".join([b"x: y"] * 2000)), 431),
    "an extension": (extension(1000), 200),
    "a long extension": (extension(20_000), 431),
    "a longer extension": (extension(60_000), 431),
    "a long extension of the last chunk": (extension(20_000, b"0;"), 431),
    "large chunks": (
        (
            head(CHUNKED, line=b"POST / HTTP/1.1")
            + (b"%x\r\n" % 60_000 + b"0;\r\n" * 15_000 + b"\r\n") * 3
            + b"0\r\n\r\n"
        ),
        200,
    ),
}


@pytest.mark.parametrize("pieces", [1, 2, 3, 41])
@pytest.mark.parametrize("name", BODIES)
async def test_what_is_between_chunks_has_one_limit(
    app: QuartTrio, config: Config, caplog: pytest.LogCaptureFixture, name: str, pieces: int
) -> None:
    """It does not depend on packets, either."""
    data, status = BODIES[name]
    async with guarded(app, config=config) as (server, port):
        answer = await answer_to(port, *cut(data, pieces))
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert answer.count(b"HTTP/1.1 ") == 1
        await settled(server, connections_open=0)
    assert all(record.exc_info is None for record in caplog.records)


# What comes, and the status that is right; behind each comes a request that must not be served.
REQUESTS = {
    "no path": (head(line=b"GET ?x=1 HTTP/1.1"), 400),
    "a name": (head(line=b"GET index.html HTTP/1.1"), 400),
    "an asterisk": (head(line=b"GET * HTTP/1.1"), 400),
    "another scheme": (head(line=b"GET ftp://x/ HTTP/1.1"), 400),
    "no host": (head(line=b"GET http:///x HTTP/1.1"), 400),
    "a user": (head(line=b"GET http://me@x/ HTTP/1.1"), 400),
    "only a host": (head(line=b"GET x:80 HTTP/1.1"), 400),
    "CONNECT": (head(line=b"CONNECT x:80 HTTP/1.1"), 501),
    "HTTP/2.0 without being it": (head(line=b"GET / HTTP/2.0"), 505),
    "PRI": (head(line=b"PRI ?x HTTP/1.1"), 400),
    "length and chunks": (
        head(b"Content-Length: 3", CHUNKED, line=b"POST / HTTP/1.1") + b"0\r\n\r\n",
        400,
    ),
    "chunks of HTTP/1.0": (head(CHUNKED, line=b"POST / HTTP/1.0") + b"0\r\n\r\n", 400),
    "a host that is not ASCII": (b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n", 400),
    "a subprotocol that is not ASCII": (
        head(*HANDSHAKE, b"Connection: Upgrade", b"Sec-WebSocket-Protocol: \xff"),
        400,
    ),
    "an extension that is not ASCII": (
        head(*HANDSHAKE, b"Connection: Upgrade", b"Sec-WebSocket-Extensions: \xff"),
        400,
    ),
    "a connection that is not ASCII": (head(*HANDSHAKE, b"Connection: Upgrade, \xff"), 400),
    "h2c with settings that are not base64": (head(*H2C, b"HTTP2-Settings: AAMAAAB"), 400),
    "h2c with part of a setting": (head(*H2C, b"HTTP2-Settings: AAMA"), 400),
    "h2c with an impossible setting": (head(*H2C, b"HTTP2-Settings: AAIAAAAF"), 400),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_what_cannot_be_served_is_refused(
    app: QuartTrio, config: Config, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """The answer says so, the log in one line, and the connection ends behind it."""
    data, status = REQUESTS[name]
    data = data.replace(b"Connection: close\r\n", b"")
    async with guarded(app, config=config, http2=True) as (server, port):
        answer = await answer_to(port, data + head())
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert answer.count(b"HTTP/1.1 ") == 1
        await settled(server, connections_open=0)
    (record,) = caplog.records
    assert f"answered {status}: " in record.getMessage()
    assert record.exc_info is None


TARGETS = {
    "/a?b=c": "x/a?b=c",
    "http://y:81/a?b=c": "y:81/a?b=c",
    "HTTPS://y/a": "y/a?",
    "http://y": "y/?",
    "http://y?b=c": "y/?b=c",
}


@pytest.mark.parametrize("target", TARGETS)
async def test_an_absolute_target_is_its_path(app: QuartTrio, target: str) -> None:
    """It reaches the route of its path, and its host counts; for the server's health too."""
    async with guarded(app) as (_, port):
        answer = await answer_to(port, head(line=b"GET %s HTTP/1.1" % target.encode()))
        assert answer.endswith(TARGETS[target].encode())
        answer = await answer_to(port, head(line=b"GET http://y/-/ready HTTP/1.1"))
        assert answer.endswith(b"\r\n\r\nready\n")


async def test_options_of_the_server(app: QuartTrio, caplog: pytest.LogCaptureFixture) -> None:
    """An asterisk is a target for OPTIONS, whatever the application makes of it."""
    config = config_for()
    config.errorlog = logging.getLogger("refused")
    async with guarded(app, config=config) as (_, port):
        for target in (b"*", b"http://x"):
            answer = await answer_to(port, head(line=b"OPTIONS %s HTTP/1.1" % target))
            assert answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 404 ", b"HTTP/1.1 405 "))
    assert not caplog.records


WEBSOCKET = {
    "method": "CONNECT",
    "protocol": "websocket",
    "path": "/ws",
    "sec_websocket_version": "13",
}

STREAMS = {
    "no path": ({"path": "?x=1"}, "400"),
    "a URL": ({"path": "http://x/"}, "400"),
    "not ASCII": ({"path": "/h\u00e9llo"}, "400"),
    "method not ASCII": ({"method": "G\u00cbT"}, "400"),
    "too long": ({"cookie": "x" * 20_000}, "431"),
    "CONNECT to something else": ({"method": "CONNECT", "protocol": "connect-udp"}, "501"),
    "no method": ({"method": ""}, "400"),
    "a method with a path": ({"method": "GET /x HTTP/1.1"}, "400"),
    "a method with an escape": ({"method": "GET\x1b[31m"}, "400"),
    "a path with a space": ({"path": "/a b"}, "400"),
    "a path with a tab": ({"path": "/a\tb"}, "400"),
    "a query with an escape": ({"path": "/a?\x1b[31m"}, "400"),
    "a query with DEL": ({"path": "/a?\x7f"}, "400"),
    "a subprotocol that is not ASCII": (
        {**WEBSOCKET, "sec_websocket_protocol": "\u00ff"},
        "400",
    ),
    "an extension that is not ASCII": (
        {**WEBSOCKET, "sec_websocket_extensions": "\u00ff"},
        "400",
    ),
}


@pytest.mark.parametrize("together", [False, True], ids=["alone", "with RST_STREAM"])
@pytest.mark.parametrize("name", STREAMS)
async def test_one_stream_is_refused(
    app: QuartTrio,
    config: Config,
    caplog: pytest.LogCaptureFixture,
    name: str,
    together: bool,
) -> None:
    """Whatever is wrong with a request, and if it is taken back at once: its siblings live."""
    fields, status = STREAMS[name]
    async with guarded(app, config=config, http2=True) as (server, port):
        client = await RawHTTP2.connect(port)
        await client.send(client.headers(1, "/sse"))
        await client.until_data(1, b"tick")
        request = client.headers(3, **{"path": "/", **fields})  # type: ignore[arg-type]
        if len(request) > 2**14:
            request = split(request)
        await client.send(request, *([reset(3)] if together else []))
        if not together:
            assert await client.status(3) == status
        await client.send(client.headers(5))
        assert await client.status(5) == "200"
        await client.until_data(1, b"tick")
        await client.stream.aclose()
        await settled(server, connections_open=0)
    (record,) = caplog.records
    assert record.exc_info is None


MALFORMED: dict[str, dict[str, Any]] = {
    "an empty path": {"path": ""},
    "a path with a line end": {"path": "/a\r\nforged"},
    "a field of HTTP/1.1": {"connection": "close"},
    "a name in upper case": {"X-A": "b"},
    "a value with NUL": {"x": "a\0b"},
    "another host": {"host": "y"},
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_request_is_a_stream_error(
    app: QuartTrio, config: Config, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Its stream is reset, in one line of log; its siblings live."""
    async with guarded(app, config=config, http2=True) as (server, port):
        client = await RawHTTP2.connect(port)
        await client.send(client.headers(1, "/sse"))
        await client.until_data(1, b"tick")
        await client.send(client.headers(3, **MALFORMED[name]), client.headers(5))
        assert (await client.until(RstStreamFrame, 3)).error_code == 1  # PROTOCOL_ERROR
        assert await client.status(5) == "200"
        await client.until_data(1, b"tick")
        await client.stream.aclose()
        await settled(server, connections_open=0)
    (record,) = caplog.records
    assert record.exc_info is None
    assert record.getMessage().isprintable()


async def test_malformed_trailers_are_a_stream_error(
    app: QuartTrio, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    """The request is reset; its siblings live."""
    async with guarded(app, config=config, http2=True) as (server, port):
        client = await RawHTTP2.connect(port)
        await client.send(client.headers(1, "/sse"))
        await client.until_data(1, b"tick")
        # With a method and a path, which no trailers have.
        await client.send(
            client.headers(3, end=False, method="POST"), client.headers(3), client.headers(5)
        )
        assert (await client.until(RstStreamFrame, 3)).error_code == 1  # PROTOCOL_ERROR
        assert await client.status(5) == "200"
        await client.until_data(1, b"tick")
        await client.stream.aclose()
        await settled(server, connections_open=0)
    (record,) = caplog.records
    assert "trailer" in record.getMessage()


def cut(data: bytes, pieces: int) -> list[bytes]:
    """Return data in so many parts, or one less."""
    step = -(-len(data) // pieces)
    return [data[start : start + step] for start in range(0, len(data), step)]


def split(request: bytes) -> bytes:
    """Return a HEADERS frame as one of 16,000 bytes and one CONTINUATION."""
    block, rest = request[9:16_009], request[16_009:]
    flags = request[4] & ~0x4
    first = len(block).to_bytes(3, "big") + bytes([1, flags]) + request[5:9]
    return first + block + len(rest).to_bytes(3, "big") + b"\x09\x04" + request[5:9] + rest


async def test_a_request_after_the_last_that_is_taken_back(
    app: QuartTrio, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    """HEADERS and RST_STREAM in one packet, when no more requests are taken, end that stream."""
    config.keep_alive_max_requests = 3
    async with guarded(app, config=config, http2=True) as (server, port):
        client = await RawHTTP2.connect(port)
        await client.send(client.headers(1, "/sse"))
        await client.until_data(1, b"tick")
        for stream_id in (3, 5, 7):
            await client.send(client.headers(stream_id))
            await client.until_data(stream_id, b"x/?")
        await client.send(client.headers(9), reset(9), client.headers(11))
        assert (await client.until(RstStreamFrame, 11)).error_code == 7  # REFUSED_STREAM
        await client.until_data(1, b"tick")
        await client.stream.aclose()
        await settled(server, connections_open=0)
    assert not caplog.records


async def test_a_request_that_was_answered_is_stopped(app: QuartTrio) -> None:
    """A client that does not end its requests has no more streams open for that."""
    async with guarded(app, http2=True) as (_, port):
        client = await RawHTTP2.connect(port)
        for stream_id in range(1, 301, 2):
            await client.send(client.headers(stream_id, "/-/ready", end=False))
            await client.until_data(stream_id, b"ready")
            assert (await client.until(RstStreamFrame, stream_id)).error_code == 0
        await client.send(DataFrame(299, b"late"), client.headers(301))
        assert await client.status(301) == "200"
        await client.stream.aclose()


@pytest.mark.parametrize("change", ["empties", "replaces", "takes away", "empties all"])
@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_a_middleware_that_changes_the_scope(
    app: QuartTrio, config: Config, caplog: pytest.LogCaptureFixture, change: str, version: str
) -> None:
    """Whatever it does to its scope, the server still has its own: nothing fails, all live on."""
    inner = app.asgi_app

    async def changing(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] != "/sse":
            if change == "empties all":
                mine = {**scope, "extensions": {}}
                scope.clear()
                await inner(mine, receive, send)  # type: ignore[arg-type]
                return
            if change == "empties":
                scope["extensions"].clear()
            elif change == "replaces":
                scope["extensions"] = {}
            else:
                del scope["extensions"]
        await inner(scope, receive, send)

    app.asgi_app = changing  # type: ignore[method-assign]
    async with guarded(app, config=config, http2=True) as (_, port):
        if version == "1.1":
            client = await connect(port)
            for _ in range(3):
                assert (await client.ask("/")).status_code == 200
                assert await client.rest() == b"x/?"
                client.h11.start_next_cycle()
            await client.stream.aclose()
        else:
            raw = await RawHTTP2.connect(port)
            await raw.send(raw.headers(1, "/sse"))
            for stream_id in (3, 5):
                await raw.send(raw.headers(stream_id))
                await raw.until_data(stream_id, b"x/?")
            await raw.until_data(1, b"tick")
            await raw.stream.aclose()
    assert not caplog.records
