"""Checks of the head of a response, and of the redirects that led to it."""

from __future__ import annotations

import re
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from penstock.doctor.body import is_known
from penstock.doctor.finding import (
    ACCESS,
    BUFFERING,
    CACHE,
    COMPRESSION,
    HTTP2,
    IDLE,
    Figure,
    Finding,
    Mark,
    quoted,
    shown,
)
from penstock.doctor.observation import Answer, Observation, Redirect, origin_of
from penstock.printable import counted

__all__ = [
    *("caching", "compression", "cors", "protocol", "redirects", "response"),
    "why_not_a_stream",
]

_GIVES_UP: Final = "a browser gives up permanently"
_NEVER_RECONNECTS: Final = ": a browser never reconnects"

# What a status means for a client of an event stream, and what to do.
_MEANINGS: Final[dict[int, tuple[str, tuple[str, ...]]]] = {
    204: (
        f"the server tells clients to stay away{_NEVER_RECONNECTS}",
        ("the server: answer 200 if there are events, or will be",),
    ),
    401: (f"authentication required; {_GIVES_UP}", ACCESS),
    403: (f"access denied; {_GIVES_UP}", ACCESS),
    404: (f"there is nothing at this URL; {_GIVES_UP}", ("check the path, and the proxy's",)),
    405: (
        f"the method is not allowed; {_GIVES_UP}",
        ("an EventSource sends only GET; --request sends another method",),
    ),
    406: (
        f"text/event-stream is not available; {_GIVES_UP}",
        ("the server: accept Accept: text/event-stream",),
    ),
    429: (
        f"too many requests; {_GIVES_UP}",
        ("limit the number of open streams, not how often clients reconnect",),
    ),
    502: (
        f"a proxy got no response from its server; {_GIVES_UP}",
        ("is the server running, at the address that the proxy uses?",),
    ),
    503: (
        f"temporarily unavailable; {_GIVES_UP}",
        ("is the server running? During a restart, let the proxy wait for it",),
    ),
    504: (f"a proxy timed out waiting for its server; {_GIVES_UP}", IDLE),
}

_CONTENT_TYPE: Final = ("the server: Content-Type: text/event-stream",)
_HEAD_AT_ONCE: Final = ("the server: send the head and a comment at once", *BUFFERING)
_CHARSET: Final = re.compile(r"charset\s*=\s*\"?([^\s\";]*)", re.IGNORECASE)


def redirects(seen: Observation) -> Finding | None:
    """Check where redirects led; None if there were none."""
    hops = seen.redirects
    if not hops:
        return None
    targets = [hop.target for hop in hops[:3]]
    parts = [f"{hop.status} to {quoted(hop.target)}" for hop in hops[:3]]
    text = f"{counted(len(hops), 'redirect')}: {', '.join(parts)}{', …' if hops[3:] else ''}"
    found = partial(Finding, "redirects", figures={"targets": targets})
    if seen.too_many_redirects:
        text = f"{text}; a loop, perhaps between the proxy and the server"
        advice = "a server behind TLS has to know it: pass X-Forwarded-Proto on, and respect it"
        return found(Mark.FAIL, text, (advice,))
    if any(_scheme(hop.source) == "https" != _scheme(hop.target) for hop in hops):
        advice = (
            "the server makes http of https: nginx: proxy_set_header X-Forwarded-Proto $scheme;"
        )
        text = f"{text}; from https to http, which browsers block on secure pages"
        return found(Mark.FAIL, text, (advice,))
    if not all(hop.method_kept for hop in hops):
        advice = "the server: redirect with 307 or 308, or use the final URL from the start"
        text = f"{text}; this turns the {seen.method} into a GET, without its body"
        return found(Mark.FAIL, text, (advice,))
    if any(_crosses(hop) for hop in hops):
        advice = "use the final URL in the page: no connection then needs the redirect"
        text = f"{text}; to another origin, which needs CORS and gets no Authorization"
        return found(Mark.WARN, text, (advice,))
    return found(Mark.OK, text)


