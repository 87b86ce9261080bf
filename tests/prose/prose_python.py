"""Finds the prose in Python: docstrings, comments, and literals that are sentences.

The last are what users read of a program: its help, its errors and its log. Examples are left out,
and so is what only tools read.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from typing import Final

from prose_paragraphs import CODE, SENTENCE, Builder, Paragraph, remark_in

# A section of a docstring, and an entry of a section: a name, or several, before a colon.
_SECTION: Final = re.compile(r"[A-Z][A-Za-z ]+:$")
_ENTRY: Final = re.compile(r"[*`\w.]+(?:, [*`\w.]+)*(?: \([^)]*\))?:\s+")
_ITEM: Final = re.compile(r"([-*+]|\d+[.)])\s+")
_SPEC: Final = re.compile(r"Spec: (?:\S+/\S+|#\S+?)(?::? |$)")
_EXAMPLES: Final = ("Example:", "Examples:")

# What tools read in a comment, up to the reason that may follow.
_FOR_TOOLS: Final = re.compile(r"(?:noqa|type: ignore|pragma|pyright: ignore)[^-]*(?:-+ )?")

# A literal is not read as English if it is of another language.
_OTHER_LANGUAGE: Final = re.compile(
    r"\s*(?:(?:SELECT|INSERT|CREATE|DELETE|UPDATE|PRAGMA|WITH|DROP|ALTER|BEGIN)\b|<|\{|\()"
    r"|.*(?:\(SELECT|HTTP/1\.1|default-src)\b|import "
)


def of_docstring(made: Builder, first: int, lines: list[str]) -> None:
    """Read a docstring, in Google's form: sections, and entries in them."""
    rest = [line for line in lines[1:] if line.strip()]
    base = min((len(line) - len(line.lstrip()) for line in rest), default=0)
    section = ""
    code_from = None  # the indentation of the example that is being passed over
    blank = False
    for number, line in enumerate(lines, first):
        text = line.strip()
        indent = len(line) - len(line.lstrip()) - base if number > first else 0
        if not text:
            blank = True
            made.end()
            continue
        if code_from is not None and indent >= code_from:
            made.alone(number, remark_in(text, columns=True))
            continue
        code_from = None
        if indent == 0:
            section = text if _SECTION.match(text) and number > first else ""
        if section == text or section in _EXAMPLES or text.startswith(">>>"):
            made.end()
        elif blank and indent >= 4 and not section:
            code_from = 4
            made.alone(number, remark_in(text, columns=True))
        else:
            text = _SPEC.sub("", text)
            item = _ITEM.match(text)
            entry = _ENTRY.match(text) if section and indent <= 2 else None
            if item or entry:
                made.end()
            begins = item or entry
            made.add(number, text[begins.end() :] if begins else text)
        blank = False
    made.end()


def of_python(path: str, text: str) -> list[Paragraph]:
    """Return the paragraphs of a module's docstrings and comments, and its literal sentences."""
    tree = ast.parse(text)
    lines = text.splitlines()
    made = Builder(path, marks=False)
    docstrings = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            value = node.value
            if isinstance(value.value, str) and value.end_lineno is not None:
                docstrings.add(value)
                found = lines[value.lineno - 1 : value.end_lineno]
                found[0] = re.sub(r"^\s*[rRuU]*(?:\"\"\"|\"|')", "", found[0])
                found[-1] = re.sub(r"(?:\"\"\"|\"|')\s*$", "", found[-1])
                of_docstring(made, value.lineno, found)
    _read_comments(made, text)
    for number, said in _literals(tree, docstrings):
        _read_literal(made, number, said)
    return made.done


def _read_comments(made: Builder, text: str) -> None:
    last = (0, 0, False)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        number, column = token.start
        alone = not token.line[:column].strip()
        if last != (number - 1, column, True) or not alone:
            made.end()
        last = (number, column, alone)
        said = token.string.lstrip("#!").strip()
        made.add(number, _FOR_TOOLS.sub("", said))
    made.end()


def _literals(tree: ast.AST, docstrings: set[ast.Constant]) -> Iterator[tuple[int, str]]:
    """Yield texts that are no docstrings, an expression in them as code."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else CODE for part in node.values]
            yield node.lineno, "".join(map(str, parts))
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node not in docstrings:
                yield node.lineno, node.value
            continue
        pending.extend(reversed(list(ast.iter_child_nodes(node))))


def _read_literal(made: Builder, number: int, said: str) -> None:
    if _OTHER_LANGUAGE.match(said):
        return
    for part in re.split(r"\n\s*\n", said):
        if "\b" in part:  # Click leaves the lines as they are: a command, and what it does
            for line in part.splitlines():
                made.alone(number, remark_in(line, columns=True))
        elif SENTENCE.match(part):
            for line in part.splitlines():
                made.add(number, re.sub(r"%(?:\(\w+\))?[sdrgx]|%\.\d[fg]", CODE, line))
            made.end()
