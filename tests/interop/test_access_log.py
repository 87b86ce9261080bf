"""The access log and statsd: one line for each request, with a status, however it ended."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h2.connection
import pytest
import trio
from guarded import config_for, connect, guarded, settled
from hypercorn.config import Config
from quart import websocket
from quart_trio import QuartTrio
from raw_http2 import RawHTTP2

from penstock import ServerSentEvent
from penstock.quart import EventSourceResponse

Scope = Any
Events = trio.abc.SendChannel[ServerSentEvent]


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def config(lines: list[str]) -> Config:
    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    config = config_for()
    config.accesslog = logging.Logger("access")
    config.accesslog.addHandler(Lines())
    config.access_log_format = "%(h)s %(R)s %(s)s %(L)s"
    return config


async def raw(scope: Scope, receive: Any, send: Any) -> None:
    """Answer, and do not care for the client's leaving."""
    if scope["type"] == "lifespan":
        return
    if scope["path"] == "/silent":
        await trio.sleep(0.2)
        return
    await send({"type": "http.response.start", "status": 201, "headers": []})
    await send({"type": "http.response.body", "body": b"x", "more_body": True})
    await trio.sleep(0.2)
    await send({"type": "http.response.body", "body": b"y"})


def quart() -> QuartTrio:
    app = QuartTrio(__name__)

    async def wait(events: Events) -> None:
        await trio.sleep_forever()

    @app.get("/hello")
    async def hello() -> str:
        return "hello"

    @app.get("/stream")
    async def stream() -> EventSourceResponse:
        return EventSourceResponse(wait)

    @app.route("/never", methods=["GET", "POST"])
    async def never() -> str:
        await trio.sleep_forever()
        return ""

    @app.get("/bad")
    async def bad() -> str:
        raise LookupError

    @app.websocket("/ws")
    async def ws() -> None:
        await trio.sleep(0.1)
        await websocket.accept()
        await websocket.receive()

    return app


@asynccontextmanager
async def served(app: Any, config: Config, lines: list[str]) -> AsyncIterator[int]:
    """Serve until the block has ended, and everything was logged."""
    async with guarded(app, config=config) as (server, port):
        yield port
        await settled(server, connections_open=0)


def logged(lines: list[str]) -> list[str]:
    """Return the lines without the client's port and the duration, which each has."""
    found = [re.fullmatch(r"127\.0\.0\.1:\d+ (.*) \d\.\d{6}", line) for line in lines]
    assert all(found), lines
    return sorted(each[1] for each in found if each)


async def test_clients_that_leave_with_the_last_byte(config: Config, lines: list[str]) -> None:
    """Whoever closes as soon as it has the answer is logged with that answer's status."""
    async with served(quart(), config, lines) as port:
        for _ in range(60):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
                client.shutdown(socket.SHUT_WR)
                await trio.lowlevel.checkpoint()
            await trio.sleep(0.002)
    assert len(lines) == 60
    assert {re.sub(r" (200|499)$", "", line) for line in logged(lines)} == {"GET /hello 1.1"}


