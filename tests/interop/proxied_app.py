"""The application behind the proxies: streams that wait to be told, are quiet, or too much."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from functools import partial
from math import inf
from typing import Any

import trio
from hypercorn.middleware import ProxyFixMiddleware
from quart import request
from quart_trio import QuartTrio

from penstock import ServerSentEvent
from penstock.quart import (
    EventSourceResponse,
    add_hub,
    last_event_id,
    require_trio,
    stop_reconnecting,
)

Events = trio.abc.SendChannel[ServerSentEvent]

app = QuartTrio(__name__)
app.logger.setLevel(logging.INFO)
require_trio(app)
hub = add_hub(app)


def _channel() -> Any:
    return trio.open_memory_channel[str](inf)


told: defaultdict[str, Any] = defaultdict(_channel)


async def obey(name: str, events: Events) -> None:
    """Send an event each time when told to, with the moment."""
    async for word in told[name][1]:
        await events.send(ServerSentEvent(f"{word} {time.monotonic()}"))


@app.get("/steps/<name>")
async def steps(name: str) -> EventSourceResponse:
    return EventSourceResponse(partial(obey, name))


@app.post("/tell/<name>/<word>")
async def tell(name: str, word: str) -> str:
    told[name][0].send_nowait(word)
    return ""


async def be_quiet(events: Events) -> None:
    await events.send(ServerSentEvent("hello"))
    await trio.sleep_forever()


@app.get("/quiet/<name>")
async def quiet(name: str) -> EventSourceResponse:
    """Send one event, and then nothing but keep-alive comments, if those are asked for."""
    seconds = request.args.get("keep_alive")
    return EventSourceResponse(be_quiet, keep_alive=float(seconds) if seconds else None)


async def flood(events: Events) -> None:
    while True:
        await events.send(ServerSentEvent("x" * 65536))


@app.get("/flood")
async def floods() -> EventSourceResponse:
    return EventSourceResponse(flood)


async def count(first: int, events: Events) -> None:
    await events.send(ServerSentEvent(retry=1234))
    for number in range(first, 4):
        await events.send(ServerSentEvent(str(number), id=str(number)))


@app.get("/count")
async def counted() -> Any:
    seen = last_event_id()
    if seen == "3":
        return stop_reconnecting()
    return EventSourceResponse(
        partial(count, int(seen or "0") + 1), headers={"Last-Event-ID": seen or "0"}
    )


@app.get("/news")
async def news() -> EventSourceResponse:
    return EventSourceResponse(hub.subscription(["news"], last_event_id=last_event_id()))


async def pass_on_ten(events: Events) -> None:
    async with hub.subscribe(["news"]) as subscription:
        await events.send(ServerSentEvent("begun"))
        for _ in range(10):
            await events.send(await anext(subscription))


@app.get("/ten")
async def ten() -> EventSourceResponse:
    """Send what is published on the hub from now on, up to ten events of it."""
    return EventSourceResponse(pass_on_ten)


@app.post("/news")
async def publish() -> str:
    body: Any = await request.get_data()
    return await hub.publish(ServerSentEvent(body.decode()), ["news"])


@app.get("/headers")
async def headers() -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


@app.get("/page")
async def page() -> tuple[str, dict[str, str]]:
    """A page whose script hears the stream of the news."""
    script = (
        "const heard = []; const source = new EventSource('/news');"
        "source.onmessage = (event) => heard.push(event.data);"
    )
    return f"<script>{script}</script>", {"Content-Type": "text/html"}


# The log lines and the application see the client that the proxy saw.
app.asgi_app = ProxyFixMiddleware(app.asgi_app, mode="legacy", trusted_hops=1)  # type: ignore[method-assign]
