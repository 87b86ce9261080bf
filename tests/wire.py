"""The wire cases: one table for the encoder, one for the decoder and the browser that judges it.

A decoded case is run whole, at each split point, byte by byte, and, in `interop/test_decoder.py`,
against Chromium's EventSource.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock import ServerSentEvent

ENCODED: dict[str, tuple[ServerSentEvent, bytes]] = {
    "data": (ServerSentEvent("hello"), b"data: hello\n\n"),
    "empty data is sent": (ServerSentEvent(""), b"data: \n\n"),
    "LF starts a data line": (ServerSentEvent("a\nb"), b"data: a\ndata: b\n\n"),
    "CR starts a data line": (ServerSentEvent("a\rb"), b"data: a\ndata: b\n\n"),
    "CRLF starts one data line": (ServerSentEvent("a\r\nb"), b"data: a\ndata: b\n\n"),
    "LF CR starts two": (ServerSentEvent("a\n\rb"), b"data: a\ndata: \ndata: b\n\n"),
    "a line end at the end": (ServerSentEvent("a\n"), b"data: a\ndata: \n\n"),
    "a line end alone": (ServerSentEvent("\n"), b"data: \ndata: \n\n"),
    "other separators are characters": (
        ServerSentEvent("a\u2028b\u0085c\vd\fe\x1cf"),
        "data: a\u2028b\u0085c\vd\fe\x1cf\n\n".encode(),
    ),
    "a leading space is kept": (ServerSentEvent(" a"), b"data:  a\n\n"),
    "a colon is kept": (ServerSentEvent(": a"), b"data: : a\n\n"),
    "a field in data stays data": (ServerSentEvent("a\nevent: x"), b"data: a\ndata: event: x\n\n"),
    "NUL in data": (ServerSentEvent("a\0b"), b"data: a\0b\n\n"),
    "UTF-8": (ServerSentEvent("é漢😀"), "data: é漢😀\n\n".encode()),
    "a BOM in data": (ServerSentEvent("\ufeffa"), b"data: \xef\xbb\xbfa\n\n"),
    "event": (ServerSentEvent("1", event="ping"), b"event: ping\ndata: 1\n\n"),
    "an empty event is unnamed": (ServerSentEvent("1", event=""), b"event: \ndata: 1\n\n"),
    "id": (ServerSentEvent("1", id="7"), b"id: 7\ndata: 1\n\n"),
    "an id alone": (ServerSentEvent(id="7"), b"id: 7\n\n"),
    "an empty id": (ServerSentEvent(id=""), b"id: \n\n"),
    "retry": (ServerSentEvent(retry=1500), b"retry: 1500\n"),
    "retry of nothing": (ServerSentEvent(retry=0), b"retry: 0\n"),
    "comment": (ServerSentEvent(comment="hi"), b": hi\n"),
    "an empty comment": (ServerSentEvent(comment=""), b":\n"),
    "a comment of two lines": (ServerSentEvent(comment="a\rdata: b"), b": a\n: data: b\n"),
    "a comment and a retry": (
        ServerSentEvent(retry=1, comment="c\n\n"),
        b": c\n:\n:\nretry: 1\n",
    ),
    "an id and a retry": (ServerSentEvent(id="7", retry=1), b"retry: 1\nid: 7\n\n"),
    "a comment and an id": (ServerSentEvent(id="7", comment=""), b":\nid: 7\n\n"),
    "all fields": (
        ServerSentEvent("x", event="e", id="i", retry=1, comment="c"),
        b": c\nretry: 1\nid: i\nevent: e\ndata: x\n\n",
    ),
    "json": (
        ServerSentEvent.json({"a": [1, None, "é\n"]}),
        'data: {"a":[1,null,"é\\n"]}\n\n'.encode(),
    ),
    "json null": (ServerSentEvent.json(None, event="n"), b"event: n\ndata: null\n\n"),
}


@dataclass(frozen=True)
class Heard:
    """An event as EventSource gives it to a handler."""

    data: str
    type: str = "message"
    last_event_id: str = ""


@dataclass(frozen=True)
class Stream:
    """A stream of bytes, what a client hears of it, and what it remembers for reconnecting."""

    wire: bytes
    heard: tuple[Heard, ...] = ()
    last_event_id: str = ""
    retry: int | None = None


def _stream(
    wire: bytes, *heard: Heard, last_event_id: str | None = None, retry: int | None = None
) -> Stream:
    last = heard[-1].last_event_id if heard else ""
    return Stream(wire, heard, last if last_event_id is None else last_event_id, retry)


DECODED: dict[str, Stream] = {
    # Line ends.
    "LF": _stream(b"data: a\n\n", Heard("a")),
    "CR": _stream(b"data: a\r\r", Heard("a")),
    "CRLF": _stream(b"data: a\r\n\r\n", Heard("a")),
    "CR then LF": _stream(b"data: a\r\n\ndata: b\n\n", Heard("a"), Heard("b")),
    "LF then CR": _stream(b"data: a\n\rdata: b\n\r", Heard("a"), Heard("b")),
    "mixed": _stream(b"data: a\rdata: b\ndata: c\r\n\r\n", Heard("a\nb\nc")),
    "CR CR LF": _stream(b"data: a\r\r\ndata: b\r\r\n", Heard("a"), Heard("b")),
    "U+2028 is no line end": _stream("data: a\u2028b\n\n".encode(), Heard("a\u2028b")),
    "U+2029 is no line end": _stream("data: a\u2029b\n\n".encode(), Heard("a\u2029b")),
    "U+0085 is no line end": _stream("data: a\u0085b\n\n".encode(), Heard("a\u0085b")),
    "VT and FF are no line ends": _stream(b"data: a\vb\fc\x1cd\n\n", Heard("a\vb\fc\x1cd")),
    "many blank lines": _stream(b"\n\n\r\r\r\n\r\ndata: a\n\n\n\n", Heard("a")),
    "CRLF between lines": _stream(b"event: x\r\ndata: a\r\ndata: b\r\n\r\n", Heard("a\nb", "x")),
    # Colon forms.
    "no space": _stream(b"data:a\n\n", Heard("a")),
    "two spaces": _stream(b"data:  a\n\n", Heard(" a")),
    "a tab is no space": _stream(b"data:\ta\n\n", Heard("\ta")),
    "a space at the end": _stream(b"data: a \n\n", Heard("a ")),
    "only a space": _stream(b"data: \n\n", Heard("")),
    "a colon in the value": _stream(b"data: a: b\n\n", Heard("a: b")),
    "two colons": _stream(b"data::a\n\n", Heard(":a")),
    "no colon": _stream(b"data\n\n", Heard("")),
    "no colon, twice": _stream(b"data\ndata\n\n", Heard("\n")),
    "a space before the name": _stream(b" data: a\n\n"),
    "a space before the colon": _stream(b"data : a\n\n"),
    "upper case": _stream(b"Data: a\nDATA: b\n\n"),
    # Data.
    "empty data": _stream(b"data:\n\n", Heard("")),
    "empty data twice": _stream(b"data:\ndata:\n\n", Heard("\n")),
    "an empty line first": _stream(b"data:\ndata: a\n\n", Heard("\na")),
    "an empty line last": _stream(b"data: a\ndata:\n\n", Heard("a\n")),
    "NUL in data": _stream(b"data: a\0b\n\n", Heard("a\0b")),
    "cut short": _stream(b"data: a\n\ndata: b\n", Heard("a")),
    "cut in a line": _stream(b"data: a\n\ndata: b", Heard("a")),
    "a huge line": _stream(b"data: " + b"x" * 300_000 + b"\n\n", Heard("x" * 300_000)),
    "many lines": _stream(b"data: ab\n" * 5_000 + b"\n", Heard("\n".join(["ab"] * 5_000))),
    # Events.
    "named": _stream(b"event: ping\ndata: a\n\n", Heard("a", "ping")),
    "a name counts once": _stream(
        b"event: ping\ndata: a\n\ndata: b\n\n", Heard("a", "ping"), Heard("b")
    ),
    "the last name counts": _stream(b"event: x\nevent: ping\ndata: a\n\n", Heard("a", "ping")),
    "an empty name": _stream(b"event: ping\nevent:\ndata: a\n\n", Heard("a")),
    "a name without data": _stream(b"event: ping\n\ndata: a\n\n", Heard("a")),
    "a name after the data": _stream(b"data: a\nevent: ping\n\n", Heard("a", "ping")),
    "a name in UTF-8": _stream("event: é漢\ndata: a\n\n".encode(), Heard("a", "é漢")),
    "a name with a space": _stream(b"event:  ping \ndata: a\n\n", Heard("a", " ping ")),
    "named message": _stream(b"event: message\ndata: a\n\n", Heard("a")),
    # Ids.
    "id": _stream(b"id: 1\ndata: a\n\n", Heard("a", last_event_id="1")),
    "an id stays": _stream(
        b"id: 1\ndata: a\n\ndata: b\n\n",
        Heard("a", last_event_id="1"),
        Heard("b", last_event_id="1"),
    ),
    "an empty id forgets": _stream(
        b"id: 1\ndata: a\n\nid\ndata: b\n\n", Heard("a", last_event_id="1"), Heard("b")
    ),
    "an id with NUL is ignored": _stream(
        b"id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n",
        Heard("a", last_event_id="1"),
        Heard("b", last_event_id="1"),
    ),
    "an id without data counts": _stream(b"id: 1\n\ndata: a\n\n", Heard("a", last_event_id="1")),
    "an id cut short does not count": _stream(
        b"id: 1\ndata: a\n\nid: 2\n", Heard("a", last_event_id="1")
    ),
    "an id in UTF-8": _stream("id: é漢\ndata: a\n\n".encode(), Heard("a", last_event_id="é漢")),
    "an id that is not UTF-8": _stream(
        b"id: a\xffb\ndata: x\n\n", Heard("x", last_event_id="a\ufffdb")
    ),
    "a name that is not UTF-8": _stream(b"event: a\xffb\ndata: x\n\n", Heard("x", "a\ufffdb")),
    # Encoding.
    "a BOM": _stream(b"\xef\xbb\xbfdata: a\n\n", Heard("a")),
    "two BOMs": _stream(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", Heard("b")),
    "a BOM later": _stream(b"data: a\n\n\xef\xbb\xbfdata: b\n\n", Heard("a")),
    "a BOM in data": _stream(b"data: \xef\xbb\xbfa\n\n", Heard("\ufeffa")),
    "half a BOM": _stream(b"\xef\xbbdata: a\n\ndata: b\n\n", Heard("b")),
    "a BOM before a blank line": _stream(b"\xef\xbb\xbf\ndata: a\n\n", Heard("a")),
    "UTF-8": _stream("data: é漢😀\n\n".encode(), Heard("é漢😀")),
    "not UTF-8": _stream(b"data: a\xffb\n\n", Heard("a\ufffdb")),
    "a character cut by a line end": _stream(b"data: a\xe6\xbc\ndata: b\n\n", Heard("a\ufffd\nb")),
    "an overlong character": _stream(b"data: a\xc0\x80b\n\n", Heard("a\ufffd\ufffdb")),
    "a surrogate": _stream(b"data: a\xed\xa0\x80b\n\n", Heard("a\ufffd\ufffd\ufffdb")),
    # Comments, fields nobody knows, retry.
    "a comment": _stream(b": hi\ndata: a\n\n", Heard("a")),
    "a comment within": _stream(b"data: a\n:data: x\ndata: b\n\n", Heard("a\nb")),
    "an empty comment": _stream(b":\n\ndata: a\n\n", Heard("a")),
    "an unknown field": _stream(b"foo: x\ndatas: y\ndata: a\nfoo\n\n", Heard("a")),
    "retry": _stream(b"retry: 1500\ndata: a\n\n", Heard("a"), retry=1500),
    "retry cut short": _stream(b"data: a\n\nretry: 1500\n", Heard("a"), retry=1500),
    "retry that is no number": _stream(
        "retry: 2000\nretry: -1\nretry: 1.5\nretry: 10s\nretry: ٣\nretry:\nretry:  1\n"
        "data: a\n\n".encode(),
        Heard("a"),
        retry=2000,
    ),
    "retry with zeros": _stream(b"retry: 000020\ndata: a\n\n", Heard("a"), retry=20),
    "retry with more zeros than digits count": _stream(
        b"retry: " + b"0" * 20 + b"7\ndata: a\n\n", Heard("a"), retry=7
    ),
    "retry of eleven digits": _stream(
        b"retry: 10000000000\ndata: a\n\n", Heard("a"), retry=2**31 - 1
    ),
    "retry beyond bounds": _stream(
        b"retry: " + b"9" * 5_000 + b"\ndata: a\n\n", Heard("a"), retry=2**31 - 1
    ),
}
