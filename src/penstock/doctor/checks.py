"""The checks: from what was observed to findings; functions, without a clock or a network.

They are of an answer's head and the redirects that led to it, of a stream's timing, content and
end, and of resuming: a second connection, with the id of an event of the first one.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from typing import Final
from urllib.parse import urlsplit

from penstock.doctor import report as advice
from penstock.doctor.body import Burst, Examination, Fault, can_unpack, codings_of, is_known
from penstock.doctor.observation import Answer, Observation, Redirect, Resumption, StreamEnd
from penstock.doctor.report import (
    Figure,
    Finding,
    Mark,
    counted,
    meant_for,
    quoted,
    seconds,
    shown,
    worse,
)

__all__ = [
    "NotAnOrigin",
    "answered",
    "begun",
    "cached",
    "compressed",
    "cross_origin",
    "delivered",
    "findings_of",
    "formed",
    "held",
    "negotiated",
    "origin_of",
    "parse_origin",
    "redirected",
    "resumed",
    "to_send",
    "why_not_a_stream",
]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443, "ftp": 21}

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_HOST: Final = re.compile(r"[A-Za-z0-9.-]+(:[0-9]*)?|\[[0-9A-Fa-f:.]+\](:[0-9]*)?")


class NotAnOrigin(ValueError):
    """A text names no origin; the message says why, if there is more to say."""


def origin_of(address: str) -> str:
    """Return the origin of a URL, in lower case and without its scheme's default port.

    Raises:
      ValueError: it is no URL.

    Spec: https://html.spec.whatwg.org/multipage/browsers.html#ascii-serialisation-of-an-origin
    """
    parts = urlsplit(address)
    scheme, host, port = parts.scheme.lower(), parts.hostname or "", parts.port
    host = f"[{host}]" if ":" in host else host
    default = port is None or port == _DEFAULT_PORTS.get(scheme)
    return f"{scheme}://{host}" if default else f"{scheme}://{host}:{port}"


def parse_origin(text: str) -> str:
    """Return an origin that somebody typed, as a browser writes it.

    Raises:
      NotAnOrigin: it is none.
    """
    if text == "null":
        return text
    try:
        parts = urlsplit(text)
        bare = parts.path in ("", "/") and not parts.query and not parts.fragment
        if not (bare and _SCHEME.fullmatch(parts.scheme) and _HOST.fullmatch(parts.netloc)):
            raise NotAnOrigin("")
        return origin_of(text)
    except NotAnOrigin:
        raise
    except ValueError as error:
        raise NotAnOrigin(str(error)) from error


_GIVES_UP: Final = "a browser gives up for good"
_STAYS_AWAY: Final = ": a browser does not come back"

# What a status means for a client of an event stream, and what to do.
_MEANINGS: Final[dict[int, tuple[str, tuple[str, ...]]]] = {
    204: (
        f"how a server tells clients to stay away{_STAYS_AWAY}",
        ("the server: answer 200 where there is, or will be, something to say",),
    ),
    401: (f"it wants to know who asks; {_GIVES_UP}", advice.ACCESS),
    403: (f"it refuses who asks; {_GIVES_UP}", advice.ACCESS),
    404: (f"there is nothing at this address; {_GIVES_UP}", ("check the path, and the proxy's",)),
    405: (
        f"it does not take this method; {_GIVES_UP}",
        ("an EventSource sends GET and nothing else; --request asks with another method",),
    ),
    406: (
        f"it has no text/event-stream; {_GIVES_UP}",
        ("the server: answer Accept: text/event-stream",),
    ),
    429: (f"too many requests; {_GIVES_UP}", ("count streams, and not how often they reconnect",)),
    502: (
        f"a proxy got no answer from its server; {_GIVES_UP}",
        ("is the server running, and is it where the proxy looks for it?",),
    ),
    503: (
        f"it cannot, just now; {_GIVES_UP}",
        ("is the server running? At a restart, have the proxy wait for it",),
    ),
    504: (f"a proxy waited in vain for its server; {_GIVES_UP}", advice.IDLE),
}

_TYPE_ADVICE: Final = ("the server: Content-Type: text/event-stream",)
_CHARSET: Final = re.compile(r"charset\s*=\s*\"?([^\s\";]*)", re.IGNORECASE)


def redirected(seen: Observation) -> Finding | None:
    """Check where redirects led; None where there was none."""
    hops = seen.redirects
    if not hops:
        return None
    shown = [f"{hop.status} to {quoted(hop.target)}" for hop in hops[:3]]
    said = f"{counted(len(hops), 'redirect')}: {', '.join(shown)}{', …' if hops[3:] else ''}"
    figures: dict[str, Figure] = {"targets": [hop.target for hop in hops[:3]]}
    if seen.too_many_redirects:
        lasting = "they lead nowhere: the proxy and the server redirect to each other, perhaps"
        hint = "a server behind TLS has to know it: pass X-Forwarded-Proto on, and have it heeded"
        return Finding("redirects", Mark.FAIL, f"{said}; {lasting}", (hint,), figures)
    if any(_scheme(hop.source) == "https" != _scheme(hop.target) for hop in hops):
        hint = "the server makes http of https: nginx: proxy_set_header X-Forwarded-Proto $scheme;"
        said = f"{said}; from https to http, which browsers refuse on a page of https"
        return Finding("redirects", Mark.FAIL, said, (hint,), figures)
    if not all(hop.method_kept for hop in hops):
        hint = "the server: redirect with 307 or 308, or name the last address at once"
        said = f"{said}; which makes a GET of a {seen.method}, and drops its body"
        return Finding("redirects", Mark.FAIL, said, (hint,), figures)
    if any(_crosses(hop) for hop in hops):
        hint = "name the last address in the page: no later connection needs the way round"
        said = f"{said}; to another origin, which needs CORS, and gets no Authorization"
        return Finding("redirects", Mark.WARN, said, (hint,), figures)
    return Finding("redirects", Mark.OK, said, (), figures)


def answered(seen: Observation) -> Finding:
    """Check whether the answer is an event stream."""
    answer = seen.answer
    if answer is None:
        failure = seen.failure or "no answer yet"
        hints: tuple[str, ...] = ()
        if seen.timed_out:
            failure = f"{failure}, not even a header, as if something held it back"
            hints = ("the server: send the header, and a comment, at once", *advice.BUFFERING)
        return Finding("answer", Mark.FAIL if seen.failure else Mark.SKIP, failure, hints)
    figures: dict[str, Figure] = {
        "status": answer.status,
        "content_type": answer.header("content-type") or None,
        "server": answer.header("server") or None,
        "via": answer.header("via") or None,
    }
    if (refused := why_not_a_stream(answer)) is not None:
        return Finding("answer", Mark.FAIL, *refused, figures)
    said = f"{_status(answer)}, {shown(answer.header('content-type'))}{_from(answer)}"
    return Finding("answer", Mark.OK, said, (), figures)


def why_not_a_stream(answer: Answer) -> tuple[str, tuple[str, ...]] | None:
    """Return why a client takes an answer for no event stream, and advice; None if it takes it."""
    status, given = _status(answer), answer.header("content-type")
    if answer.status != 200 and not (answer.method != "GET" and answer.is_success):
        said, hints = _MEANINGS.get(answer.status, (f"not 200: {_GIVES_UP}", ()))
        return f"{status}: {_for(answer, said)}", hints
    if answer.kind != "text/event-stream":
        kind = quoted(given) if given else "no content type"
        said = f"{status}, but {kind} in place of text/event-stream: {_GIVES_UP}"
        return _for(answer, said), _TYPE_ADVICE
    charset = _CHARSET.search(given)
    # A program that reads the answer to a POST decodes UTF-8, whatever the header says.
    if charset and charset[1].lower() != "utf-8" and answer.method == "GET":
        said = f"{status}, but charset {quoted(charset[1])}: event streams are UTF-8"
        return f"{said}, and Chromium refuses it", _TYPE_ADVICE
    return None


def _status(answer: Answer) -> str:
    return f"{answer.status} {shown(answer.phrase)}".rstrip()


def _for(answer: Answer, said: str) -> str:
    """Leave out what an EventSource does about it, where it could not have asked."""
    for told in (f"; {_GIVES_UP}", f": {_GIVES_UP}", _STAYS_AWAY):
        said = said if answer.method == "GET" else said.removesuffix(told)
    return said


def negotiated(answer: Answer) -> Finding:
    """Check which version of HTTP the connection speaks."""
    figures: dict[str, Figure] = {"version": answer.version, "tls": answer.tls}
    if not answer.version.startswith("HTTP/1"):
        said = f"{answer.version}: streams share a connection"
        return Finding("protocol", Mark.OK, said, (), figures)
    why = ", though HTTP/2 was offered" if answer.tls else " without TLS"
    said = f"{answer.version}{why}: a browser holds six connections to a host, in all its tabs"
    first = () if answer.tls else ("TLS first: without it, browsers speak no HTTP/2",)
    hints = (*first, *advice.HTTP2)
    return Finding("protocol", Mark.WARN, said, hints, figures)


def cached(answer: Answer) -> Finding:
    """Check what the answer says to caches and to nginx."""
    control, accel = answer.header("cache-control"), answer.header("x-accel-buffering")
    figures: dict[str, Figure] = {
        "cache_control": control or None,
        "x_accel_buffering": accel or None,
        "age": answer.header("age") or None,
    }
    if (age := answer.header("age")) and age.strip() != "0":  # some say 0 of what they pass on
        said = f"Age: {quoted(age)}: this came out of a cache"
        return Finding("caching", Mark.FAIL, said, advice.CACHE, figures)
    if not control and answer.method != "GET":
        said = f"no Cache-Control: no cache keeps the answer to a {answer.method}"
        return Finding("caching", Mark.OK, said, (), figures)
    directives = {each.partition("=")[0].strip().lower() for each in control.split(",")}
    if not directives & {"no-store", "no-cache", "private"}:
        given = f"Cache-Control: {quoted(control)}" if control else "no Cache-Control"
        said = f"{given}: a cache on the way may keep it, or wait for its end"
        return Finding("caching", Mark.WARN, said, advice.CACHE, figures)
    said = f"Cache-Control: {shown(control)}"
    if accel.strip().lower() == "yes":
        said = f"{said}; X-Accel-Buffering: yes, which has an nginx hold it back"
        return Finding("caching", Mark.WARN, said, ("the server: X-Accel-Buffering: no",), figures)
    if accel:
        said = f"{said}; X-Accel-Buffering: {shown(accel)}"
    elif "nginx" not in answer.header("server").lower():  # which takes it off
        said = f"{said}; no X-Accel-Buffering: no, which would have an nginx pass events on at once"
    return Finding("caching", Mark.OK, said, (), figures)


def compressed(seen: Observation) -> Finding:
    """Check whether the answer is compressed for a client that accepts what browsers accept."""
    coding = seen.coding
    if not coding:
        said = "none, though gzip and br were offered"
        given = "" if seen.answer is None else seen.answer.header("content-encoding")
        if given:
            said = f"{said}; Content-Encoding: {shown(given)} says no more"
        return Finding("compression", Mark.OK, said, (), {"content_encoding": given or None})
    figures: dict[str, Figure] = {"content_encoding": coding}
    if not is_known(coding):
        said = f"{quoted(coding)} is no content coding: browsers ignore it, other clients may not"
        hint = "the server: leave Content-Encoding out where nothing is compressed"
        return Finding("compression", Mark.WARN, said, (hint,), figures)
    if seen.failure is not None:
        said = f"{quoted(coding)}; and asked for without: {seen.failure}"
        return Finding("compression", Mark.FAIL, said, advice.COMPRESSION, figures)
    body = seen.body
    if body is not None and body.size and not body.unpacked:
        said = f"{quoted(coding)}: {counted(body.size, 'byte')} came, and nothing comes out of them"
        return Finding("compression", Mark.FAIL, said, advice.COMPRESSION, figures)
    said = f"{quoted(coding)}: what compresses holds back, unless it is flushed after each event"
    return Finding("compression", Mark.WARN, said, advice.COMPRESSION, figures)


def cross_origin(seen: Observation, answer: Answer) -> Finding | None:
    """Check whether a page of another origin may read it; None without such an origin."""
    if seen.origin is None:
        return None
    addresses = (answer.address, *(hop.source for hop in seen.redirects))
    if all(origin_of(address) == seen.origin for address in addresses):
        said = f"the page and the stream are both of {seen.origin}: CORS does not apply"
        return Finding("cors", Mark.OK, said, (), {"same_origin": True})
    allowed = answer.header("access-control-allow-origin").strip()
    credentials = answer.header("access-control-allow-credentials").strip() == "true"
    figures: dict[str, Figure] = {"allow_origin": allowed or None, "allow_credentials": credentials}
    hint = f"the server: Access-Control-Allow-Origin: {seen.origin}"
    if not allowed:
        said = f"no Access-Control-Allow-Origin: a page of {seen.origin} cannot read it"
        return Finding("cors", Mark.FAIL, said, (hint,), figures)
    if allowed not in ("*", seen.origin):
        twice = " (more than one is none)" if "," in allowed else ""
        said = f"Access-Control-Allow-Origin: {quoted(allowed)}{twice}: not {seen.origin}"
        return Finding("cors", Mark.FAIL, said, (hint,), figures)
    with_cookies = "with" if credentials and allowed != "*" else "without"
    said = f"Access-Control-Allow-Origin: {allowed}: {with_cookies} cookies (withCredentials)"
    if seen.credentials and with_cookies == "without":
        hints = (f"{hint}, and not *", "the server: Access-Control-Allow-Credentials: true")
        return Finding("cors", Mark.FAIL, f"{said}, and this one needs them", hints, figures)
    vary = {each.strip().lower() for each in answer.header("vary").split(",")}
    if allowed != "*" and not vary & {"origin", "*"}:
        said = f"{said}; no Vary: Origin, so a cache may give it to another"
        return Finding("cors", Mark.WARN, said, ("the server: Vary: Origin",), figures)
    return Finding("cors", Mark.OK, said, (), figures)


def _from(answer: Answer) -> str:
    """Return who says that it answers: often the proxy."""
    parts = [
        f"{word} {shown(answer.header(name))}"
        for word, name in (("from", "server"), ("via", "via"))
        if answer.header(name)
    ]
    return f" ({' '.join(parts)})" if parts else ""


def _scheme(address: str) -> str:
    return urlsplit(address).scheme


def _crosses(hop: Redirect) -> bool:
    return origin_of(hop.source) != origin_of(hop.target)


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


# Events. A history has so many, and who comes back after so many has missed something.
_BACK: Final = 4

_IDS: Final = ("the server: give each event an id of its own, and a history to go on from",)
_ANY_ID: Final = ("the server: take any Last-Event-ID; what is unknown begins anew",)
_LOG: Final = ("the server's log says why",)


def to_send(body: Examination) -> tuple[str, str | None] | None:
    """Return the id to go on from, and that of the event that should follow; None if there is none.

    It is one a little before the last: of what comes after the last one, nobody knows what it
    should be, and of what comes right before, ids made of the clock may give it by chance. Nor is
    it the first one: who begins anew would seem to send it again.
    """
    ids = list(body.ids)[-_BACK:]
    if len(ids) > 2 and ids[0] == body.first_id:
        del ids[0]
    if not ids or not ids[0].isprintable():  # a browser would send it; h11 refuses to
        return None
    return (ids[0], ids[1]) if len(ids) > 1 else (ids[0], None)


def resumed(seen: Observation, answer: Answer, body: Examination) -> Finding | None:
    """Check whether a client that reconnects gets what it missed; None if that was not tried."""
    if not seen.is_get:
        said = f"not tried: a {seen.method} is not sent twice, as it may do its work twice"
        return Finding("resume", Mark.SKIP, said)
    if not body.ids:
        if not body.events:
            return Finding("resume", Mark.SKIP, "no event came, and so no id")
        said = "no ids: a client that reconnects loses what was sent meanwhile"
        return Finding("resume", Mark.WARN, said, _IDS, {"ids": 0})
    tried = seen.resumption
    if tried is None:
        if seen.stopped:
            return None
        said = f"not tried: {quoted(body.ids[-1])} is among ids that a header cannot have here"
        return Finding("resume", Mark.SKIP, said)
    again = tried.answer
    figures: dict[str, Figure] = {
        "sent": tried.sent,
        "expected": tried.expected,
        "first": tried.first,
        "status": None if again is None else again.status,
        "content_type": None if again is None else again.header("content-type") or None,
    }
    mark, said, hints = _outcome(seen, tried, body)
    if body.repeated_id is not None and again is not None and again.is_stream:
        mark, hints = Mark.WARN, _IDS
        said = f"several events have the id {quoted(body.repeated_id)}: nothing can go on after it"
    return Finding("resume", mark, said, hints, figures)


def _outcome(
    seen: Observation, tried: Resumption, body: Examination
) -> tuple[Mark, str, tuple[str, ...]]:
    asked = f"after {quoted(tried.sent)}"
    if tried.failure is not None:
        return Mark.FAIL, f"asked to go on {asked}: {tried.failure}", _LOG
    if (answer := tried.answer) is None:
        return Mark.SKIP, "not waited for", ()
    if answer.status == 204:
        return _no_more(seen, tried, asked)
    if (refused := why_not_a_stream(answer)) is not None:
        said, hints = refused
        return Mark.FAIL, f"asked to go on {asked}, it answered {said}", (*_ANY_ID, *hints)
    if not can_unpack(codings_of(answer.header("content-encoding"))):
        coding = quoted(answer.header("content-encoding"))
        return Mark.SKIP, f"asked to go on {asked}, it answered compressed as {coding}", ()
    if (first := tried.first) is None:
        if tried.expected is None or not tried.done:
            waited = seconds(tried.waited)
            return Mark.SKIP, f"{asked} nothing came within {waited} to compare", ()
        said = f"{asked}, {quoted(tried.expected)} did not come again: what is missed is lost"
        return Mark.WARN, said, advice.RESUMING
    if first == tried.expected:
        return Mark.OK, f"{asked} it went on with {quoted(first)}, as before", ()
    if first == tried.sent:
        said = f"{asked} that one came again: clients have it twice"
        return Mark.WARN, said, advice.RESUMING
    before = list(body.ids)[:-_BACK]
    if first == body.first_id or first in before:
        said = f"{asked} it began again with {quoted(first)}: Last-Event-ID does not count"
        return Mark.FAIL, said, advice.RESUMING
    if tried.expected is None:
        said = f"{asked} it went on with {quoted(first)}; what is in between cannot be seen"
        return Mark.SKIP, said, ()
    said = f"{asked} came {quoted(first)}, not {quoted(tried.expected)}: what is missed is lost"
    return Mark.WARN, said, advice.RESUMING


def _no_more(seen: Observation, tried: Resumption, asked: str) -> tuple[Mark, str, tuple[str, ...]]:
    """Judge a 204, after which a browser does not come back."""
    if tried.expected is None:
        return Mark.OK, f"{asked} there is no more (204)", ()
    followed = f"though {quoted(tried.expected)} had followed"
    if seen.end is StreamEnd.HELD:
        said = f"{asked} it answered 204, {followed}, and a browser stays away for good"
        return Mark.FAIL, said, advice.RESUMING
    said = f"{asked} there is no more (204), {followed}: what is missed is lost"
    return Mark.WARN, said, advice.RESUMING


def findings_of(seen: Observation) -> list[Finding]:
    """Return a finding for each check that could be made, in the order in which they matter."""
    found = [redirected(seen), answered(seen)]
    answer, body = seen.answer, seen.body
    if answer is not None:
        found.append(cross_origin(seen, answer))
        if answer.is_stream:
            found += [negotiated(answer), cached(answer), compressed(seen)]
            if body is not None:
                found += [check(seen, answer, body) for check in (begun, delivered, formed)]
                found += [held(seen, answer, body), resumed(seen, answer, body)]
    named = "" if answer is None else f"{answer.header('server')} {answer.header('via')}"
    return [
        replace(finding, advice=meant_for(finding.advice, named))
        for finding in found
        if finding is not None
    ]
