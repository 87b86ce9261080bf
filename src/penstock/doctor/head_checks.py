"""Checks of an answer's head, and of the redirects that led to it."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from penstock.doctor import advice
from penstock.doctor.decompression import is_known
from penstock.doctor.finding import Figure, Finding, Mark, counted, quoted, shown
from penstock.doctor.observation import Answer, Observation, Redirect
from penstock.doctor.origins import origin_of

__all__ = [
    *("answered", "cached", "compressed", "cross_origin", "negotiated", "redirected"),
    "why_not_a_stream",
]

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
