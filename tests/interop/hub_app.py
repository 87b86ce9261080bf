"""An application with a hub that tests look into: how long it took to publish, and what waits."""

from __future__ import annotations

import itertools
import logging
import os
import time
from typing import Any

import trio
from quart import request
from quart_trio import QuartTrio

from penstock import ServerSentEvent
from penstock.hub.subscription import Subscription
from penstock.logs import MemoryLog
from penstock.quart import EventSourceResponse, add_hub, last_event_id, require_trio

app = QuartTrio(__name__)
require_trio(app)
app.logger.setLevel(logging.INFO)
# Small, so that what grows is what waits for clients.
hub = add_hub(app, log=MemoryLog(size=8 * 2**20))
stalling: dict[Subscription, None] = {}
numbers = itertools.count(1)


@app.get("/subscribe")
async def subscribe() -> EventSourceResponse:
    """Subscribe to ``topic``, with the policy and the bounds of the query."""
    asked = request.args
    subscription = hub.subscription(
        asked.getlist("topic"),
        last_event_id=last_event_id(),
        overflow=asked.get("overflow", "disconnect"),
        buffer=int(asked.get("buffer", "1000")),
        buffer_size=int(asked.get("buffer_size", str(2**20))),
    )
    if "stalls" in asked:
        stalling[subscription] = None
    return EventSourceResponse(subscription)


@app.post("/publish")
async def publish() -> list[float]:
    """Publish ``count`` events on ``topic``, and tell how long each took, in seconds.

    The data, of ``size`` bytes, begins with the event's number among all and when it was published.
    There are ``pause`` seconds between two of them.
    """
    plan: Any = await request.get_json()
    took = []
    for _ in range(plan["count"]):
        began = time.monotonic()
        number = next(numbers)
        data = f"{number} {began} ".ljust(plan["size"], "x")
        await hub.publish(
            ServerSentEvent(data, event=plan["topic"], id=str(number)), [plan["topic"]]
        )
        took.append(time.monotonic() - began)
        await trio.sleep(plan["pause"])
    return took


@app.get("/figures")
async def figures() -> dict[str, Any]:
    """Tell what there is, and what became of it."""
    said = hub.statistics()
    return {
        "open": said.subscriptions_open,
        "closed": said.subscriptions_closed,
        "waiting": [each.waiting for each in stalling],
        "dropped": [each.dropped for each in stalling],
        "reasons": [each.close_reason for each in stalling],
        "resident": _resident(),
        "tasks": trio.lowlevel.current_statistics().tasks_living,
    }


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
