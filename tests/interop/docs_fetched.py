"""Says what the pages of a folder would fetch from elsewhere: `nox -s docs` wants nothing."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

# Elements whose address a browser fetches without being asked to; `a` is not among them.
FETCHING = {
    *("audio", "embed", "iframe", "img", "link", "object", "script", "source", "track", "video"),
}
ADDRESS = {"data", "href", "poster", "src", "srcset"}
ELSEWHERE = re.compile(r"\s*(?:https?:)?//")
# In a style: what it imports, and pictures and fonts.
STYLED = re.compile(r"(?:@import\s+|url\()\s*[\"']?((?:https?:)?//[^\"')\s;]+)")


class Page(HTMLParser):
    """Collects what a page fetches."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # A canonical or alternate address is told and not fetched.
        told = tag == "link" and dict(attrs).get("rel") in ("canonical", "alternate", "license")
        for name, value in attrs:
            if tag in FETCHING and not told and name in ADDRESS and ELSEWHERE.match(value or ""):
                self.fetched.append(value or "")


def fetched(source: str, *, style: bool = False) -> list[str]:
    """Return the addresses elsewhere that a page or a style sheet has a browser fetch."""
    found = STYLED.findall(source)
    if not style:
        page = Page()
        page.feed(source)
        found += page.fetched
    return found


def fetched_in(folder: Path) -> Iterator[str]:
    """Yield each file of a folder that fetches from elsewhere, with what it fetches."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".html", ".css", ".svg"):
            for address in fetched(path.read_text(), style=path.suffix == ".css"):
                yield f"{path}: {address}"


if __name__ == "__main__":
    lines = list(fetched_in(Path(sys.argv[1])))
    print("\n".join(lines) or "Nothing is fetched from elsewhere.")
    sys.exit(bool(lines))
