"""The page on moving from sse-starlette: what stood before, and what comes after, say the same."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from docs_blocks import DOCS, write_modules
from processes import PENSTOCK, Server, serving, wait_until

from penstock import EventStreamDecoder, ServerSentEvent
from require import require_module

PAGE = DOCS / "from-sse-starlette.md"


@contextmanager
def served(name: str, folder: Path) -> Iterator[Server]:
    """Serve one of the page's applications, with what the page serves it with."""
    write_modules(PAGE, folder)
    command = [PENSTOCK, "serve", f"{name}:app", "--bind", "127.0.0.1:0"]
    if name.startswith("before"):
        require_module("sse_starlette")
        command = [sys.executable, "-m", "uvicorn", f"{name}:app", "--port", "0"]
    with serving(*command, folder=folder, cwd=folder) as server:
        yield server


def events_of(chunks: Iterator[bytes]) -> Iterator[ServerSentEvent]:
    decoder = EventStreamDecoder()
    for chunk in chunks:
        yield from decoder.feed(chunk)


@pytest.mark.parametrize("name", ["before", "after"])
def test_the_stream_says_the_same(name: str, tmp_path: Path) -> None:
    """It counts, goes on where a client was, and notices that the client is gone."""
    with served(name, tmp_path) as server, httpx2.Client(timeout=60) as client:
        for headers, first in (({}, 0), ({"Last-Event-ID": "41"}, 42)):
            with client.stream("GET", f"{server.url}/count", headers=headers) as response:
                assert response.headers["content-type"].startswith("text/event-stream")
                events = events_of(response.iter_raw())
                for n in (first, first + 1):
                    assert next(events) == ServerSentEvent(str(n), event="count", id=str(n))
        wait_until(lambda: server.output.count("the client is gone") == 2 or None)


@pytest.mark.parametrize("name", ["before_news", "after_news"])
def test_the_news_are_the_same(name: str, tmp_path: Path) -> None:
    """What is published reaches all who listen."""
    with served(name, tmp_path) as server, httpx2.Client(timeout=60) as client:
        url = f"{server.url}/news"
        with client.stream("GET", url) as one, client.stream("GET", url) as other:
            both = [response.iter_raw() for response in (one, other)]
            if name == "after_news":
                assert [next(chunks)[:1] for chunks in both] == [b":", b":"]  # they subscribe
            assert client.post(url, content="It rains").status_code == 204
            for chunks in both:
                event = next(event for event in events_of(chunks) if event.data is not None)
                assert (event.data, event.event) == ("It rains", None)
