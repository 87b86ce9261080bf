"""The demonstration's hub over HTTP: ``POST /publish`` and ``GET /subscribe``.

An event is published as a JSON object; many are published together as one object per line.

There is no authentication, so only programs on this machine have access (see
`penstock.demo.access_control`). A page of another origin, in a browser on this machine, has none:
what it could send without a preflight is refused for its content type.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Sequence
from typing import Any, Final

import trio
from quart import request
from quart.typing import ResponseReturnValue
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from penstock.demo.access_control import is_from_this_machine
from penstock.errors import (
    InvalidEvent,
    InvalidPublication,
    InvalidSubscription,
    LogError,
    PublicationTooLarge,
)
from penstock.event import ServerSentEvent
from penstock.hub.hub import MAX_BATCH, Hub
from penstock.logs import MemoryLog, SQLiteLog
from penstock.quart import EventSourceResponse, add_hub, last_event_id
from penstock.selection import EVERY_TOPIC, select

__all__ = ["HISTORY", "add_hub_routes"]

# The environment variable with the path of the history's file; if it is not set, the history is in
# memory.
HISTORY: Final = "PENSTOCK_HISTORY"

# Bytes of a request's body: a batch of sixteen of the largest events.
MAX_BODY: Final = 16 * 2**20

# Milliseconds until a client reconnects.
_RETRY: Final = 1000

# Lines that are parsed before other tasks get their turn, at some 10 µs each.
_PER_TURN: Final = 256

_FIELDS: Final = frozenset({"topics", "data", "event", "id", "retry"})


def add_hub_routes(app: QuartTrio) -> Hub:
    """Give an application a hub, ``POST /publish`` and ``GET /subscribe``; return the hub."""
    path = os.environ.get(HISTORY)
    hub = add_hub(app, log=SQLiteLog(path) if path else MemoryLog())
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY

    @app.get("/subscribe")
    async def subscribe() -> ResponseReturnValue:
        if (refusal := _refusal()) is not None:
            return refusal
        topics = request.args.getlist("topic")
        named = [topic for topic in topics if topic != "*"]
        try:
            selection = select(named) if named or not topics else EVERY_TOPIC
            subscription = hub.subscription(
                # Every client that has access may read every topic.
                EVERY_TOPIC if "*" in topics else selection,
                last_event_id=last_event_id(),
                retry=_RETRY,
            )
        except InvalidSubscription as error:
            return {"error": f"topic: {error}"}, 400
        return EventSourceResponse(subscription)

    @app.post("/publish")
    async def publish() -> ResponseReturnValue:
        if (refusal := _refusal()) is not None:
            return refusal
        try:
            return await _publish(hub)
        except (LogError, trio.ClosedResourceError) as error:
            return {"error": f"nothing was published: {error}"}, 503
        except HTTPException as error:  # Quart's: the body is too large, or arrives too slowly
            return {"error": error.description or error.name}, error.code or 400

    return hub


async def _publish(hub: Hub) -> ResponseReturnValue:
    topics = request.args.getlist("topic")
    if request.mimetype == "application/json":
        try:
            event, on = _publication_in(await _body(), topics)
            return {"id": await hub.publish(event, on)}
        except InvalidPublication as error:
            return {"error": str(error)}, _status_of(error)
    if request.mimetype == "application/x-ndjson":
        try:
            batch = await _publications_in(await _body(), topics)
            return {"ids": await hub.publish_batch(batch)}
        except InvalidPublication as error:
            line = (error.index or 0) + 1
            return {"error": f"line {line}: {error}", "line": line}, _status_of(error)
    why = "publish one event as application/json, or many as application/x-ndjson"
    return {"error": why}, 415


def _status_of(error: InvalidPublication) -> int:
    return 413 if isinstance(error, PublicationTooLarge) else 400


async def _body() -> bytes:
    body: Any = await request.get_data()  # typed as bytes or str
    return bytes(body)


def _refusal() -> ResponseReturnValue | None:
    """Return the response to a client that has no access, or None."""
    if is_from_this_machine():
        return None
    return {"error": "the demonstration's hub is accessible from this machine only"}, 403


def _publication_in(body: bytes, topics: Sequence[str]) -> tuple[ServerSentEvent, Sequence[str]]:
    """Return the event in a JSON object, and its topics, or these if it has none.

    Raises:
      InvalidPublication: there is no valid event; the message says what is wrong.
    """
    try:
        given: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidPublication(f"this is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise InvalidPublication(
            f'this is not a JSON object, such as {{"data": "…"}}: {reprlib.repr(given)}'
        )
    if unknown := given.keys() - _FIELDS:
        raise InvalidPublication(
            f"there is no field {reprlib.repr(min(unknown))}: "
            f"an event has {', '.join(sorted(_FIELDS))}"
        )
    on = given.pop("topics", topics)
    if not isinstance(on, (list, tuple)):
        raise InvalidPublication(f"topics must be a list of strings: {reprlib.repr(on)}")
    try:
        return ServerSentEvent(given.pop("data", None), **given), on
    except InvalidEvent as error:
        raise InvalidPublication(str(error)) from None


async def _publications_in(
    body: bytes, topics: Sequence[str]
) -> list[tuple[ServerSentEvent, Sequence[str]]]:
    """Return the events of a batch, one JSON object per line, with their topics.

    Raises:
      InvalidPublication: a line has no valid event; the error has the index of that line.
      PublicationTooLarge: there are more lines than a hub takes at a time.

    Cancellation:
      A checkpoint at every 256th line.
    """
    body = body.removesuffix(b"\n")
    if (count := body.count(b"\n") + 1) > MAX_BATCH:
        raise PublicationTooLarge(
            f"a batch must not have more than {MAX_BATCH:,} events: this one has {count:,} lines",
            index=MAX_BATCH,
        )
    events = []
    for index, line in enumerate(body.split(b"\n")):
        if not line.strip():
            raise InvalidPublication("it is empty", index=index)
        try:
            events.append(_publication_in(line, topics))
        except InvalidPublication as error:
            raise InvalidPublication(str(error), index=index) from None
        if not (index + 1) % _PER_TURN:
            await trio.lowlevel.checkpoint()
    return events
