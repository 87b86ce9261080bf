"""The stop, as an operator sees it: paced ends, stalled clients, requests in flight, signals."""

from __future__ import annotations

import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio
from guarded import connect, guarded, settled
from processes import PATIENCE, PENSTOCK, Server, serving, wait_until
from quart_trio import QuartTrio

from figures import figure
from penstock import ServerSentEvent
from penstock.quart import EventSourceResponse, require_trio

Events = trio.abc.SendChannel[ServerSentEvent]

CLIENTS = 300
STALLED = 10
# Long enough for all to end in it on a busy machine: what has not is cut.
WINDOW = 6.0

APP = """
import trio
from quart_trio import QuartTrio
from penstock import ServerSentEvent
from penstock.quart import EventSourceResponse, require_trio

app = QuartTrio(__name__)
require_trio(app)

async def tick(events):
    while True:
        await events.send(ServerSentEvent("tick"))
        await trio.sleep(1)

async def flood(events):
    while True:
        await events.send(ServerSentEvent("x" * 65536))

@app.get("/tick")
async def ticks():
    return EventSourceResponse(tick)

@app.get("/flood")
async def floods():
    return EventSourceResponse(flood)

@app.get("/slow")
async def slow():
    print("asked", flush=True)
    while not await trio.Path("finish").exists():
        await trio.sleep(0.01)
    return "done"
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "drained.py").write_text(APP)
    # Long time-outs, so that it is not they that end what does not hold the stop.
    options = ("--drain-window", str(WINDOW), "--reconnect-spread", "4", "--send-timeout", "600")
    command = (PENSTOCK, "serve", "drained:app", "--bind", "127.0.0.1:0", *options)
    with serving(*command, folder=tmp_path, cwd=tmp_path) as server:
        yield server


def opened(port: int, path: str) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return client


def read_to_the_end(client: socket.socket) -> tuple[float, bytes]:
    """Return when the connection was closed, and all that came before."""
    received = b""
    while data := client.recv(65536):
        received += data
    return time.monotonic(), received


def test_hundreds_of_streams_end_in_their_time(server: Server) -> None:
    """Each healthy client has a proper end and its own retry; the stalled do not hold the stop."""
    clients = [opened(server.port, "/tick") for _ in range(CLIENTS - STALLED)]
    stalled = [opened(server.port, "/flood") for _ in range(STALLED)]
    for client in clients:
        received = b""
        while b"tick\n\n" not in received:
            received += client.recv(65536)
    with ThreadPoolExecutor(len(clients)) as readers:
        ends = [readers.submit(read_to_the_end, client) for client in clients]
        told = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        status = server.process.wait(timeout=PATIENCE)
        gone = time.monotonic() - told
        results = [end.result() for end in ends]
    for client in (*clients, *stalled):
        client.close()
    retries = []
    for _, received in results:
        end = re.search(rb"\r\nretry: (\d+)\n\r\n0\r\n\r\n$", received)
        assert end is not None, received[-100:]
        retries.append(int(end[1]))
    ended = sorted(at - told for at, _ in results)
    print(f"retry {min(retries)} to {max(retries)} ms; gone after {gone:.2f} s, status {status}")
    figure(
        ended[-1] < WINDOW and gone < WINDOW + 0.5,
        f"{len(ended)} proper ends, from {ended[0]:.2f} to {ended[-1]:.2f} s",
    )
    assert status == 0
    # None ends before its turn in the window.
    assert ended[len(ended) // 2] > WINDOW / 4
    assert ended[-1] > WINDOW / 2
    assert min(retries) >= 500
    assert max(retries) <= 4500
    assert len(set(retries)) > CLIENTS / 4


def test_a_request_in_flight_is_answered(server: Server, tmp_path: Path) -> None:
    """Its client has the whole answer, and is told that the connection ends; then it is over."""
    client = opened(server.port, "/slow")
    wait_until(lambda: "asked" in server.output)
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_log("Stopping")
    (tmp_path / "finish").touch()
    assert server.process.wait(timeout=PATIENCE) == 0
    _, received = read_to_the_end(client)
    client.close()
    assert received.endswith(b"\r\n\r\ndone")
    assert b"connection: close" in received.lower()


async def test_few_streams_need_no_window() -> None:
    """Ten clients are no storm: the stop takes a tenth of a second of a window of ten minutes."""
    app = QuartTrio(__name__)
    require_trio(app)

    async def wait(events: Events) -> None:
        await trio.sleep_forever()

    @app.get("/")
    async def stream() -> EventSourceResponse:
        return EventSourceResponse(wait)

    clients = []
    async with guarded(app, drain_window=600) as (server, port):
        for _ in range(10):
            client = await connect(port)
            await client.ask()
            await client.until(b":\n")
            clients.append(client)
        told = trio.current_time()
        drain = server.streams.drain(seconds=600, reconnect_spread=1)
        await drain
        seconds = trio.current_time() - told
        figure(seconds < 0.5, f"drained in {seconds:.2f} s")
        for client in clients:
            assert (await client.rest()).startswith(b"retry: ")
            await client.stream.aclose()
        await settled(server, connections_open=0)
