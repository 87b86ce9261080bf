"""Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Playwright

from require import require

# Nothing but the pages under test is asked for, and no sandbox: CI runs as root.
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium(playwright: Playwright, *, keep_pages: bool = False) -> Iterator[Browser]:
    """Run a headless browser for the length of the block.

    Playwright turns the back-forward cache off; ``keep_pages`` leaves it on, as users have it. Else
    it is Chromium without its windows where that is installed, as Playwright itself prefers it: the
    same engine, with half the work.
    """
    program = None if keep_pages else shutil.which("chromium-headless-shell")
    program = program or require("chromium", install="apt-get install chromium")
    browser = playwright.chromium.launch(
        executable_path=program,
        args=_ARGUMENTS,
        ignore_default_args=["--disable-back-forward-cache"] if keep_pages else None,
    )
    yield browser
    browser.close()
