"""The Go program this project started from, as a Quart-Trio application, with its page.

Run it with `penstock serve`, or with the stock `hypercorn -k trio penstock.demo:app`.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Final

import trio
from quart import Response
from quart_trio import QuartTrio

from penstock.demo.fates.routes import add_fate_routes
from penstock.demo.hub_routes import add_hub_routes
from penstock.demo.tree.routes import add_tree_route
from penstock.event import ServerSentEvent
from penstock.quart import EventSourceResponse, require_trio
from penstock.stream.ticker import Ticker

__all__ = ["app", "hub", "hurting", "ping", "send_data"]

# Seconds, as in the Go program.
PING_PERIOD: Final = 0.5
TICK_PERIOD: Final = 2.0

# Milliseconds until a client comes back. A second is short enough for a demonstration, and long
# enough for a server that restarts not to be asked by everyone while it does.
RETRY: Final = 1000

# The page is readable from everywhere, and so are its streams, as the Go program's were.
CORS: Final = {"Access-Control-Allow-Origin": "*"}


def _web() -> Path:
    """Return the folder of the page: inside the package in a wheel, beside `src` in a checkout."""
    installed = Path(__file__).parents[1] / "web"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "web" / "demo"


app: Final = QuartTrio(__name__, static_folder=str(_web()), static_url_path="/static")
app.config["SEND_FILE_MAX_AGE_DEFAULT"] = None  # ask each time: the page of a newer version is new
app.logger.setLevel(logging.INFO)
require_trio(app)
hub: Final = add_hub_routes(app)
hurting: Final = add_fate_routes(app)


async def ping(events: trio.abc.SendChannel[ServerSentEvent]) -> None:
    """Send the Unix time in seconds twice a second, as events named ``ping``: the Go handler."""
    ticker = Ticker(PING_PERIOD)
    await events.send(ServerSentEvent(retry=RETRY))
    while True:
        await ticker.tick()
        now = str(int(time.time()))
        event = ServerSentEvent(now, event="ping", id=now)
        await events.send(event)


async def send_data(events: trio.abc.SendChannel[ServerSentEvent]) -> None:
    """Send the Unix time in seconds every two seconds, unnamed: the Go program's ``SendData``."""
    ticker = Ticker(TICK_PERIOD)
    await events.send(ServerSentEvent(retry=RETRY))
    while True:
        await ticker.tick()
        now = str(int(time.time()))
        event = ServerSentEvent(now, id=now)
        await events.send(event)


# The same producer, once for all who subscribe to its topic: /subscribe?topic=ticks.
hub.add_producer("ticks", send_data)


@app.get("/sse")
async def sse() -> EventSourceResponse:
    """Stream `ping` to one client."""
    return EventSourceResponse(ping, headers=CORS)


@app.get("/ticks")
async def ticks() -> EventSourceResponse:
    """Stream `send_data` to one client."""
    return EventSourceResponse(send_data, headers=CORS)


add_tree_route(app, ping, hurting.facts)


@app.get("/")
async def page() -> Response:
    """Show both streams, and what of them reaches which handler in the browser."""
    response = await app.send_static_file("index.html")
    # Nothing is fetched from elsewhere; what was forgotten would not load. And no other page shows
    # it in a frame, to have somebody click on what hurts.
    response.headers["Content-Security-Policy"] = "default-src 'self'; frame-ancestors 'none'"
    return response
