"""Fixtures for what talks to real servers and browsers."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest
from chromium import chromium
from forked import forks
from playwright.sync_api import Browser, Error, Page, Playwright, sync_playwright
from processes import PENSTOCK, Curl, CurlFixture, Server, serving

from figures import JUDGED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker("interop")


@pytest.fixture(scope="session", autouse=True)
def no_signal_is_ignored() -> Iterator[None]:
    """Start servers as from a terminal, also where tests run under nohup or in the background."""
    numbers = (signal.SIGHUP, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session", autouse=True)
def forked_penstock() -> Iterator[None]:
    """Start `penstock` as a fork, except where figures are judged: those are of real processes."""
    with nullcontext() if JUDGED else forks():
        yield


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Server]:
    """Serve the demonstration with `penstock serve`."""
    with serving(PENSTOCK, "serve", "--bind", "127.0.0.1:0", folder=tmp_path) as server:
        yield server


@pytest.fixture(scope="module")
def shared_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve the demonstration for tests that have topics of their own on it."""
    folder = tmp_path_factory.mktemp("demo")
    with serving(PENSTOCK, "serve", "--bind", "127.0.0.1:0", folder=folder) as server:
        yield server


@pytest.fixture
def curl() -> Iterator[CurlFixture]:
    """Start a curl that is gone when the test is over."""
    with ExitStack() as clients:
        yield lambda *arguments: clients.enter_context(Curl(*arguments))


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    """Start what drives browsers."""
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """Start Chromium."""
    with chromium(playwright) as browser:
        yield browser


@pytest.fixture(scope="module")
def one_page(browser: Browser) -> Iterator[Page]:
    """Open a page for the tests of a module, each of which goes where it wants to.

    Nothing on it moves: without a graphics processor, what does costs half a processor.
    """
    with browser.new_context(reduced_motion="reduce") as context:
        yield context.new_page()


@pytest.fixture
def page(one_page: Page) -> Iterator[Page]:
    """Use the module's page, from where the last test left it; fail if a script on it failed."""
    errors: list[str] = []

    def note(error: Error) -> None:
        errors.append(str(error))

    one_page.on("pageerror", note)
    yield one_page
    one_page.unroute_all()
    one_page.emulate_media(reduced_motion="reduce")
    one_page.remove_listener("pageerror", note)
    assert not errors
