"""Whether a server encodes twice: a judgement over the payloads of a whole stream.

A payload is the application's. ``data:image/png;base64,…`` is an address, ``id: 7`` a line of YAML,
and a text may end with a backslash and an n. No single payload like these shows a fault, so it
takes one of two things: payloads that are complete encoded events, down to the empty line at their
end; or a stream in which every payload, without exception, looks as if it had been encoded before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, final

__all__ = ["Found", "Payloads"]

# Payloads that must all look alike before a stream is judged by them.
_ENOUGH: Final = 3

# Bytes.
_EXCERPT: Final = 60

_FIELD: Final = re.compile(r"(?:data|event|id|retry|):.*")

# Spec: RFC 2397.
_DATA_URL: Final = re.compile(r"data:(?:[\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+(?:=[^;,]*)?)*,")

# A line end that was escaped, where one that ends an event was meant.
_WRITTEN_ENDS: Final = (r"\n\n", r"\r\n\r\n")


@dataclass(slots=True)
class Found:
    """Where a fault was found first, and how often.

    Attributes:
      line: the first one's line in the body, from 1.
      excerpt: the beginning of that line, or of that payload.
      count: how many lines, or payloads, have it.
    """

    line: int
    excerpt: bytes
    count: int = 1


@final
class Payloads:
    """The payloads of a stream, as far as they are needed to judge it."""

    def __init__(self) -> None:
        self._count = 0  # empty ones look like nothing
        self._fields = 0
        self._with_data = 0
        self._events = 0
        self._written = 0
        self._first_encoded: tuple[int, bytes] = (0, b"")
        self._first_written: tuple[int, bytes] = (0, b"")

    def add(self, payload: str, line: int) -> None:
        """Take the data of an event.

        Args:
          payload: the data, or its beginning where it is long.
          line: the number of its first line in the body.
        """
        if not payload.strip("\n"):
            return
        self._count += 1
        excerpt = payload[:_EXCERPT].encode(errors="replace")
        if payload.endswith(_WRITTEN_ENDS):
            self._written += 1
            self._first_written = self._first_written if self._written > 1 else (line, excerpt)
        lines = [each for each in payload.split("\n") if each]
        if not all(map(_FIELD.fullmatch, lines)):
            return
        self._fields += 1
        has_data = any(each.startswith("data:") and not _DATA_URL.match(each) for each in lines)
        self._with_data += has_data
        self._events += has_data and payload.endswith("\n\n")
        self._first_encoded = self._first_encoded if self._fields > 1 else (line, excerpt)

    @property
    def encoded_twice(self) -> Found | None:
        """The evidence that events are encoded and then sent as the data of other events."""
        all_alike = self._fields == self._count and self._with_data
        sure = self._events if all_alike else self._events >= _ENOUGH
        if not sure and not (all_alike and self._count >= _ENOUGH):
            return None
        return Found(*self._first_encoded, self._fields)

    @property
    def written_ends(self) -> Found | None:
        """The evidence that the server sends a backslash and an n where it means a line end."""
        if self._written < _ENOUGH or self._written < self._count:
            return None
        return Found(*self._first_written, self._written)
