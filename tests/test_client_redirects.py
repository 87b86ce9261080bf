"""Where EventSource follows a redirect to, and what of a request goes along."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import httpx2
import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from client_fakes import OVER, Answer, Clock, Network, data_of, redirect, source_on
from penstock.errors import ConnectionFailed

SECRET = {
    "Authorization": "Bearer secret",
    "Proxy-Authorization": "Basic secret",
    "Cookie": "id=secret",
    "X-Api-Key": "secret",
    "Referer": "secret",
}
ELSEWHERE = [
    "https://other.example/events",
    "//other.example/events",
    "https://example.org:8443/events",
    "http://example.org/events",
]


@pytest.mark.parametrize("location", ELSEWHERE)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_another_origin_gets_what_is_safe(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture, location: str, status: int
) -> None:
    """No header of the caller's, nor the id; neither now nor, remembered, the next time."""
    moved = redirect(location, status)
    network = Network(moved, Answer([b"id: 8\ndata: a\n\n"]), moved, OVER)
    async with source_on(network, headers=SECRET, last_event_id="7") as source:
        assert await data_of(source) == ["a"]
    first, second, third, fourth = network.requests
    for asked in (first, third):
        assert {name: asked.headers[name] for name in SECRET} == SECRET
    for sent in (second, fourth):
        assert set(sent.headers) == {
            *("host", "accept", "accept-encoding", "cache-control", "user-agent")
        }
        assert "secret" not in str(sent.headers.raw)
    assert network.ids() == ["7", None, "8", None]
    assert "does not get Last-Event-ID" in caplog.text


async def test_the_way_back_brings_nothing_back(autojump_clock: Clock) -> None:
    """What was left out at another origin stays left out, wherever that leads."""
    back = redirect("https://example.org/secret")
    network = Network(redirect("https://other.example/"), back, OVER)
    async with source_on(network, headers=SECRET) as source:
        assert await data_of(source) == []
    assert "x-api-key" not in network.requests[-1].headers


@pytest.mark.parametrize("location", ["/b", "https://example.org/b", "https://example.org:443/b"])
async def test_the_same_origin_gets_all(autojump_clock: Clock, location: str) -> None:
    """A redirect within the origin is followed with every header, cookies included."""
    network = Network(redirect(location), OVER)
    async with source_on(network, headers=SECRET, last_event_id="7") as source:
        assert await data_of(source) == []
    assert {name: network.requests[1].headers[name] for name in SECRET} == SECRET
    assert network.ids() == ["7", "7"]


async def test_credentials_are_for_one_origin(autojump_clock: Clock) -> None:
    """Those of the client, of its headers, of its cookies or of the URL do not leave it."""
    network = Network(redirect("/b"), redirect("https://other.example/c"), OVER)
    async with httpx2.AsyncClient(
        transport=network, auth=("user", "secret"), headers={"X-Key": "s"}, cookies={"c": "s"}
    ) as client:
        async with source_on(network, client=client) as source:
            assert await data_of(source) == []
    sent = [
        [name in request.headers for name in ("authorization", "x-key", "cookie")]
        for request in network.requests
    ]
    assert sent == [[True] * 3, [True] * 3, [False] * 3]


@pytest.mark.parametrize(
    ("status", "method", "after"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "POST", "GET"),
        (303, "PUT", "GET"),
        (301, "PUT", "PUT"),
        (302, "PUT", "PUT"),
        (307, "POST", "POST"),
        (308, "POST", "POST"),
    ],
)
@pytest.mark.parametrize("location", ["/b", "https://other.example/b"])
async def test_the_method_after_a_redirect(
    autojump_clock: Clock, status: int, method: str, after: str, location: str
) -> None:
    """As a browser's fetch: what stays what it is takes its body along."""
    network = Network(redirect(location, status), OVER)
    async with source_on(network, method=method, json=1) as source:
        assert await data_of(source) == []
    sent = network.requests[1]
    assert sent.method == after
    assert sent.content == (b"" if after == "GET" else b"1")
    kind = None if after == "GET" else "application/json"
    assert sent.headers.get("content-type") == kind
    assert ("content-length" in sent.headers) == (after != "GET")


@pytest.mark.parametrize(
    "location",
    [
        "ftp://example.org/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "gopher+x://a",
        "https://user:secret@example.org/b",
        "https://other@other.example/",
        f"https://{'a' * 64}.example/",
        "https://a..b/",
        "https://",
        "https:///b",
        "https://example.org:99999/",
        "https://example.org:0/",
        f"https://example.org:{'9' * 5000}/",
        "https://[::1/",
        "https://xn--\xfc\u2488/",
        "//\u2100/",
        "/" + "a" * 70000,
        "https://exa mple\x7f.org/",
    ],
)
@pytest.mark.parametrize("attempts", [None, 3])
async def test_a_redirect_to_nowhere_is_an_error(
    autojump_clock: Clock, location: str, attempts: int | None
) -> None:
    """The error is one line that shows the target, and the body is closed."""
    moved = redirect("/")
    moved.raw = [(b"location", location.encode())]
    network = Network(moved, OVER)
    async with source_on(network, max_failures=attempts) as source:
        with pytest.raises(ConnectionFailed) as failed:
            await anext(source)
    said = str(failed.value)
    assert said.startswith("https://example.org/events: ")
    assert said.isprintable()
    assert len(said) < 700
    assert len(network.requests) == 1


LOCATIONS = (
    st.text(max_size=40)
    | st.text("htps:/.@[]%:?#0123456789ax-\\ \u202e\xe9", max_size=40)
    | st.text(max_size=30).map("https://".__add__)
    | st.text(max_size=30).map("//".__add__)
)


@given(st.one_of(LOCATIONS.map(lambda text: text.encode(errors="replace")), st.binary(max_size=40)))
@example(b"//0@")
@settings(deadline=None)
def test_any_location_is_followed_or_an_error(location: bytes) -> None:
    """No redirect makes an error that is not documented, or that is more than one line."""

    async def ask() -> None:
        moved: Any = redirect("/")
        moved.raw = [(b"location", location)]
        network = Network(moved, OVER)
        async with source_on(network) as source:
            with suppress(ConnectionFailed):
                assert await data_of(source) == []
            assert repr(source).isprintable()
            assert str(source._end).isprintable()
        schemes = {request.url.scheme for request in network.requests}
        assert schemes <= {"http", "https"}

    trio.run(ask)
