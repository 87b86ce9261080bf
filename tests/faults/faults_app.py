"""The application of every row, the same under every server.

What happens to a producer is a line of JSON in the file that FAULTS_LOG names, with the monotonic
time, which Linux has in common for all processes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import trio
from quart import Response, request
from quart_trio import QuartTrio

from penstock import ServerSentEvent
from penstock.quart import EventSourceResponse

app = QuartTrio(__name__)
# Quart's own limit on the time that sending a response may take; a minute by default. No stream of
# Penstock's may notice it.
app.config["RESPONSE_TIMEOUT"] = 1

Events = trio.abc.SendChannel[ServerSentEvent]

_TICK = ServerSentEvent("tick")
_BIG = ServerSentEvent("x" * 65536)
_LOG = os.open(os.environ.get("FAULTS_LOG", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def note(key: str, what: str) -> None:
    """Append a line in one write, which other processes do not mix with theirs."""
    line = {"key": key, "what": what, "at": time.monotonic(), "pid": os.getpid()}
    os.write(_LOG, json.dumps(line).encode() + b"\n")


@contextmanager
def noted(key: str) -> Iterator[None]:
    """Note when a producer starts, and when its `finally` runs."""
    note(key, "started")
    try:
        yield
    finally:
        note(key, "finally")


_quart = app.asgi_app


async def _noting(scope: Any, receive: Any, send: Any) -> None:
    """Note when the server has the application back: nothing works for that client any more."""
    try:
        await _quart(scope, receive, send)
    finally:
        if scope["type"] == "http":
            note(scope["path"].rpartition("/")[2], "returned")


# The way Quart documents for it; to mypy, it replaces a method.
app.asgi_app = _noting  # type: ignore[method-assign]


@app.get("/sse/<key>")
async def sse(key: str) -> EventSourceResponse:
    """Send a small event every 50 ms."""

    async def produce(events: Events) -> None:
        with noted(key):
            while True:
                await events.send(_TICK)
                await trio.sleep(0.05)

    return EventSourceResponse(produce)


@app.get("/flood/<key>")
async def flood(key: str) -> EventSourceResponse:
    """Send events of 64 KiB as fast as they are taken."""

    async def produce(events: Events) -> None:
        with noted(key):
            while True:
                await events.send(_BIG)

    return EventSourceResponse(produce)


@app.get("/idle/<key>")
async def idle(key: str) -> EventSourceResponse:
    """Send nothing; comments every ``keep_alive`` seconds, where that is asked for."""

    async def produce(events: Events) -> None:
        with noted(key):
            await trio.sleep_forever()

    return EventSourceResponse(produce, keep_alive=request.args.get("keep_alive", None, float))


@app.get("/slow-end/<key>")
async def slow_end(key: str) -> EventSourceResponse:
    """Take half a second to clean up."""

    async def produce(events: Events) -> None:
        with noted(key):
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.5)

    return EventSourceResponse(produce)


@app.get("/raise/<key>")
async def fail(key: str) -> EventSourceResponse:
    """Send one event, then raise."""

    async def produce(events: Events) -> None:
        with noted(key):
            await events.send(_TICK)
            raise LookupError(f"raised by {key}")

    return EventSourceResponse(produce)


@app.get("/generator/<key>")
async def generator(key: str) -> Response:
    """Stream as one does without Penstock: a generator as the body of Quart's own response."""

    async def body() -> AsyncIterator[bytes]:
        note(key, "started")
        while True:
            yield b"data: tick\n\n"
            await trio.sleep(0.05)

    return Response(body(), content_type="text/event-stream")


@app.get("/echo-headers/<key>")
async def echo_headers(key: str) -> Response:
    """Answer with headers that belong to this request alone."""
    note(key, "started")
    return Response(key, headers={"X-Key": key, "X-Key-Twice": key * 2})


@app.get("/hello")
async def hello() -> str:
    """Answer at once."""
    return "hello"


@app.get("/slow/<float:seconds>")
async def slow(seconds: float) -> str:
    """Answer after a time."""
    await trio.sleep(seconds)
    return "slow"


@app.get("/tasks")
async def tasks() -> str:
    """Count all tasks there are, in Trio's whole tree, the one that counts among them."""
    count, todo = 0, [trio.lowlevel.current_root_task()]
    while todo:
        task = todo.pop()
        if task is not None:
            count += 1
            todo += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return str(count)
