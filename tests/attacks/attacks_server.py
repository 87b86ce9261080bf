"""The server that is attacked: a process of its own, of whichever Penstock its Python has.

Prints its two ports, plain and TLS, as JSON.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import time
from functools import partial
from pathlib import Path

import trio
from hypercorn.config import Config
from quart import request, websocket
from quart_trio import QuartTrio

from penstock import ServerSentEvent
from penstock.hypercorn import Settings, serve
from penstock.quart import EventSourceResponse, require_trio

# Seconds between two events of the stream that a good client listens to.
EVERY = 0.05

app = QuartTrio(__name__)
require_trio(app)


async def ticks(events: trio.abc.SendChannel[ServerSentEvent]) -> None:
    """Send the time at which each event was due."""
    due = trio.current_time()
    offset = time.monotonic() - due
    while True:
        due += EVERY
        await trio.sleep_until(due)
        await events.send(ServerSentEvent(repr(due + offset)))


@app.route("/sse", methods=["GET", "POST"])
async def stream() -> EventSourceResponse:
    """Stream events."""
    return EventSourceResponse(ticks)


async def nothing(events: trio.abc.SendChannel[ServerSentEvent]) -> None:
    """Send nothing."""
    await trio.sleep_forever()


@app.get("/silent")
async def silent_stream() -> EventSourceResponse:
    """Stream nothing."""
    return EventSourceResponse(nothing)


@app.post("/upload")
async def upload() -> str:
    """Take a body."""
    return str(len(await request.get_data()))


@app.get("/")
async def plain() -> str:
    """Answer."""
    return "plain"


def resident() -> float:
    """Return the megabytes of memory that this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


@app.get("/figures")
async def figures() -> dict[str, float]:
    """Tell what this process holds, and how many tasks run."""
    return {
        "resident": resident(),
        "tasks": trio.lowlevel.current_statistics().tasks_living,
    }


@app.websocket("/ws")
async def sink() -> None:
    """Take messages."""
    while True:
        await websocket.receive()


async def main(certfile: str, keyfile: str) -> None:
    """Serve until SIGTERM."""
    config = Config()
    config.bind, config.insecure_bind = ["127.0.0.1:0"], ["127.0.0.1:0"]
    config.certfile, config.keyfile = certfile, keyfile
    config.errorlog = logging.getLogger("attacks")
    async with trio.open_nursery() as nursery:
        run = partial(serve, app, config, settings=Settings(http2=True), mode="asgi")
        urls = await nursery.start(run)
        ports = {url.partition(":")[0]: int(url.rpartition(":")[2]) for url in urls}
        os.write(1, json.dumps([ports["http"], ports["https"]]).encode() + b"\n")


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
