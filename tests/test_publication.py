"""Publications: what a hub takes, and what it refuses before anything is published."""

from __future__ import annotations

import uuid
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from penstock import (
    EVERY_TOPIC,
    InvalidEvent,
    InvalidPublication,
    InvalidSubscription,
    Publication,
    Selection,
    ServerSentEvent,
)
from penstock.position_ids import PositionIds
from penstock.selection import MAX_TOPIC_SIZE, check_topics, select

EVENT = ServerSentEvent("x")

# What a topic must not be, and what is said then.
BAD_TOPICS: list[tuple[Any, str]] = [
    ("", "must not be empty"),
    ("a\n", r"control characters: U\+000A in 'a\\n'"),
    ("\0", r"U\+0000"),
    ("a\tb", r"U\+0009"),
    ("\x1f", r"U\+001F"),
    ("\x7f", r"U\+007F"),
    ("\x80", r"U\+0080"),
    ("a\x9f", r"U\+009F"),
    ("a" * 1025, "must not be longer than 1024 bytes: this one has 1025"),
    ("é" * 513, "this one has 1026"),
    ("𐍈" * 257, "this one has 1028"),
    ("\ud800", "must be expressible in UTF-8"),
    ("a" * 2000 + "\udfff", "must be expressible in UTF-8"),
    (b"a", "must be text, not bytes"),
    (1, "must be text, not int"),
    (None, "must be text, not NoneType"),
    ("*", "subscribe to all of them with EVERY_TOPIC"),
    (["a"], "must be text, not list"),
    ({"a": 1}, "must be text, not dict"),
]

GOOD_TOPICS = [
    "a",
    " ",
    "https://example.org/books/{id}?a=b#c",
    "a" * 1024,
    "é" * 512,
    "𐍈" * 256,
    "\u2028",
    "\xa0",
    "**",
    "earliest",
]


@pytest.mark.parametrize(("topic", "said"), BAD_TOPICS)
def test_a_bad_topic_is_refused(topic: Any, said: str) -> None:
    """Each kind of topic that cannot be says what is wrong, also behind a good one."""
    for refuse in (check_topics, select, lambda topics: Publication(EVENT, topics)):
        error = InvalidSubscription if refuse is select else InvalidPublication
        with pytest.raises(error, match=said):
            refuse([topic])
        with pytest.raises(error, match=said):
            refuse(["good", topic])


@pytest.mark.parametrize("topic", GOOD_TOPICS)
def test_any_other_topic_is_taken(topic: str) -> None:
    """A topic is any text up to the limit, to the byte."""
    assert check_topics([topic]) == (topic,)
    assert Publication(EVENT, [topic]).topics == (topic,)
    assert select([topic]) == Selection(frozenset([topic]))


@given(st.text() | st.text(st.characters(max_codepoint=0xA0)))
def test_a_topic_is_taken_exactly_when_it_can_be(topic: str) -> None:
    """It has text, no control character, and at most 1,024 bytes of UTF-8."""
    control = any(ord(each) < 32 or 127 <= ord(each) < 160 for each in topic)
    surrogate = any(0xD800 <= ord(each) < 0xE000 for each in topic)
    try:
        check_topics([topic])
        taken = True
    except InvalidPublication:
        taken = False
    fits = not surrogate and len(topic.encode()) <= MAX_TOPIC_SIZE
    assert taken == (topic not in ("", "*") and not control and fits)


@pytest.mark.parametrize(
    ("topics", "said"),
    [
        ("prices", r"must be a list: pass \['prices'\]"),
        ("", "must be a list"),
        ([], "must be at least one topic"),
        (iter(()), "must be at least one topic"),
        (b"ab", "must be text, not int"),
        (None, "must be a list of text, not NoneType"),
    ],
)
def test_topics_are_a_list(topics: Any, said: str) -> None:
    """A text instead of a list, which would be its letters, and an empty list are refused."""
    for refuse in (check_topics, select, lambda topics: Publication(EVENT, topics)):
        with pytest.raises((InvalidPublication, InvalidSubscription), match=said):
            refuse(topics)


def test_topics_are_each_once_in_their_order() -> None:
    """The first topic stays the canonical one, whatever else is said twice."""
    assert Publication(EVENT, iter(["b", "a", "b", "c", "a"])).topics == ("b", "a", "c")


def test_a_topic_may_be_a_name_that_is_text() -> None:
    """A member of an enumeration of text is the text."""

    class Topic(StrEnum):
        PRICES = "prices"

    assert Publication(EVENT, [Topic.PRICES, "prices"]).topics == ("prices",)


