"""Clients that would hurt others through the server's own limits; each was found in a review."""

from __future__ import annotations

import gc
from typing import Any

import h2.connection
import h2.errors
import h2.events
import pytest
import trio
import trio.testing
import wsproto
from guarded import config_for, connect, guarded, settled
from hypercorn.logging import Logger
from hypercorn.protocol.events import Body
from wsproto.events import BytesMessage, Ping, Request

from penstock.hypercorn.protocol.http2 import HTTP2
from penstock.hypercorn.server.process import GC_THRESHOLDS, tuned_process


async def deaf(scope: Any, receive: Any, send: Any) -> None:
    """Accepts a WebSocket, and reads nothing for a second."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await trio.sleep(1)
        while (await receive())["type"] != "websocket.disconnect":
            pass
    elif scope["type"] == "http":
        while (await receive())["type"] != "http.disconnect":
            pass


def handshake() -> tuple[wsproto.WSConnection, bytes]:
    client = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    return client, client.send(Request(host="x", target="/"))


async def test_a_frame_behind_the_handshake_leaves_nothing_behind() -> None:
    """Hypercorn refuses it and tells its application nothing more; we do."""
    async with guarded(deaf) as (server, port):
        before = server.statistics().tasks
        for _ in range(5):
            _, request = handshake()
            client = await connect(port)
            await client.stream.send_all(request + b"\x82\x80abcd")
            await client.stream.receive_some()
            await client.stream.aclose()
        with trio.fail_after(60):
            await settled(server, connections_open=0, requests_open=0, tasks=before)


async def test_empty_messages_fill_an_inbox_too() -> None:
    """Messages without content are bounded, like others, when nobody takes them."""
    async with guarded(deaf) as (server, port):
        websocket, request = handshake()
        client = await connect(port)
        await client.stream.send_all(request)
        websocket.receive_data(bytes(await client.stream.receive_some()))
        list(websocket.events())
        empty = websocket.send(BytesMessage(b""))
        with trio.move_on_after(0.5):
            await client.stream.send_all(empty * 20_000)
        (connection,) = server._connections
        assert len(connection.requests._queues[0]._messages) < 15_000
        await client.stream.aclose()
        await settled(server, connections_open=0)


async def test_a_message_over_its_limit_ends_the_connection() -> None:
    """Hypercorn says that it is too long, and goes on collecting it."""
    config = config_for()
    config.websocket_max_message_size = 1000
    async with guarded(deaf, config=config) as (server, port):
        websocket, request = handshake()
        client = await connect(port)
        await client.stream.send_all(request)
        websocket.receive_data(bytes(await client.stream.receive_some()))
        list(websocket.events())
        part = websocket.send(BytesMessage(b"x" * 600, message_finished=False))
        with trio.fail_after(60):
            try:
                for _ in range(1000):
                    await client.stream.send_all(part)
                    await trio.sleep(0.01)
            except trio.BrokenResourceError:
                pass
        await client.stream.aclose()
        await settled(server, connections_open=0)


async def test_a_ping_during_a_large_message_is_no_offence() -> None:
    """What the application sends is not held against a client that asks for an answer."""
    payload = b"x" * 4_000_000

    async def large(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "bytes": payload})
            await receive()

    async with guarded(large) as (_, port):
        websocket, request = handshake()
        client = await connect(port)
        await client.stream.send_all(request)
        received = 0
        first = True
        with trio.fail_after(60):
            while received < len(payload):
                websocket.receive_data(bytes(await client.stream.receive_some(65536)))
                for event in websocket.events():
                    if isinstance(event, BytesMessage):
                        received += len(event.data)
                if first and received:
                    first = False
                    await client.stream.send_all(websocket.send(Ping()))
        await client.stream.aclose()


def h2_client() -> h2.connection.H2Connection:
    client = h2.connection.H2Connection()
    client.initiate_connection()
    return client


HEADERS = [(":method", "GET"), (":path", "/"), (":authority", "x"), (":scheme", "http")]


async def test_a_connection_that_only_begins_http_2_is_closed() -> None:
    """It is as idle as any other."""
    config = config_for()
    config.keep_alive_timeout = 0.3
    async with guarded(deaf, config=config, http2=True) as (server, port):
        client = await connect(port)
        await client.stream.send_all(h2_client().data_to_send())
        begun = trio.current_time()
        await settled(server, connections_accepted=1)
        with trio.fail_after(60):
            await settled(server, connections_open=0)
        assert trio.current_time() - begun > 0.2
        await client.stream.aclose()


async def test_an_upgrade_that_is_refused_for_its_host() -> None:
    """The reader is not caught in the answer; who leaves is noticed."""
    config = config_for()
    config.server_names = ["right"]
    upgrade = (
        b"GET / HTTP/1.1\r\nHost: wrong\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    )
    async with guarded(deaf, config=config, http2=True) as (server, port):
        client = await connect(port)
        await client.stream.send_all(upgrade)
        await client.stream.receive_some()
        await client.stream.aclose()
        with trio.fail_after(60):
            await settled(server, connections_open=0)


async def test_rapid_reset_starts_only_so_many_applications() -> None:
    """Opening and resetting streams does not run more of them than twice the limit of streams."""
    released = trio.Event()

    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            with trio.CancelScope(shield=True):
                await released.wait()

    config = config_for()
    config.h2_max_concurrent_streams = 10
    async with guarded(stubborn, config=config, http2=True) as (server, port):
        client, http = await connect(port), h2_client()
        for stream_id in range(1, 401, 2):
            http.send_headers(stream_id, HEADERS, end_stream=True)
            http.reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)
        await client.stream.send_all(http.data_to_send())
        while server.statistics().requests_open < 10:  # noqa: ASYNC110 - it has no event
            await trio.sleep(0.001)
        await trio.sleep(0.2)  # for those that should not be started to start
        assert server.statistics().requests_open <= 21
        released.set()
        await client.stream.aclose()
        await settled(server, connections_open=0)


async def test_a_frame_that_announces_too_much_is_refused_at_once() -> None:
    """Nine bytes do not make the server collect sixteen megabytes."""
    async with guarded(deaf, http2=True) as (server, port):
        client, http = await connect(port), h2_client()
        await client.stream.send_all(http.data_to_send() + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01")
        received: list[Any] = []
        async for data in client.stream:
            received += http.receive_data(bytes(data))
        ended = [each for each in received if isinstance(each, h2.events.ConnectionTerminated)]
        assert [each.error_code for each in ended] == [h2.errors.ErrorCodes.FRAME_SIZE_ERROR]
        await client.stream.aclose()
        await settled(server, connections_open=0)


async def test_sending_to_a_stream_that_was_reset_lets_others_run() -> None:
    """An application that only sends gives way, also when nothing of it is sent any more."""

    class Context:
        event_class = trio.Event
        time = staticmethod(trio.current_time)
        sleep = staticmethod(trio.sleep)

    arguments: list[Any] = [None, config_for(), Context(), None, None, False, None, None, None]
    protocol = HTTP2(*arguments)
    with trio.testing.assert_checkpoints():
        await protocol.stream_send(Body(stream_id=1, data=b"x"))


@pytest.mark.parametrize("broken", ["access", "exception"])
async def test_a_log_that_fails_ends_nothing(broken: str) -> None:
    """Neither the worker nor the request is held by a log that raises."""

    class Broken(Logger):
        async def access(self, *args: Any) -> None:
            if broken == "access":
                raise OSError("the log is full")

        async def exception(self, *args: Any, **kwargs: Any) -> None:
            raise OSError("the log is full")

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            if scope["path"] == "/wait":
                await deaf(scope, receive, send)
            else:
                raise LookupError

    config = config_for()
    config.logger_class = Broken
    async with guarded(failing, config=config) as (server, port):
        for path in (b"/wait", b"/fail", b"/wait"):
            client = await connect(port)
            await client.stream.send_all(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            if path == b"/fail":
                with trio.move_on_after(1):
                    await client.stream.receive_some()
            else:
                while not server.statistics().requests_open:  # noqa: ASYNC110 - it has no event
                    await trio.sleep(0.001)
            await client.stream.aclose()
            with trio.fail_after(60):
                await settled(server, connections_open=0, requests_open=0)


async def test_an_application_that_is_slow_to_read_is_not_its_clients_fault() -> None:
    """The time-out is for the client's silence, not for ours."""
    got = []

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await trio.sleep(1)
            while (message := await receive())["type"] == "http.request":
                got.append(len(message["body"]))
                if not message["more_body"]:
                    break
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    async with guarded(slow, body_timeout=0.3) as (_, port):
        client = await connect(port)
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
        await client.stream.send_all(head + b"x" * 1_000_000)
        assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 204 ")
        assert sum(got) == 1_000_000
        await client.stream.aclose()


def test_the_process_is_as_it_was() -> None:
    """What was tuned for the server is put back, whoever ends first."""
    before = gc.get_threshold(), gc.get_freeze_count()
    first, second = tuned_process(), tuned_process()
    first.__enter__()
    second.__enter__()
    assert gc.get_threshold() == GC_THRESHOLDS
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert (gc.get_threshold(), gc.get_freeze_count()) == before
