"""The guarded connection on real sockets: what is written through, and what limits it."""

from __future__ import annotations

import logging
import socket
import struct
from itertools import chain, repeat
from typing import Any

import h11
import pytest
import trio
import trio.testing
from guarded import Client, config_for, connect, guarded, settled
from hypercorn.middleware import ProxyFixMiddleware
from quart import request
from quart_trio import QuartTrio

from figures import figure
from penstock import CloseReason, EventStreamDecoder, ServerSentEvent
from penstock.hypercorn.protocol.http1 import HTTP1
from penstock.hypercorn.wire.turns import Turn
from penstock.quart import EventSourceResponse, require_trio

Events = trio.abc.SendChannel[ServerSentEvent]


@pytest.fixture
def app() -> QuartTrio:
    app = QuartTrio(__name__)
    require_trio(app)

    async def big(events: Events) -> None:
        for number in range(100):
            await events.send(ServerSentEvent(f"{number} " + "x" * 50_000))

    async def short(events: Events) -> None:
        await events.send(ServerSentEvent("one"))
        await events.send(ServerSentEvent("two"))

    async def endless(events: Events) -> None:
        while True:
            await events.send(ServerSentEvent("tick"))
            await trio.sleep(0.01)

    producers = {"big": big, "short": short, "endless": endless}

    @app.get("/<name>")
    async def stream(name: str) -> EventSourceResponse:
        return EventSourceResponse(producers[name])

    @app.get("/")
    async def plain() -> str:
        return "plain"

    @app.post("/upload")
    async def upload() -> str:
        return str(len(await request.get_data()))

    return app


def data_of(body: bytes) -> list[str | None]:
    return [event.data for event in EventStreamDecoder().feed(body)]


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_partial_writes_stay_in_order(app: QuartTrio, version: str) -> None:
    """A client that begins to read late, and slowly, has every byte in its place."""
    async with guarded(app) as (server, port):
        client = await connect(port)
        line = f"GET /big HTTP/{version}\r\nHost: x\r\n\r\n"
        await client.stream.send_all(line.encode())
        connection = await _first_connection(server)
        while not connection.outgoing.pending:  # noqa: ASYNC110 - it has no event
            await trio.sleep(0.001)
        body = b""
        client.h11.send(h11.Request(method="GET", target="/big", headers=[("host", "x")]))
        client.h11.send(h11.EndOfMessage())
        response = await client.event()
        framing = dict(response.headers).get(b"transfer-encoding")
        assert framing == (b"chunked" if version == "1.1" else None)
        body = await client.rest()
        assert data_of(body) == [f"{number} " + "x" * 50_000 for number in range(100)]
        await client.stream.aclose()
        await settled(server, connections_open=0)
        assert server.streams.statistics().streams_closed == {CloseReason.FINISHED: 1}


