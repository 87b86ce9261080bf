"""Checks of a stream's body: its timing, its content, its end."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Final

from penstock.doctor.body import Burst, Examination, Fault
from penstock.doctor.finding import (
    BUFFERING,
    IDLE,
    IDLE_LIMITS,
    Figure,
    Finding,
    Mark,
    quoted,
    seconds,
    shown,
    worst,
)
from penstock.doctor.observation import Answer, Observation, StreamEnd
from penstock.printable import counted

__all__ = ["delivery", "first_byte", "held", "well_formed"]

# Seconds. A page that shows nothing for longer is slow.
_HEAD_LATE: Final = 1.0
_BYTE_LATE: Final = 2.0

# Seconds. No network pauses this long in the middle of data that was written at once.
_PAUSE: Final = 0.5

# Seconds after the head in which a server may well send missed events all at once.
_OPENING: Final = 1.0

# Bytes of an event. Browsers accept any size, `penstock.client` and Mercure hubs this by default.
_LARGE: Final = 2**20

# Bytes. A stream that sent this much of an event without its end will hardly end it.
_ENDLESS: Final = 16 * 2**20

# Seconds without a byte that are suspicious: the most common interval of comments is 15.
_QUIET: Final = 16.0

# Seconds. No proxy has a shorter idle limit.
_MIN_IDLE_LIMIT: Final = 1.0

# Seconds by which a cut may deviate from the limit that caused it.
_TOLERANCE: Final = 1.5

_COMMENT_AT_ONCE: Final = "the server: send a comment at once (a line with a colon)"
_LOGS: Final = "the logs of the proxy and of the server say who cut it, and why"
_HOLD_LONGER: Final = "to find out: test with --for 70, or longer"

# For each fault: how bad it is, what it is, what to do.
_FAULTS: Final[dict[Fault, tuple[Mark, str, str]]] = {
    Fault.HTML: (
        Mark.FAIL,
        "this is an HTML page",
        "an error or login page with the stream's content type: look at the server's log",
    ),
    Fault.BARE_TEXT: (
        Mark.FAIL,
        "a line that is not a field, and is lost",
        "each line of data begins with data: and each event ends with an empty line",
    ),
    Fault.MISSPELT_FIELD: (
        Mark.FAIL,
        "a field name in the wrong case, or with white space, which is lost",
        "fields are data:, event:, id: and retry:, in lower case, at the start of the line",
    ),
    Fault.UTF8: (
        Mark.FAIL,
        "not UTF-8: clients show U+FFFD there",
        "the server: encode as UTF-8; binary data as base64",
    ),
    Fault.BOM: (
        Mark.FAIL,
        "a byte order mark within the stream: that line is lost",
        "the server: encode as UTF-8 without a byte order mark (in Python utf-8, not utf-8-sig)",
    ),
    Fault.NO_DATA: (
        Mark.WARN,
        "a named event without data, which clients never dispatch",
        "add a data: line, which may be empty",
    ),
    Fault.NUL_ID: (
        Mark.WARN,
        "an id with a NUL, which is ignored",
        "use printable characters in ids",
    ),
    Fault.BAD_RETRY: (
        Mark.WARN,
        "a retry that is not a number, which is ignored",
        "retry: takes only digits, in milliseconds",
    ),
    Fault.ENCODED_TWICE: (
        Mark.WARN,
        "the data of events is itself an event, as if it was encoded twice",
        "pass only the data: the library adds data: itself",
    ),
    Fault.LITERAL_LINE_END: (
        Mark.WARN,
        "a literal backslash and n instead of a line end",
        "send the character LF, or let the library do it",
    ),
    Fault.UNKNOWN_FIELD: (
        Mark.WARN,
        "an unknown field",
        "fields are data:, event:, id: and retry:; a comment begins with a colon",
    ),
}


def first_byte(seen: Observation, answer: Answer, body: Examination) -> Finding:
    """Check when the head arrived, and when the first byte of the body."""
    first = None if body.first_at is None else body.first_at - answer.opened_at
    event = None if body.first_event_at is None else body.first_event_at - answer.opened_at
    figures: dict[str, Figure] = {
        "header_after": round(answer.waited, 4),
        "first_byte_after": None if first is None else round(first, 4),
        "first_event_after": None if event is None else round(event, 4),
    }
    found = partial(Finding, "first byte", figures=figures)
    text = f"head after {seconds(answer.waited)}"
    if first is None:
        if seen.end not in (None, StreamEnd.HELD, StreamEnd.STOPPED):
            return found(Mark.FAIL, f"{text}, then an empty body")
        text = f"{text}, no byte of the body within {seconds(_watched(seen, answer))}"
        return found(Mark.WARN, text, (_COMMENT_AT_ONCE, *BUFFERING))
    text = f"{text}, first byte {seconds(first)} later"
    if event is not None:
        text = f"{text}, first event {'with it' if event == first else f'after {seconds(event)}'}"
    if answer.waited >= _HEAD_LATE:
        text = f"{text}: the head waits for the body" if first <= _PAUSE else text
        return found(
            Mark.WARN, text, ("the server: send the head and a comment at once", *BUFFERING)
        )
    if first >= _BYTE_LATE:
        return found(
            Mark.WARN, f"{text}: some proxies hold the head back until then", (_COMMENT_AT_ONCE,)
        )
    return found(Mark.OK, text)


def delivery(seen: Observation, answer: Answer, body: Examination) -> Finding:
    """Check whether events arrive one by one, or as a buffer releases them."""
    pauses = _pauses(body, seen)
    interrupted = [(burst, pause) for burst, pause in pauses if not burst.whole]
    later = [burst for burst in _later(body) if burst.events]
    after_pause = {id(b) for a, b in pairwise(body.bursts) if b.began - a.ended >= _PAUSE}
    lumps = [
        burst
        for burst in later
        if burst.released and id(burst) in after_pause and not _is_steady(burst)
    ]
    most = max((burst.events for burst in lumps), default=0)
    arrivals = sum(burst.arrivals for burst in later)
    figures: dict[str, Figure] = {
        "events": body.events,
        "bursts": len(body.bursts),
        "most_events_at_once": most,
        "stopped_within_an_event": len(interrupted),
    }
    found = partial(Finding, "delivery", figures=figures)
    if (length := answer.header("content-length")) and len(body.bursts) < 2:
        text = f"Content-Length: {shown(length)}: it was buffered completely, then sent"
        return found(Mark.FAIL, text, BUFFERING)
    if not seen.readable:
        text = f"compressed as {quoted(seen.coding)}: the ends of events are not visible"
        return found(Mark.SKIP, text)
    if interrupted:
        longest = max(pause for _, pause in interrupted)
        size = max(burst.size for burst, _ in interrupted)
        text = f"data stopped {counted(len(interrupted), 'time')} in the middle of an event, for up"
        text = f"{text} to {seconds(longest)}"
        if len(interrupted) > 1 or any(burst.events > 1 for burst in later):
            text = f"{text}: a buffer releases {size} bytes when it is full"
            return found(Mark.FAIL, text, BUFFERING)
        return found(Mark.WARN, text, BUFFERING)
    if len(lumps) >= 2 and len(lumps) >= 0.8 * len(later):
        text = f"events arrive in bursts of up to {most}: sent that way, or buffered"
        return found(Mark.WARN, text, BUFFERING)
    if arrivals < 2 or (len(later) < 2 and not any(map(_is_steady, later))):
        text = f"{counted(body.events, 'event')} in {seconds(_watched(seen, answer))}: too few"
        return found(Mark.SKIP, f"{text} to tell whether something buffers them")
    text = f"{counted(sum(burst.events for burst in later), 'event')} in {arrivals} arrivals"
    return found(Mark.OK, f"{text}, none interrupted")


def _later(body: Examination) -> list[Burst]:
    """Return the bursts that are more than the replay at a stream's beginning."""
    return [
        burst
        for burst in body.bursts
        if burst.began - body.opened_at > _OPENING
        or (_is_steady(burst) and burst.ended - body.opened_at > _OPENING)
    ]


