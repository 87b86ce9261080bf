"""The demonstration's producers on a virtual clock, and its routes without a socket."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest
import trio
import trio.testing

from penstock import ServerSentEvent
from penstock.demo.application import ping, send_data
from penstock.demo.asgi import app
from penstock.stream.ticker import Ticker
from penstock.testing import FakeClient


async def test_ping_is_the_go_handler(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every 500 ms: id and data the Unix time in seconds, named ping; first of all a retry."""
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.9)
    send, receive = trio.open_memory_channel[ServerSentEvent](0)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ping, send)
        assert await receive.receive() == ServerSentEvent(retry=1000)
        for n in range(1, 21):
            event = await receive.receive()
            assert event == ServerSentEvent("1700000000", event="ping", id="1700000000")
            assert trio.current_time() == start + n * 0.5
        nursery.cancel_scope.cancel()


async def test_send_data_is_unnamed(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every two seconds the Unix time, without a name: `onmessage` hears it."""
    monkeypatch.setattr(time, "time", lambda: 5.0)
    send, receive = trio.open_memory_channel[ServerSentEvent](0)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_data, send)
        await receive.receive()
        for n in range(1, 5):
            assert await receive.receive() == ServerSentEvent("5", id="5")
            assert trio.current_time() == start + n * 2
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("period", "turns"), [(0.1, 1000), (0.5, 1000), (1 / 3, 10_000)])
async def test_a_ticker_does_not_drift(
    period: float, turns: int, autojump_clock: trio.testing.MockClock
) -> None:
    """Ten thousand periods take ten thousand periods, though each turn takes some time."""
    start = trio.current_time()
    ticker = Ticker(period)
    for turn in range(1, turns + 1):
        await ticker.tick()
        assert trio.current_time() == pytest.approx(start + turn * period, abs=1e-6)
        await trio.sleep(period * 0.4)


async def test_a_ticker_leaves_out_what_went_by(autojump_clock: trio.testing.MockClock) -> None:
    """After a turn that took long, the next is at its time, and the missed ones are not made up."""
    start = trio.current_time()
    ticker = Ticker(1)
    times = []
    for wait in (0, 3.5, 0, 0):
        await ticker.tick()
        times.append(trio.current_time() - start)
        await trio.sleep(wait)
    assert times == [1, 2, 6, 7]


async def ask(path: str, **options: Any) -> FakeClient:
    client = FakeClient(app, path, **options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        await trio.sleep(2.25)
        client.disconnect()
    return client


@pytest.mark.parametrize(("path", "events"), [("/sse", 4), ("/ticks", 1)])
async def test_the_streams(
    path: str,
    events: int,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Both may be read from any origin, and log one line when the request is done."""
    client = await ask(path)
    assert client.status == 200
    assert client.headers["access-control-allow-origin"] == "*"
    assert client.body.startswith(b":\nretry: 1000\nid: ")
    assert client.body.count(b"data: ") == events
    assert client.body.count(b"event: ping\n") == (events if path == "/sse" else 0)
    (line,) = caplog.messages
    sent = "1 event" if events == 1 else f"{events} events"
    assert line == (
        f"{path} 192.0.2.1:50000 disconnected after 2.25 s, {sent} sent, producer cancelled"
    )


@pytest.mark.parametrize(
    ("path", "method", "status", "part"),
    [
        ("/sse", "POST", 405, b"not allowed"),
        ("/", "DELETE", 405, b"not allowed"),
        ("/nothing", "GET", 404, b"Not Found"),
        ("/nothing", "POST", 404, b"Not Found"),
    ],
)
async def test_other_requests(path: str, method: str, status: int, part: bytes) -> None:
    """Another method is 405, another path 404, each with a body."""
    client = FakeClient(app, path, method=method)
    await client.run()
    assert client.status == status
    assert part in client.body


@pytest.mark.parametrize(
    ("path", "mimetype"),
    [
        ("/", "text/html"),
        ("/static/page.css", "text/css"),
        ("/static/page.js", "javascript"),
        ("/static/icon.svg", "image/svg+xml"),
    ],
)
async def test_the_page(path: str, mimetype: str) -> None:
    """The page and what it needs are there, and asked for anew each time."""
    client = FakeClient(app, path)
    await client.run()
    assert client.status == 200
    assert mimetype in client.headers["content-type"]
    assert "max-age" not in client.headers.get("cache-control", "")
    assert len(client.body) == int(client.headers["content-length"])


async def test_the_page_fetches_nothing_from_elsewhere() -> None:
    """The browser is told so, and no file names another host."""
    client = FakeClient(app, "/")
    await client.run()
    assert client.headers["content-security-policy"] == "default-src 'self'; frame-ancestors 'none'"
    for path in ("/", "/static/page.css", "/static/page.js"):
        client = FakeClient(app, path)
        await client.run()
        assert b"//" not in client.body.replace(b"// ", b"")


def test_a_restart_can_be_imported_without_the_application() -> None:
    """Other applications than the demonstration do not load it, nor a framework for it."""
    code = "import sys, penstock.demo.restart; sys.exit('quart' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
