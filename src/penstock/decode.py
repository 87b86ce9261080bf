"""Bytes in, events out: the client's half of the event stream format.

Rule 1: the events do not depend on how the bytes are divided into chunks.

Rule 2: memory is bounded. Between two calls, once the events of the first were iterated, the
decoder keeps the current line and the data of the current event, at most ``max_event_size`` bytes
together, and one line each for the event's name and id.

Theory of operation: bytes are split into lines. A CR at the end of a chunk ends its line
immediately, and an LF at the start of the next chunk belongs to it. Each line is a field, a comment
or the blank line that dispatches. Text is decoded line by line, which is the same as decoding the
whole stream: no byte of a multi-byte character is a line end.

Spec: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from typing import Final, final

from penstock.errors import DecodeError
from penstock.event import MAX_RETRY, ServerSentEvent

__all__ = ["BOM", "DIGITS", "EventStreamDecoder", "split_lines"]

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
BOM: Final = b"\xef\xbb\xbf"
DIGITS: Final = re.compile(rb"[0-9]+")

# Mercure hubs accept as much as one publication; browsers are sent far less in practice.
_MAX_EVENT_SIZE: Final = 1024 * 1024


def split_lines(data: bytes, *, after_cr: bool) -> list[bytes]:
    """Split a chunk at its line ends (CR LF, LF, CR); the last part has no line end yet.

    Args:
      data: the chunk.
      after_cr: whether the previous chunk ended with a CR, to which an LF here belongs.
    """
    return _LINE_END.split(data.removeprefix(b"\n") if after_cr else data)


@final
class EventStreamDecoder:
    """Decode an event stream, incrementally and within bounds, as a browser does.

    Each event has the data and name it was sent with (``event`` is None if it had no name) and, as
    ``id``, the last event id in force, whether this event or an earlier one set it, or None. See
    `last_event_id` and `retry` for what else a client needs. An event that is cut off by the end of
    the stream is discarded.

    Args:
      max_event_size: the maximum size in bytes of an event's data and the current line (a comment
        included) together.
      last_event_id: the id in force before the first event, for a client that reconnects.

    Raises:
      ValueError: ``max_event_size`` is below 1.
      InvalidEvent: no event could have had that ``last_event_id``.
    """

    def __init__(self, *, max_event_size: int = _MAX_EVENT_SIZE, last_event_id: str = "") -> None:
        if max_event_size < 1:
            raise ValueError(f"max_event_size must be at least 1 byte, not {max_event_size}")
        ServerSentEvent(id=last_event_id)  # refuses what no event could have had
        self._max_event_size = max_event_size
        self._last_event_id = last_event_id
        self._retry: int | None = None
        # The complete lines that were not processed yet, and the current one.
        self._lines: deque[bytes] = deque()
        self._line = bytearray()
        self._at_start = True
        self._after_cr = False
        self._error: str | None = None
        # The event being read. Spec: data buffer, event type buffer, last event ID buffer.
        self._data: list[bytes] = []
        self._data_size = 0
        self._event = b""
        self._id = last_event_id

    def __repr__(self) -> str:
        return f"<EventStreamDecoder last_event_id={self._last_event_id!r} retry={self._retry}>"

    @property
    def last_event_id(self) -> str:
        """The id to send as ``Last-Event-ID`` when reconnecting; ``""`` if there is none to send.

        Spec: #the-last-event-id-header: it is set when a block ends, even one without data.
        """
        return self._last_event_id

    @property
    def retry(self) -> int | None:
        """The last reconnection time that the stream set, in milliseconds, or None.

        Numbers above 2147483647 count as 2147483647.
        """
        return self._retry

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[ServerSentEvent]:
        """Take the next bytes of the stream; return an iterator over the events they complete.

        An iteration that is abandoned early loses nothing: the next `feed` continues it.

        Raises:
          DecodeError: an event or line is larger than ``max_event_size``. Raised after all events
            before it were returned, and again by each further call: the stream is unusable.
        """
        if self._error is not None:
            raise DecodeError(self._error)
        chunk = bytes(data)
        if self._at_start:
            # Spec: "strip one leading U+FEFF BYTE ORDER MARK (BOM) character, if any are present".
            chunk = bytes(self._line) + chunk
            self._line.clear()
            if len(chunk) < len(BOM) and BOM.startswith(chunk):
                self._line += chunk
                return iter(())
            self._at_start = False
            chunk = chunk.removeprefix(BOM)
        if chunk:
            first, *others = split_lines(chunk, after_cr=self._after_cr)
            self._after_cr = chunk.endswith(b"\r")
            self._line += first
            if others:
                self._lines += [bytes(self._line), *others[:-1]]
                self._line = bytearray(others[-1])
        return self._events()

    def _events(self) -> Iterator[ServerSentEvent]:
        while self._lines:
            line = self._lines.popleft()
            self._check_size(len(line))
            if line:
                self._take_field(line)
            elif (event := self._end_block()) is not None:
                yield event
        self._check_size(len(self._line))

    def _check_size(self, line_size: int) -> None:
        if self._data_size + line_size <= self._max_event_size:
            return
        self._error = f"event larger than max_event_size ({self._max_event_size} bytes)"
        self._lines.clear()
        self._line.clear()
        self._data.clear()
        raise DecodeError(self._error)

    def _take_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        match name:
            case b"data":
                self._data.append(value)
                self._data_size += len(value) + 1
            case b"event":
                self._event = value
            case b"id" if b"\0" not in value:
                self._id = value.decode(errors="replace")
            case b"retry" if DIGITS.fullmatch(value):
                # Ten digits suffice; converting a million of them would be slow, or refused.
                digits = value.lstrip(b"0")
                self._retry = min(int(digits[:11] or b"0"), MAX_RETRY)
            case _:  # a comment, whose name is empty, or an unknown field
                pass

    def _end_block(self) -> ServerSentEvent | None:
        self._last_event_id = self._id
        data, event = self._data, self._event
        self._data, self._data_size, self._event = [], 0, b""
        # Spec: "If the data buffer is an empty string, […] return." One empty `data` field leaves
        # an LF in that buffer, so what counts is whether there was a field.
        if not data:
            return None
        return ServerSentEvent(
            b"\n".join(data).decode(errors="replace"),
            event=event.decode(errors="replace") or None,
            id=self._last_event_id or None,
        )
