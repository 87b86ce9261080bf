"""The Go hub, with Penstock."""

from __future__ import annotations

import logging
import time
from typing import Any

import trio
from bench_schedule import NOTHING, Schedule
from quart import request
from quart_trio import QuartTrio

from penstock import ServerSentEvent
from penstock.quart import EventSourceResponse, add_hub, last_event_id, require_trio

app = QuartTrio(__name__)
require_trio(app)
app.logger.setLevel(logging.WARNING)  # no line for each stream: the others write none
hub = add_hub(app)
schedule = NOTHING


async def publish(rate: float, seconds: float) -> None:
    global schedule
    schedule = Schedule(rate, seconds, start=time.monotonic_ns())
    while not schedule.ended(now := time.monotonic_ns()):
        for _ in range(schedule.count(now)):
            event = ServerSentEvent(schedule.next(time.monotonic_ns()))
            await hub.publish(event, topics=["bench"])
        await trio.sleep(schedule.wait(time.monotonic_ns()))


@app.get("/subscribe")
async def subscribe() -> EventSourceResponse:
    return EventSourceResponse(hub.subscription(["bench"], last_event_id=last_event_id()))


@app.post("/start")
async def start() -> str:
    app.add_background_task(publish, float(request.args["rate"]), float(request.args["seconds"]))
    return ""


@app.get("/statistics")
async def statistics() -> dict[str, Any]:
    # Nothing is dropped: who is too far behind is disconnected, which the load client counts.
    return {**schedule.figures(time.monotonic_ns()), "dropped": 0}
