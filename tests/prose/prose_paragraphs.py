"""A paragraph: what a reader reads as English in one go, and where in a file it stands.

Its text is Markdown, whatever it was taken from: names in backticks stay in it, as the one form of
code, and whoever judges the English passes over them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

# Stands for code that is not in backticks: an expression in a text, the code of a page.
CODE: Final = "`code`"

# What is code though it is not in backticks, as in a message: an option, a name, a call, a path.
_BARE_CODE: Final = re.compile(
    r"""(?<![\w`-])(?:
        \w+://\S* | \w+:[/A-Z]+\w* | \w*/[\w./*-]+       # addresses and paths
        | -{1,2}[a-z][\w-]* | [A-Z]{3,}\d{3} | U\+\w+      # options, error numbers, characters
        | [A-Za-z_][\w.]*\([^()\s]*\) | [A-Za-z]\w+(?:\.\w+)+ | \w*_\w* | [a-z]+[A-Z]\w*
        | [A-Z]\w*[a-z]{2,}[A-Z]\w* | [A-Z]{2,}[a-z]{2,}\w* | E[A-Z]{5,} | H\d+[A-Z]\w+
    )(?![\w`])""",
    re.VERBOSE,
)
_IN_BACKTICKS: Final = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)

# Three words: what has fewer is a name, or a key.
SENTENCE: Final = re.compile(r"(?:.*?\b[A-Za-z]?[a-z]+\b[ ,;:]){2}.*[a-z]{2}", re.DOTALL)

# The end of a line of code or of a table without rules.
_COMMENT: Final = re.compile(r"(?:.*\s)?(?:#|//)\s+(.*)")
_LAST_COLUMN: Final = re.compile(r"(?:.*\S\s{2,}|\s{8,})(\S.*)")


def remark_in(line: str, *, columns: bool = False) -> str:
    """Return the English in a line that is not English: a comment, or the last column; or ""."""
    found = _COMMENT.match(line) or (_LAST_COLUMN.match(line) if columns else None)
    return found[1] if found and SENTENCE.match(found[1]) else ""


def mark_code(text: str) -> str:
    """Return a text with what is code in it in backticks."""
    marked, last = [], 0
    for found in [*_IN_BACKTICKS.finditer(text), None]:
        between = text[last : found.start() if found else len(text)]
        marked.append(_BARE_CODE.sub(lambda code: f"`{code[0]}`", between))
        if found:
            marked.append(found[0])
            last = found.end()
    return "".join(marked)


@dataclass(frozen=True)
class Paragraph:
    """A paragraph, a cell of a table, a heading, a comment or a literal: some lines of a file."""

    path: str
    lines: tuple[tuple[int, str], ...]

    @property
    def text(self) -> str:
        """Its Markdown."""
        return "\n".join(text for _, text in self.lines)

    def line_at(self, offset: int) -> int:
        """Return the number of the line in the file that a place in the text is in."""
        for number, text in self.lines:
            if offset <= len(text):
                return number
            offset -= len(text) + 1
        return self.lines[-1][0]


class Builder:
    """Collects lines, and makes paragraphs of them.

    Args:
      path: where they are from.
      marks: code is in backticks there; otherwise it is put in them here.
    """

    def __init__(self, path: str, *, marks: bool) -> None:
        self.path = path
        self.marks = marks
        self.done: list[Paragraph] = []
        self._lines: list[tuple[int, str]] = []

    def add(self, number: int, text: str) -> None:
        """Continue the paragraph, or end it, where the line is blank."""
        if text.strip():
            self._lines.append((number, text.strip()))
        else:
            self.end()

    def end(self) -> None:
        """End the paragraph, if there is one."""
        if any(re.search(r"[A-Za-z]{2}", text) for _, text in self._lines):
            lines = self._lines
            if not self.marks:
                texts = mark_code("\n".join(text for _, text in lines)).split("\n")
                lines = [(number, text) for (number, _), text in zip(lines, texts, strict=True)]
            self.done.append(Paragraph(self.path, tuple(lines)))
        self._lines = []

    def alone(self, number: int, text: str) -> None:
        """Make a paragraph of one line."""
        self.end()
        self.add(number, text)
        self.end()
