"""Takes the README's pictures of the page: `nox -s screenshots`."""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from chromium import chromium
from live_page import client, opened
from playwright.sync_api import FloatRect, Page, ViewportSize, expect, sync_playwright
from processes import PENSTOCK, Server, serving

PICTURES: list[tuple[str, int, int, Literal["light", "dark"]]] = [
    ("page-light.png", 1280, 900, "light"),
    ("page-dark.png", 1280, 900, "dark"),
    ("narrow-light.png", 360, 780, "light"),
    ("narrow-dark.png", 360, 780, "dark"),
]

# Of a narrow window's picture, beside which the others stand.
NARROW_HEIGHT = 1480

# Those whose outcomes the pictures show; the last is the newest, and so the first in the list.
SCENARIOS = ("resets", "stops-reading", "closes")


def picture(page: Page, server: Server, file: Path) -> None:
    """Take one: clients, outcomes, and a branch that has just been cancelled."""
    opened(page, server)
    for scenario in SCENARIOS:
        page.locator(f"button[data-scenario='{scenario}']").click()
        expect(page.locator(f"#outcomes li[data-scenario='{scenario}']").first).to_be_visible()
    for scenario in SCENARIOS:
        ended = page.locator(f"#outcomes li[data-scenario='{scenario}']").first
        expect(ended).to_have_attribute("data-kept", "kept", timeout=10_000)
    with ExitStack() as clients:
        with client(server):
            clients.enter_context(client(server, "/ticks"))
            page.wait_for_timeout(15_000)  # for the graphs; what idled has been closed
            page.mouse.move(0, 0)
            page.evaluate("() => document.activeElement.blur()")
            page.evaluate("() => scrollTo(0, 0)")
        expect(page.locator("li.gone.cancelled").first).to_be_visible()
        page.wait_for_timeout(300)  # what flashed has faded
        # From the top to the end of the code, as if the window were as high as that.
        end = page.locator("#example").evaluate("(box) => box.getBoundingClientRect().bottom")
        assert page.viewport_size is not None
        width = page.viewport_size["width"]
        height = NARROW_HEIGHT if width < 400 else end + 20
        clip = FloatRect(x=0, y=0, width=width, height=height)
        page.screenshot(path=file, full_page=True, clip=clip)


def main(folder: Path) -> None:
    """Write each picture to the folder."""
    folder.mkdir(exist_ok=True)
    options = ("--bind", "127.0.0.1:8080", "--send-timeout", "2")
    with (
        tempfile.TemporaryDirectory() as logs,
        sync_playwright() as playwright,
        chromium(playwright) as browser,
    ):
        for name, width, height, scheme in PICTURES:
            viewport = ViewportSize(width=width, height=height)
            # A server of its own: the outcomes of the others would be in the list.
            with serving(PENSTOCK, "serve", *options, folder=Path(logs)) as server:
                page = browser.new_page(viewport=viewport, color_scheme=scheme)
                picture(page, server, folder / name)
                page.close()
            print(f"wrote {folder / name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
