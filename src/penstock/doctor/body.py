"""The body of a stream, decompressed and examined as it arrives: content, timing, faults.

Rule 1: `penstock.EventStreamDecoder` decides what a client receives. This module records what the
decoder, like a browser, silently ignores: lines that are not fields, values that are not valid.

Rule 2: memory is bounded, however much arrives. Only the beginning of a long line or a large event
is kept, and the rest is counted; so are the first line of each kind of fault, and a number of
bursts and ids.

Rule 3: what the format allows is not a fault. A payload may look like anything, so no single one is
considered a mistake; `Payloads` judges all of a stream's together.

Theory of operation: bytes are split into lines; each line is examined, then fed to the decoder, so
that an event is known with the fields that made it.

Spec: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import codecs
import re
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, final

from penstock.decode import BOM, DIGITS, EventStreamDecoder, split_lines
from penstock.doctor.double_encoding import Found, Payloads

__all__ = ["Burst", "Examination", "Fault", "Unpacker", "can_unpack", "codings_of", "is_known"]

# Bytes to decompress at a time: a few of them may hold megabytes.
_PIECE: Final = 65536

_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32

_PACKED: Final = frozenset({"gzip", "x-gzip", "deflate"})

# What else browsers decompress. They pass on what they do not know as it is; so does curl with
# "none", which some servers send to keep proxies from compressing.
_KNOWN: Final = _PACKED | {"br", "zstd", "dcb", "dcz"}
_PLAIN: Final = frozenset({"identity", "none"})

# Bytes of a line, and of an event's data, that are kept and fed to the decoder.
_KEPT: Final = 2**16

# Seconds. Bytes that arrive this soon after others belong to the same burst.
_BURST_GAP: Final = 0.05

# Seconds per event. Events that were written one by one are further apart than events that a buffer
# released together, even if both arrive in one burst.
_APART: Final = 0.002

_MAX_BURSTS: Final = 1000
_LAST_IDS: Final = 100
_MAX_KNOWN_IDS: Final = 10_000
_MAX_ID: Final = 4096  # bytes; many servers refuse a longer header
_EXCERPT: Final = 60  # bytes

_LITERAL_END: Final = rb"\n\n"
_TOKEN: Final = re.compile(rb"[A-Za-z0-9_-]+")
_FIELDS: Final = frozenset({b"data", b"event", b"id", b"retry"})
_EVENT_FIELDS: Final = frozenset({b"data", b"event", b"id"})
_HTML: Final = re.compile(rb"\s*<(!doctype|html|head|body)\b", re.IGNORECASE)


def codings_of(header: str) -> str:
    """Return the content codings that a ``Content-Encoding`` names, without those of no effect."""
    names = (name.strip().lower() for name in header.split(","))
    return ", ".join(name for name in names if name and name not in _PLAIN)


def is_known(codings: str) -> bool:
    """Return whether browsers decompress this; they treat anything else as uncompressed."""
    return all(name in _KNOWN for name in codings.split(", "))


def can_unpack(codings: str) -> bool:
    """Return whether the doctor can read this, decompressed or as it is."""
    return codings in _PACKED or not is_known(codings)


@final
class Unpacker:
    """Decompress a body whose content coding `can_unpack` accepts."""

    def __init__(self, coding: str) -> None:
        self._packed = coding in _PACKED
        self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB)

    def unpack(self, data: bytes) -> Iterator[bytes]:
        """Return the next bytes decompressed, in pieces of a bounded size.

        Raises:
          ValueError: the bytes are not compressed as the coding says.
        """
        if not self._packed:
            yield data
            return
        while data:
            if self._inflate.eof:  # another member follows
                self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
            try:
                piece = self._inflate.decompress(data, _PIECE)
            except zlib.error as error:
                raise ValueError(str(error)) from error
            data = self._inflate.unconsumed_tail or self._inflate.unused_data
            if piece:
                yield piece


class Fault(StrEnum):
    """What clients ignore, or understand differently than intended."""

    HTML = "html"
    BARE_TEXT = "bare text"
    UNKNOWN_FIELD = "unknown field"
    MISSPELT_FIELD = "misspelt field"
    BOM = "byte order mark"
    UTF8 = "not utf-8"
    NUL_ID = "nul in id"
    BAD_RETRY = "bad retry"
    NO_DATA = "no data"
    ENCODED_TWICE = "encoded twice"
    LITERAL_LINE_END = "literal line end"


@dataclass(slots=True)
class Burst:
    """Bytes that arrived without a pause.

    Attributes:
      began: when the first byte arrived.
      ended: when the last byte arrived.
      size: bytes, as on the wire.
      events: how many events the burst completed.
      arrivals: how many reads completed those events.
      whole: whether the burst ended between two events.
    """

    began: float
    ended: float
    size: int = 0
    events: int = 0
    arrivals: int = 0
    whole: bool = True

    @property
    def released(self) -> bool:
        """Whether several events arrived at once, as if a buffer had been flushed.

        A stream of many events a second is one long burst without any buffer.
        """
        return self.events > 1 and self.ended - self.began < (self.events - 1) * _APART


@final
class Examination:
    """What has arrived of one body so far.

    Args:
      opened_at: when the head of the response arrived, on the clock of all other times.

    Attributes:
      opened_at: the same.
      size: bytes, as on the wire.
      unpacked: bytes, decompressed; the same if the body is not compressed.
      first_at: when the first byte arrived; None if none did.
      last_at: when the last byte arrived; ``opened_at`` if none did.
      events: how many events a client would have received.
      first_event_at: when the first of them was complete.
      largest_event: the size of the largest complete event, all its ``data`` lines, in bytes.
      comments: how many comments there were.
      bursts: the first 1,000 bursts.
      last_burst: the last one, which may not be among those.
      ids: the last 100 ids of events; an id that is repeated at once is there once.
      first_id: the first id of all.
      repeated_id: an id that a later event had again.
    """

    def __init__(self, opened_at: float) -> None:
        self.opened_at: float = opened_at
        self.size: int = 0
        self.unpacked: int = 0
        self.first_at: float | None = None
        self.last_at: float = opened_at
        self.events: int = 0
        self.first_event_at: float | None = None
        self.largest_event: int = 0
        self.comments: int = 0
        self.bursts: list[Burst] = []
        self.last_burst: Burst | None = None
        self.ids: deque[str] = deque(maxlen=_LAST_IDS)
        self.first_id: str | None = None
        self.repeated_id: str | None = None
        self._faults: dict[Fault, Found] = {}
        self._payloads = Payloads()
        self._longest_silence = 0.0
        self._decoder = EventStreamDecoder(max_event_size=4 * _KEPT)
        self._known: set[int] = set()
        # The line being read: its first bytes, its size, its last bytes.
        self._buffer = bytearray()
        self._line_size = 0
        self._tail = b""
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._is_utf8 = True
        self._after_cr = False
        self._line = 0
        # The block being read.
        self._fields: set[bytes] = set()
        self._data_size = 0
        self._data_line = 0

    @property
    def faults(self) -> dict[Fault, Found]:
        """The faults found so far, by kind."""
        found = dict(self._faults)
        if (encoded := self._payloads.encoded_twice) is not None:
            found[Fault.ENCODED_TWICE] = encoded
        if (written := self._payloads.literal_ends) is not None:
            found[Fault.LITERAL_LINE_END] = written
        elif not self._line and self._tail == _LITERAL_END:  # no line has ended yet
            found[Fault.LITERAL_LINE_END] = Found(1, bytes(self._buffer[:_EXCERPT]))
        return found

    @property
    def retry(self) -> int | None:
        """The last reconnection time that the stream set, in milliseconds, or None."""
        return self._decoder.retry

    @property
    def unfinished(self) -> bool:
        """Whether there is an unfinished event, which would be lost if the stream ended now."""
        return b"data" in self._fields or self._buffer.startswith(b"data")

    @property
    def unfinished_size(self) -> int:
        """Bytes of the event and the line being read."""
        return self._data_size + self._line_size

    def longest_silence(self, until: float) -> float:
        """Return the longest time without a byte, up to a time."""
        return max(self._longest_silence, until - self.last_at)

    def feed(self, data: bytes, at: float, *, size: int | None = None) -> None:
        """Take the next bytes of the body.

        Args:
          data: the bytes, decompressed.
          at: when they arrived.
          size: how many bytes they were on the wire, if they were compressed.
        """
        self.unpacked += len(data)
        burst = self._arrival(len(data) if size is None else size, at)
        before = self.events
        self._take_lines(data, at)
        burst.events += self.events - before
        burst.arrivals += self.events > before
        burst.whole = not self._line_size and not self._fields & _EVENT_FIELDS

    def _arrival(self, size: int, at: float) -> Burst:
        silence = at - self.last_at
        self._longest_silence = max(self._longest_silence, silence)
        if self.last_burst is None or silence > _BURST_GAP:
            self.last_burst = Burst(at, at)
            if len(self.bursts) < _MAX_BURSTS:
                self.bursts.append(self.last_burst)
        self.first_at = at if self.first_at is None else self.first_at
        self.last_at = self.last_burst.ended = at
        self.size += size
        self.last_burst.size += size
        return self.last_burst

    def _take_lines(self, data: bytes, at: float) -> None:
        *ended, rest = split_lines(data, after_cr=self._after_cr)
        for part in ended:
            self._take_part(part)
            self._end_line(at)
        self._take_part(rest)
        self._after_cr = data.endswith(b"\r") if data else self._after_cr

    def _take_part(self, part: bytes) -> None:
        """Take bytes of a line."""
        self._line_size += len(part)
        self._buffer += part[: max(0, _KEPT - len(self._buffer))]
        self._tail = (self._tail + part)[-len(_LITERAL_END) :]
        try:
            self._utf8.decode(part)
        except UnicodeDecodeError:
            self._is_utf8 = False

    def _end_line(self, at: float) -> None:
        try:
            self._utf8.decode(b"", final=True)
        except UnicodeDecodeError:
            self._is_utf8 = False
        self._line += 1
        line, size = bytes(self._buffer), self._line_size
        self._check_line(line)
        self._buffer.clear()
        self._utf8.reset()
        self._line_size, self._tail, self._is_utf8 = 0, b"", True
        content = line.removeprefix(BOM) if self._line == 1 else line
        if content == b"data" or content.startswith(b"data:"):
            self._data_line = self._data_line or self._line
            self._data_size += size
            if self._data_size - size > _KEPT:  # the decoder knows that there is data
                return
        for event in self._decoder.feed(line + b"\n"):
            self.events += 1
            self.first_event_at = at if self.first_event_at is None else self.first_event_at
            self.largest_event = max(self.largest_event, self._data_size)
            self._payloads.add(event.data or "", self._data_line)
            if b"id" in self._fields and event.id:
                self._note_id(event.id)
        if not line:
            if b"event" in self._fields and b"data" not in self._fields:
                self._record(Fault.NO_DATA, b"event")
            self._fields.clear()
            self._data_size = self._data_line = 0

    def _check_line(self, line: bytes) -> None:
        if self._line == 1:
            line = line.removeprefix(BOM)
            if _HTML.match(line):
                self._record(Fault.HTML, line)
        if not line:
            return
        name, colon, value = line.partition(b":")
        if colon and not name:  # clients ignore comments, whatever their bytes are
            self.comments += 1
            return
        if not self._is_utf8:
            self._record(Fault.UTF8, line)
        if name in _FIELDS:
            self._check_field(name, value.removeprefix(b" "), line)
        elif name.startswith(BOM):
            self._record(Fault.BOM, line)
        elif name.strip().lower() in _FIELDS:
            self._record(Fault.MISSPELT_FIELD, line)
        elif colon and _TOKEN.fullmatch(name):  # valid: an extension, or a mistake
            self._record(Fault.UNKNOWN_FIELD, line)
        else:
            self._record(Fault.BARE_TEXT, line)

    def _check_field(self, name: bytes, value: bytes, line: bytes) -> None:
        if name == b"id" and b"\0" in value:
            self._record(Fault.NUL_ID, line)
            return
        self._fields.add(name)
        if name == b"retry" and not DIGITS.fullmatch(value):
            self._record(Fault.BAD_RETRY, line)

    def _record(self, fault: Fault, line: bytes) -> None:
        if (found := self._faults.get(fault)) is None:
            self._faults[fault] = Found(self._line, line[:_EXCERPT])
        else:
            found.count += 1

    def _note_id(self, id_: str) -> None:
        if len(id_) > _MAX_ID:
            return
        known = hash(id_)
        if known in self._known:
            self.repeated_id = id_
        elif len(self._known) < _MAX_KNOWN_IDS:
            self._known.add(known)
        self.first_id = id_ if self.first_id is None else self.first_id
        if not self.ids or self.ids[-1] != id_:
            self.ids.append(id_)
