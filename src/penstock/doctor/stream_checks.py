"""Checks of a stream's body: its timing, its content, its end."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from penstock.doctor import advice
from penstock.doctor.body import Burst, Examination, Fault
from penstock.doctor.finding import Figure, Finding, Mark, counted, quoted, seconds, shown, worse
from penstock.doctor.observation import Answer, Observation, StreamEnd

__all__ = ["begun", "delivered", "formed", "held"]

# Seconds. A page that shows nothing for longer is a slow one.
_HEAD_LATE: Final = 1.0
_BYTE_LATE: Final = 2.0

# Seconds. A pause that no network makes in the middle of what was written at once.
_PAUSE: Final = 0.5

# Seconds from the head on, in which a server may well send what was missed, all at once.
_OPENING: Final = 1.0

# Bytes of an event. Browsers take any size, `penstock.client` and Mercure hubs this one by default.
_LARGE: Final = 2**20

# Bytes. A stream that has sent this much of an event without its end will hardly send the end.
_ENDLESS: Final = 16 * 2**20

# Seconds without a byte after which one begins to wonder; the most usual comment comes every 15.
_QUIET: Final = 16.0

# Seconds. No proxy has a shorter limit of silence.
_CUT: Final = 1.0

_LOGS: Final = "the logs of the proxy, and of the server, say who cut it, and why"
_HOLD_LONGER: Final = "to know: ask with --for 70, or as long as it takes"

# Seconds by which a cut may be late, or early, and still be by somebody's limit.
_ABOUT: Final = 1.5

# For each fault: how bad, what it is, what to do.
_FAULTS: Final[dict[Fault, tuple[Mark, str, str]]] = {
    Fault.HTML: (
        Mark.FAIL,
        "it is a page of HTML",
        "an error page or a login, under the stream's content type: look at the server's log",
    ),
    Fault.BARE_TEXT: (
        Mark.FAIL,
        "a line that is no field, and is lost",
        "each line of data begins with data: and each event ends with an empty line",
    ),
    Fault.MISSPELT_FIELD: (
        Mark.FAIL,
        "a field's name in the wrong case, or with white space, and is lost",
        "fields are data:, event:, id: and retry:, in lower case, at the start of the line",
    ),
    Fault.UTF8: (
        Mark.FAIL,
        "not UTF-8: clients show U+FFFD there",
        "the server: encode as UTF-8; what is not text, as base64",
    ),
    Fault.BOM: (
        Mark.FAIL,
        "a byte order mark within the stream: that line is lost",
        "the server: encode as UTF-8 without a byte order mark (in Python utf-8, not utf-8-sig)",
    ),
    Fault.NO_DATA: (
        Mark.WARN,
        "a named event without data, which no client hears",
        "give it a line of data:, which may be empty",
    ),
    Fault.NUL_ID: (
        Mark.WARN,
        "an id with a NUL, which does not count",
        "make ids of printable characters",
    ),
    Fault.BAD_RETRY: (
        Mark.WARN,
        "a retry that is no number, and does not count",
        "retry: takes digits only, milliseconds",
    ),
    Fault.ENCODED_TWICE: (
        Mark.WARN,
        "the data of events is itself an event, as if it had been encoded twice",
        "hand over the data alone: the library adds data: by itself",
    ),
    Fault.WRITTEN_LINE_END: (
        Mark.WARN,
        "a line end written out, as a backslash and an n",
        "send the character LF, or leave it to the library",
    ),
    Fault.UNKNOWN_FIELD: (
        Mark.WARN,
        "a field that no client knows",
        "fields are data:, event:, id: and retry:; a comment begins with a colon",
    ),
}


def begun(seen: Observation, answer: Answer, body: Examination) -> Finding:
    """Say how long it took until the head, and until the first byte of the body, came."""
    first = None if body.first_at is None else body.first_at - answer.opened_at
    event = None if body.first_event_at is None else body.first_event_at - answer.opened_at
    figures: dict[str, Figure] = {
        "header_after": round(answer.waited, 4),
        "first_byte_after": None if first is None else round(first, 4),
        "first_event_after": None if event is None else round(event, 4),
    }
    said = f"header after {seconds(answer.waited)}"
    if first is None:
        if seen.end not in (None, StreamEnd.HELD, StreamEnd.STOPPED):
            return Finding("first byte", Mark.FAIL, f"{said}, and an empty body", (), figures)
        said = f"{said}, and no byte of the body within {seconds(_watched(seen, answer))}"
        hints = ("the server: send a comment at once (a line with a colon)", *advice.BUFFERING)
        return Finding("first byte", Mark.WARN, said, hints, figures)
    said = f"{said}, first byte {seconds(first)} later"
    if event is not None:
        said = f"{said}, first event {'with it' if event == first else f'after {seconds(event)}'}"
    if answer.waited >= _HEAD_LATE:
        if first <= _PAUSE:
            said = f"{said}: the header waits for the body"
        hints = ("the server: send the header, and a comment, at once", *advice.BUFFERING)
        return Finding("first byte", Mark.WARN, said, hints, figures)
    if first >= _BYTE_LATE:
        said = f"{said}: some proxies keep the header until then"
        hint = "the server: send a comment at once (a line with a colon)"
        return Finding("first byte", Mark.WARN, said, (hint,), figures)
    return Finding("first byte", Mark.OK, said, (), figures)


def delivered(seen: Observation, answer: Answer, body: Examination) -> Finding:
    """Check whether events arrive one by one, or in the portions of a buffer on the way."""
    pauses = _pauses(body, seen)
    torn_apart = [(burst, pause) for burst, pause in pauses if not burst.whole]
    later = [burst for burst in _later(body) if burst.events]
    after_pause = {id(b) for a, b in pairwise(body.bursts) if b.began - a.ended >= _PAUSE}
    lumps = [
        burst
        for burst in later
        if burst.released and id(burst) in after_pause and not _flows(burst)
    ]
    most = max((burst.events for burst in lumps), default=0)
    arrivals = sum(burst.arrivals for burst in later)
    figures: dict[str, Figure] = {
        "events": body.events,
        "bursts": len(body.bursts),
        "most_events_at_once": most,
        "stopped_within_an_event": len(torn_apart),
    }
    if (length := answer.header("content-length")) and len(body.bursts) < 2:
        said = f"Content-Length: {shown(length)}: it was gathered whole, then sent"
        return Finding("delivery", Mark.FAIL, said, advice.BUFFERING, figures)
    if not seen.readable:
        said = f"compressed as {quoted(seen.coding)}: where events end is not visible"
        return Finding("delivery", Mark.SKIP, said, (), figures)
    if torn_apart:
        longest = max(pause for _, pause in torn_apart)
        size = max(burst.size for burst, _ in torn_apart)
        said = f"{counted(len(torn_apart), 'time')} the bytes stopped within an event, up to "
        said = f"{said}{seconds(longest)} long"
        if len(torn_apart) > 1 or any(burst.events > 1 for burst in later):
            said = f"{said}: a buffer is let go, {size} bytes at a time, when it is full"
            return Finding("delivery", Mark.FAIL, said, advice.BUFFERING, figures)
        return Finding("delivery", Mark.WARN, said, advice.BUFFERING, figures)
    if len(lumps) >= 2 and len(lumps) >= 0.8 * len(later):
        said = f"events come in bursts of up to {most}: sent so, or held back on the way"
        return Finding("delivery", Mark.WARN, said, advice.BUFFERING, figures)
    if arrivals < 2 or (len(later) < 2 and not any(map(_flows, later))):
        said = f"{counted(body.events, 'event')} in {seconds(_watched(seen, answer))}: too few"
        said = f"{said} to tell whether something holds them back"
        return Finding("delivery", Mark.SKIP, said, (), figures)
    said = f"{counted(sum(burst.events for burst in later), 'event')} in {arrivals} arrivals"
    return Finding("delivery", Mark.OK, f"{said}, none cut in two", (), figures)


def _later(body: Examination) -> list[Burst]:
    """Return the bursts that are more than the replay at a stream's beginning."""
    return [
        burst
        for burst in body.bursts
        if burst.began - body.opened_at > _OPENING
        or (_flows(burst) and burst.ended - body.opened_at > _OPENING)
    ]