def _is_steady(burst: Burst) -> bool:
    """Return whether events kept arriving for so long that no buffer can be involved."""
    return burst.ended - burst.began >= _PAUSE and burst.arrivals > 1


def well_formed(seen: Observation, body: Examination) -> Finding:
    """Check for content that clients silently ignore."""
    figures: dict[str, Figure] = {
        "bytes": body.size,
        "events": body.events,
        "largest_event": body.largest_event,
        "comments": body.comments,
        "faults": [str(fault) for fault in body.faults],
    }
    found = partial(Finding, "format", figures=figures)
    if not seen.readable:
        return found(Mark.SKIP, f"compressed as {quoted(seen.coding)}: cannot be examined")
    if not body.size:
        return found(Mark.SKIP, "nothing arrived")
    if faults := _faults_of(seen, body):
        marks, text, advice = zip(*faults, strict=True)
        return found(worst(*marks), "; ".join(text), tuple(advice))
    return found(Mark.OK, f"{counted(body.events, 'event')}, {counted(body.comments, 'comment')}")


def _faults_of(seen: Observation, body: Examination) -> list[tuple[Mark, str, str]]:
    """Return, for each fault of the format: how bad it is, what it is, what to do."""
    found: list[tuple[Mark, str, str]] = []
    faults = body.faults
    # In an HTML page, every line is a fault.
    for fault in [Fault.HTML] if Fault.HTML in faults else _FAULTS:
        if (first := faults.get(fault)) is not None:
            mark, words, advice = _FAULTS[fault]
            text = f"line {first.line} {quoted(first.excerpt)}: {words}"
            lines = "" if first.count == 1 else f" ({first.count} lines)"
            found.append((mark, f"{text}{lines}", advice))
    if body.largest_event > _LARGE:
        text = f"an event of {body.largest_event} bytes: fine in browsers, too large for clients"
        found.append((Mark.WARN, f"{text} with a limit", "send the URL of large data instead"))
    if body.unfinished_size > _ENDLESS:
        text = f"{body.unfinished_size} bytes of one event, without its end"
        found.append((Mark.FAIL, text, "is there an empty line after each event?"))
    if body.unfinished and seen.end in (StreamEnd.ENDED, StreamEnd.CLOSED):
        text = "the stream ended within an event, which is lost"
        found.append((Mark.FAIL, text, "end each event with an empty line, including the last one"))
    return found


