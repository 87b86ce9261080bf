"""What EventSource sends: the id of the last event, a method, a body, headers; and which URLs."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import h11
import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from client_fakes import OVER, URL, Answer, Clock, Network, data_of, source_on
from penstock import InvalidEvent, ServerSentEvent
from penstock.client import EventSource
from penstock.client.request import header_value, origin_of, parse_url, redacted

# One of each general category of Unicode, and all of the first 256.
CLASSES = {unicodedata.category(chr(code)): chr(code) for code in range(0xD800)} | {
    "Co": "\ue000",
    "astral": "\U0001f600",
}
CHARACTERS = sorted({*map(chr, range(256)), *CLASSES.values()} - {"\0", "\r", "\n"})


def carried(value: bytes) -> bytes:
    """Send a Last-Event-ID as h11 does, and return what a server reads."""
    client, server = h11.Connection(h11.CLIENT), h11.Connection(h11.SERVER)
    request = h11.Request(
        method="GET", target="/", headers=[(b"Host", b"a"), (b"Last-Event-ID", value)]
    )
    server.receive_data(client.send(request) or b"")
    received = server.next_event()
    assert isinstance(received, h11.Request)
    return dict(received.headers)[b"last-event-id"]


@pytest.mark.parametrize("character", CHARACTERS)
def test_any_character_of_an_id_can_be_sent(character: str) -> None:
    """What a header can carry arrives in UTF-8; control characters are left out."""
    value = header_value(f"a{character}b")
    control = character != "\t" and (character < " " or character == "\x7f")
    assert value == f"a{'' if control else character}b".encode()
    assert carried(value) == value


@given(st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"])))
@example("\x0b\x0c")
@example(" \x0b\t a \x0c ")
def test_any_id_can_be_sent(last_event_id: str) -> None:
    """Whatever id a stream had, h11 and a strict server accept the value that is sent."""
    value = header_value(last_event_id)
    assert re.fullmatch(rb"([\x21-\x7e\x80-\xff]([\t -~\x80-\xff]*[\x21-\x7e\x80-\xff])?)?", value)
    assert not value or carried(value) == value


def test_an_id_too_long_for_any_server_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """Part of it would be another id; that it is missing is logged."""
    assert header_value("x" * 8000) == b"x" * 8000
    assert header_value("x" * 8001) == b""
    assert "too long to be sent" in caplog.text


async def test_the_client_comes_back_after_any_id(autojump_clock: Clock) -> None:
    """An id that no header can carry does not end the stream."""
    network = Network(Answer([b"id: a\x0bb\x0c\ndata: a\n\n"]), Answer([b"id: \x0b\n\n"]), OVER)
    async with source_on(network) as source:
        assert await data_of(source) == ["a"]
    assert network.ids() == [None, "ab", None]


@pytest.mark.parametrize(
    ("options", "method", "content", "kind"),
    [
        ({}, "GET", b"", None),
        ({"json": {"a": "é"}}, "POST", '{"a": "é"}'.encode(), "application/json"),
        ({"json": []}, "POST", b"[]", "application/json"),
        ({"content": "é", "method": "put"}, "PUT", "é".encode(), None),
        ({"content": b"\xff"}, "POST", b"\xff", None),
        ({"json": 1, "headers": {"content-type": "x/y"}}, "POST", b"1", "x/y"),
        ({"method": "QUERY"}, "QUERY", b"", None),
    ],
)
async def test_method_and_body(
    autojump_clock: Clock, options: dict[str, Any], method: str, content: bytes, kind: str | None
) -> None:
    """A body makes a POST unless a method is given; JSON says what it is."""
    network = Network(OVER)
    async with source_on(network, **options) as source:
        assert await data_of(source) == []
    (request,) = network.requests
    assert (request.method, request.content) == (method, content)
    assert request.headers.get("content-type") == kind
    assert request.headers["accept"] == "text/event-stream"


@pytest.mark.parametrize(
    "options",
    [
        {"json": 1, "content": b""},
        {"json": float("nan")},
        {"method": "HEAD"},
        {"method": "A B"},
        {"method": ""},
        {"headers": {"A B": "x"}},
        {"headers": {"A": "secret\r\nX: y"}},
        {"headers": {"A": "secret "}},
        {"headers": [("A", "\x0bsecret")]},
    ],
)
def test_what_cannot_be_sent_is_refused(options: dict[str, Any]) -> None:
    """When the source is made; a header's value, which may be secret, is not shown."""
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - of several texts
        EventSource(URL, **options)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "gopher://example.org/",
        "file:///etc/passwd",
        f"https://{'a' * 64}.example/",
        "https://a..b/",
        "https://.",
        "https://example.org:0/",
        "https://example.org:65536/",
        "https://example.org:-1/",
        f"https://example.org:{'9' * 5000}/",
        "https://x\u2488.com/",
        "https://\ud800/",
        "https://exa\x1bmple.org/",
        "https://[::1/",
        f"https://example.org/{'a' * 70000}",
    ],
)
def test_urls_that_cannot_be_asked_for(url: str) -> None:
    """Each is one line of ASCII, of bounded length."""
    with pytest.raises(ValueError, match="is not a URL") as refused:
        parse_url(url)
    said = str(refused.value)
    assert "\n" not in said
    assert len(said) < 500


@given(st.text() | st.text("htps:/.@[]%:0123456789ax-\u202e\xe9").map("https://".__add__))
def test_any_text_is_a_url_or_refused(text: str) -> None:
    """There is no other error; an accepted URL can be shown, and has an origin."""
    try:
        url = parse_url(text)
    except ValueError:
        return
    assert redacted(url).isascii()
    assert origin_of(url)[0] in ("http", "https")


def test_an_id_that_no_event_can_have_is_the_callers_mistake() -> None:
    """It is refused at construction, as before."""
    with pytest.raises(InvalidEvent):
        EventSource(URL, last_event_id="\0")
    assert ServerSentEvent(id="\x0b").id == "\x0b"
    assert isinstance(parse_url(httpx2.URL(URL)), httpx2.URL)
