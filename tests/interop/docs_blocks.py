"""The pages, and the fenced blocks of code in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "web" / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]

# What commands call an application that is the reader's own, as `penstock serve --help` does.
ANY = "shop"

# Up to the fence that closes it: as long, and as far to the right.
_FENCE = re.compile(r"(?ms)^( *)(`{3,}|~{3,})([^\n`]*)\n(.*?)^\1\2 *$")
_NAMED = re.compile(r"# ([a-z_]+)\.py\n")


@dataclass(frozen=True)
class Block:
    """One block of code, and where it stands."""

    page: Path
    line: int
    language: str
    source: str

    @property
    def where(self) -> str:
        """What to call it."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def module(self) -> str:
        """The name of the file that its first line gives it, or one of its place."""
        named = _NAMED.match(self.source)
        return named[1] if named else f"{re.sub('[^a-z]', '_', self.page.stem)}_{self.line}"


def blocks_of(page: Path, text: str | None = None) -> list[Block]:
    """Return the blocks of a page."""
    text = page.read_text() if text is None else text
    found = []
    for fence in _FENCE.finditer(text):
        indent, _, language, source = fence.groups()
        line = text.count("\n", 0, fence.start()) + 1
        found.append(Block(page, line, language.strip(), re.sub(f"(?m)^{indent}", "", source)))
    return found


def write_modules(page: Path, folder: Path) -> None:
    """Save the blocks with a file's name: the README's, then the page's own."""
    for block in [*blocks_of(README), *blocks_of(page)]:
        if block.language == "python" and _NAMED.match(block.source):
            (folder / f"{block.module}.py").write_text(local(block.source))
    if not (shop := folder / f"{ANY}.py").exists():
        shop.write_text((folder / "hello.py").read_text())


def local(source: str) -> str:
    """Have what listens take a free port."""
    return source.replace("127.0.0.1:8080", "127.0.0.1:0")
