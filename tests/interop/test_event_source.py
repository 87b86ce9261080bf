"""EventSource against real servers: ours, one that is restarted, and one that behaves badly."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
import trio
import trio.testing
import trustme
from guarded import config_for, guarded, settled
from processes import free_port
from quart import request
from quart_trio import QuartTrio
from scripted import CHUNKED, OPEN, scripted

from figures import figure
from penstock import ServerSentEvent
from penstock.client import EventSource, SourceState
from penstock.errors import ConnectionFailed
from penstock.hypercorn import Server
from penstock.quart import EventSourceResponse

EVENT = b"data: a\n\n"


def counting(pause: float = 0.001) -> QuartTrio:
    """An application that counts on from the Last-Event-ID."""
    app = QuartTrio(__name__)

    @app.get("/")
    async def numbers() -> EventSourceResponse:
        after = int(request.headers.get("Last-Event-ID", "0"))

        async def count(events: trio.abc.SendChannel[ServerSentEvent]) -> None:
            number = after
            while True:
                number += 1
                await events.send(ServerSentEvent(str(number), id=str(number)))
                await trio.sleep(pause)

        return EventSourceResponse(count)

    return app


@asynccontextmanager
async def nothing_left(server: Server) -> AsyncIterator[None]:
    """Wait for the server to have no connection after the block, and fail if a task is left."""
    before = trio.lowlevel.current_statistics().tasks_living
    yield
    await settled(server, connections_open=0)
    await settled(server, connections_open=0)
    await trio.testing.wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living == before


async def take(source: EventSource, count: int) -> list[int]:
    return [int((await anext(source)).data or "") for _ in range(count)]


async def test_leaving_the_block_ends_the_stream() -> None:
    """The server's producer is cancelled at once; nothing of the client is left."""
    async with guarded(counting()) as (server, port):
        async with nothing_left(server):
            async with EventSource(f"http://127.0.0.1:{port}/") as source:
                assert await take(source, 100) == list(range(1, 101))
                assert server.statistics().streams.streams_open == 1
            left = trio.current_time()
            while server.statistics().streams.streams_open:  # noqa: ASYNC110 - no event of it
                await trio.sleep(0.001)
            seconds = trio.current_time() - left
            figure(seconds < 0.5, f"ended {seconds:.3f} s after the block")


async def test_a_cancelled_read_closes_the_connection_and_loses_nothing() -> None:
    """Cancelled repeatedly while it waits, it resumes where it was."""
    async with guarded(counting(0.02)) as (server, port):
        async with EventSource(f"http://127.0.0.1:{port}/", retry=0, jitter=0) as source:
            heard: list[int] = []
            while len(heard) < 20:
                with trio.move_on_after(0.05):
                    while True:
                        heard += await take(source, 1)
            assert heard == list(range(1, len(heard) + 1))
        await settled(server, connections_open=0)


async def test_a_server_that_is_restarted() -> None:
    """It resumes after a restart on the same port: no number is missing or repeated."""
    port = free_port()
    config = config_for(f"127.0.0.1:{port}")
    heard: list[int] = []
    async with EventSource(f"http://127.0.0.1:{port}/", retry=50, max_delay=0.2) as source:
        for _ in range(3):
            async with guarded(counting(), config=config, reconnect_spread=0.2):
                heard += await take(source, 200)
                assert source.state is SourceState.OPEN
    assert heard == list(range(1, 601))