def response(seen: Observation) -> Finding:
    """Check whether the response is an event stream."""
    answer = seen.answer
    if answer is None:
        if seen.timed_out:
            text = f"{seen.failure}, not even a head, as if something buffered it"
            return Finding("answer", Mark.FAIL, text, _HEAD_AT_ONCE)
        mark = Mark.FAIL if seen.failure else Mark.SKIP
        return Finding("answer", mark, seen.failure or "no response yet")
    figures: dict[str, Figure] = {
        "status": answer.status,
        "content_type": answer.header("content-type") or None,
        "server": answer.header("server") or None,
        "via": answer.header("via") or None,
    }
    if (refused := why_not_a_stream(answer)) is not None:
        return Finding("answer", Mark.FAIL, *refused, figures)
    text = f"{_status(answer)}, {shown(answer.header('content-type'))}{_sender(answer)}"
    return Finding("answer", Mark.OK, text, (), figures)


def why_not_a_stream(answer: Answer) -> tuple[str, tuple[str, ...]] | None:
    """Return why a client does not accept a response as a stream, and advice; None if it does."""
    status, given = _status(answer), answer.header("content-type")
    if answer.status != 200 and not (answer.method != "GET" and answer.is_success):
        text, advice = _MEANINGS.get(answer.status, (f"not 200: {_GIVES_UP}", ()))
        return f"{status}: {_for_method(answer, text)}", advice
    if answer.kind != "text/event-stream":
        kind = quoted(given) if given else "no content type"
        text = f"{status}, but {kind} instead of text/event-stream: {_GIVES_UP}"
        return _for_method(answer, text), _CONTENT_TYPE
    charset = _CHARSET.search(given)
    # A program that reads the response to a POST decodes UTF-8, whatever the header says.
    if charset and charset[1].lower() != "utf-8" and answer.method == "GET":
        text = f"{status}, but charset {quoted(charset[1])}: event streams are UTF-8"
        return f"{text}, and Chromium refuses others", _CONTENT_TYPE
    return None


def _status(answer: Answer) -> str:
    return f"{answer.status} {shown(answer.phrase)}".rstrip()


def _for_method(answer: Answer, text: str) -> str:
    """Leave out what an EventSource would do about a response to another method than its own."""
    for part in (f"; {_GIVES_UP}", f": {_GIVES_UP}", _NEVER_RECONNECTS):
        text = text if answer.method == "GET" else text.removesuffix(part)
    return text


def protocol(answer: Answer) -> Finding:
    """Check which version of HTTP the connection uses."""
    figures: dict[str, Figure] = {"version": answer.version, "tls": answer.tls}
    if not answer.version.startswith("HTTP/1"):
        text = f"{answer.version}: streams share a connection"
        return Finding("protocol", Mark.OK, text, (), figures)
    why = ", though HTTP/2 was offered" if answer.tls else " without TLS"
    text = f"{answer.version}{why}: browsers open at most six connections per host, over all tabs"
    first = () if answer.tls else ("TLS first: without it, browsers do not use HTTP/2",)
    return Finding("protocol", Mark.WARN, text, (*first, *HTTP2), figures)


def caching(answer: Answer) -> Finding:
    """Check the headers for caches and for nginx."""
    control, accel = answer.header("cache-control"), answer.header("x-accel-buffering")
    age = answer.header("age")
    figures: dict[str, Figure] = {
        "cache_control": control or None,
        "x_accel_buffering": accel or None,
        "age": age or None,
    }
    found = partial(Finding, "caching", figures=figures)
    if age and age.strip() != "0":  # some proxies send 0 with what they pass on
        return found(Mark.FAIL, f"Age: {quoted(age)}: the response came from a cache", CACHE)
    if not control and answer.method != "GET":
        text = f"no Cache-Control: caches do not store the response to a {answer.method}"
        return found(Mark.OK, text)
    directives = {each.partition("=")[0].strip().lower() for each in control.split(",")}
    if not directives & {"no-store", "no-cache", "private"}:
        given = f"Cache-Control: {quoted(control)}" if control else "no Cache-Control"
        return found(Mark.WARN, f"{given}: a cache may store it, or wait for its end", CACHE)
    text = f"Cache-Control: {shown(control)}"
    if accel.strip().lower() == "yes":
        text = f"{text}; X-Accel-Buffering: yes, which makes nginx buffer the stream"
        return found(Mark.WARN, text, ("the server: X-Accel-Buffering: no",))
    if accel:
        text = f"{text}; X-Accel-Buffering: {shown(accel)}"
    elif "nginx" not in answer.header("server").lower():  # which removes it
        text = f"{text}; no X-Accel-Buffering: no, which would keep nginx from buffering"
    return found(Mark.OK, text)


