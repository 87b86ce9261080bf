"""What the Go program does, with Penstock."""

from __future__ import annotations

import logging
import time

import trio
from quart_trio import QuartTrio

from penstock import ServerSentEvent
from penstock.quart import EventSourceResponse, require_trio
from penstock.stream.ticker import Ticker

app = QuartTrio(__name__)
require_trio(app)
app.logger.setLevel(logging.WARNING)  # no line for each stream: the others write none


async def ping(events: trio.abc.SendChannel[ServerSentEvent]) -> None:
    ticker = Ticker(0.5)
    while True:
        await ticker.tick()
        now = str(int(time.time()))
        await events.send(ServerSentEvent(now, event="ping", id=now))


async def silence(events: trio.abc.SendChannel[ServerSentEvent]) -> None:
    await trio.sleep_forever()


@app.get("/sse")
async def sse() -> EventSourceResponse:
    return EventSourceResponse(ping)


@app.get("/idle")
async def idle() -> EventSourceResponse:
    return EventSourceResponse(silence)
