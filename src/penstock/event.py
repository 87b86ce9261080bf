"""One event, checked when it is made and encoded once.

Rule 1: an event that exists can be sent. Anything that the wire format cannot carry is refused at
construction; nothing is repaired, dropped or escaped later, so no value can smuggle in a field.

Rule 2: an event is encoded once. Its bytes are made at construction and shared by all senders.

Rule 3: a blank line ends an event only where it has an effect, that is, where there is data to
dispatch or an id to remember. A comment or a ``retry`` takes effect when its line is read, and
several client libraries dispatch an empty event, or fail, at a blank line with no data before it.

Spec: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

import json as jsonlib
import re
import reprlib
from collections.abc import Callable
from dataclasses import KW_ONLY, asdict, dataclass, field, is_dataclass
from datetime import date, time
from decimal import Decimal
from typing import Any, Final, Self, final
from uuid import UUID

from penstock.errors import InvalidEvent

__all__ = ["LINE_END", "MAX_RETRY", "ServerSentEvent", "event_from_wire"]

# Spec: lines end in CRLF, LF or CR, and in nothing else: U+2028 and U+0085 are ordinary characters.
LINE_END: Final = re.compile("\r\n|\r|\n")

# Milliseconds, 24.8 days: the longest delay that JavaScript's setTimeout accepts. It treats longer
# delays as zero, so a client that uses it would reconnect immediately, forever.
MAX_RETRY: Final = 2**31 - 1

_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@final
@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    r"""One event of an event stream; immutable, and valid if it exists.

    A named event (``event="ping"``) reaches ``addEventListener("ping", …)`` in the browser and
    never ``onmessage``; an unnamed one reaches ``onmessage`` and no named listener.

    Args:
      data: the payload. Every line end (CR, LF or CRLF) starts a new ``data:`` line, and the
        client gets a single LF. ``""`` is sent and dispatched; None sends no data, and clients
        dispatch nothing: they only remember ``id`` and ``retry``. Some client libraries do not
        tolerate an ``id`` without data; all tolerate the other combinations.
      event: the event's name; None is an unnamed event, which clients call ``message``.
      id: the id that the client sends as ``Last-Event-ID`` when it reconnects; ``""`` clears it.
      retry: how long the client waits before it reconnects, in milliseconds (the unit of the wire).
      comment: text that every client ignores.

    Raises:
      InvalidEvent: no field was given, or ``event`` without ``data``, which no client would
        dispatch. Or a field is invalid: a line end or NUL in ``id``, a line end in ``event``, a
        ``retry`` that is not a whole number from 0 to 2147483647, a value that is not text, or text
        that UTF-8 cannot carry.

    Spec: #event-stream-interpretation: a block is dispatched when its data is not empty.
    """

    data: str | None = None
    _: KW_ONLY
    event: str | None = None
    id: str | None = None
    retry: int | None = None
    comment: str | None = None
    _encoded: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("data", "event", "id", "comment"):
            value = getattr(self, name)
            if value is not None and type(value) is not str:
                _make_text(self, name, value)
        _check(self)
        object.__setattr__(self, "_encoded", _encode(self))

    @classmethod
    def json(
        cls,
        value: Any,
        *,
        default: Callable[[Any], Any] | None = None,
        event: str | None = None,
        id: str | None = None,  # noqa: A002 - the name the field has on the wire
        retry: int | None = None,
        comment: str | None = None,
    ) -> Self:
        """Make an event whose data is a value as JSON, on one line.

        Args:
          value: any value that `json.dumps` accepts, except NaN and infinities, which are not
            JSON. A lone surrogate, which UTF-8 cannot carry, is written as its JSON escape.
          default: as in `json.dumps`: called for each object of another type; returns a value that
            can be encoded, or raises TypeError. None encodes dates and times in ISO 8601, UUID and
            Decimal as text, dataclasses as objects, and objects with ``__html__()`` as its text.
            In a Quart application, ``app.json.default`` encodes as its ``jsonify`` does.
          event: as in `ServerSentEvent`.
          id: as in `ServerSentEvent`.
          retry: as in `ServerSentEvent`.
          comment: as in `ServerSentEvent`.

        Raises:
          InvalidEvent: the value has no JSON form, or another argument is refused.
        """
        try:
            data = jsonlib.dumps(
                value,
                ensure_ascii=False,
                allow_nan=False,
                separators=(",", ":"),
                default=_json_default if default is None else default,
            )
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidEvent(f"data has no JSON form: {error}") from error
        if not data.isascii():
            # Spec: RFC 8259, 8.2: strings may contain escaped surrogates that are not paired.
            data = _LONE_SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", data)
        return cls(data, event=event, id=id, retry=retry, comment=comment)

    def with_id(self, id: str) -> ServerSentEvent:  # noqa: A002 - the name of the field
        """Return the same event with another id.

        Raises:
          InvalidEvent: the id is not valid.
        """
        return ServerSentEvent(
            self.data, event=self.event, id=id, retry=self.retry, comment=self.comment
        )

    def encode(self) -> bytes:
        """Return the event as it goes over the wire; the same object at each call."""
        return self._encoded


def event_from_wire(wire: bytes) -> ServerSentEvent:
    r"""Return the event that `ServerSentEvent.encode` encoded to these bytes.

    Only for bytes that are known to be one whole event: `penstock.decode.EventStreamDecoder`
    decodes any stream. Line ends in data and comments become LF.

    Raises:
      InvalidEvent: these are not the bytes of one event.
    """
    fields: dict[str, list[str]] = {}
    for line in wire.decode().removesuffix("\n").removesuffix("\n").split("\n"):
        name, _, value = line.partition(":")
        fields.setdefault(name, []).append(value.removeprefix(" "))
    texts = {name: "\n".join(values) for name, values in fields.items()}
    retry = texts.get("retry")
    event = ServerSentEvent(
        texts.get("data"),
        event=texts.get("event"),
        id=texts.get("id"),
        retry=int(retry) if retry and retry.isdecimal() else None,
        comment=texts.get(""),
    )
    if event.encode() != wire:
        raise InvalidEvent(f"these are not the bytes of one event: {reprlib.repr(wire)}")
    return event


def _json_default(value: Any) -> Any:
    if isinstance(value, (date, time)):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if hasattr(value, "__html__"):
        return str(value.__html__())
    raise TypeError(f"{type(value).__name__} is not JSON serializable: pass default=…")


def _make_text(event: ServerSentEvent, name: str, value: object) -> None:
    if not isinstance(value, str):
        remedy = "use str(…) or ServerSentEvent.json(…)" if name == "data" else "use str(…)"
        raise InvalidEvent(f"{name} must be text, not {type(value).__name__}: {remedy}")
    # The characters themselves, such as an Enum's value: a subclass may format itself differently,
    # and that text would not be checked.
    object.__setattr__(event, name, str.__str__(value))


def _check(event: ServerSentEvent) -> None:
    texts = (event.data, event.event, event.id, event.comment)
    if event.retry is None and texts == (None, None, None, None):
        raise InvalidEvent("an event needs at least one of data, event, id, retry and comment")
    if event.event is not None and _has_line_end(event.event):
        raise InvalidEvent(f"event must not contain a line end: {reprlib.repr(event.event)}")
    if event.id is not None:
        if _has_line_end(event.id):
            raise InvalidEvent(f"id must not contain a line end: {reprlib.repr(event.id)}")
        if "\0" in event.id:
            # Spec: "If the field value does not contain U+0000 NULL", else clients ignore it.
            raise InvalidEvent(f"id must not contain NUL: {reprlib.repr(event.id)}")
    if event.event is not None and event.data is None:
        raise InvalidEvent(
            f"event {reprlib.repr(event.event)} has no data, so no client would dispatch it: "
            'pass data=""'
        )
    if event.retry is not None:
        if type(event.retry) is not int:
            raise InvalidEvent(
                f"retry must be a whole number of milliseconds, not {reprlib.repr(event.retry)}"
            )
        if not 0 <= event.retry <= MAX_RETRY:
            raise InvalidEvent(f"retry must be from 0 to {MAX_RETRY} milliseconds")


def _has_line_end(text: str) -> bool:
    return "\n" in text or "\r" in text  # a third of the time of LINE_END.search


def _encode(event: ServerSentEvent) -> bytes:
    lines = []
    if event.comment is not None:
        lines += [f": {line}" if line else ":" for line in LINE_END.split(event.comment)]
    if event.retry is not None:
        lines.append(f"retry: {event.retry}")
    if event.id is not None:
        lines.append(f"id: {event.id}")
    if event.event is not None:
        lines.append(f"event: {event.event}")
    if event.data is not None:
        if _has_line_end(event.data):
            lines += [f"data: {line}" for line in LINE_END.split(event.data)]
        else:
            lines.append(f"data: {event.data}")
    # Spec: #event-stream-interpretation: the blank line dispatches the data and sets the id.
    lines.append("" if event.data is None and event.id is None else "\n")
    try:
        return "\n".join(lines).encode()
    except UnicodeEncodeError as error:
        bad = error.object[error.start]
        raise InvalidEvent(f"U+{ord(bad):04X} is a lone surrogate: UTF-8 cannot carry it") from None
