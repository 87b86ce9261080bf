"""Many clients that come, stay a while, and go in the rudest of ways."""

from __future__ import annotations

import random
import resource
import socket
import struct
import time
from functools import partial

import pytest
import trio
import trio.testing
from hypercorn.config import Config
from quart_trio import QuartTrio

from figures import JUDGED
from penstock import CloseReason, ServerSentEvent
from penstock.hypercorn import Server
from penstock.quart import EventSourceResponse

CLIENTS = 1000 if JUDGED else 500


class Counting:
    """A producer that counts its starts and its ends."""

    def __init__(self) -> None:
        self.started = 0
        self.finished = 0

    async def __call__(self, events: trio.abc.SendChannel[ServerSentEvent]) -> None:
        self.started += 1
        try:
            while True:
                await events.send(ServerSentEvent("tick", event="ping"))
                await trio.sleep(1)
        finally:
            self.finished += 1


class Crowd:
    """Visitors who wait until all of them are there."""

    def __init__(self, size: int) -> None:
        self.missing = size
        self.complete = trio.Event()

    async def join(self) -> None:
        self.missing -= 1
        if not self.missing:
            self.complete.set()
        await self.complete.wait()


async def visit(port: int, seed: int, crowd: Crowd) -> None:
    """Open the stream, stay for a random time, and close or reset the connection."""
    fate = random.Random(seed)
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        received = b""
        while b"data: tick" not in received:
            received += await stream.receive_some(65536)
        await crowd.join()
        with trio.move_on_after(fate.uniform(0, 3)):
            async for _ in stream:
                pass
        if seed % 2:
            # Zero seconds of lingering: closing sends RST in the place of FIN.
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.fixture(autouse=True)
def _file_descriptors() -> None:
    """Client and server share this process: two descriptors for each client."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4 * CLIENTS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4 * CLIENTS, hard), hard))


async def test_many_clients_leave_nothing_behind() -> None:
    """Half close, half reset: every finally has run, and all counts are as before."""
    produce, stop = Counting(), trio.Event()
    app = QuartTrio(__name__)

    @app.get("/")
    async def stream() -> EventSourceResponse:
        return EventSourceResponse(produce)

    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.backlog = CLIENTS
    config.errorlog = None
    server = Server(app, config)
    group = server.streams
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            run = partial(server.serve, shutdown_trigger=stop.wait)
            (url,) = await nursery.start(run)
            port = int(url.rpartition(":")[2])
            await trio.testing.wait_all_tasks_blocked(0.05)
            tasks_before = trio.lowlevel.current_statistics().tasks_living

            begun = time.monotonic()
            crowd = Crowd(CLIENTS)
            async with trio.open_nursery() as visitors:
                for seed in range(CLIENTS):
                    visitors.start_soon(visit, port, seed, crowd)
                await crowd.complete.wait()
                assert group.statistics().streams_open == produce.started == CLIENTS
            gone = trio.current_time()
            while (  # noqa: ASYNC110 - there is no event for a count of tasks
                group.statistics().streams_open
                or trio.lowlevel.current_statistics().tasks_living != tasks_before
            ):
                await trio.sleep(0.001)
            settled = trio.current_time() - gone

            figures = group.statistics()
            assert figures.streams_closed == {CloseReason.DISCONNECTED: CLIENTS}
            assert (produce.started, produce.finished) == (CLIENTS, CLIENTS)
            assert trio.lowlevel.current_statistics().tasks_living == tasks_before
            print(
                f"{CLIENTS} clients at once, {time.monotonic() - begun:.1f} s, "
                f"{figures.events_sent} events; all as before {settled:.3f} s after the last left"
            )
            stop.set()