async def test_nobody_there() -> None:
    """The operating system's words say why, and the error is raised by the iteration."""
    port = free_port()
    async with EventSource(f"http://127.0.0.1:{port}/", retry=1, max_attempts=3) as source:
        with pytest.raises(ConnectionFailed, match=r"Connection refused; gave up after 3 attempts"):
            await anext(source)
    async with EventSource("http://no.such.host.invalid/", max_attempts=1) as source:
        with pytest.raises(ConnectionFailed, match=r"[Nn]ame|resolution"):
            await anext(source)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param([OPEN, EVENT], id="the connection ends"),
        pytest.param([CHUNKED, b"9\r\n", EVENT, b"\r\n0\r\n\r\n"], id="the body ends"),
        pytest.param([CHUNKED, b"9\r\n", EVENT, b"\r\n9\r\ndat"], id="cut in a chunk"),
        pytest.param([CHUNKED, b"9\r\n", EVENT, b"\r\nzz\r\n"], id="no chunk"),
        pytest.param(
            [OPEN.replace(b"\r\n\r\n", b"\r\nContent-Length: 20\r\n\r\n"), EVENT], id="cut short"
        ),
        pytest.param([OPEN.replace(b"1.1", b"1.0"), EVENT], id="HTTP/1.0"),
    ],
)
async def test_however_a_stream_ends(answer: list[bytes | float]) -> None:
    """The events before the end were received, and the stream is reopened."""
    async with scripted(answer, [b"nonsense\r\n\r\n"], answer) as server:
        async with EventSource(server.url, retry=1) as source:
            assert [event.data async for event in source] == ["a", "a"]
    assert len(server.requests) == 4


async def test_a_server_that_falls_silent() -> None:
    """Silence of a live connection, and no answer at all, are both noticed."""
    async with scripted([OPEN, EVENT, 30.0], [30.0], [OPEN, EVENT, 30.0]) as server:
        began = trio.current_time()
        async with EventSource(server.url, retry=1, max_silence=1, connect_timeout=3) as source:
            assert [event.data async for event in source] == ["a", "a"]
        assert trio.current_time() - began >= 1 + 3 + 1
        assert len(server.gone) == 3


async def test_a_redirect_that_never_ends_is_not_waited_for() -> None:
    """Its body is not read."""
    head = b"HTTP/1.1 302 Found\r\nLocation: /there\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with scripted([head, b"9\r\n", EVENT, 30.0], [OPEN, EVENT, 30.0]) as server:
        async with EventSource(server.url, connect_timeout=5) as source:
            assert (await anext(source)).data == "a"
        assert [each.split()[1] for each in server.requests] == [b"/events", b"/there"]


async def test_a_peer_that_vanishes_is_looked_for() -> None:
    """The kernel asks it whether it is there, though nothing is sent."""
    async with scripted([OPEN, EVENT, 30.0]) as server:
        async with httpx2.AsyncClient() as client:
            sockets: list[trio.socket.SocketType] = []

            async def note(response: httpx2.Response) -> None:
                sockets.append(response.extensions["network_stream"].get_extra_info("socket"))

            client.event_hooks["response"] = [note]
            async with EventSource(server.url, client=client) as source:
                await anext(source)
                (connected,) = sockets
                assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30


async def test_over_tls(tmp_path: Path) -> None:
    """Only a server with the right certificate is listened to; leaving waits for no farewell."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    config = config_for()
    config.certfile, config.keyfile = str(tmp_path / "cert"), str(tmp_path / "key")
    certificate.cert_chain_pems[0].write_to_path(config.certfile)
    certificate.private_key_pem.write_to_path(config.keyfile)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with guarded(counting(), config=config) as (server, port):
        url = f"https://127.0.0.1:{port}/"
        async with httpx2.AsyncClient(verify=trusting) as client, nothing_left(server):
            async with EventSource(url, client=client) as source:
                assert await take(source, 50) == list(range(1, 51))
        async with EventSource(url, max_attempts=1) as source:
            with pytest.raises(ConnectionFailed, match="certificate verify failed"):
                await anext(source)


@pytest.mark.parametrize("pause", [0, 0.05])
async def test_left_while_events_pour(pause: float) -> None:
    """A server that never stops sending does not keep anybody in the block."""
    async with guarded(counting(0)) as (server, port):
        async with nothing_left(server):
            async with EventSource(f"http://127.0.0.1:{port}/") as source:
                await take(source, 1)
                await trio.sleep(pause)
                left = trio.current_time()
            seconds = trio.current_time() - left
            figure(seconds < 1, f"left the block within {seconds:.3f} s")
