"""EventStreamDecoder: the WHATWG algorithm, incremental and bounded."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import DecodeError, EventStreamDecoder, InvalidEvent, ServerSentEvent
from wire import DECODED, Heard, Stream


def decode(chunks: Iterable[bytes]) -> Stream:
    """Decode chunks, and tell it as a case of the table."""
    decoder = EventStreamDecoder()
    heard = []
    for chunk in chunks:
        for event in decoder.feed(chunk):
            assert event.data is not None
            heard.append(Heard(event.data, event.event or "message", event.id or ""))
    return Stream(b"", tuple(heard), decoder.last_event_id, decoder.retry)


def expected(case: Stream) -> Stream:
    return Stream(b"", case.heard, case.last_event_id, case.retry)


cases = pytest.mark.parametrize("case", DECODED.values(), ids=DECODED)
small = pytest.mark.parametrize(
    "case", [pytest.param(c, id=name) for name, c in DECODED.items() if len(c.wire) < 200]
)


@cases
def test_whole(case: Stream) -> None:
    """A stream in one chunk gives these events, last id and retry."""
    assert decode([case.wire]) == expected(case)


@cases
def test_byte_by_byte(case: Stream) -> None:
    """A stream that arrives byte by byte gives the same events."""
    assert decode(case.wire[i : i + 1] for i in range(len(case.wire))) == expected(case)


@small
def test_every_split_point(case: Stream) -> None:
    """A stream cut in two anywhere, with nothing in between, gives the same."""
    for cut in range(len(case.wire) + 1):
        assert decode([case.wire[:cut], b"", case.wire[cut:]]) == expected(case), cut


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_any_bytes_any_cuts(wire: bytes, cuts: list[int]) -> None:
    """Whatever the bytes are, nothing is raised, and the cuts change nothing."""
    edges = [0, *sorted(cuts), len(wire)]
    chunks = [wire[a:b] for a, b in itertools.pairwise(edges)]
    assert decode(chunks) == decode([wire[: max(edges)]])


@given(st.text(st.sampled_from("\r\n:\0 \ufeffa1dt"), max_size=40), st.integers(0, 60))
def test_adversarial_text_any_cut(text: str, cut: int) -> None:
    """The same, of the characters that mean something."""
    wire = text.replace("d", "data").replace("t", "retry").replace("a", "id").encode()
    assert decode([wire[:cut], wire[cut:]]) == decode([wire])


def test_an_event_comes_out_at_its_blank_line() -> None:
    """An event is not held back until more bytes come, even when a CR may be half a CRLF."""
    decoder = EventStreamDecoder()
    assert list(decoder.feed(b"data: a\r\r")) == [ServerSentEvent("a")]
    assert list(decoder.feed(b"\ndata: b\n\n")) == [ServerSentEvent("b")]


def test_starts_from_a_known_id() -> None:
    """A client that reconnects gives the id it knows, and an event without one carries it."""
    decoder = EventStreamDecoder(last_event_id="7")
    assert list(decoder.feed(b"data: a\n\n")) == [ServerSentEvent("a", id="7")]
    assert decoder.last_event_id == "7"


def test_an_iteration_left_early_loses_nothing() -> None:
    """Events that were not iterated are returned by the next feed."""
    decoder = EventStreamDecoder()
    for event in decoder.feed(b"data: a\n\ndata: b\r\n\r"):
        assert event == ServerSentEvent("a")
        break
    assert list(decoder.feed(b"\ndata: c\n\n")) == [ServerSentEvent("b"), ServerSentEvent("c")]


@pytest.mark.parametrize(
    "wire",
    [
        b"data: " + b"x" * 95,
        b": " + b"x" * 99,
        b"data: xxxxxxx\n" * 20,
        b"data\n" * 200,
        b"event: " + b"x" * 99 + b"\n",
    ],
    ids=["a line", "a comment", "many lines", "empty lines", "a name"],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_is_bounded(wire: bytes, size: int) -> None:
    """An event or line beyond the bound is an error that says so, after the events before it."""
    decoder = EventStreamDecoder(max_event_size=100)
    wire = b"data: first\n\n" + wire
    heard: list[ServerSentEvent] = []
    chunks = [wire[start : start + size] for start in range(0, len(wire), size)]
    with pytest.raises(DecodeError, match=r"larger than max_event_size \(100 bytes\)"):
        heard.extend(event for chunk in chunks for event in decoder.feed(chunk))
    assert heard == [ServerSentEvent("first")]
    with pytest.raises(DecodeError, match="100 bytes"):
        decoder.feed(b"data: more\n\n")


def test_events_before_an_error_come_out_first() -> None:
    """The events of a chunk are returned before the error is raised."""
    events = EventStreamDecoder(max_event_size=10).feed(b"data: a\n\ndata: " + b"x" * 20)
    assert next(events) == ServerSentEvent("a")
    with pytest.raises(DecodeError):
        next(events)


def test_at_the_bound() -> None:
    """The bound itself is allowed."""
    wire = b"data: " + b"x" * 94
    assert list(EventStreamDecoder(max_event_size=100).feed(wire + b"\n\n"))


def test_a_bound_below_one_byte_is_refused() -> None:
    """A decoder that could read nothing is an error."""
    with pytest.raises(ValueError, match="at least 1 byte"):
        EventStreamDecoder(max_event_size=0)


def test_bytes_that_were_fed_are_kept_though_nobody_iterated() -> None:
    """Feeding takes the bytes, iterating takes the events."""
    decoder = EventStreamDecoder()
    decoder.feed(b"data: a\n\n")
    assert list(decoder.feed(b"")) == [ServerSentEvent("a")]


def test_the_bound_is_for_one_event_and_not_for_the_stream() -> None:
    """A stream may go on for ever."""
    wire = b"data: 123456\n\n" * 50
    assert len(list(EventStreamDecoder(max_event_size=20).feed(wire))) == 50


def test_the_bound_is_a_mebibyte_unless_told() -> None:
    """One byte more is too many."""
    line = b"x" * 2**20
    assert list(EventStreamDecoder().feed(line + b"\n\n")) == []
    with pytest.raises(DecodeError):
        list(EventStreamDecoder().feed(line + b"x"))


def test_an_error_keeps_nothing() -> None:
    """What was too large is not held by the decoder that refused it."""
    tracemalloc.start()
    try:
        decoder = EventStreamDecoder(max_event_size=1000)
        before, _ = tracemalloc.get_traced_memory()
        with pytest.raises(DecodeError):
            list(decoder.feed(b"x" * 1_000_000))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 100_000


@pytest.mark.parametrize("last", ["a\nb", "a\0", "\ud800"])
def test_an_id_that_no_event_could_have_had(last: str) -> None:
    """It is refused when it is given, not in the middle of a stream."""
    with pytest.raises(InvalidEvent):
        EventStreamDecoder(last_event_id=last)


def test_repr() -> None:
    """It shows what a client would reconnect with."""
    decoder = EventStreamDecoder()
    list(decoder.feed(b"retry: 5\nid: a\n\n"))
    assert repr(decoder) == "<EventStreamDecoder last_event_id='a' retry=5>"
