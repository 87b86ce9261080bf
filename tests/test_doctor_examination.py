"""What is noted of a body's bytes, whatever they are and however they are cut."""

from __future__ import annotations

import gzip
import itertools
import tracemalloc
import zlib
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import EventStreamDecoder
from penstock.doctor.body import Examination, Fault, Unpacker, can_unpack, codings_of
from wire import DECODED, Stream

FAULTS = {
    "nothing": (b": hi\n\nid: 1\nevent: a\ndata: x\nretry: 3\n\n", {}),
    "a BOM at the start": (b"\xef\xbb\xbfdata: x\n\n", {}),
    "a page": (b"<!DOCTYPE html>\n<html>\n", {Fault.HTML: 1, Fault.BARE_TEXT: 2}),
    "bare text": (b"data: {\n  1,\n}\n\n", {Fault.BARE_TEXT: 2}),
    "JSON": (b'{"a": 1}\n', {Fault.BARE_TEXT: 1}),
    "unknown": (b"topic: a\ndata: x\n\n", {Fault.UNKNOWN_FIELD: 1}),
    "in capitals": (b"Data: x\n\n", {Fault.MISSPELT_FIELD: 1}),
    "indented": (b"  data: x\n\n", {Fault.MISSPELT_FIELD: 1}),
    "spaced": (b"data : x\n\n", {Fault.MISSPELT_FIELD: 1}),
    "a later BOM": (b"data: x\n\n\xef\xbb\xbfdata: y\n\n", {Fault.BOM: 1}),
    "Latin-1": (b"data: caf\xe9\n\n", {Fault.UTF8: 1}),
    "NUL": (b"id: a\0\ndata: x\n\n", {Fault.NUL_ID: 1}),
    "retry": (b"retry: 2s\nretry: -1\ndata: x\n\n", {Fault.BAD_RETRY: 2}),
    "no data": (b"event: a\nid: 1\n\n", {Fault.NO_DATA: 1}),
    "Latin-1 in a comment": (b": caf\xe9\ndata: x\n\n", {}),
    # An event as the data of another: by a library that splits lines, and relayed line by line.
    "encoded twice": (b"data: data: x\ndata: \ndata: \n\n", {Fault.ENCODED_TWICE: 1}),
    "encoded twice, some": (
        b"data: hi\n\n" + b"data: id: 1\ndata: data: x\ndata: \ndata: \n\n" * 3,
        {Fault.ENCODED_TWICE: 3},
    ),
    "relayed by lines": (
        b"data: event: a\n\ndata: data: {}\n\ndata: \n\n" * 2,
        {Fault.ENCODED_TWICE: 4},
    ),
    "without a line end": (rb"data: x\n\ndata: y\n\n", {Fault.LITERAL_LINE_END: 1}),
    "written out": ((rb"data: x\n\n" + b"\n\n") * 3, {Fault.LITERAL_LINE_END: 3}),
    # Payloads that only look like it.
    "images": (b"data: data:image/png;base64,AAAA\n\n" * 5, {}),
    "a data URL": (b"data: data:,hi\n\ndata: data:text/plain;charset=utf-8,x\n\n" * 3, {}),
    "an id that says so": (b"id: id:7\nevent: event:x\ndata: x\n\n" * 3, {}),
    "YAML": (b"data: id: 7\ndata: data: 3\ndata: \n\n", {}),
    "numbers with a name": (b"data: id: 7\n\n" * 5, {}),
    "one payload like a field": (b"data: data: x\n\n", {}),
    "some payloads like fields": (b"data: data: x\n\ndata: data: y\n\ndata: z\n\n" * 5, {}),
    "a path": (rb"data: C:\n" + b"\n\n", {}),
    "escaped lines": ((rb"data: x\n" + b"\n\n") * 5, {}),
    "an escaped end": (rb"data: x\n\n" + b"\n\ndata: y\n\n", {}),
}


def examined(chunks: Iterable[bytes]) -> Examination:
    body = Examination(0.0)
    for number, chunk in enumerate(chunks):
        body.feed(chunk, float(number))
    return body


def content(body: Examination) -> object:
    return body.events, body.comments, body.faults, list(body.ids), body.retry, body.unfinished


