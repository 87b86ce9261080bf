"""How long the frames of an HTTP/2 connection say they are.

The h2 library looks at a frame's length when it has the whole frame: nine bytes that announce one
of 16 MiB make it keep 16 MiB. This looks at the announcement.
"""

from __future__ import annotations

from typing import Final, final

__all__ = ["FrameLengths"]

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Spec: RFC 9113, 4.1: a frame begins with nine bytes, of which the first three are its length.
_HEADER: Final = 9


@final
class FrameLengths:
    """Follows the frames in the bytes of one connection."""

    __slots__ = ("_head", "_left")

    def __init__(self) -> None:
        self._left = len(_PREFACE)  # bytes until the next frame begins
        self._head = b""  # of it, so far

    def exceed(self, data: bytes, limit: int) -> bool:
        """Follow the next bytes, and tell whether a frame in them is longer than the limit."""
        position = 0
        while position < len(data):
            if self._left:
                step = min(self._left, len(data) - position)
                self._left -= step
                position += step
                continue
            step = _HEADER - len(self._head)
            self._head += data[position : position + step]
            position += step
            if len(self._head) == _HEADER:
                self._left = int.from_bytes(self._head[:3], "big")
                self._head = b""
                if self._left > limit:
                    return True
        return False
