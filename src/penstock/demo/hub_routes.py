"""The demonstration's hub over HTTP: publish on topics, and subscribe to them.

It asks nobody who they are, so it answers to programs on this machine only; see
`penstock.demo.access`. A page of another origin in a browser on this machine is not one of them:
what it could send without asking first is refused for its content type.
"""

from __future__ import annotations

import os
from typing import Any, Final

import trio
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from penstock.demo.access import is_of_this_machine
from penstock.demo.answers import answer
from penstock.demo.publishing import BadBatch, events_of_batch, publication_of
from penstock.errors import (
    InvalidPublication,
    InvalidSubscription,
    LogError,
    PublicationTooLarge,
)
from penstock.hub.hub import Hub
from penstock.logs import MemoryLog, SQLiteLog
from penstock.quart import EventSourceResponse, add_hub, last_event_id
from penstock.selection import EVERY_TOPIC, select

__all__ = ["HISTORY", "add_hub_routes"]

# The variable of the environment that names the file in which the demonstration's history outlives
# it; without it, the history is in memory.
HISTORY: Final = "PENSTOCK_HISTORY"

# Bytes of a request's body: a batch of sixteen of the largest events.
MAX_BODY: Final = 16 * 2**20

# Milliseconds until a client comes back.
_RETRY: Final = 1000


def add_hub_routes(app: QuartTrio) -> Hub:
    """Give an application a hub, ``POST /publish`` and ``GET /subscribe``; return the hub."""
    path = os.environ.get(HISTORY)
    hub = add_hub(app, log=SQLiteLog(path) if path else MemoryLog())
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY

    @app.get("/subscribe")
    async def subscribe() -> Response:
        if (refusal := _refusal()) is not None:
            return refusal
        topics = request.args.getlist("topic")
        named = [topic for topic in topics if topic != "*"]
        try:
            selection = select(named) if named or not topics else EVERY_TOPIC
            subscription = hub.subscription(
                # Whoever may subscribe here may subscribe to everything.
                EVERY_TOPIC if "*" in topics else selection,
                last_event_id=last_event_id(),
                retry=_RETRY,
            )
        except InvalidSubscription as error:
            return answer(400, error=f"topic: {error}")
        return EventSourceResponse(subscription)

    @app.post("/publish")
    async def publish() -> Response:
        if (refusal := _refusal()) is not None:
            return refusal
        try:
            return await _publish(hub)
        except (LogError, trio.ClosedResourceError) as error:
            return answer(503, error=f"nothing was published: {error}")
        except HTTPException as error:  # Quart's, of the body: too large, or too slow to come
            return answer(error.code or 400, error=error.description or error.name)

    return hub


async def _publish(hub: Hub) -> Response:
    topics = request.args.getlist("topic")
    if request.mimetype == "application/json":
        try:
            event, on = publication_of(await _body(), topics)
            return answer(200, id=await hub.publish(event, on))
        except InvalidPublication as error:
            return answer(_status_of(error), error=str(error))
    if request.mimetype == "application/x-ndjson":
        try:
            batch = await events_of_batch(await _body(), topics)
            return answer(200, ids=await hub.publish_batch(batch))
        except BadBatch as error:
            return answer(400, error=str(error), line=error.line)
        except InvalidPublication as error:
            line = (error.index or 0) + 1
            return answer(_status_of(error), error=f"line {line}: {error}", line=line)
    return answer(
        415, error="publish one event as application/json, or many as application/x-ndjson"
    )


def _status_of(error: InvalidPublication) -> int:
    return 413 if isinstance(error, PublicationTooLarge) else 400


async def _body() -> bytes:
    body: Any = await request.get_data()  # whose type leaves open what it is
    return bytes(body)


def _refusal() -> Response | None:
    """Return what to answer to who is not on this machine, or None."""
    if is_of_this_machine():
        return None
    return answer(403, error="the hub of the demonstration is open to this machine only")
