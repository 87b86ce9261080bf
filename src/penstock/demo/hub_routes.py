"""The demonstration's hub over HTTP: publish on topics, and subscribe to them.

An event is published as a JSON object; several as one on each line.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Sequence
from typing import Any, Final

import trio
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from penstock.demo.access import answer, is_of_this_machine
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

__all__ = ["HISTORY", "BadBatch", "add_hub_routes", "events_of_batch", "publication_of"]

# Lines that are read before others get their turn, at some 10 µs each.
_PER_TURN: Final = 256

_FIELDS: Final = frozenset({"topics", "data", "event", "id", "retry"})


class BadBatch(InvalidPublication):
    """A line of a batch is no event; nothing of the batch was published.

    Attributes:
      line: which, from 1.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}", index=line - 1)
        self.line: int = line


def publication_of(body: bytes, topics: Sequence[str]) -> tuple[ServerSentEvent, Sequence[str]]:
    """Return the event of a JSON object, and its topics, or else these.

    Raises:
      InvalidPublication: it is none; the message says what is wrong.
    """
    try:
        given: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidPublication(f"this is no JSON: {error}") from None
    if not isinstance(given, dict):
        raise InvalidPublication(
            f'this is no JSON object, such as {{"data": "…"}}: {reprlib.repr(given)}'
        )
    if unknown := given.keys() - _FIELDS:
        raise InvalidPublication(
            f"there is no field {reprlib.repr(min(unknown))}: "
            f"an event has {', '.join(sorted(_FIELDS))}"
        )
    on = given.pop("topics", topics)
    if not isinstance(on, (list, tuple)):
        raise InvalidPublication(f"topics must be a list of text: {reprlib.repr(on)}")
    try:
        return ServerSentEvent(given.pop("data", None), **given), on
    except InvalidEvent as error:
        raise InvalidPublication(str(error)) from None


async def events_of_batch(
    body: bytes, topics: Sequence[str]
) -> list[tuple[ServerSentEvent, Sequence[str]]]:
    """Return the events of a batch, one JSON object on each line, with their topics.

    Raises:
      BadBatch: a line is not an event; the message says which, and what is wrong.
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
    lines = body.split(b"\n")
    events = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            raise BadBatch(number, "it is empty")
        try:
            events.append(publication_of(line, topics))
        except InvalidPublication as error:
            raise BadBatch(number, str(error)) from None
        if not number % _PER_TURN:
            await trio.lowlevel.checkpoint()
    return events


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
