"""What the tests of the demonstration's page look at: its tree, and the stream that it draws."""

from __future__ import annotations

import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, expect
from processes import PATIENCE, Server

# Applies the stream's events as its documentation says, beside what the page makes of them.
WATCH = """
() => {
  window.nodes = new Map();
  window.facts = {};
  const source = new EventSource("/tree");
  source.addEventListener("snapshot", (event) => {
    window.nodes = new Map(JSON.parse(event.data).nodes.map((node) => [node.id, node]));
    Object.assign(window.facts, JSON.parse(event.data).facts);
  });
  source.addEventListener("change", (event) => {
    const { put, gone, facts } = JSON.parse(event.data);
    for (const node of put) window.nodes.set(node.id, node);
    for (const id of gone) window.nodes.delete(id);
    Object.assign(window.facts, facts);
  });
}
"""

TOLD = """
() => [...window.nodes.values()].map(({ id, parent, name }) => [id, parent ?? null, name])
"""

DRAWN = """
() => [...document.querySelectorAll("[data-node]")].map((element) => [
  Number(element.dataset.node),
  Number(element.parentElement.closest("[data-node]")?.dataset.node ?? NaN) || null,
  element.querySelector(":scope > .row > .name")?.title ?? "",
])
"""


# Errors that the browser notes by itself: no server, or an answer that says that something failed.
AWAY = re.compile(r"net::ERR_|the server responded with a status of 429")


@pytest.fixture(autouse=True)
def quiet(page: Page) -> Iterator[None]:
    """Fail if the browser's console has an error but for a server that is away."""
    said: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error":
            said.append(message.text)

    page.on("console", note)
    yield
    page.remove_listener("console", note)
    assert not [text for text in said if not AWAY.search(text)], said


def opened(page: Page, demo: Server) -> Page:
    """Open the page, and wait until it is live."""
    page.goto(demo.url)
    expect(page.locator("#live .state-text")).to_have_text("live")
    return page


def live(page: Page, demo: Server) -> Page:
    """Use the page as another test left it, which only looked at it, or open it."""
    if page.url != f"{demo.url}/":
        return opened(page, demo)
    expect(page.locator("#live .state-text")).to_have_text("live")
    return page


@contextmanager
def told(browser: Browser, server: Server) -> Iterator[Page]:
    """Watch the stream beside the page under test, from a browser's profile of its own."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{server.url}/static/icon.svg")
        page.evaluate(WATCH)
        page.wait_for_function("() => window.nodes.size > 5")
        yield page


def unlike(page: Page, watcher: Page) -> list[tuple[Any, ...]]:
    """Return the nodes that page and stream do not agree about, with their parents and names."""
    drawn = Counter(tuple(node) for node in page.evaluate(DRAWN))
    said = Counter(tuple(node) for node in watcher.evaluate(TOLD))
    return [("drawn", *node) for node in drawn - said] + [("said", *node) for node in said - drawn]


def wait_until_same(page: Page, watcher: Page) -> None:
    """Return when page and stream agree, which they do but for the time of a frame."""
    deadline = time.monotonic() + PATIENCE
    while others := unlike(page, watcher):
        assert time.monotonic() < deadline, others
        page.wait_for_timeout(20)


def connections(page: Page) -> list[str]:
    """Return the names of the connections that the page draws."""
    names: list[Any] = page.locator("[data-node] > .row > .name").evaluate_all(
        "(all) => all.map((name) => name.title)"
    )
    return sorted(name for name in names if name.startswith("connection "))


@contextmanager
def client(server: Server, path: str = "/sse") -> Iterator[str]:
    """Be a client of a stream for the length of the block; give the address it comes from."""
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 200"
        host, port = connection.getsockname()
        yield f"{host}:{port}"


@contextmanager
def unanswered(page: Page, pattern: str) -> Iterator[None]:
    """Let requests wait while the block runs.

    At its end they are answered: a task of Playwright's waits for each, and would be reported as
    destroyed in the middle of another test.
    """
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route(pattern, hold)
    try:
        yield
    finally:
        page.unroute(pattern)
        for route in held:
            route.fallback()