def _flows(burst: Burst) -> bool:
    """Tell whether events kept arriving for so long that nothing can have held them back."""
    return burst.ended - burst.began >= _PAUSE and burst.arrivals > 1


def formed(seen: Observation, answer: Answer, body: Examination) -> Finding:
    """Say what in it clients would pass over in silence."""
    figures: dict[str, Figure] = {
        "bytes": body.size,
        "events": body.events,
        "largest_event": body.largest_event,
        "comments": body.comments,
        "faults": [str(fault) for fault in body.faults],
    }
    if not seen.readable:
        said = f"compressed as {quoted(seen.coding)}: it cannot be looked into"
        return Finding("format", Mark.SKIP, said, (), figures)
    if not body.size:
        return Finding("format", Mark.SKIP, "nothing came", (), figures)
    if odd := _oddities(seen, body):
        mark = worse(*(mark for mark, _, _ in odd))
        every = "; ".join(said for _, said, _ in odd)
        return Finding("format", mark, every, tuple(hint for _, _, hint in odd), figures)
    said = f"{counted(body.events, 'event')}, {counted(body.comments, 'comment')}"
    return Finding("format", Mark.OK, said, (), figures)


def _oddities(seen: Observation, body: Examination) -> list[tuple[Mark, str, str]]:
    """Return, of each thing that is wrong with a format: how bad, what it is, what to do."""
    odd: list[tuple[Mark, str, str]] = []
    faults = body.faults
    # In a page of HTML, every line is a fault.
    for fault in [Fault.HTML] if Fault.HTML in faults else _FAULTS:
        if (found := faults.get(fault)) is not None:
            mark, words, hint = _FAULTS[fault]
            said = f"line {found.line} {quoted(found.excerpt)}: {words}"
            lines = "" if found.count == 1 else f" ({found.count} lines)"
            odd.append((mark, f"{said}{lines}", hint))
    if body.largest_event > _LARGE:
        said = f"an event of {body.largest_event} bytes: browsers take it, clients with a limit not"
        odd.append((Mark.WARN, said, "send the address of what is large"))
    if body.unfinished_size > _ENDLESS:
        said = f"{body.unfinished_size} bytes of one event, and no end of it"
        odd.append((Mark.FAIL, said, "is there an empty line after each event?"))
    if body.unfinished and seen.end in (StreamEnd.ENDED, StreamEnd.CLOSED):
        said = "it ended within an event, which no client hears"
        odd.append((Mark.FAIL, said, "end each event with an empty line, the last one, too"))
    return odd