def compression(seen: Observation) -> Finding:
    """Check whether the response is compressed for a client that accepts what browsers accept."""
    coding = seen.coding
    if not coding:
        text = "none, though gzip and br were offered"
        given = "" if seen.answer is None else seen.answer.header("content-encoding")
        if given:
            text = f"{text}; Content-Encoding: {shown(given)} has no effect"
        return Finding("compression", Mark.OK, text, (), {"content_encoding": given or None})
    found = partial(Finding, "compression", figures={"content_encoding": coding})
    if not is_known(coding):
        text = f"{quoted(coding)} is not a content coding: browsers ignore it, others may not"
        advice = "the server: leave Content-Encoding out if nothing is compressed"
        return found(Mark.WARN, text, (advice,))
    if seen.failure is not None:
        text = f"{quoted(coding)}; requested without compression: {seen.failure}"
        return found(Mark.FAIL, text, COMPRESSION)
    body = seen.body
    if body is not None and body.size and not body.unpacked:
        text = f"{quoted(coding)}: {counted(body.size, 'byte')} arrived that decompress to nothing"
        return found(Mark.FAIL, text, COMPRESSION)
    text = f"{quoted(coding)}: compression delays events unless it is flushed after each event"
    return found(Mark.WARN, text, COMPRESSION)


def cors(seen: Observation, answer: Answer) -> Finding | None:
    """Check whether pages of another origin may read the stream; None without such an origin."""
    if seen.origin is None:
        return None
    addresses = (answer.address, *(hop.source for hop in seen.redirects))
    if all(origin_of(address) == seen.origin for address in addresses):
        text = f"the page and the stream have the same origin, {seen.origin}: CORS does not apply"
        return Finding("cors", Mark.OK, text, (), {"same_origin": True})
    allowed = answer.header("access-control-allow-origin").strip()
    credentials = answer.header("access-control-allow-credentials").strip() == "true"
    figures: dict[str, Figure] = {"allow_origin": allowed or None, "allow_credentials": credentials}
    found = partial(Finding, "cors", figures=figures)
    advice = f"the server: Access-Control-Allow-Origin: {seen.origin}"
    if not allowed:
        text = f"no Access-Control-Allow-Origin: pages of {seen.origin} cannot read it"
        return found(Mark.FAIL, text, (advice,))
    if allowed not in ("*", seen.origin):
        several = " (several values are invalid)" if "," in allowed else ""
        text = f"Access-Control-Allow-Origin: {quoted(allowed)}{several}: not {seen.origin}"
        return found(Mark.FAIL, text, (advice,))
    with_cookies = "with" if credentials and allowed != "*" else "without"
    text = f"Access-Control-Allow-Origin: {allowed}: {with_cookies} cookies (withCredentials)"
    if seen.credentials and with_cookies == "without":
        both = (f"{advice}, and not *", "the server: Access-Control-Allow-Credentials: true")
        return found(Mark.FAIL, f"{text}, and this request has one", both)
    vary = {each.strip().lower() for each in answer.header("vary").split(",")}
    if allowed != "*" and not vary & {"origin", "*"}:
        text = f"{text}; no Vary: Origin, so a cache may send it to another origin"
        return found(Mark.WARN, text, ("the server: Vary: Origin",))
    return found(Mark.OK, text)


def _sender(answer: Answer) -> str:
    """Return who sent the response, as it says: often the proxy."""
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
