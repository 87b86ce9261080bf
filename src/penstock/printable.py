"""Text for a terminal or a log line: a peer's text made safe, numbers of things."""

from __future__ import annotations

__all__ = ["counted", "printable"]


def printable(text: str | bytes, *, keep: str = "", limit: int | None = None) -> str:
    r"""Return text with every character that is not printable escaped, such as ``\x1b``.

    A terminal obeys escape sequences and C1 controls, U+202E reverses the text after it, and a line
    end forges a line of a log. What `str.isprintable` accepts is left as it is.

    Args:
      text: what a peer sent; bytes are decoded as UTF-8, and bytes that are not UTF-8 escaped.
      keep: characters to leave as they are although they are not printable.
      limit: how many characters to return; ``…`` marks that the text was longer.
    """
    if isinstance(text, bytes):
        text = text.decode(errors="backslashreplace")
    cut = text if limit is None else text[:limit]
    if not cut.isprintable():
        cut = "".join(
            each if each.isprintable() or each in keep else repr(each)[1:-1] for each in cut
        )
    return f"{cut}…" if limit is not None and len(text) > limit else cut


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless the number is 1."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
