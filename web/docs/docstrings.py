"""A Sphinx extension: adapts Penstock's docstrings, and the pages beside them, to Sphinx.

The docstrings are written for ``help()`` and for readers of the source: an example is an indented
block, and a name in backticks is as short as its reader allows. Sphinx needs a directive before an
example, and the full path of a name.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Final

from docutils import nodes
from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

# Sections beside Google's own: the text under a heading, as `Note:` is.
SECTIONS: Final = ["Cancellation", "Error handling", "Resource handling"]

# The documentation of other projects, by package. Nothing is fetched: these become ordinary links.
ELSEWHERE: Final = {
    "trio": "https://trio.readthedocs.io/en/stable/reference.html",
    "httpx2": "https://github.com/pydantic/httpx2",
    "hypercorn": "https://hypercorn.readthedocs.io/en/latest/",
    "quart": "https://quart.palletsprojects.com/",
    "quart_trio": "https://quart-trio.readthedocs.io/",
    "werkzeug": "https://werkzeug.palletsprojects.com/",
}

# Languages of configurations that Pygments does not know.
PLAIN: Final = ["caddy", "caddyfile", "haproxy"]

# Modules of standard library names that annotations for type checkers leave unqualified.
BARE: Final = {"AbstractAsyncContextManager": "contextlib"}


def mark_code(lines: list[str]) -> list[str]:
    """Return a docstring's lines, with a code directive before each indented block."""
    marked: list[str] = []
    inside = False
    for number, line in enumerate(lines):
        blank = not line.strip()
        indented = line.startswith("    ")
        if inside and not blank and not indented:
            inside = False
        elif not inside and indented and number and not lines[number - 1].strip():
            before = next((each for each in reversed(lines[:number]) if each.strip()), "")
            if not before.startswith(" "):
                inside = True
                tree = any("├" in each for each in lines[number:])
                marked += [f".. code-block:: {'text' if tree else 'python'}", ""]
        marked.append(line)
    return marked


def _process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    if what in ("attribute", "property"):
        # An empty comment: napoleon would take the text before the first colon for a type.
        lines[:0] = ["..", ""]
    lines[:] = mark_code(lines)


def _resolve(app: Sphinx, env: Any, node: Any, contnode: Any) -> nodes.Node | None:
    """Find the object that a short or an inner name refers to, in Penstock or another project."""
    target: str = node.get("reftarget", "")
    if node.get("refdomain") != "py":
        return None
    first = target.partition(".")[0]
    first = BARE.get(first, first)
    page = ELSEWHERE.get(first)
    if first in sys.stdlib_module_names:
        module = target.rpartition(".")[0] or first
        page = f"https://docs.python.org/3/library/{module}.html"
    if page is not None:
        return nodes.reference("", "", contnode, internal=False, refuri=page)
    domain = env.domains["py"]
    short = target.rpartition(".")[2] if target.startswith("penstock.") else target
    found = {name for name in domain.objects if f".{name}".endswith(f".{short}")}
    found = {name for name in found if not domain.objects[name].aliased}
    if len(found) != 1:
        return None
    builder = app.builder
    return domain.resolve_xref(env, node["refdoc"], builder, "obj", found.pop(), node, contnode)


def _leave_out_missing(app: Sphinx, docname: str, source: list[str]) -> None:
    """Omit pages that do not exist from the table of contents."""
    if docname == "index":
        lines = source[0].splitlines(keepends=True)
        pages = re.compile(r"^[a-z-]+\n$")
        source[0] = "".join(
            line for line in lines if not pages.match(line) or line.strip() in app.env.found_docs
        )


def setup(app: Sphinx) -> dict[str, bool]:
    """Take part in a build."""
    app.config.napoleon_custom_sections = list(SECTIONS)
    for language in PLAIN:
        app.add_lexer(language, TextLexer)
    app.connect("autodoc-process-docstring", _process, priority=400)  # before napoleon's
    app.connect("missing-reference", _resolve)
    app.connect("source-read", _leave_out_missing)
    return {"parallel_read_safe": True}
