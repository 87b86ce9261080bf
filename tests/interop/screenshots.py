"""Takes the README's pictures of the page: `nox -s screenshots`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Literal

from chromium import chromium
from playwright.sync_api import ViewportSize, expect, sync_playwright
from processes import PENSTOCK, serving

PICTURES: list[tuple[str, int, int, Literal["light", "dark"]]] = [
    ("page-light.png", 1000, 1060, "light"),
    ("page-dark.png", 1000, 1060, "dark"),
    ("page-narrow.png", 360, 1600, "light"),
]


def main(folder: Path) -> None:
    """Write each picture to the folder, after some events of both streams."""
    folder.mkdir(exist_ok=True)
    bind = ("--bind", "127.0.0.1:8080")
    with (
        tempfile.TemporaryDirectory() as logs,
        serving(PENSTOCK, "serve", *bind, folder=Path(logs)) as server,
        sync_playwright() as playwright,
        chromium(playwright) as browser,
    ):
        for name, width, height, scheme in PICTURES:
            viewport = ViewportSize(width=width, height=height)
            page = browser.new_page(viewport=viewport, color_scheme=scheme)
            page.goto(server.url)
            heard = page.locator("[data-count='ticks message']")
            expect(heard).to_have_text("2", timeout=10_000)
            page.wait_for_timeout(300)  # the last flash of a counter has faded
            page.screenshot(path=folder / name)
            page.close()
            print(f"wrote {folder / name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
