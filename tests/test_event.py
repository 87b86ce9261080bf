"""ServerSentEvent: what it refuses, and its bytes."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import math
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import EventStreamDecoder, InvalidEvent, PenstockError, ServerSentEvent
from penstock.event import LINE_END, MAX_RETRY
from wire import ENCODED


@pytest.mark.parametrize(("event", "wire"), ENCODED.values(), ids=ENCODED)
def test_encodes_to_these_bytes(event: ServerSentEvent, wire: bytes) -> None:
    """Comment, retry, id, event, data, in this order, and a blank line where it has an effect."""
    assert event.encode() == wire


def test_is_encoded_once() -> None:
    """All who send an event share one immutable object."""
    event = ServerSentEvent("x" * 1000)
    assert event.encode() is event.encode()


def test_is_frozen_and_compares_by_its_fields() -> None:
    """An event can be a key, and cannot be changed after it was checked."""
    event = ServerSentEvent("a", id="1")
    assert {event: 1}[ServerSentEvent("a", id="1")] == 1
    assert event != ServerSentEvent("a", id="2")
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.data = "b"  # type: ignore[misc] # what is to fail


def test_can_be_copied_with_a_change() -> None:
    """dataclasses.replace checks and encodes anew."""
    assert dataclasses.replace(ServerSentEvent("a"), id="1").encode() == b"id: 1\ndata: a\n\n"
    with pytest.raises(InvalidEvent):
        dataclasses.replace(ServerSentEvent("a"), id="1\n")


def nested(depth: int) -> list[object]:
    value: list[object] = []
    for _ in range(depth):
        value = [value]
    return value


class Forged(str):
    """Text that becomes other text when it is formatted."""

    def __str__(self) -> str:
        return "x\ndata: forged"

    def __format__(self, spec: str) -> str:
        return "x\ndata: forged"


class Kind(str, enum.Enum):  # noqa: UP042 - the older kind, whose format is not its value
    PING = "ping"


def test_what_is_sent_is_what_was_checked() -> None:
    """A subclass of str is its characters, whatever it makes of itself: an Enum is its value."""
    for event in (
        ServerSentEvent(Forged("a"), event=Forged("b"), id=Forged("c"), comment=Forged("d")),
        ServerSentEvent("a", event=Forged("b"), id="c", comment="d"),
    ):
        assert event.encode() == b": d\nid: c\nevent: b\ndata: a\n\n"
        assert type(event.event) is str
    ping = ServerSentEvent("1", event=Kind.PING, id=Kind.PING)
    assert ping.encode() == b"id: ping\nevent: ping\ndata: 1\n\n"
    with pytest.raises(InvalidEvent):
        ServerSentEvent("a", id=Forged("b\n"))


def test_json_takes_the_other_fields() -> None:
    """They are those of any event; and the longest retry there is can be had."""
    event = ServerSentEvent.json(1, event="e", id="i", retry=MAX_RETRY, comment="c")
    assert event == ServerSentEvent("1", event="e", id="i", retry=MAX_RETRY, comment="c")


# Each `type: ignore` stands by a mistake that a type checker would have found, too.
REFUSED = {
    "LF in id": (lambda: ServerSentEvent("a", id="1\n2"), "id must not contain a line end"),
    "a long id": (lambda: ServerSentEvent("a", id="1\n" + "x" * 10**6), "id must not contain"),
    "CR in id": (lambda: ServerSentEvent("a", id="1\r2"), "id must not contain a line end"),
    "NUL in id": (lambda: ServerSentEvent("a", id="1\0"), "id must not contain NUL"),
    "LF in event": (lambda: ServerSentEvent("a", event="x\ndata: y"), "event must not contain"),
    "CR in event": (lambda: ServerSentEvent("a", event="x\r"), "event must not contain"),
    "negative retry": (lambda: ServerSentEvent(retry=-1), "retry must be from 0"),
    "boolean retry": (lambda: ServerSentEvent(retry=True), "not True"),
    "retry in seconds": (lambda: ServerSentEvent(retry=1.5), "of milliseconds"),  # type: ignore[arg-type]
    "retry as text": (lambda: ServerSentEvent(retry="5"), "not '5'"),  # type: ignore[arg-type]
    "retry too large": (lambda: ServerSentEvent(retry=MAX_RETRY + 1), "to 2147483647 milliseconds"),
    "retry far too large": (lambda: ServerSentEvent(retry=10**5000), "to 2147483647 milliseconds"),
    "data of bytes": (lambda: ServerSentEvent(b"a"), "not bytes: use str"),  # type: ignore[arg-type]
    "data of another kind": (lambda: ServerSentEvent({}), r"ServerSentEvent\.json"),  # type: ignore[arg-type]
    "id of a number": (lambda: ServerSentEvent("a", id=1), "id must be text, not int"),  # type: ignore[arg-type]
    "nothing at all": (lambda: ServerSentEvent(), "at least one of"),
    "a name without data": (lambda: ServerSentEvent(event="x"), 'pass data=""'),
    "a surrogate": (lambda: ServerSentEvent("a\ud800"), r"U\+D800 is a lone surrogate"),
    "no JSON form": (lambda: ServerSentEvent.json({1j}), "no JSON form"),
    "JSON too deep": (lambda: ServerSentEvent.json(nested(100_000)), "no JSON form"),
    "JSON has no NaN": (lambda: ServerSentEvent.json(math.nan), "no JSON form"),
}


@pytest.mark.parametrize(("make", "says"), REFUSED.values(), ids=REFUSED)
def test_refuses_what_the_wire_cannot_carry(make: object, says: str) -> None:
    """Nothing is repaired: a value that could break the stream is an error when it is given."""
    assert callable(make)
    with pytest.raises(InvalidEvent, match=says) as caught:
        make()
    assert isinstance(caught.value, PenstockError)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_positional_is_data_only() -> None:
    """All but the data is given by name: nobody need remember an order."""
    with pytest.raises(TypeError):
        ServerSentEvent("a", "b")  # type: ignore[call-arg] # what is to fail


text = st.text(st.characters(codec="utf-8"))
lines = text.filter(lambda value: not LINE_END.search(value))


@given(
    data=text,
    event=st.none() | lines,
    id=st.none() | lines.filter(lambda value: "\0" not in value),
    retry=st.none() | st.integers(0, MAX_RETRY),
    comment=st.none() | text,
    cut=st.integers(0, 100),
)
def test_round_trip(
    data: str,
    event: str | None,
    id: str | None,  # noqa: A002 - the name of the field
    retry: int | None,
    comment: str | None,
    cut: int,
) -> None:
    """A decoder gives back what was encoded, line ends as LF, wherever the bytes were cut."""
    sent = ServerSentEvent(data, event=event, id=id, retry=retry, comment=comment)
    decoder = EventStreamDecoder()
    wire = sent.encode()
    received = [*decoder.feed(wire[:cut]), *decoder.feed(wire[cut:])]
    assert received == [
        ServerSentEvent(LINE_END.sub("\n", data), event=event or None, id=id or None)
    ]
    assert decoder.retry == retry
    assert decoder.last_event_id == (id or "")


@given(st.recursive(st.none() | st.booleans() | st.integers() | text, lambda x: st.lists(x)))
def test_json_round_trip(value: object) -> None:
    """A value sent as JSON is on one line and parses to the same value."""
    wire = ServerSentEvent.json(value).encode()
    assert wire.count(b"\n") == 2
    assert json.loads(wire.removeprefix(b"data: ")) == value


def test_json_escapes_what_utf8_cannot_carry() -> None:
    """A lone surrogate, in a value or a key, is its JSON escape; everything else is as it was."""
    value = json.loads(r'{"k\ud83c": "é \ud83c\udf0d \udf0d", "b\\ud83c": 1}')
    event = ServerSentEvent.json(value)
    assert event.data == r'{"k\ud83c":"é 🌍 \udf0d","b\\ud83c":1}'
    assert json.loads(event.data) == value


def test_json_of_other_types() -> None:
    """What Quart's own provider takes has a JSON form; another may be given as ``default``."""

    @dataclasses.dataclass
    class Point:
        x: int
        at: datetime.date

    class Markup:
        def __html__(self) -> str:
            return "<b>"

    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    for value, text in (
        (moment, '"2026-01-02T03:04:05+00:00"'),
        (moment.date(), '"2026-01-02"'),
        (moment.time(), '"03:04:05"'),
        (uuid.UUID(int=7), '"00000000-0000-0000-0000-000000000007"'),
        (decimal.Decimal("1.20"), '"1.20"'),
        (Point(1, moment.date()), '{"x":1,"at":"2026-01-02"}'),
        (Markup(), '"<b>"'),
    ):
        assert ServerSentEvent.json([value]).data == f"[{text}]"
    assert ServerSentEvent.json({1, 2}, default=sorted).data == "[1,2]"
    with pytest.raises(InvalidEvent, match="no JSON form: object is not JSON serializable"):
        ServerSentEvent.json(object())
    with pytest.raises(InvalidEvent, match="no JSON form: type is not"):
        ServerSentEvent.json(Point)

    def not_a_number(_: object) -> float:
        return math.nan

    for number in (math.nan, math.inf):
        with pytest.raises(InvalidEvent, match=r"no JSON form: .*not JSON compliant"):
            ServerSentEvent.json({"x": number})
        with pytest.raises(InvalidEvent, match=r"no JSON form: .*not JSON compliant"):
            ServerSentEvent.json({"x": object()}, default=not_a_number)
