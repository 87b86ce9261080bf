"""What is published: one event, with its id, on its topics.

Rule 1: a publication that exists can be delivered, kept and resumed from: what cannot be is refused
before it is published.

Rule 2: every publication has an id, so that whoever received it can go on from there.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from typing import Final, final

import uuid_utils

from penstock.errors import InvalidPublication, PublicationTooLarge
from penstock.event import ServerSentEvent, event_of_wire

__all__ = [
    "EARLIEST",
    "EVERY_TOPIC",
    "MAX_TOPICS",
    "MAX_TOPIC_SIZE",
    "Publication",
    "check_topics",
    "publications_of",
    "select_topics",
]

# As a subscription's topic it stands for all of them, and as a Last-Event-ID for the beginning of
# what the history has: Mercure's words, which later speakers of it expect.
EVERY_TOPIC: Final = "*"
EARLIEST: Final = "earliest"

# Bytes of a topic, in UTF-8: an index holds them, and nobody reads more.
MAX_TOPIC_SIZE: Final = 1024

# Topics of one publication or subscription, as Mercure hubs have it: each is a row of an index.
MAX_TOPICS: Final = 1000


@final
class Publication:
    """One event on its topics, as a hub delivers it; immutable.

    Args:
      event: what is delivered. One without an id gets one, ``urn:uuid:`` and a UUID of version 7.
      topics: where; the first is the canonical one, the others are alternates.

    Raises:
      InvalidPublication: there is no topic, or one that a hub does not take (``check_topics``); the
        event is none, or its id is empty, ``earliest``, or cannot be sent in a header.

    Attributes:
      id: the event's id.
      topics: the topics, each once.
      wire: the event as it goes over the wire.
    """

    __slots__ = ("_event", "id", "topics", "wire")

    def __init__(self, event: ServerSentEvent, topics: Iterable[str]) -> None:
        if not isinstance(event, ServerSentEvent):
            raise InvalidPublication(
                f"a hub publishes ServerSentEvent objects, not {type(event).__name__}"
            )
        self.topics: tuple[str, ...] = check_topics(topics)
        if EVERY_TOPIC in self.topics:
            raise InvalidPublication('the topic "*" stands for every topic: publish on real ones')
        if event.id is None:
            event = event.with_id(f"urn:uuid:{uuid_utils.uuid7()}")
        else:
            _check_id(event.id)
        assert event.id is not None
        self.id: str = event.id
        self.wire: bytes = event.encode()
        self._event: ServerSentEvent | None = event

    @classmethod
    def restored(cls, id_: str, topics: tuple[str, ...], wire: bytes) -> Publication:
        """Return what was published, from what a history kept of it; nothing is checked again."""
        publication = object.__new__(cls)
        publication.id, publication.topics, publication.wire = id_, topics, wire
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
            self._event = event_of_wire(self.wire)
        return self._event


def publications_of(
    batch: Iterable[tuple[ServerSentEvent, Iterable[str]]], *, max_event_size: int
) -> list[Publication]:
    """Return publications of events and their topics.

    Raises:
      InvalidPublication: one cannot be published; its ``index`` says which.
    """
    publications = []
    for index, (event, topics) in enumerate(batch):
        try:
            publication = Publication(event, topics)
        except InvalidPublication as error:
            raise InvalidPublication(str(error), index=index) from None
        if (size := len(publication.wire)) > max_event_size:
            raise PublicationTooLarge(
                f"an event must not be larger than {max_event_size:,} bytes: this one has {size:,}",
                index=index,
            )
        publications.append(publication)
    return publications


def check_topics(topics: Iterable[str]) -> tuple[str, ...]:
    """Return topics as a tuple, each once, in their order.

    Raises:
      InvalidPublication: there is none, or there are more than 1,000; or one is no text, is empty,
        longer than 1,024 bytes, or has a control character.
    """
    if isinstance(topics, str):
        raise InvalidPublication(f"topics must be a list: pass [{reprlib.repr(topics)}]")
    listed = tuple(topics)
    if not listed:
        raise InvalidPublication("there must be at least one topic")
    if len(listed) > MAX_TOPICS:
        raise InvalidPublication(
            f"there must not be more than {MAX_TOPICS:,} topics: these are {len(listed):,}"
        )
    for topic in listed:
        _check_topic(topic)
    return tuple(dict.fromkeys(listed))


def select_topics(topics: Iterable[str]) -> frozenset[str] | None:
    """Return the topics of a subscription as a set, or None if they are all.

    Raises:
      InvalidPublication: as `check_topics`.
    """
    selected = frozenset(check_topics(topics))
    return None if EVERY_TOPIC in selected else selected


def _check_topic(topic: object) -> None:
    if not isinstance(topic, str):
        raise InvalidPublication(f"a topic must be text, not {type(topic).__name__}")
    if not topic:
        raise InvalidPublication("a topic must not be empty")
    if not topic.isprintable() and (bad := _control_character(topic)):
        raise InvalidPublication(
            f"a topic must not have control characters: U+{ord(bad):04X} in {reprlib.repr(topic)}"
        )
    try:
        size = len(topic) if topic.isascii() else len(topic.encode())
    except UnicodeEncodeError:
        raise InvalidPublication("a topic must be expressible in UTF-8") from None
    if size > MAX_TOPIC_SIZE:
        raise InvalidPublication(
            f"a topic must not be longer than {MAX_TOPIC_SIZE} bytes: this one has {size}"
        )


def _check_id(id_: str) -> None:
    """Refuse an id that a client could not send back, or that means something else."""
    if not id_:
        raise InvalidPublication('an id must not be "": leave it out to be given one')
    if id_ == EARLIEST:
        raise InvalidPublication('the id "earliest" stands for the beginning of the history')
    if id_ != id_.strip():
        raise InvalidPublication(f"an id must not begin or end with space: {reprlib.repr(id_)}")
    if not id_.isprintable() and (bad := _control_character(id_)):
        raise InvalidPublication(
            f"an id must not have control characters: U+{ord(bad):04X} in {reprlib.repr(id_)}"
        )
    if len(id_.encode()) > MAX_TOPIC_SIZE:
        raise InvalidPublication(f"an id must not be longer than {MAX_TOPIC_SIZE} bytes")


def _control_character(text: str) -> str | None:
    """Return the first character of the classes C0, DEL and C1 in a text, if there is one."""
    return next((each for each in text if each < " " or "\x7f" <= each <= "\x9f"), None)
