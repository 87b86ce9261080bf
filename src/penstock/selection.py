"""Selections: the topics of a subscription, or every topic.

Rule: a selection is a value. Subscriptions with equal selections are one audience of a hub. An
index looks up `Selection.topics`; everything else calls `Selection.matches`.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from typing import Final, final

from penstock.errors import InvalidPublication, InvalidSubscription

__all__ = [
    "EVERY_TOPIC",
    "MAX_TOPICS",
    "MAX_TOPIC_SIZE",
    "Selection",
    "check_topics",
    "control_character",
    "select",
]

# Bytes of a topic in UTF-8: the index of a log holds topics.
MAX_TOPIC_SIZE: Final = 1024

# Topics of one publication or subscription, as in Mercure hubs: each is a row in an index.
MAX_TOPICS: Final = 1000

# Every topic, in Mercure. Here it is no topic: text that may come from a URL must not select
# everything.
_WILDCARD: Final = "*"


@final
class Selection:
    """The publications that a subscription receives; immutable and hashable.

    Args:
      topics: the exact topics, any of which selects a publication; None selects every publication.

    Attributes:
      topics: the topics as a set, which an index may use; None if every publication is selected.

    Raises:
      InvalidSubscription: there is no topic, or there are more than 1,000; or a topic is not text,
        is empty, is ``*``, is longer than 1,024 bytes, or contains a control character.
    """

    __slots__ = ("topics",)

    def __init__(self, topics: Iterable[str] | None) -> None:
        self.topics: frozenset[str] | None = None if topics is None else _checked(topics)

    def __repr__(self) -> str:
        return "EVERY_TOPIC" if self.topics is None else f"Selection({sorted(self.topics)})"

    def __str__(self) -> str:
        return "every topic" if self.topics is None else str(sorted(self.topics))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Selection):
            return NotImplemented
        return self.topics == other.topics

    def __hash__(self) -> int:
        return hash(self.topics)

    def matches(self, topics: Iterable[str]) -> bool:
        """Return whether a publication on these topics is selected."""
        return self.topics is None or not self.topics.isdisjoint(topics)


EVERY_TOPIC: Final = Selection(None)
"""The selection of every topic: ``hub.subscription(EVERY_TOPIC)``."""


def select(topics: Iterable[str] | Selection) -> Selection:
    """Return the selection of any of these topics.

    Raises:
      InvalidSubscription: as `Selection`.
    """
    if isinstance(topics, Selection):
        return topics
    return Selection(_checked(topics))  # None, which a request may lack, is not every topic


def _checked(topics: Iterable[str]) -> frozenset[str]:
    try:
        return frozenset(check_topics(topics))
    except InvalidPublication as error:
        raise InvalidSubscription(str(error)) from None


def check_topics(topics: Iterable[str]) -> tuple[str, ...]:
    """Return topics as a tuple, each once, in their order.

    Raises:
      InvalidPublication: there is no topic, or there are more than 1,000; or a topic is not text,
        is empty, is ``*``, is longer than 1,024 bytes, or contains a control character.
    """
    if isinstance(topics, str):
        raise InvalidPublication(f"topics must be a list: pass [{reprlib.repr(topics)}]")
    try:
        listed = tuple(topics)
    except TypeError:
        raise InvalidPublication(
            f"topics must be a list of text, not {type(topics).__name__}"
        ) from None
    if not listed:
        raise InvalidPublication("there must be at least one topic")
    if len(listed) > MAX_TOPICS:
        raise InvalidPublication(
            f"there must not be more than {MAX_TOPICS:,} topics: these are {len(listed):,}"
        )
    for topic in listed:
        _check_topic(topic)
    return tuple(dict.fromkeys(listed))


def _check_topic(topic: object) -> None:
    if not isinstance(topic, str):
        raise InvalidPublication(f"a topic must be text, not {type(topic).__name__}")
    if not topic:
        raise InvalidPublication("a topic must not be empty")
    if topic == _WILDCARD:
        raise InvalidPublication(
            'the topic "*" is reserved: publish on real topics, and subscribe to all of them with '
            "EVERY_TOPIC"
        )
    if not topic.isprintable() and (bad := control_character(topic)):
        raise InvalidPublication(
            "a topic must not contain control characters: "
            f"U+{ord(bad):04X} in {reprlib.repr(topic)}"
        )
    try:
        size = len(topic) if topic.isascii() else len(topic.encode())
    except UnicodeEncodeError:
        raise InvalidPublication("a topic must be expressible in UTF-8") from None
    if size > MAX_TOPIC_SIZE:
        raise InvalidPublication(
            f"a topic must not be longer than {MAX_TOPIC_SIZE} bytes: this one has {size}"
        )


def control_character(text: str) -> str | None:
    """Return the first character of the classes C0, DEL and C1 in a text, or None."""
    return next((each for each in text if each < " " or "\x7f" <= each <= "\x9f"), None)