def held(seen: Observation, answer: Answer, body: Examination) -> Finding:
    """Say whether it was cut, and whether it says often enough that it is alive."""
    watched = _watched(seen, answer)
    silence = body.longest_silence(seen.ended_at)
    last = seen.ended_at - body.last_at
    figures: dict[str, Figure] = {
        "held_for": round(watched, 3),
        "end": None if seen.end is None else str(seen.end),
        "longest_silence": round(silence, 3),
        "comments": body.comments,
    }
    if seen.end is StreamEnd.TORN:
        said = f"torn after {seconds(watched)}, {seconds(last)} after the last byte"
        said = f"{said} ({seen.end_said})" if seen.end_said else said
        if near := [name for limit, name in advice.IDLE_LIMITS if abs(limit - last) < _ABOUT]:
            said = f"{said}: so does {' or '.join(near)}"
        limits = advice.IDLE if _by_silence(last, silence) else ()
        return Finding("held", Mark.FAIL, said, (_LOGS, *limits), figures)
    if seen.end in (StreamEnd.ENDED, StreamEnd.CLOSED):
        how = "ended" if seen.end is StreamEnd.ENDED else "closed (ended or cut: it does not say)"
        if not seen.is_get:
            said = f"{how} after {seconds(watched)}{_signs(body)}, as the answer to a {seen.method}"
            return Finding("held", Mark.OK, f"{said} does", (), figures)
        said = f"{how} after {seconds(watched)}: a browser comes back {_comes_back(body)}"
        meant = "is that meant? A stream stays open; 204 tells clients to stay away for good"
        if _by_silence(last, silence):
            said = f"{said}; it was silent for {seconds(last)}"
            return Finding("held", Mark.WARN, said, (meant, *advice.IDLE), figures)
        return Finding("held", Mark.WARN, said, (meant,), figures)
    said = f"open for {seconds(watched)}; longest silence {seconds(silence)}"
    exceeded = [name for limit, name in advice.IDLE_LIMITS if silence >= limit]
    if exceeded:
        said = f"{said}, longer than {', '.join(exceeded)} allows"
        return Finding("held", Mark.WARN, said, advice.IDLE, figures)
    if silence >= _QUIET and silence == last:
        said = f"{said} and not over: most proxies cut after 30 to 100 s"
        return Finding("held", Mark.WARN, said, (_HOLD_LONGER, *advice.IDLE), figures)
    return Finding("held", Mark.OK, f"{said}{_signs(body)}", (), figures)


def _by_silence(last: float, longest: float) -> bool:
    """Tell whether an end may be a limit's: it came after the longest silence of all."""
    return last >= _CUT and last >= longest


def _watched(seen: Observation, answer: Answer) -> float:
    return max(seen.ended_at - answer.opened_at, 0.0)


def _comes_back(body: Examination) -> str:
    if body.retry is None:
        return "after about 3 s"
    return "at once (retry: 0)" if body.retry == 0 else f"after {seconds(body.retry / 1000)}"


def _signs(body: Examination) -> str:
    parts = [
        counted(number, noun)
        for number, noun in ((body.events, "event"), (body.comments, "comment"))
        if number
    ]
    return f" ({', '.join(parts)})" if parts else ""


def _pauses(body: Examination, seen: Observation) -> list[tuple[Burst, float]]:
    """Return the bursts after which nothing came for a while, and for how long."""
    pauses = [(burst, after.began - burst.ended) for burst, after in pairwise(body.bursts)]
    last = body.last_burst
    if last is not None and seen.end in (None, StreamEnd.HELD, StreamEnd.STOPPED):
        pauses.append((last, seen.ended_at - body.last_at))
    return [(burst, pause) for burst, pause in pauses if pause >= _PAUSE]
