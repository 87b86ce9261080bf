"""The body of a stream, examined as it arrives: its content, its timing, its faults.

Rule 1: `penstock.EventStreamDecoder` decides what a client receives. This module records what the
decoder, like a browser, ignores without a word: lines that are no field, values that do not count.

Rule 2: memory is bounded, and what may arrive is not. Of a long line or a large event only the
beginning is kept and the rest is counted; of each kind of fault the first line is kept; bursts and
ids are kept up to a number.

Rule 3: what the format allows is no fault. A payload may look like anything, so no single payload
is taken for a mistake; `Payloads` says when a whole stream is.

Theory of operation: bytes are cut into lines; each line is examined, then fed to the decoder, so
that an event and the fields that made it are known together.

Spec: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import codecs
import re
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, final

from penstock.decode import EventStreamDecoder
from penstock.doctor.payloads import Found, Payloads

__all__ = ["Burst", "Examination", "Fault"]

# Bytes of a line, and of an event's data, that are kept and fed to the decoder.
_KEPT: Final = 2**16

# Seconds. Bytes that arrive this soon after others belong to the same burst.
_TOGETHER: Final = 0.05

# Seconds per event. Events that were written one by one are further apart than events that were
# released together, even if both arrive in one burst.
_APART: Final = 0.002

_MOST_BURSTS: Final = 1000
_LAST_IDS: Final = 100
_MOST_KNOWN_IDS: Final = 10_000
_LONGEST_ID: Final = 4096  # bytes; with more, a header's line is refused by many servers
_EXCERPT: Final = 60  # bytes

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_BOM: Final = b"\xef\xbb\xbf"
_DIGITS: Final = re.compile(rb"[0-9]+")
_WRITTEN_END: Final = rb"\n\n"
_TOKEN: Final = re.compile(rb"[A-Za-z0-9_-]+")
_FIELDS: Final = frozenset({b"data", b"event", b"id", b"retry"})
_EVENT_FIELDS: Final = frozenset({b"data", b"event", b"id"})
_HTML: Final = re.compile(rb"\s*<(!doctype|html|head|body)\b", re.IGNORECASE)


class Fault(StrEnum):
    """What clients ignore, or take for something else than was meant."""

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
    WRITTEN_LINE_END = "written line end"


@dataclass(slots=True)
class Burst:
    """Bytes that arrived without a pause between them.

    Attributes:
      began: when the first of them arrived.
      ended: when the last of them arrived.
      size: how many they are, as on the wire.
      events: how many events they completed.
      arrivals: in how many reads those events were completed.
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
        """Whether it holds several events that arrived at once, as if a buffer had been flushed.

        A stream of many events a second is one long burst, and no buffer is involved.
        """
        return self.events > 1 and self.ended - self.began < (self.events - 1) * _APART


