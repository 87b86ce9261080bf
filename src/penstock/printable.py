"""Text from a peer, made fit for a terminal or a log line."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str | bytes, *, keep: str = "", limit: int | None = None) -> str:
    r"""Return text in which every character that is not printable is escaped, as ``\x1b``.

    A terminal obeys escape sequences and C1 controls, U+202E reverses what follows it, and a line
    end forges a line of a log. What `str.isprintable` counts as printable stays as it is.

    Args:
      text: what a peer sent; bytes are decoded as UTF-8, and bytes that are not UTF-8 escaped.
      keep: characters that stay although they are not printable.
      limit: how many characters of the text are shown; what is cut off shows as ``…``.
    """
    if isinstance(text, bytes):
        text = text.decode(errors="backslashreplace")
    cut = text if limit is None else text[:limit]
    if not cut.isprintable():
        cut = "".join(
            each if each.isprintable() or each in keep else repr(each)[1:-1] for each in cut
        )
    return f"{cut}…" if limit is not None and len(text) > limit else cut
