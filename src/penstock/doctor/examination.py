"""The bytes of a stream's body, as they arrive: what is in them, when they came, what is odd.

Rule 1: what a client hears is decided by `penstock.EventStreamDecoder`. Here is noted what that
passes over in silence, as a browser does: lines that are no field, values that do not count.

Rule 2: memory is bounded, whatever comes: of each kind of fault the first is kept and the rest are
counted, and so are bursts and ids beyond the first and last many.

Theory of operation: bytes are cut into lines; each line is looked at, then fed to the decoder, so
that an event and the fields that made it are known together.

Spec: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, final

from penstock.decode import EventStreamDecoder
from penstock.errors import DecodeError

__all__ = ["MAX_EVENT_SIZE", "Burst", "Examination", "Fault", "Found"]

# Bytes, as in `penstock.client`.
MAX_EVENT_SIZE: Final = 2**20

# Seconds. What comes within less of what came before was sent, or let go, together with it.
_TOGETHER: Final = 0.05

_MOST_BURSTS: Final = 1000
_LAST_IDS: Final = 100
_MOST_KNOWN_IDS: Final = 10_000
_LONGEST_ID: Final = 4096  # bytes; with more, a header's line is refused by many servers
_EXCERPT: Final = 60  # bytes

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_BOM: Final = b"\xef\xbb\xbf"
_DIGITS: Final = re.compile(rb"[0-9]+")
_TOKEN: Final = re.compile(rb"[A-Za-z0-9_-]+")
_FIELDS: Final = frozenset({b"data", b"event", b"id", b"retry"})
_EVENT_FIELDS: Final = frozenset({b"data", b"event", b"id"})
_HTML: Final = re.compile(rb"\s*<(!doctype|html|head|body)\b", re.IGNORECASE)


class Fault(StrEnum):
    """What clients pass over in silence."""

    HTML = "html"
    BARE_TEXT = "bare text"
    UNKNOWN_FIELD = "unknown field"
    MISSPELT_FIELD = "misspelt field"
    BOM = "byte order mark"
    UTF8 = "not utf-8"
    NUL_ID = "nul in id"
    BAD_RETRY = "bad retry"
    NO_DATA = "no data"
    DOUBLED = "doubled field name"
    WRITTEN_LINE_END = "written line end"


@dataclass(slots=True)
class Found:
    """How often a fault was found, and where first.

    Attributes:
      line: the first one's line in the body, from 1.
      excerpt: the beginning of that line.
      count: how many lines have it.
    """

    line: int
    excerpt: bytes
    count: int = 1


@dataclass(slots=True)
class Burst:
    """Bytes that came together.

    Attributes:
      began: when the first of them came.
      ended: when the last of them came.
      size: how many they are, as on the wire.
      events: how many events they completed.
      whole: whether they ended where an event ends, and not within one.
    """

    began: float
    ended: float
    size: int = 0
    events: int = 0
    whole: bool = True


@final
class Examination:
    """What came of one body, so far.

    Args:
      opened_at: when the head of the answer had come, on the clock of all other times.

    Attributes:
      opened_at: the same.
      size: bytes, as on the wire.
      unpacked: bytes, decompressed; the same where nothing was compressed.
      first_at: when the first byte came; None if none did.
      last_at: when the last one came; ``opened_at`` if none did.
      events: how many events a client would have heard.
      first_event_at: when the first of them was complete.
      comments: how many comments there were.
      bursts: the first 1,000 of what came together.
      last_burst: the last one, which may be none of those.
      faults: what clients pass over.
      ids: the last 100 ids that events brought, each once where it was repeated at once.
      first_id: the first of them.
      repeated_id: an id that a later event brought again.
      too_large: whether an event or line was larger than `MAX_EVENT_SIZE`, and nothing was looked
        at any more.
    """

    def __init__(self, opened_at: float) -> None:
        self.opened_at: float = opened_at
        self.size: int = 0
        self.unpacked: int = 0
        self.first_at: float | None = None
        self.last_at: float = opened_at
        self.events: int = 0
        self.first_event_at: float | None = None
        self.comments: int = 0
        self.bursts: list[Burst] = []
        self.last_burst: Burst | None = None
        self.faults: dict[Fault, Found] = {}
        self.ids: deque[str] = deque(maxlen=_LAST_IDS)
        self.first_id: str | None = None
        self.repeated_id: str | None = None
        self.too_large: bool = False
        self._longest_silence = 0.0
        self._decoder = EventStreamDecoder(max_event_size=MAX_EVENT_SIZE)
        self._known: set[int] = set()
        # Cutting into lines.
        self._buffer = bytearray()
        self._scanned = 0
        self._after_cr = False
        self._line = 0
        # The block being read.
        self._fields: set[bytes] = set()

    @property
    def retry(self) -> int | None:
        """The reconnection time that the stream asked for last, in milliseconds, or None."""
        return self._decoder.retry

    @property
    def unfinished(self) -> bool:
        """Whether an event was begun that an end now would leave unheard."""
        return b"data" in self._fields or self._buffer.startswith(b"data")

    def longest_silence(self, until: float) -> float:
        """Return the greatest number of seconds without a byte, up to a time."""
        return max(self._longest_silence, until - self.last_at)

    def feed(self, data: bytes, at: float, *, size: int | None = None) -> None:
        """Take the next bytes of the body.

        Args:
          data: the bytes, decompressed.
          at: when they came.
          size: how many they were on the wire, if they were compressed.
        """
        self.unpacked += len(data)
        burst = self._arrival(len(data) if size is None else size, at)
        if self.too_large:
            return
        self._buffer += data
        before = self.events
        try:
            self._take_lines(at)
        except DecodeError:
            self.too_large = True
            self._buffer.clear()
            self._fields.clear()
        burst.events += self.events - before
        burst.whole = not self._buffer and not self._fields & _EVENT_FIELDS

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

    def _take_lines(self, at: float) -> None:
        buffer, start = self._buffer, 0
        if self._after_cr and buffer:
            self._after_cr = False
            start = self._scanned = 1 if buffer.startswith(b"\n") else 0
        while (end := _LINE_END.search(buffer, self._scanned)) is not None:
            line = bytes(buffer[start : end.start()])
            start = self._scanned = end.end()
            self._after_cr = start == len(buffer) and end.group() == b"\r"
            self._line += 1
            self._take_line(line, at)
        del buffer[:start]
        self._scanned = len(buffer)
        if len(buffer) > MAX_EVENT_SIZE:
            raise DecodeError("a line without an end")

    def _take_line(self, line: bytes, at: float) -> None:
        self._look_at(line)
        for event in self._decoder.feed(line + b"\n"):
            self.events += 1
            self.first_event_at = at if self.first_event_at is None else self.first_event_at
            if b"id" in self._fields and event.id:
                self._note_id(event.id)
        if not line:
            if b"event" in self._fields and b"data" not in self._fields:
                self._find(Fault.NO_DATA, b"event")
            self._fields.clear()

    def _look_at(self, line: bytes) -> None:
        if self._line == 1:
            line = line.removeprefix(_BOM)
            if _HTML.match(line):
                self._find(Fault.HTML, line)
        name, colon, value = line.partition(b":")
        try:
            line.decode()
        except UnicodeDecodeError:
            self._find(Fault.UTF8, line)
        if not line:
            return
        if colon and not name:
            self.comments += 1
        elif name not in _FIELDS:
            if name.startswith(_BOM):
                self._find(Fault.BOM, line)
            elif name.strip().lower() in _FIELDS:
                self._find(Fault.MISSPELT_FIELD, line)
            elif colon and _TOKEN.fullmatch(name):  # legal: somebody's extension, or a slip
                self._find(Fault.UNKNOWN_FIELD, line)
            else:
                self._find(Fault.BARE_TEXT, line)
        else:
            self._look_at_field(name, value.removeprefix(b" "), line)

    def _look_at_field(self, name: bytes, value: bytes, line: bytes) -> None:
        if name == b"id" and b"\0" in value:
            self._find(Fault.NUL_ID, line)
            return
        self._fields.add(name)
        if name == b"retry" and not _DIGITS.fullmatch(value):
            self._find(Fault.BAD_RETRY, line)
        if value.startswith(name + b":"):
            self._find(Fault.DOUBLED, line)
        if value.endswith((rb"\n", rb"\r")):
            self._find(Fault.WRITTEN_LINE_END, line)

    def _find(self, fault: Fault, line: bytes) -> None:
        if (found := self.faults.get(fault)) is None:
            self.faults[fault] = Found(self._line, line[:_EXCERPT])
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