async def _first_connection(server: Any) -> Any:
    while not len(server._connections):  # noqa: ASYNC110 - it has no event
        await trio.sleep(0.001)
    (connection,) = server._connections
    while not connection.carries_stream:  # noqa: ASYNC110 - it has no event
        await trio.sleep(0.001)
    return connection


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("body", [b"", b"some", b"all of it"])
async def test_an_early_answer_says_whether_it_is_the_last(
    app: QuartTrio, body: bytes, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection is used again if the request is whole; else the answer says that it closes.

    A proxy that is not told sends its next request into a closed connection. A reader that waits
    for its turn, on a busy server, changes nothing.
    """
    answered = trio.Event()
    if waits:
        dues = chain([False, True], repeat(False))  # before the head, and behind it
        monkeypatch.setattr(Turn, "due", property(lambda _: next(dues)))
        monkeypatch.setattr(Turn, "next", lambda _: answered.wait())
    async with guarded(app) as (_, port):
        client = await connect(port)
        client.h11.send(h11.Request(method="POST", target="/nowhere", headers=[("host", "x")]))
        head = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
        await client.stream.send_all(head + body)
        response = await client.event()
        assert response.status_code == 405
        closes = (b"connection", b"close") in response.headers
        assert closes is (len(body) < 9)
        with trio.fail_after(60):
            await client.rest()
            await trio.testing.wait_all_tasks_blocked()
            answered.set()
            if closes:
                assert await client.stream.receive_some() == b""
            else:
                for _ in range(2):
                    client.h11 = h11.Connection(h11.CLIENT)
                    await client.ask("/")
                    assert await client.rest() == b"plain"
        await client.stream.aclose()


async def test_a_connection_is_used_again(app: QuartTrio) -> None:
    """After a stream's proper end come a plain answer and another stream, on one connection."""
    async with guarded(app) as (server, port):
        client = await connect(port)
        for path, expected in (("/short", ["one", "two"]), ("/", None), ("/short", ["one", "two"])):
            response = await client.ask(path)
            assert response.status_code == 200
            body = await client.rest()
            assert body == b"plain" if expected is None else data_of(body) == expected
            client.h11.start_next_cycle()
        assert client.raw.count(b"\r\n0\r\n\r\n") == 2
        assert server.statistics().connections_accepted == 1
        await client.stream.aclose()


async def test_head_has_no_body(app: QuartTrio) -> None:
    """HEAD on a stream is answered, runs nothing, and leaves the connection usable."""
    async with guarded(app) as (server, port):
        client = await connect(port)
        await client.ask("/endless", "HEAD")
        assert await client.rest() == b""
        client.h11.start_next_cycle()
        await client.ask("/")
        assert await client.rest() == b"plain"
        assert server.streams.statistics().bytes_sent == 0
        await client.stream.aclose()


async def test_http_1_0_ends_with_the_connection(app: QuartTrio) -> None:
    """There are no chunks there: the bytes are the body, and the end is the end."""
    async with guarded(app) as (server, port):
        client = await connect(port)
        await client.stream.send_all(b"GET /short HTTP/1.0\r\n\r\n")
        received = b""
        async for data in client.stream:
            received += data
        await client.stream.aclose()
        assert received.endswith(b"\r\n\r\n:\ndata: one\n\ndata: two\n\n")
        await settled(server, connections_open=0)


async def test_a_descriptor_that_is_used_again_gets_nothing_of_its_last_owner(
    app: QuartTrio,
) -> None:
    """A write to a connection that was closed a moment ago reaches nobody."""
    leaked = trio.Event()
    go = trio.Event()

    async def late(events: Events) -> None:
        await events.send(ServerSentEvent("early"))
        with trio.CancelScope(shield=True):
            await go.wait()
        try:
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                for _ in range(100):
                    await events.send(ServerSentEvent("LEAK"))
        finally:
            leaked.set()

    @app.get("/late")
    async def late_stream() -> EventSourceResponse:
        return EventSourceResponse(late)

    async with guarded(app) as (server, port):
        first = await connect(port)
        await first.ask("/late")
        await first.until(b"early\n\n")
        (connection,) = server._connections
        descriptor = connection._socket.fileno()
        waiting = trio.socket.socket()  # so that the number that is free next is the server's
        connection.abort()
        await waiting.connect(("127.0.0.1", port))
        second = Client(trio.SocketStream(waiting))
        await second.ask("/endless")
        others = [each._socket.fileno() for each in server._connections if not each.closed]
        go.set()
        await leaked.wait()
        assert others == [descriptor]
        assert b"LEAK" not in await second.until(b"tick\n\n")
        await first.stream.aclose()
        await second.stream.aclose()


async def test_a_middleware_that_changes_the_body_sees_all_of_it(app: QuartTrio) -> None:
    """Nothing is written past one that compresses, signs or counts: here, it shouts."""
    inner = app.asgi_app

    async def shouting(scope: Any, receive: Any, send: Any) -> None:
        async def shout(message: Any) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": message["body"].upper().replace(b":\n", b": HI\n", 1)}
            await send(message)

        await inner(scope, receive, shout)

    app.asgi_app = shouting  # type: ignore[method-assign]
    async with guarded(app) as (_, port):
        client = await connect(port)
        await client.ask("/short")
        body = await client.rest()
        assert body == b": HI\nDATA: ONE\n\nDATA: TWO\n\n"
        await client.stream.aclose()


async def test_a_middleware_that_copies_the_scope(app: QuartTrio) -> None:
    """Hypercorn's `ProxyFixMiddleware` copies it deeply: streams live, are written through, end."""
    app.asgi_app = ProxyFixMiddleware(app.asgi_app, "legacy", 1)  # type: ignore[method-assign]
    async with guarded(app) as (server, port):
        client = await connect(port)
        response = await client.ask("/endless", x_forwarded_for="203.0.113.9")
        assert response.status_code == 200
        await client.until(b"tick\n\n")
        (connection,) = server._connections
        assert isinstance(connection.protocol, HTTP1)
        assert connection.protocol.close_direct_writer is not None
        assert server.streams.statistics().streams_open == 1
        await server.streams.drain()
        await client.rest()
        assert server.streams.statistics().streams_closed == {CloseReason.DRAINING: 1}
        await client.stream.aclose()
        await settled(server, connections_open=0)


@pytest.mark.parametrize("fate", ["close", "reset", "half-close"])
async def test_a_client_that_goes_between_two_writes(app: QuartTrio, fate: str) -> None:
    """It is noticed, and nothing is left: tasks, sockets, streams."""
    async with guarded(app) as (server, port):
        before = server.statistics().tasks
        for _ in range(20):
            client = await connect(port)
            await client.ask("/endless")
            await client.until(b"tick\n\n")
            if fate == "reset":
                linger = struct.pack("ii", 1, 0)
                client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            if fate == "half-close":
                await client.stream.send_eof()
                with trio.fail_after(60):
                    await settled(server, connections_open=0)
            await client.stream.aclose()
        with trio.fail_after(60):
            await settled(server, connections_open=0, requests_open=0, tasks=before)
        assert server.streams.statistics().streams_closed == {CloseReason.DISCONNECTED: 20}


async def test_a_client_that_does_not_read_is_slow(app: QuartTrio) -> None:
    """It is cut off after the send timeout, for that reason; one that reads is not."""
    async with guarded(app, send_timeout=0.5) as (server, port):
        good, bad = await connect(port), await connect(port)
        await good.ask("/endless")
        await bad.stream.send_all(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        begun = trio.current_time()
        await settled(server, connections_open=1)
        seconds = trio.current_time() - begun
        assert seconds > 0.4
        figure(seconds < 1, f"cut off after {seconds:.2f} s")
        assert server.streams.statistics().streams_closed == {CloseReason.SLOW: 1}
        assert await good.until(b"tick\n\n")
        await good.stream.aclose()
        await bad.stream.aclose()


async def test_connections_have_a_limit(app: QuartTrio) -> None:
    """Who is beyond it is answered 503, and when to come back; those who are there live on."""
    async with guarded(app, max_connections=2) as (server, port):
        streams = [await connect(port) for _ in range(2)]
        for client in streams:
            await client.ask("/endless")
        late = await connect(port)
        response = await late.ask("/")
        assert response.status_code == 503
        assert dict(response.headers)[b"retry-after"] == b"5"
        assert b"too many connections; retry in 5 s" in await late.rest()
        assert await late.stream.receive_some() == b""
        await late.stream.aclose()
        for client in streams:
            await client.until(b"tick\n\n")
        await streams[0].stream.aclose()
        await settled(server, connections_open=1)
        next_one = await connect(port)
        assert (await next_one.ask("/")).status_code == 200
        assert server.statistics().connections_refused == 1
        await next_one.stream.aclose()
        await streams[1].stream.aclose()


async def test_addresses_have_a_limit(app: QuartTrio) -> None:
    """Who has too many connections from one address is answered 429; another address is not."""
    async with guarded(app, max_connections_per_address=1) as (_, port):
        first, second = await connect(port), await connect(port)
        assert (await first.ask("/endless")).status_code == 200
        assert (await second.ask("/")).status_code == 429
        other = Client(await trio.open_tcp_stream("127.0.0.1", port, local_address="127.0.0.2"))
        assert (await other.ask("/")).status_code == 200
        for client in (first, second, other):
            await client.stream.aclose()


async def test_a_request_has_limits(app: QuartTrio) -> None:
    """A head that is too long is answered 431; one that is slow, or a body, is cut off."""
    async with guarded(app) as (_, port):
        client = await connect(port)
        await client.stream.send_all(b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000)
        assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 431 ")
        await client.stream.aclose()
    config = config_for()
    config.keep_alive_timeout = 0.3
    async with guarded(app, config=config, body_timeout=0.3) as (server, port):
        upload = b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"
        for sent in (b"GET / HT", upload):
            client = await connect(port)
            await client.stream.send_all(sent)
            begun = trio.current_time()
            try:
                assert await client.stream.receive_some() == b""
            except trio.BrokenResourceError:
                assert sent is upload  # it was in the middle of something
            seconds = trio.current_time() - begun
            assert seconds > 0.2
            figure(seconds < 0.8, f"cut off after {seconds:.2f} s")
            await client.stream.aclose()
        await settled(server, connections_open=0)


async def test_a_body_that_comes_slowly_but_comes(app: QuartTrio) -> None:
    """The time-out is for silence, not for the whole."""
    async with guarded(app, body_timeout=2) as (_, port):
        client = await connect(port)
        await client.stream.send_all(
            b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n"
        )
        for _ in range(6):
            await trio.sleep(0.4)
            await client.stream.send_all(b"x")
        assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 200 ")
        await client.stream.aclose()


async def test_an_application_that_does_not_read_its_request(app: QuartTrio) -> None:
    """The client may send only so much, and when it leaves while nobody reads, that is seen."""
    told = trio.Event()

    async def deaf(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await trio.sleep(0.5)
            while (await receive())["type"] != "http.disconnect":
                pass
            told.set()

    async with guarded(deaf) as (server, port):
        client = await connect(port)
        await client.stream.send_all(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n"
        )
        with trio.move_on_after(0.3):
            await client.stream.send_all(b"x" * 100_000_000)
        (connection,) = server._connections
        assert connection.requests.unconsumed < 200_000
        linger = struct.pack("ii", 1, 0)
        client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await client.stream.aclose()
        await told.wait()


async def test_the_kernel_is_told(app: QuartTrio) -> None:
    """Accepted sockets have the options of the settings, by inheritance."""
    async with guarded(app, tcp_user_timeout=7, tcp_keep_alive=9, send_buffer=32768) as (
        server,
        port,
    ):
        client = await connect(port)
        await client.ask("/")
        (connection,) = server._connections
        get = connection._socket.getsockopt
        assert get(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 7000
        assert get(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert get(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 9
        assert get(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * 32768
        await client.stream.aclose()


async def test_what_the_system_cannot_do_is_logged_once(
    app: QuartTrio, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A system without an option serves all the same, and says what is missing."""
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT")
    with caplog.at_level(logging.WARNING, "penstock.hypercorn.server.listeners"):
        async with guarded(app) as (_, port):
            client = await connect(port)
            assert (await client.ask("/")).status_code == 200
            await client.stream.aclose()
    assert [record.message for record in caplog.records] == [
        "This system cannot set tcp_user_timeout (TCP_USER_TIMEOUT)"
    ]


async def test_health(app: QuartTrio) -> None:
    """The server answers for itself at /-/ready and /-/live, unless it is told not to."""
    async with guarded(app) as (_, port):
        client = await connect(port)
        for path, said in (("/-/ready", b"ready\n"), ("/-/live", b"live\n")):
            assert (await client.ask(path)).status_code == 200
            assert await client.rest() == said
            client.h11.start_next_cycle()
        await client.stream.aclose()
    async with guarded(app, health=None) as (_, port):
        client = await connect(port)
        assert (await client.ask("/-/ready")).status_code == 404
        await client.stream.aclose()


async def test_statistics_count_bytes(app: QuartTrio) -> None:
    """What came and went on connections, of those that are over too."""
    async with guarded(app) as (server, port):
        client = await connect(port)
        await client.ask("/short")
        await client.rest()
        figures = server.statistics()
        assert figures.bytes_sent == len(client.raw)
        assert figures.bytes_received == len(b"GET /short HTTP/1.1\r\nhost: x\r\n\r\n")
        assert repr(server).startswith("<Server 1 connections, <StreamGroup serving, 0 open")
        await client.stream.aclose()
        await settled(server, connections_open=0)
        assert server.statistics().bytes_sent == len(client.raw)
        assert server.statistics().streams.streams_closed == {CloseReason.FINISHED: 1}
