"""A publication: one event, with an id, on its topics.

Rule 1: a publication that exists can be delivered, kept and resumed from. Anything else is refused
at construction.

Rule 2: every publication has an id, so that any client that received it can resume after it.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from typing import Final, final

import uuid_utils

from penstock.errors import InvalidPublication
from penstock.event import ServerSentEvent, event_from_wire
from penstock.position_ids import POSITION_ID_PREFIX
from penstock.selection import check_topics, control_character

__all__ = ["EARLIEST", "GAP", "MAX_ID_SIZE", "TOPIC_OVERHEAD", "Publication"]

# A Last-Event-ID that requests everything in the history, as in Mercure. It is no position: clients
# send it, and never receive it.
EARLIEST: Final = "earliest"

# The name of the synthetic event that marks missing events.
GAP: Final = "gap"

# Bytes of an id in UTF-8: clients send it back in a header, and the index of a log holds it.
MAX_ID_SIZE: Final = 1024

# Bytes that each topic adds to a publication's size, in addition to its text: the cost of an index.
TOPIC_OVERHEAD: Final = 256


@final
class Publication:
    """One event on its topics, as a hub delivers it; immutable.

    Args:
      event: the event. If it has no id, it gets ``urn:uuid:`` and a UUID of version 7.
      topics: the topics; the first is the canonical one, the others are alternates.

    Raises:
      InvalidPublication: there is no topic, or a topic that hubs do not accept (``check_topics``);
        the event is not a `ServerSentEvent`, or is named ``gap``; its id is empty, ``earliest`` or
        that of a position, or cannot be sent in a header.

    Attributes:
      id: the event's id.
      topics: the topics, each once.
      wire: the event as it goes over the wire.
      size: its bytes in the bounds of logs and queues: those of the event and its topics, and 256
        more for each topic.
      dispatched: whether clients dispatch the event: whether it has data.
    """

    __slots__ = ("_event", "dispatched", "id", "size", "topics", "wire")

    def __init__(self, event: ServerSentEvent, topics: Iterable[str]) -> None:
        if not isinstance(event, ServerSentEvent):
            raise InvalidPublication(
                f"a hub publishes ServerSentEvent objects, not {type(event).__name__}"
            )
        self.topics: tuple[str, ...] = check_topics(topics)
        if event.event == GAP:
            raise InvalidPublication(
                f'the event name "{GAP}" is reserved: it marks events that a subscriber missed'
            )
        if event.id is None:
            event = event.with_id(f"urn:uuid:{uuid_utils.uuid7()}")
        else:
            _check_id(event.id)
        assert event.id is not None
        self.id: str = event.id
        self.wire: bytes = event.encode()
        self.size: int = _size(self.wire, self.topics)
        self.dispatched: bool = event.data is not None
        self._event: ServerSentEvent | None = event

    @classmethod
    def from_log(cls, id_: str, topics: tuple[str, ...], wire: bytes) -> Publication:
        """Return a publication that was read from a log; nothing is checked again."""
        publication = object.__new__(cls)
        publication.id, publication.topics, publication.wire = id_, topics, wire
        publication.size = _size(wire, topics)
        # No other line of an event begins with this.
        publication.dispatched = wire.startswith(b"data: ") or b"\ndata: " in wire
        publication._event = None
        return publication

    def __repr__(self) -> str:
        return f"<Publication {self.id!r} on {reprlib.repr(self.topics)}, {len(self.wire)} bytes>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Publication):
            return NotImplemented
        return (self.topics, self.wire) == (other.topics, other.wire)

    def __hash__(self) -> int:
        return hash(self.wire)

    @property
    def event(self) -> ServerSentEvent:
        """The event, with its id."""
        if self._event is None:
            self._event = event_from_wire(self.wire)
        return self._event


def _check_id(id_: str) -> None:
    """Refuse an id that clients cannot send back, or that is reserved."""
    if not id_:
        raise InvalidPublication('an id must not be "": leave it out to get one')
    if id_ == EARLIEST:
        raise InvalidPublication('the id "earliest" is reserved for the beginning of the history')
    if id_.startswith(POSITION_ID_PREFIX):
        raise InvalidPublication(f"an id must not begin with {POSITION_ID_PREFIX}: it is reserved")
    if id_ != id_.strip():
        raise InvalidPublication(f"an id must not begin or end with space: {reprlib.repr(id_)}")
    if not id_.isprintable() and (bad := control_character(id_)):
        raise InvalidPublication(
            f"an id must not contain control characters: U+{ord(bad):04X} in {reprlib.repr(id_)}"
        )
    if len(id_.encode()) > MAX_ID_SIZE:
        raise InvalidPublication(f"an id must not be longer than {MAX_ID_SIZE} bytes")


def _size(wire: bytes, topics: tuple[str, ...]) -> int:
    return len(wire) + len("\n".join(topics).encode()) + TOPIC_OVERHEAD * len(topics)
