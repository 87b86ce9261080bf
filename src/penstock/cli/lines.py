"""Lines of a stream of bytes, in batches: many where they come fast, few where they come slowly."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Final, final

import trio

__all__ = ["BadLine", "LineReader"]

# Lines. A batch is stored at once and answered at once; of more, nothing gets faster.
_MOST_LINES: Final = 500

# Bytes after which a batch goes off, and that a line may have. The hub takes events of up to 1 MiB
# and bodies of up to 16, in which a byte of data may have to be escaped to six.
_ENOUGH_BYTES: Final = 2**20
_LONGEST_LINE: Final = 2**21

# Seconds. Less than a person notices, more than a program needs between two lines that it writes.
_GATHER: Final = 0.05


class BadLine(Exception):
    """A line that cannot be taken; it is the input's, not the server's.

    Attributes:
      number: which, from 1.
    """

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number: int = number


@final
class LineReader:
    """Cut what is received into lines, without their ends (LF or CRLF).

    Args:
      receive: returns some bytes as soon as there are any, and none at the end.
    """

    def __init__(self, receive: Callable[[], Awaitable[bytes]]) -> None:
        self._receive = receive
        self._buffer = bytearray()
        self._scanned = 0  # so many bytes of the buffer are known to hold no line end
        self._ended = False
        self._too_long = False
        self.taken: int = 0
        """How many lines were returned."""

    async def batch(self) -> list[bytes]:
        """Return the lines that come within a moment of the first; none at the end.

        Raises:
          BadLine: the line after those returned before is too long.

        Cancellation:
          A checkpoint. When it is cancelled, the lines that it had gathered are lost.
        """
        lines: list[bytes] = []
        size, deadline = 0, math.inf
        while True:
            while (line := self._next_line()) is not None:
                if not lines:
                    deadline = trio.current_time() + _GATHER
                lines.append(line)
                size += len(line)
                if len(lines) == _MOST_LINES or size >= _ENOUGH_BYTES:
                    return self._taken(lines)
            if self._too_long and not lines:
                raise BadLine(self.taken + 1, f"it is longer than {_LONGEST_LINE} bytes")
            if self._too_long or self._ended:
                return self._taken(lines)
            with trio.move_on_at(deadline) as limit:
                received = await self._receive()
                self._buffer += received
                self._ended = not received
            if limit.cancelled_caught:
                return self._taken(lines)

    def _taken(self, lines: list[bytes]) -> list[bytes]:
        self.taken += len(lines)
        return lines

    def _next_line(self) -> bytes | None:
        end = self._buffer.find(b"\n", self._scanned)
        size = len(self._buffer) if end < 0 else end
        self._too_long = size > _LONGEST_LINE
        if self._too_long or (end < 0 and not (self._ended and self._buffer)):
            self._scanned = size
            return None
        line = bytes(self._buffer[:size])
        del self._buffer[: len(line) + 1]
        self._scanned = 0
        return line.removesuffix(b"\r")
