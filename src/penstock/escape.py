"""Text from others, made fit for a terminal and a log: one implementation for the whole package.

What is escaped is what `str.isprintable` refuses: controls (CR, LF, ESC, C1), line and paragraph
separators (U+2028, U+2029), format characters (the bidi controls, such as U+202E), surrogates and
what is not assigned. None of these can then end a line, move the cursor, or reverse what follows.
"""

from __future__ import annotations

__all__ = ["escape"]


def escape(text: str) -> str:
    r"""Return a text in which what is not printable stands as in a Python string: ``\n``, ``\x1b``.

    A backslash stays one: the result is for reading, and cannot be turned back.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