@pytest.mark.parametrize(
    ("path", "reads", "status"),
    [
        ("/hello", b"hello", 200),
        ("/stream", b":", 200),
        ("/never", b"", 499),
        ("/bad", b"<p>", 500),
        ("/none", b"<p>", 404),
    ],
)
async def test_each_end_has_its_status(
    path: str, reads: bytes, status: int, config: Config, lines: list[str]
) -> None:
    """Streams whose client left have that of their response; without a response, it is 499."""
    async with served(quart(), config, lines) as port:
        client = await trio.open_tcp_stream("127.0.0.1", port)
        await client.send_all(f"GET {path}?q HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        received = b""
        while reads not in received:
            received += await client.receive_some()
        await trio.sleep(0.05)
        await client.aclose()
    assert logged(lines) == [f"GET {path}?q 1.1 {status}"]


@pytest.mark.parametrize(("path", "status"), [("/", 201), ("/silent", 499)])
async def test_an_application_that_goes_on_is_logged_once(
    path: str, status: int, config: Config, lines: list[str]
) -> None:
    """When its client has left, whatever it still sends."""
    async with served(raw, config, lines) as port:
        client = await trio.open_tcp_stream("127.0.0.1", port)
        await client.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await trio.sleep(0.05)
        await client.aclose()
        await trio.sleep(0.4)
    assert logged(lines) == [f"GET {path} 1.1 {status}"]


async def test_streams_of_http_2(config: Config, lines: list[str]) -> None:
    """RST_STREAM of one, and the connection's end for the other."""
    async with guarded(quart(), config=config, http2=True) as (server, port):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        client = h2.connection.H2Connection()
        client.initiate_connection()
        for number in (1, 3):
            head = [(":method", "GET"), (":path", "/stream"), (":scheme", "http")]
            client.send_headers(number, [*head, (":authority", "x")], end_stream=True)
        await stream.send_all(client.data_to_send())
        await settled(server, requests_open=2)
        while server.statistics().streams.streams_open < 2:  # noqa: ASYNC110 - it has no event
            await trio.sleep(0.002)
        await trio.sleep(0.05)
        client.reset_stream(1)
        await stream.send_all(client.data_to_send())
        await settled(server, requests_open=1)
        await stream.aclose()
        await settled(server, connections_open=0)
    assert logged(lines) == ["GET /stream 2 200"] * 2


@pytest.mark.parametrize(("seconds", "status"), [(0.0, 499), (0.3, 101)])
async def test_websockets(seconds: float, status: int, config: Config, lines: list[str]) -> None:
    """One whose client leaves during the handshake is logged, too; none is logged twice."""
    async with served(quart(), config, lines) as port:
        client = await trio.open_tcp_stream("127.0.0.1", port)
        await client.send_all(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        await trio.sleep(seconds)
        await client.aclose()
        await trio.sleep(0.3)
    assert logged(lines) == [f"GET /ws 1.1 {status}"]


async def test_a_request_cannot_forge_a_line(config: Config, lines: list[str]) -> None:
    """What is not printable in a path or a header is escaped."""
    config.access_log_format = "%(h)s %(U)s %(f)s %(s)s %(L)s"
    async with served(quart(), config, lines) as port:
        client = await trio.open_tcp_stream("127.0.0.1", port)
        await client.send_all(b"GET /a%0d%0aforged%1b%e2%80%ae HTTP/1.0\r\nReferer: \x9b2J\r\n\r\n")
        while await client.receive_some():
            pass
        await client.aclose()
    assert logged(lines) == [r"/a\r\nforged\x1b\u202e \x9b2J 404"]


CHUNKED = b"POST /never HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

REFUSED = {
    "two lengths": (
        b"POST /a%20b?q HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST /a b?q 1.1 400",
    ),
    "NUL": (b"GET /a HTTP/1.1\r\nHost: x\0\r\n\r\n", "GET /a 1.1 400"),
    "no path": (b"GET ?a HTTP/1.1\r\nHost: x\r\n\r\n", "GET -?a 1.1 400"),
    "an escape": (b"GET /\x1b[31m\xff?\x7f HTTP/1.1\r\n\r\n", r"GET /\x1b[31m\xff?\x7f 1.1 400"),
    "garbage": (b"\x16\x03\x01\r\n\r\n", r"\x16\x03\x01 - - 400"),
    "too long": (b"GET /a HTTP/1.1\r\nX: " + b"x" * 20_000, "GET /a 1.1 431"),
    "CONNECT": (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT x:80 1.1 501"),
    "HTTP/3": (b"GET /a HTTP/3.0\r\nHost: x\r\n\r\n", "GET /a 3.0 505"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "PRI * 2.0 505"),
    "a bad chunk": (CHUNKED + b"zz\r\n", "POST /never 1.1 400"),
    "a long trailer": (CHUNKED + b"0\r\nX: " + b"x" * 20_000, "POST /never 1.1 431"),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_the_server_refuses(what: str, config: Config, lines: list[str]) -> None:
    """It has its line, with the status of the answer."""
    data, line = REFUSED[what]
    async with served(quart(), config, lines) as port:
        client = await trio.open_tcp_stream("127.0.0.1", port)
        await client.send_all(data)
        assert (await client.receive_some()).startswith(b"HTTP/1.1 " + line[-3:].encode())
        await client.aclose()
    assert logged(lines) == [line]


async def test_what_the_server_refuses_on_http_2(config: Config, lines: list[str]) -> None:
    """So it is there."""
    async with guarded(quart(), config=config, http2=True) as (server, port):
        client = await RawHTTP2.connect(port)
        await client.send(client.headers(1, "/a?\x1b[31m", method="G\x7f"))
        assert await client.status(1) == "400"
        await client.stream.aclose()
        await settled(server, connections_open=0)
    assert logged(lines) == [r"G\x7f /a?\x1b[31m 2 400"]


async def test_statsd_has_every_status(config: Config) -> None:
    """Its counters are sent whoever has left meanwhile."""
    received = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.setblocking(False)
        config.statsd_host = f"127.0.0.1:{statsd.getsockname()[1]}"
        async with served(quart(), config, []) as port:
            for _ in range(5):
                client = await trio.open_tcp_stream("127.0.0.1", port)
                await client.send_all(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
                while b":\n" not in await client.receive_some():
                    pass
                await client.aclose()
        while True:
            try:
                received.append(statsd.recv(1000).decode())
            except BlockingIOError:
                break
    assert received.count("hypercorn.request.status.200:1|c|@1.0") == 5
    assert received.count("hypercorn.requests:1|c|@1.0") == 5


async def test_a_log_that_fails_ends_nothing(config: Config) -> None:
    """The request is answered all the same."""

    class Failing(config.logger_class):  # type: ignore[name-defined,misc]
        async def access(self, *args: object) -> None:
            raise OSError("full")

    config.logger_class = Failing
    async with served(quart(), config, []) as port:
        client = await connect(port)
        for _ in range(2):
            await client.ask("/hello")
            assert await client.rest() == b"hello"
            client.h11.start_next_cycle()
        await client.stream.aclose()