@final
class Examination:
    """What has arrived of one body so far.

    Args:
      opened_at: when the head of the answer arrived, on the clock of all other times.

    Attributes:
      opened_at: the same.
      size: bytes, as on the wire.
      unpacked: bytes, decompressed; the same where nothing was compressed.
      first_at: when the first byte arrived; None if none did.
      last_at: when the last byte arrived; ``opened_at`` if none did.
      events: how many events a client would have received.
      first_event_at: when the first of them was complete.
      largest_event: bytes of the largest event that was completed, of all its ``data`` lines.
      comments: how many comments there were.
      bursts: the first 1,000 bursts.
      last_burst: the last one, which may be none of those.
      ids: the last 100 ids that events brought, each once where it was repeated at once.
      first_id: the first of them.
      repeated_id: an id that a later event brought again.
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
        """What was found so far, by its kind."""
        found = dict(self._faults)
        if (encoded := self._payloads.encoded_twice) is not None:
            found[Fault.ENCODED_TWICE] = encoded
        if (written := self._payloads.written_ends) is not None:
            found[Fault.WRITTEN_LINE_END] = written
        elif not self._line and self._tail == _WRITTEN_END:  # not one line has ended
            found[Fault.WRITTEN_LINE_END] = Found(1, bytes(self._buffer[:_EXCERPT]))
        return found

    @property
    def retry(self) -> int | None:
        """The reconnection time that the stream asked for last, in milliseconds, or None."""
        return self._decoder.retry

    @property
    def unfinished(self) -> bool:
        """Whether an event was begun that would be lost if the stream ended now."""
        return b"data" in self._fields or self._buffer.startswith(b"data")

    @property
    def unfinished_size(self) -> int:
        """Bytes of the event and the line being read."""
        return self._data_size + self._line_size

    def longest_silence(self, until: float) -> float:
        """Return the greatest number of seconds without a byte, up to a time."""
        return max(self._longest_silence, until - self.last_at)

    def feed(self, data: bytes, at: float, *, size: int | None = None) -> None:
        """Take the next bytes of the body.

        Args:
          data: the bytes, decompressed.
          at: when they arrived.
          size: how many they were on the wire, if they were compressed.
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
        if self.last_burst is None or silence > _TOGETHER:
            self.last_burst = Burst(at, at)
            if len(self.bursts) < _MOST_BURSTS:
                self.bursts.append(self.last_burst)
        self.first_at = at if self.first_at is None else self.first_at
        self.last_at = self.last_burst.ended = at
        self.size += size
        self.last_burst.size += size
        return self.last_burst

    def _take_lines(self, data: bytes, at: float) -> None:
        start = 0
        if self._after_cr and data:
            self._after_cr = False
            start = 1 if data.startswith(b"\n") else 0
        for end in _LINE_END.finditer(data, start):
            self._take_part(data[start : end.start()])
            start = end.end()
            self._after_cr = start == len(data) and end.group() == b"\r"
            self._end_line(at)
        self._take_part(data[start:])

    def _take_part(self, part: bytes) -> None:
        """Take bytes of a line."""
        self._line_size += len(part)
        self._buffer += part[: max(0, _KEPT - len(self._buffer))]
        self._tail = (self._tail + part)[-len(_WRITTEN_END) :]
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
        self._look_at(line)
        self._buffer.clear()
        self._utf8.reset()
        self._line_size, self._tail, self._is_utf8 = 0, b"", True
        content = line.removeprefix(_BOM) if self._line == 1 else line
        if content == b"data" or content.startswith(b"data:"):
            self._data_line = self._data_line or self._line
            self._data_size += size
            if self._data_size - size > _KEPT:  # that there is data is known
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
                self._find(Fault.NO_DATA, b"event")
            self._fields.clear()
            self._data_size = self._data_line = 0

    def _look_at(self, line: bytes) -> None:
        if self._line == 1:
            line = line.removeprefix(_BOM)
            if _HTML.match(line):
                self._find(Fault.HTML, line)
        if not line:
            return
        name, colon, value = line.partition(b":")
        if colon and not name:  # clients drop a comment, whatever its bytes are
            self.comments += 1
            return
        if not self._is_utf8:
            self._find(Fault.UTF8, line)
        if name in _FIELDS:
            self._look_at_field(name, value.removeprefix(b" "), line)
        elif name.startswith(_BOM):
            self._find(Fault.BOM, line)
        elif name.strip().lower() in _FIELDS:
            self._find(Fault.MISSPELT_FIELD, line)
        elif colon and _TOKEN.fullmatch(name):  # legal: an extension, or a slip
            self._find(Fault.UNKNOWN_FIELD, line)
        else:
            self._find(Fault.BARE_TEXT, line)

    def _look_at_field(self, name: bytes, value: bytes, line: bytes) -> None:
        if name == b"id" and b"\0" in value:
            self._find(Fault.NUL_ID, line)
            return
        self._fields.add(name)
        if name == b"retry" and not _DIGITS.fullmatch(value):
            self._find(Fault.BAD_RETRY, line)

    def _find(self, fault: Fault, line: bytes) -> None:
        if (found := self._faults.get(fault)) is None:
            self._faults[fault] = Found(self._line, line[:_EXCERPT])
        else:
            found.count += 1

    def _note_id(self, id_: str) -> None:
        if len(id_) > _LONGEST_ID:
            return
        known = hash(id_)
        if known in self._known:
            self.repeated_id = id_
        elif len(self._known) < _MOST_KNOWN_IDS:
            self._known.add(known)
        self.first_id = id_ if self.first_id is None else self.first_id
        if not self.ids or self.ids[-1] != id_:
            self.ids.append(id_)
