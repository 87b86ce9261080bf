"""The demonstration's application: two streams, a hub, the live tree, scenarios, and the page."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Final

import trio
from quart import Blueprint, Response, current_app
from quart_trio import QuartTrio

from penstock.demo.hub_routes import add_hub_routes
from penstock.demo.restart import Restart
from penstock.demo.scenarios import add_scenario_routes
from penstock.demo.task_tree import add_tree_route
from penstock.event import ServerSentEvent
from penstock.quart import EventSourceResponse, require_trio
from penstock.stream.ticker import Ticker

__all__ = ["create_app", "ping", "send_data", "sse"]

# Seconds, as in the Go program.
PING_PERIOD: Final = 0.5
TICK_PERIOD: Final = 2.0

# Milliseconds until a client reconnects. A second is short enough for a demonstration, and long
# enough that a restarting server is not flooded.
RETRY: Final = 1000

# The page and its streams are readable from any origin, as the Go program's were.
CORS: Final = {"Access-Control-Allow-Origin": "*"}

streams: Final = Blueprint("streams", __name__)


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


@streams.get("/sse")
async def sse() -> EventSourceResponse:
    """Stream `ping` to one client."""
    return EventSourceResponse(ping, headers=CORS)


@streams.get("/ticks")
async def ticks() -> EventSourceResponse:
    """Stream `send_data` to one client."""
    return EventSourceResponse(send_data, headers=CORS)


@streams.get("/")
async def page() -> Response:
    """Return the page that shows all of this."""
    response = await current_app.send_static_file("index.html")
    # Nothing is loaded from elsewhere, and no other page may frame this one to capture clicks on
    # its destructive buttons.
    response.headers["Content-Security-Policy"] = "default-src 'self'; frame-ancestors 'none'"
    return response


def create_app(restart: Restart | None = None) -> QuartTrio:
    """Return a new application.

    Args:
      restart: what the command that serves it offers; None: it cannot be restarted from the page.
    """
    app = QuartTrio(__name__, static_folder=str(_web()), static_url_path="/static")
    app.config["SEND_FILE_MAX_AGE_DEFAULT"] = None  # always revalidated: upgrades show at once
    app.logger.setLevel(logging.INFO)
    require_trio(app)
    app.register_blueprint(streams)
    hub = add_hub_routes(app)
    # The same producer, shared by all subscribers to its topic: /subscribe?topic=ticks.
    hub.add_producer("ticks", send_data)
    add_tree_route(app, ping, add_scenario_routes(app, restart).facts)
    return app


def _web() -> Path:
    """Return the folder of the page: inside the package in a wheel, beside `src` in a checkout."""
    installed = Path(__file__).parents[1] / "web"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "web" / "demo"