@pytest.mark.parametrize(("wire", "faults"), FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_what_clients_pass_over_is_found(wire: bytes, faults: dict[Fault, int], end: bytes) -> None:
    """Each kind of fault is found, and no other, with each line end and however it is cut."""
    wire = wire.replace(b"\n", end)
    whole, single = examined([wire]), examined(wire[i : i + 1] for i in range(len(wire)))
    assert {fault: found.count for fault, found in whole.faults.items()} == faults
    assert content(whole) == content(single)


@pytest.mark.parametrize("case", DECODED.values(), ids=DECODED)
def test_events_are_those_of_the_decoder(case: Stream) -> None:
    """The count of events and the retry are those of a client."""
    body = examined([case.wire])
    assert body.events == len(case.heard)
    assert body.retry == case.retry


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_any_bytes_any_cuts(wire: bytes, cuts: list[int]) -> None:
    """Whatever the bytes are, nothing is raised, and the cuts change nothing but times."""
    edges = [0, *sorted(cuts), len(wire)]
    chunks = [wire[a:b] for a, b in itertools.pairwise(edges)]
    whole = wire[: max(edges)]
    assert content(examined(chunks)) == content(examined([whole]))
    assert examined(chunks).events == len(list(EventStreamDecoder().feed(whole)))


def test_bursts() -> None:
    """Bytes less than 50 ms apart are one burst, which knows whether it ended within an event."""
    body = Examination(10.0)
    body.feed(b"data: 1\n\n", 11.0)
    body.feed(b"data: 2\n\nid: 3\nda", 11.04)
    body.feed(b"ta: 3\n\n", 12.0)
    first, second = body.bursts
    assert (first.began, first.ended, first.events, first.whole) == (11.0, 11.04, 2, False)
    assert (second.began, second.events, second.whole) == (12.0, 1, True)
    assert (body.first_at, body.first_event_at, body.last_at) == (11.0, 11.0, 12.0)
    assert body.longest_silence(12.5) == 1.0
    assert body.longest_silence(14.0) == 2.0


@pytest.mark.parametrize(
    ("wire", "whole"),
    [(b"data: a\n\n: half a comm", False), (b"retry: 5\n", True), (b"id: 5\n", False)],
)
def test_where_an_event_ends(wire: bytes, whole: bool) -> None:
    """A retry alone is no event; a line that is not over is not."""
    assert examined([wire]).bursts[-1].whole is whole


@pytest.mark.parametrize(
    ("wire", "unfinished"),
    [(b"data: a\n", True), (b"data: a", True), (b"data: a\n\n", False), (b"id: a\n", False)],
)
def test_an_event_that_was_begun(wire: bytes, unfinished: bool) -> None:
    """Data without an empty line after it is what an end would lose."""
    assert examined([wire]).unfinished is unfinished


def test_ids() -> None:
    """An id counts where an event brings it, once where it is repeated at once, and is known."""
    body = examined([b"id: 1\ndata: a\n\ndata: b\n\nid: 2\n\nid: 3\ndata: c\n\n"])
    assert (list(body.ids), body.first_id, body.repeated_id) == (["1", "3"], "1", None)
    body.feed(b"id: 1\ndata: d\n\n", 1.0)
    assert body.repeated_id == "1"


@pytest.mark.parametrize(
    "wire",
    [
        b"x" * 65536,
        b"data: %s\n" % (b"x" * 57) * 1024,
        b"event: x\n\n" * 1000,
        (b"\xff" * 30 + b"\n") * 2000,
        b"id: " + b"x" * 65536 + b"\ndata: x\n\n",
    ],
    ids=["no line end", "no event's end", "no event", "faults", "long ids"],
)
def test_memory_is_bounded(wire: bytes) -> None:
    """An endless body takes a fixed amount of memory, whatever is in it."""
    body = Examination(0.0)
    tracemalloc.start()
    for number in range(30):
        body.feed(wire, float(number))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20
    assert body.size == 30 * len(wire)
    if wire.startswith((b"x", b"data")):
        assert body.unfinished_size >= 30 * len(wire) - wire.count(b"\n") * 30


@pytest.mark.parametrize("size", [2**16, 2 * 2**20])
@pytest.mark.parametrize("cut", [1000, 65536, 2**23])
def test_an_event_of_any_size_is_an_event(size: int, cut: int) -> None:
    """Browsers take a large event, in one line or in many; so its size is noted, and no more."""
    wire = b"id: 1\ndata: %s\n\n" % (b"x" * size)
    wire += b"data: %s\n" % (b"y" * 1000) * (size // 1000) + b"\nid: 2\ndata: x\n\n"
    body = examined(wire[i : i + cut] for i in range(0, len(wire), cut))
    assert (body.events, list(body.ids), body.faults) == (3, ["1", "2"], {})
    assert size <= body.largest_event < 1.1 * size + 10
    assert body.unfinished_size == 0


def test_an_encoding_error_anywhere_in_a_line_is_found() -> None:
    """A long line is checked to its end, and a character that is cut in two is no error."""
    good = b"data: " + "é".encode() * 2**16 + b"\n\n"
    assert not examined([good[:99_999], good[99_999:]]).faults
    bad = good[:-3] + b"\n\n"
    assert list(examined([bad]).faults) == [Fault.UTF8]


def test_lists_are_bounded() -> None:
    """Of bursts the first 1,000 are kept, of ids the last 100."""
    body = examined(b"id: %d\ndata: x\n\n" % number for number in range(12_000))
    assert (body.events, len(body.bursts), len(body.ids)) == (12_000, 1000, 100)
    assert body.ids[-1] == "11999"


def test_unpacking() -> None:
    """Gzip and deflate are decompressed in pieces; data that is not compressed is an error."""
    plain = b"data: x\n\n" * 100_000
    for packed in (gzip.compress(plain), zlib.compress(plain), gzip.compress(b"") * 2):
        for size in (1, 7, len(packed)):
            unpacker = Unpacker("gzip")
            parts = (packed[i : i + size] for i in range(0, len(packed), size))
            pieces = [piece for part in parts for piece in unpacker.unpack(part)]
            assert b"".join(pieces) in (plain, b"")
            assert max(map(len, pieces), default=0) <= 65536
    with pytest.raises(ValueError, match="incorrect header"):
        list(Unpacker("gzip").unpack(b"data: x\n\n"))
    assert list(Unpacker("").unpack(b"x")) == [b"x"]
    assert list(Unpacker("utf-8").unpack(b"x")) == [b"x"]


@pytest.mark.parametrize(
    ("header", "codings", "readable"),
    [
        ("", "", True),
        ("none", "", True),
        ("Identity", "", True),
        ("deflate, identity", "deflate", True),
        ("br", "br", False),
        ("gzip, GZIP", "gzip, gzip", False),
        ("utf-8", "utf-8", True),
    ],
)
def test_content_codings(header: str, codings: str, readable: bool) -> None:
    """Codings of no effect do not count, and browsers treat unknown ones as uncompressed."""
    assert codings_of(header) == codings
    assert can_unpack(codings) is readable
