"""The frames of one HTTP/2 connection, one by one, and how many of them may be useless.

The h2 library works off all frames of a read at once, looks at a frame's length when it has the
whole frame, and takes any number of frames that change nothing. This cuts what was read into
frames, so that others can run between two of them, and looks at each before h2 does.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from typing import Final, NamedTuple, final

__all__ = ["BlockTooLong", "Frame", "FrameBudget", "FrameTooLong", "Frames"]

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Spec: RFC 9113, 4.1: length (three bytes), type, flags, stream.
_HEADER: Final = 9

# Types of frames.
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY, CONTINUATION = 0, 1, 3, 4, 7, 9

_ACK: Final = 0x1  # of SETTINGS
_END_STREAM: Final = 0x1
_END_HEADERS: Final = 0x4
_PADDED: Final = 0x8

# What useless frames may cost in one burst, and each second: nghttp2 allows 1000 and 33 for streams
# that their client resets.
_BURST: Final = 1000
_EACH_SECOND: Final = 50

# What a request costs that is answered here, or that comes when no more are taken: its header block
# had to be decoded. Of the latter, a client may have sent a hundred before it knew.
ANSWERED: Final = 10
REFUSED: Final = 5

# A request that is taken back costs as much as a response earns, so that only those count that were
# taken back before they had one. Browsers do that to a hundred at once, when a page is left.
RESPONSE: Final = 5

# A SETTINGS frame may change the window of every stream.
_SETTINGS: Final = 10


class FrameTooLong(Exception):
    """A client announced a frame that is longer than allowed."""


class BlockTooLong(Exception):
    """A client sent a header block that is longer than any that would be answered."""


class Frame(NamedTuple):
    """One frame, or the connection's preface, as it was received."""

    kind: int  # -1: the preface
    flags: int
    stream_id: int
    raw: bytes

    @property
    def payload(self) -> bytes:
        """The bytes behind the header."""
        return self.raw[_HEADER:]

    @property
    def carries(self) -> int:
        """How many bytes of a body it carries."""
        length = len(self.raw) - _HEADER
        if self.kind != DATA or not length:
            return 0
        return max(0, length - 1 - self.raw[_HEADER]) if self.flags & _PADDED else length

    @property
    def cost(self) -> int:
        """What this frame costs if all it does is to be looked at."""
        if self.kind == DATA:
            return int(not self.carries and not self.flags & _END_STREAM)
        if self.kind == SETTINGS and not self.flags & _ACK:
            return _SETTINGS
        if self.kind == RST_STREAM:
            return RESPONSE
        return int(self.kind not in (-1, HEADERS))


@final
class Frames:
    """Cuts the bytes of one connection into frames.

    Args:
      max_block: bytes of one encoded header block, over all its frames.
    """

    __slots__ = ("_begun", "_block", "_max_block", "_preface")

    def __init__(self, max_block: int) -> None:
        self._max_block = max_block
        self._preface = len(_PREFACE)  # bytes of it to come
        self._begun = bytearray()
        self._block: int | None = None  # bytes of the header block that is under way

    @property
    def in_block(self) -> bool:
        """Whether a header block is under way, which only its own frames may continue."""
        return self._block is not None

    def split(self, data: bytes, max_length: int) -> Iterator[Frame]:
        """Return the frames that are complete with these bytes; the rest waits for more.

        Raises:
          FrameTooLong: a frame announces more than this length.
          BlockTooLong: a header block has become too long.
        """
        if self._preface:
            preface, data = data[: self._preface], data[self._preface :]
            self._preface -= len(preface)
            yield Frame(-1, 0, 0, preface)
        received = bytes(self._begun) + data if self._begun else data
        self._begun.clear()
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
        self._begun += received[position:]

    def _follow_block(self, frame: Frame, length: int) -> None:
        if frame.kind == HEADERS or (frame.kind == CONTINUATION and self._block is not None):
            self._block = (self._block or 0) + length
            if self._block > self._max_block:
                raise BlockTooLong
            if frame.flags & _END_HEADERS:
                self._block = None


@final
class FrameBudget:
    """What one client's useless frames may cost; it refills with time and with useful work."""

    __slots__ = ("_left", "_since")

    def __init__(self) -> None:
        self._left = float(_BURST)
        self._since: float | None = None

    def spend(self, cost: int) -> bool:
        """Take this much, and tell whether it was there."""
        now = perf_counter()
        if self._since is not None:
            self.earn((now - self._since) * _EACH_SECOND)
        self._since = now
        self._left -= cost
        return self._left >= 0

    def earn(self, credit: float) -> None:
        """Give something back: bytes were carried, which entails frames such as WINDOW_UPDATE."""
        self._left = min(_BURST, self._left + credit)