def held(seen: Observation, answer: Answer, body: Examination) -> Finding:
    """Check whether the stream was cut, and whether comments keep it alive."""
    watched = _watched(seen, answer)
    silence = body.longest_silence(seen.ended_at)
    last = seen.ended_at - body.last_at
    figures: dict[str, Figure] = {
        "held_for": round(watched, 3),
        "end": None if seen.end is None else str(seen.end),
        "longest_silence": round(silence, 3),
        "comments": body.comments,
    }
    found = partial(Finding, "held", figures=figures)
    # An idle limit may be the cause of an end that came after the longest silence of all.
    by_limit = last >= _MIN_IDLE_LIMIT and last >= silence
    if seen.end is StreamEnd.BROKEN:
        text = f"broken after {seconds(watched)}, {seconds(last)} after the last byte"
        text = f"{text} ({seen.end_reason})" if seen.end_reason else text
        if near := [name for limit, name in IDLE_LIMITS if abs(limit - last) < _TOLERANCE]:
            text = f"{text}: the limit of {' or '.join(near)}"
        return found(Mark.FAIL, text, (_LOGS, *(IDLE if by_limit else ())))
    if seen.end in (StreamEnd.ENDED, StreamEnd.CLOSED):
        how = "ended" if seen.end is StreamEnd.ENDED else "closed (ended or cut: unknown)"
        if not seen.is_get:
            text = f"{how} after {seconds(watched)}{_counts(body)}, as the response to a"
            return found(Mark.OK, f"{text} {seen.method} does")
        text = f"{how} after {seconds(watched)}: a browser reconnects {_reconnects(body)}"
        advice = "is that intended? Keep a stream open; 204 tells clients to stay away permanently"
        if by_limit:
            text = f"{text}; it was silent for {seconds(last)}"
            return found(Mark.WARN, text, (advice, *IDLE))
        return found(Mark.WARN, text, (advice,))
    text = f"open for {seconds(watched)}; longest silence {seconds(silence)}"
    if exceeded := [name for limit, name in IDLE_LIMITS if silence >= limit]:
        return found(Mark.WARN, f"{text}, more than the limit of {', '.join(exceeded)}", IDLE)
    if silence >= _QUIET and silence == last:
        text = f"{text} so far: most proxies cut after 30 to 100 s"
        return found(Mark.WARN, text, (_HOLD_LONGER, *IDLE))
    return found(Mark.OK, f"{text}{_counts(body)}")


def _watched(seen: Observation, answer: Answer) -> float:
    return max(seen.ended_at - answer.opened_at, 0.0)


def _reconnects(body: Examination) -> str:
    if body.retry is None:
        return "after about 3 s"
    return "at once (retry: 0)" if body.retry == 0 else f"after {seconds(body.retry / 1000)}"


def _counts(body: Examination) -> str:
    parts = [
        counted(number, noun)
        for number, noun in ((body.events, "event"), (body.comments, "comment"))
        if number
    ]
    return f" ({', '.join(parts)})" if parts else ""


def _pauses(body: Examination, seen: Observation) -> list[tuple[Burst, float]]:
    """Return the bursts after which nothing arrived for a while, and for how long."""
    pauses = [(burst, after.began - burst.ended) for burst, after in pairwise(body.bursts)]
    last = body.last_burst
    if last is not None and seen.end in (None, StreamEnd.HELD, StreamEnd.STOPPED):
        pauses.append((last, seen.ended_at - body.last_at))
    return [(burst, pause) for burst, pause in pauses if pause >= _PAUSE]
