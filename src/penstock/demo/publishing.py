"""The JSON in which an event is published: an object, or many of them, one on each line."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Sequence
from typing import Any, Final

import trio

from penstock.errors import InvalidEvent, InvalidPublication, PublicationTooLarge
from penstock.event import ServerSentEvent
from penstock.hub.hub import MAX_BATCH

__all__ = ["BadBatch", "events_of_batch", "publication_of"]

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
