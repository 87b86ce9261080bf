"""HTTP/2 frames: cut from the received bytes one by one, with a budget for useless frames.

The h2 library processes all frames of a read at once, checks a frame's length only when it has the
whole frame, and accepts any number of frames that change nothing. This module splits the input into
frames, so that other tasks can run between two of them, and checks each frame before h2 sees it.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from typing import Final, NamedTuple, final

__all__ = ["BlockTooLong", "Frame", "FrameBudget", "FrameSplitter", "FrameTooLong"]

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Spec: RFC 9113, 4.1: length (three bytes), type, flags, stream.
_HEADER: Final = 9

# Frame types.
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY, CONTINUATION = 0, 1, 3, 4, 7, 9

_ACK: Final = 0x1  # of SETTINGS
_END_STREAM: Final = 0x1
_END_HEADERS: Final = 0x4
_PADDED: Final = 0x8

# The budget for useless frames, in one burst and per second: nghttp2 allows 1000 and 33 for streams
# that their client resets.
_BURST: Final = 1000
_PER_SECOND: Final = 50

# The cost of a request that the protocol answers itself, and of one that is refused while the
# connection drains: its header block had to be decoded. A client may have sent a hundred of the
# latter before it learned of the drain.
ANSWERED_COST: Final = 10
REFUSED_COST: Final = 5

# The cost of a reset, and what a response earns, so that only requests reset before their response
# count. Browsers reset a hundred requests at once when the user leaves a page.
RESET_COST: Final = 5

# A SETTINGS frame may change the window of every stream.
_SETTINGS_COST: Final = 10


class FrameTooLong(Exception):
    """A client announced a frame longer than the limit."""


class BlockTooLong(Exception):
    """A client sent a header block too long to be answered."""


class Frame(NamedTuple):
    """One frame, or the connection preface, as received."""

    kind: int  # -1: the preface
    flags: int
    stream_id: int
    raw: bytes

    @property
    def payload(self) -> bytes:
        """The bytes after the frame header."""
        return self.raw[_HEADER:]

    @property
    def body_size(self) -> int:
        """How many bytes of a body the frame carries, without padding."""
        length = len(self.raw) - _HEADER
        if self.kind != DATA or not length:
            return 0
        return max(0, length - 1 - self.raw[_HEADER]) if self.flags & _PADDED else length

    @property
    def cost(self) -> int:
        """The frame's cost, assuming that it changes nothing."""
        if self.kind == DATA:
            return int(not self.body_size and not self.flags & _END_STREAM)
        if self.kind == SETTINGS and not self.flags & _ACK:
            return _SETTINGS_COST
        if self.kind == RST_STREAM:
            return RESET_COST
        return int(self.kind not in (-1, HEADERS))


@final
class FrameSplitter:
    """Splits one connection's bytes into frames.

    Args:
      max_block: maximum bytes of one encoded header block, over all its frames.
    """

    __slots__ = ("_block", "_incomplete", "_max_block", "_preface")

    def __init__(self, max_block: int) -> None:
        self._max_block = max_block
        self._preface = len(_PREFACE)  # bytes of it still to come
        self._incomplete = bytearray()
        self._block: int | None = None  # bytes so far of the current header block

    @property
    def in_block(self) -> bool:
        """Whether a header block is incomplete; only its own CONTINUATION frames may follow."""
        return self._block is not None

    def split(self, data: bytes, max_length: int) -> Iterator[Frame]:
        """Yield the frames that these bytes complete; an incomplete frame is kept for later.

        Raises:
          FrameTooLong: a frame announces more than this length.
          BlockTooLong: a header block exceeds its maximum.
        """
        if self._preface:
            preface, data = data[: self._preface], data[self._preface :]
            self._preface -= len(preface)
            yield Frame(-1, 0, 0, preface)
        received = bytes(self._incomplete) + data if self._incomplete else data
        self._incomplete.clear()
        position = 0
        while len(received) - position >= _HEADER:
            length = int.from_bytes(received[position : position + 3], "big")
            if length > max_length:
                raise FrameTooLong
            end = position + _HEADER + length
            if end > len(received):
                break
            raw = received[position:end]
            stream_id = int.from_bytes(raw[5:9], "big") & 0x7FFFFFFF
            frame = Frame(raw[3], raw[4], stream_id, raw)
            self._follow_block(frame, length)
            position = end
            yield frame
        self._incomplete += received[position:]

    def _follow_block(self, frame: Frame, length: int) -> None:
        if frame.kind == HEADERS or (frame.kind == CONTINUATION and self._block is not None):
            self._block = (self._block or 0) + length
            if self._block > self._max_block:
                raise BlockTooLong
            if frame.flags & _END_HEADERS:
                self._block = None


@final
class FrameBudget:
    """A client's budget for useless frames; it refills over time and with useful work."""

    __slots__ = ("_left", "_since")

    def __init__(self) -> None:
        self._left = float(_BURST)
        self._since: float | None = None

    def spend(self, cost: int) -> bool:
        """Deduct a cost, and return whether the budget covered it."""
        now = perf_counter()
        if self._since is not None:
            self.earn((now - self._since) * _PER_SECOND)
        self._since = now
        self._left -= cost
        return self._left >= 0

    def earn(self, credit: float) -> None:
        """Refund something: useful bytes entail frames such as WINDOW_UPDATE."""
        self._left = min(_BURST, self._left + credit)