def test_every_topic_is_selected_by_an_object_that_no_url_can_give() -> None:
    """A selection is a value, and matches the topics of a publication."""
    assert select(EVERY_TOPIC) is EVERY_TOPIC
    assert EVERY_TOPIC.matches(["a"])
    assert (repr(EVERY_TOPIC), str(EVERY_TOPIC)) == ("EVERY_TOPIC", "every topic")
    selection = select(["b", "a", "b"])
    assert selection == select(["a", "b"]) != EVERY_TOPIC
    assert hash(selection) == hash(select(["a", "b"]))
    assert selection.matches(("c", "b"))
    assert not selection.matches(("c", "A"))
    assert repr(selection) == "Selection(['a', 'b'])"
    assert selection != frozenset(["a", "b"])


def test_the_name_of_the_gap_event_is_reserved() -> None:
    """Nobody but the hub can say that something is missing."""
    with pytest.raises(InvalidPublication, match='"gap" is reserved'):
        Publication(ServerSentEvent("x", event="gap"), ["a"])
    assert Publication(ServerSentEvent("x", event="Gap"), ["a"]).event.event == "Gap"


def test_an_event_without_an_id_is_given_a_uuid_of_version_7() -> None:
    """The ids are URNs, all different, and sort as they were made."""
    ids = [Publication(EVENT, ["a"]).id for _ in range(100)]
    assert all(id_.startswith("urn:uuid:") for id_ in ids)
    assert {uuid.UUID(id_.removeprefix("urn:uuid:")).version for id_ in ids} == {7}
    assert len(set(ids)) == 100
    assert ids == sorted(ids)


def test_the_wire_has_the_id_and_all_else_the_event_had() -> None:
    """Being given an id changes nothing else of the event."""
    event = ServerSentEvent("a\nb", event="e", retry=5, comment="c")
    publication = Publication(event, ["a"])
    assert publication.event == event.with_id(publication.id)
    assert publication.wire == publication.event.encode()


def test_an_own_id_is_kept() -> None:
    """Who gives an id finds it again."""
    event = ServerSentEvent("x", id="é 1 *")
    assert Publication(event, ["a"]).id == "é 1 *"
    assert Publication(event, ["a"]).event is event


@pytest.mark.parametrize(
    ("id_", "said"),
    [
        ("", "leave it out"),
        ("earliest", "the beginning of the history"),
        (PositionIds(b"key").encode(7), "must not begin with urn:penstock:position:: it is"),
        (" a", "begin or end with space"),
        ("a\xa0", "begin or end with space"),
        ("\u2003", "begin or end with space"),
        ("a\tb", r"control characters: U\+0009"),
        ("a\x7fb", r"U\+007F"),
        ("a\x85b", r"U\+0085"),
        ("a" * 1025, "longer than 1024 bytes"),
        ("é" * 513, "longer than 1024 bytes"),
    ],
)
def test_an_id_that_could_not_come_back_is_refused(id_: str, said: str) -> None:
    """An id has to survive a header, and must not mean something else there."""
    with pytest.raises(InvalidPublication, match=said):
        Publication(ServerSentEvent("x", id=id_), ["a"])


@pytest.mark.parametrize("event", ["x", None, b"data: x\n\n", {"data": "x"}])
def test_what_is_no_event_is_refused(event: Any) -> None:
    """Only what is known to be sendable is published."""
    with pytest.raises(InvalidPublication, match="publishes ServerSentEvent objects, not"):
        Publication(event, ["a"])


text = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]))


@given(
    st.none() | text,
    st.none() | text,
    st.none() | st.integers(0, 2**31 - 1),
    st.none() | text,
)
def test_what_was_restored_is_what_was_published(
    data: str | None, name: str | None, retry: int | None, comment: str | None
) -> None:
    """A history keeps topics, id and bytes; the event can be had of them again."""
    try:
        event = ServerSentEvent(data, event=name, retry=retry, comment=comment)
    except InvalidEvent:
        return
    assume(name != "gap")
    publication = Publication(event, ["a", "b"])
    restored = Publication.from_log(publication.id, publication.topics, publication.wire)
    assert restored == publication
    assert hash(restored) == hash(publication)
    assert restored.event == publication.event
    assert restored.event is restored.event
    assert restored.size == publication.size
    assert restored.dispatched is publication.dispatched is (data is not None)


def test_publications_are_equal_by_topics_and_bytes() -> None:
    """Two of the same event on the same topics are the same, others are not."""
    event = ServerSentEvent("x", id="1")
    assert Publication(event, ["a"]) == Publication(event, ["a"])
    assert Publication(event, ["a"]) != Publication(event, ["b"])
    assert Publication(event, ["a"]) != Publication(event.with_id("2"), ["a"])
    assert Publication(event, ["a"]) != event


def test_it_says_what_it_is() -> None:
    """Its representation is short, whatever it holds."""
    publication = Publication(
        ServerSentEvent("x" * 10_000, id="1"), [f"topic {n}" for n in range(99)]
    )
    assert repr(publication).startswith("<Publication '1' on ('topic 0',")
    assert repr(publication).endswith("10014 bytes>")
    assert len(repr(publication)) < 200
