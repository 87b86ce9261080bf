"""Finds the prose in pages: Markdown, HTML, and the JavaScript that writes into them.

Code blocks, but for the comments in them, directives and the targets of links are left out.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Final

from prose_paragraphs import CODE, Builder, Paragraph, mark_code, remark_in

_FENCE: Final = re.compile(r"\s*(`{3,}|~{3,})")
_ITEM: Final = re.compile(r"\s*([-*+]|\d+[.)])\s+")
_TAG: Final = re.compile(r"<!--.*?-->|</?[a-zA-Z][^>]*>")
_ALT: Final = re.compile(r'alt="([^"]*)"')
_DELIMITER: Final = re.compile(r"[|\s:-]+")
_CELL_END: Final = re.compile(r"(?<!\\)\|(?=(?:[^`]*`[^`]*`)*[^`]*$)")

# Elements within a paragraph; those whose text is code; and attributes that users read.
_INLINE: Final = {"a", "abbr", "b", "br", "code", "em", "i", "strong", "wbr"}
_CODE_TAGS: Final = {"code", "pre", "script", "style"}
_SHOWN: Final = {"alt", "title", "aria-label", "placeholder"}

# In JavaScript: comments, and literals in one of three sorts of quotes.
_SCRIPT: Final = re.compile(
    r"""//(?P<line>[^\n]*)|/\*(?P<block>.*?)\*/"""
    r"""|(?P<quote>["'`])(?P<said>(?:\\.|(?!(?P=quote))[^\\])*)(?P=quote)""",
    re.DOTALL,
)
_SENTENCE: Final = re.compile(r"(?:[^<>{};=]*?\b[A-Za-z]?[a-z]+\b[ ,;:]){2}[^<>{};=]*[a-z]{2}")
_TYPES: Final = re.compile(r"@(?:param|property|returns?|type|typedef|template|throws)\b")


def of_markdown(path: str, text: str) -> list[Paragraph]:
    """Return a page's paragraphs, headings, items, and the cells of its tables."""
    made = Builder(path, marks=True)
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence):
                fence = ""
            else:
                made.alone(number, mark_code(remark_in(line)))
            continue
        if mark:
            made.end()
            fence = mark[1]
            continue
        stripped = line.strip().removeprefix("> ")
        if stripped.startswith("#"):
            made.alone(number, stripped.lstrip("#"))
        elif stripped.startswith("|"):
            if not _DELIMITER.fullmatch(stripped):
                for cell in _CELL_END.split(stripped.strip("|")):
                    made.alone(number, cell)
        elif stripped.startswith("<") and _TAG.match(stripped):
            made.end()
            for alt in _ALT.findall(stripped):
                made.alone(number, alt)
            made.alone(number, _TAG.sub(" ", stripped))
        else:
            if item := _ITEM.match(line):
                made.end()
            made.add(number, line[item.end() :] if item else stripped)
    made.end()
    return made.done


class _Page(HTMLParser):
    """Reads the text that a page shows, and its labels for screen readers."""

    def __init__(self, made: Builder) -> None:
        super().__init__()
        self._made = made
        self._open: list[str] = []  # the code that is being passed over
        self._lines: dict[int, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _INLINE:
            self.end()
        for name, value in attrs:
            if name in _SHOWN and value:
                self._made.alone(self.getpos()[0], value)
        if tag in _CODE_TAGS:
            if not self._open:
                self._add(CODE)
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._open and tag == self._open[-1]:
            self._open.pop()
        if tag not in _INLINE:
            self.end()

    def handle_data(self, data: str) -> None:
        if not self._open:
            self._add(data)

    def _add(self, text: str) -> None:
        for number, line in enumerate(text.split("\n"), self.getpos()[0]):
            self._lines[number] = self._lines.get(number, "") + line

    def end(self) -> None:
        """End a paragraph."""
        for number, line in self._lines.items():
            if line.strip():
                self._made.add(number, line)
        self._made.end()
        self._lines.clear()


def of_html(path: str, text: str) -> list[Paragraph]:
    """Return the paragraphs that a page shows."""
    made = Builder(path, marks=True)
    page = _Page(made)
    page.feed(text)
    page.close()
    page.end()
    return made.done


def of_script(path: str, text: str) -> list[Paragraph]:
    """Return the paragraphs of a script's comments, and its literals of three words or more."""
    made = Builder(path, marks=False)
    last = 0
    for found in _SCRIPT.finditer(text):
        number = text.count("\n", 0, found.start()) + 1
        line, block, said = found["line"], found["block"], found["said"]
        if line is None or number != last + 1:
            made.end()
        if line is not None:
            last = number
            made.add(number, line)
        elif block is not None:
            for offset, each in enumerate(block.split("\n")):
                words = each.strip(" *")
                if _TYPES.match(words):
                    made.end()
                    words = re.sub(r"^@\w+ \{.*\}(?: \S+)?", "", words)
                made.add(number + offset, words)
            made.end()
        elif "\n" not in (said := re.sub(r"\$\{[^}]*\}", CODE, said)) and _SENTENCE.match(said):
            made.alone(number, said)
    made.end()
    return made.done
