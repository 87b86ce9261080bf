"""Whether a server encodes its events twice, judged by all payloads of a stream.

A payload may be anything: ``data:image/png;base64,…`` is a URL, ``id: 7`` a line of YAML, and a
text may end with a backslash. No single payload like these proves a fault. Proof is either of two:
payloads that are complete encoded events, including the empty line at their end; or a stream in
which every payload, without exception, looks as if it had been encoded before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, final

__all__ = ["Found", "Payloads"]

# How many payloads must all look alike before a stream is judged by them.
_ENOUGH: Final = 3

# Bytes.
_EXCERPT: Final = 60

_FIELD: Final = re.compile(r"(?:data|event|id|retry|):.*")

# Spec: RFC 2397.
_DATA_URL: Final = re.compile(r"data:(?:[\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+(?:=[^;,]*)?)*,")

# Escaped line ends where the end of an event was intended.
_LITERAL_ENDS: Final = (r"\n\n", r"\r\n\r\n")


@dataclass(slots=True)
class Found:
    """Where a fault was first found, and how often.

    Attributes:
      line: its first line in the body, from 1.
      excerpt: the beginning of that line or payload.
      count: how many lines or payloads have it.
    """

    line: int
    excerpt: bytes
    count: int = 1


@final
class Payloads:
    """Counts of what the payloads of a stream look like."""

    def __init__(self) -> None:
        self._count = 0  # without empty payloads
        self._fields = 0
        self._with_data = 0
        self._events = 0
        self._literal = 0
        self._first_encoded: tuple[int, bytes] = (0, b"")
        self._first_literal: tuple[int, bytes] = (0, b"")

    def add(self, payload: str, line: int) -> None:
        """Take the data of an event.

        Args:
          payload: the data, or its beginning if it is long.
          line: the number of its first line in the body.
        """
        if not payload.strip("\n"):
            return
        self._count += 1
        excerpt = payload[:_EXCERPT].encode(errors="replace")
        if payload.endswith(_LITERAL_ENDS):
            self._literal += 1
            self._first_literal = self._first_literal if self._literal > 1 else (line, excerpt)
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
        """The evidence that encoded events are sent as the data of other events, or None."""
        all_alike = self._fields == self._count and self._with_data
        sure = self._events if all_alike else self._events >= _ENOUGH
        if not sure and not (all_alike and self._count >= _ENOUGH):
            return None
        return Found(*self._first_encoded, self._fields)

    @property
    def literal_ends(self) -> Found | None:
        """The evidence that a backslash and an n are sent instead of a line end, or None."""
        if self._literal < _ENOUGH or self._literal < self._count:
            return None
        return Found(*self._first_literal, self._literal)
