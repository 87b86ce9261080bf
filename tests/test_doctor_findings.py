"""From what was observed to what is said: each rule, with the observation that brings it up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from penstock.doctor.body import Examination
from penstock.doctor.finding import BUFFERING, Finding, Mark, applicable, quoted, seconds
from penstock.doctor.observation import (
    Answer,
    Observation,
    Redirect,
    Resumption,
    StreamEnd,
    resume_from,
)
from penstock.doctor.report import findings_of

HEADERS = {"content-type": "text/event-stream", "cache-control": "no-cache"}
ADDRESS = "https://example.org/events"

Arrivals = Sequence[tuple[float, bytes]]

STEADY: Arrivals = [(0.0, b":\n\n")] + [
    (number / 2, b"id: %d\ndata: x\n\n" % number) for number in range(1, 20)
]


def answered(status: int = 200, **changes: Any) -> Answer:
    """Return the head of an answer; underscores in names of fields stand for hyphens."""
    known: dict[str, Any] = {"version": "HTTP/2", "tls": True, "waited": 0.01, "phrase": ""}
    known |= {"method": "GET", "address": ADDRESS}
    known.update({name: changes.pop(name) for name in list(known) if name in changes})
    headers: dict[str, str] = {
        **HEADERS,
        **{name.replace("_", "-"): text for name, text in changes.items()},
    }
    return Answer(status, headers=headers, opened_at=100.0, **known)


def streamed(
    arrivals: Arrivals = STEADY,
    *,
    until: float = 10.0,
    end: StreamEnd = StreamEnd.HELD,
    answer: Answer | None = None,
    **known: Any,
) -> Observation:
    """Return an observation of a body whose parts arrived these seconds after its head."""
    answer = answer or answered()
    body = Examination(answer.opened_at)
    for at, data in arrivals:
        body.feed(data, answer.opened_at + at)
    seen = Observation(ADDRESS, 20.0, answer=answer, body=body, end=end, ended_at=100.0 + until)
    for name, value in known.items():
        setattr(seen, name, value)
    return seen


def refused(status: int, **changes: Any) -> Observation:
    return Observation(ADDRESS, 20.0, answer=answered(status, **changes))


def resumption(
    first: str | None = None,
    *,
    sent: str = "16",
    expected: str | None = "17",
    status: int | None = 200,
    failure: str | None = None,
    **head: Any,
) -> Resumption:
    answer = None if status is None else answered(status, **head)
    return Resumption(sent, expected, answer, failure, first, waited=3.0, done=True)


def found(seen: Observation, check: str) -> Finding:
    (finding,) = [finding for finding in findings_of(seen) if finding.check == check]
    return finding


def hops(*targets: str, source: str = ADDRESS) -> list[Redirect]:
    return [Redirect(301, source, target) for target in targets]


def page(kind: str) -> Observation:
    return refused(200, content_type=kind)


def with_head(**changes: Any) -> Observation:
    return streamed(answer=answered(**changes))


def cross(
    origin: str = "https://a.example", *, cookie: bool = False, **changes: Any
) -> Observation:
    return streamed(answer=answered(**changes), origin=origin, credentials=cookie)


def allowing(origin: str, **changes: Any) -> dict[str, Any]:
    return {"access_control_allow_origin": origin, **changes}


def stuck() -> Observation:
    """Have the head of what compresses come, and nothing more."""
    seen = streamed([], coding="gzip", answer=answered(server="Caddy"))
    assert seen.body is not None
    seen.body.feed(b"", 100.0, size=10)
    return seen


def many() -> Observation:
    """Have the thousandth arrival end within an event, which the next one ends."""
    arrivals = [(number / 10, b"data: x\n\n") for number in range(1, 1000)]
    return streamed([*arrivals, (100.0, b"data"), (100.1, b": x\n\n")], until=110.0)


def resumed(tried: Resumption | None, arrivals: Arrivals = STEADY) -> Observation:
    return streamed(arrivals, resumption=tried)


def posted(arrivals: Arrivals = STEADY, **changes: Any) -> Observation:
    """Return an observation of a response to a POST, which ends properly."""
    answer = answered(**{"method": "POST", **changes})
    return streamed(arrivals, answer=answer, method="POST", end=StreamEnd.ENDED)


def fast(per_second: int, seconds: float = 8.0, jitter: float = 0.0) -> Observation:
    """Observe a stream of many events a second, each of which arrives by itself."""
    gap = 1 / per_second
    times = [n * gap + (jitter if n % 3 else 0) for n in range(1, int(per_second * seconds))]
    return streamed([(at, b"data: %d\n\n" % n) for n, at in enumerate(times)])


def cut(after: float, **known: Any) -> Observation:
    return streamed(STEADY[:2], until=after, end=StreamEnd.BROKEN, **known)


def failed(said: str, **known: Any) -> Observation:
    return Observation(ADDRESS, 20.0, failure=said, **known)


def each(size: int, wire: bytes, pause: float) -> Arrivals:
    """Return the arrivals from a buffer that releases this many bytes at a time."""
    parts = [wire[i : i + size] for i in range(0, len(wire), size)]
    return [(2 + number * pause, part) for number, part in enumerate(parts)]


TWICE = b"data: a\n\ndata: b\n\n"
WITH_ALL = allowing("https://a.example", access_control_allow_credentials="true", vary="Origin")
OK, WARN, FAIL, SKIP = Mark.OK, Mark.WARN, Mark.FAIL, Mark.SKIP

# The check, what was observed, the mark, a part of what is said, a part of the advice.
Row = tuple[str, Callable[[], Observation], Mark, str, str]
ROWS: dict[str, Row] = {
    # The answer.
    "a stream": ("answer", streamed, OK, "200, text/event-stream", ""),
    "its server": ("answer", lambda: with_head(server="nginx", via="1.1 x"), OK, "nginx via", ""),
    "no answer": ("answer", lambda: failed("reset"), FAIL, "reset", ""),
    "none in time": (
        *("answer", lambda: failed("none within 20 s", timed_out=True), FAIL),
        *("not even a head", "proxy_buffering off"),
    ),
    "none yet": ("answer", lambda: Observation(ADDRESS, 20.0), SKIP, "no response yet", ""),
    "204": ("answer", lambda: refused(204), FAIL, "never reconnects", "answer 200"),
    "401": ("answer", lambda: refused(401), FAIL, "authentication required", "--header"),
    "404": ("answer", lambda: refused(404), FAIL, "nothing at this URL", "path"),
    "418": ("answer", lambda: refused(418), FAIL, "not 200", ""),
    "429": ("answer", lambda: refused(429), FAIL, "too many", "number of open streams"),
    "502": ("answer", lambda: refused(502), FAIL, "a proxy got no response", "running"),
    "504": ("answer", lambda: refused(504), FAIL, "timed out waiting", "proxy_read_timeout"),
    "a page": ("answer", lambda: page("text/html"), FAIL, "“text/html”", "text/event-stream"),
    "no type": ("answer", lambda: page(""), FAIL, "no content type", "text/event-stream"),
    "a colour": ("answer", lambda: page("a/\x1b[31mb"), FAIL, r"“a/\x1b[31mb”", ""),
    "in capitals": ("answer", lambda: with_head(content_type="Text/Event-Stream"), OK, "200", ""),
    "utf-8": (
        *("answer", lambda: with_head(content_type='text/event-stream; charset="UTF-8"'), OK),
        *("200", ""),
    ),
    "latin-1": (
        *("answer", lambda: with_head(content_type="text/event-stream;charset=latin1"), FAIL),
        *("“latin1”", "Content-Type: text/event-stream"),
    ),
    "utf8": (
        *("answer", lambda: with_head(content_type="text/event-stream; charset=utf8"), FAIL),
        *("Chromium refuses others", "Content-Type: text/event-stream"),
    ),
    "a coloured phrase": ("answer", lambda: with_head(phrase="\x1b[31m"), OK, r"200 \x1b[31m", ""),
    "404, to a POST": ("answer", lambda: refused(404, method="POST"), FAIL, "URL", "path"),
    "201, to a POST": ("answer", lambda: posted(status=201), OK, "201", ""),
    "201, to a GET": ("answer", lambda: refused(201), FAIL, "not 200", ""),
    "204, to a POST": ("answer", lambda: refused(204, method="POST"), FAIL, "stay away", ""),
    "charset, to a POST": (
        *("answer", lambda: posted(content_type="text/event-stream; charset=utf8"), OK),
        *("200", ""),
    ),
    # Redirects.
    "to another path": (
        *("redirects", lambda: streamed(redirects=hops(f"{ADDRESS}/")), OK, "1 redirect: 301", ""),
    ),
    "to another origin": (
        *("redirects", lambda: streamed(redirects=hops("https://b.example/")), WARN),
        *("another origin", "use the final URL"),
    ),
    "to http": (
        *("redirects", lambda: streamed(redirects=hops("http://example.org/")), FAIL),
        *("from https to http", "X-Forwarded-Proto"),
    ),
    "to the default port": (
        *("redirects", lambda: streamed(redirects=hops("https://Example.org:443/")), OK),
        *("1 redirect", ""),
    ),
    "a POST made a GET": (
        "redirects",
        lambda: streamed(redirects=[Redirect(302, ADDRESS, ADDRESS, False)], method="POST"),
        *(FAIL, "turns the POST into a GET", "307"),
    ),
    "round and round": (
        "redirects",
        lambda: failed("loop", redirects=hops(*[ADDRESS] * 21), too_many_redirects=True),
        *(FAIL, "21 redirects", "X-Forwarded-Proto"),
    ),
    # The connection.
    "HTTP/2": ("protocol", streamed, OK, "share a connection", ""),
    "HTTP/1.1": (
        *("protocol", lambda: with_head(version="HTTP/1.1", tls=False), WARN),
        *("six connections", "TLS first"),
    ),
    "HTTP/1.1 over TLS": (
        *("protocol", lambda: with_head(version="HTTP/1.1"), WARN),
        *("though HTTP/2 was offered", "http2"),
    ),
    # Caches, nginx.
    "no-cache": ("caching", streamed, OK, "no X-Accel-Buffering: no", ""),
    "behind nginx": ("caching", lambda: with_head(server="nginx"), OK, "no-cache", ""),
    "told nginx": ("caching", lambda: with_head(x_accel_buffering="no"), OK, "Buffering: no", ""),
    "asked for it": (
        *("caching", lambda: with_head(x_accel_buffering="yes"), WARN, "makes nginx buffer"),
        "X-Accel-Buffering: no",
    ),
    "may be kept": (
        *("caching", lambda: with_head(cache_control="max-age=60"), WARN, "“max-age=60”"),
        "Cache-Control: no-store",
    ),
    "nothing said": (
        *("caching", lambda: with_head(cache_control=""), WARN, "no Cache-Control", "no-store"),
    ),
    "private": ("caching", lambda: with_head(cache_control="private"), OK, "private", ""),
    "nothing said, to a POST": (
        *("caching", lambda: posted(cache_control=""), OK, "store the response to a POST", ""),
    ),
    "was kept": ("caching", lambda: with_head(age="7"), FAIL, "came from a cache", "no-store"),
    "passed on": ("caching", lambda: with_head(age="0"), OK, "no-cache", ""),
    # Compression.
    "only compressed": (
        *("compression", lambda: streamed(coding="br", failure="no answer"), FAIL),
        *("requested without compression: no answer", "gzip off"),
    ),
    "plain": ("compression", streamed, OK, "none", ""),
    "said to be none": (
        *("compression", lambda: with_head(content_encoding="none"), OK),
        *("Content-Encoding: none has no effect", ""),
    ),
    "no coding": (
        *("compression", lambda: streamed(coding="utf-8"), WARN, "“utf-8” is not a content coding"),
        "leave Content-Encoding out",
    ),
    "gzip": ("compression", lambda: streamed(coding="gzip"), WARN, "“gzip”", "gzip off"),
    "held back by gzip": (
        "compression",
        stuck,
        FAIL,
        "10 bytes arrived that decompress to nothing",
        "encode with",
    ),
    # Other origins.
    "no origin allowed": (
        *("cors", cross, FAIL, "no Access-Control-Allow-Origin"),
        "Access-Control-Allow-Origin: https://a.example",
    ),
    "another allowed": ("cors", lambda: cross(**allowing("https://b")), FAIL, "not https://a", ""),
    "two allowed": (
        "cors",
        lambda: cross(**allowing("*, *")),
        FAIL,
        "several values are invalid",
        "",
    ),
    "all allowed": ("cors", lambda: cross(**allowing("*")), OK, "without cookies", ""),
    "all, with a cookie": (
        *("cors", lambda: cross(cookie=True, **allowing("*")), FAIL, "this request has one"),
        "Allow-Credentials: true",
    ),
    "itself, with a cookie": ("cors", lambda: cross(cookie=True, **WITH_ALL), OK, "with coo", ""),
    "without Vary": (
        *("cors", lambda: cross(**allowing("https://a.example")), WARN),
        *("no Vary", "Vary: Origin"),
    ),
    "the same origin": (
        *("cors", lambda: cross("https://example.org"), OK, "CORS does not apply", ""),
    ),
    "the same origin, its port written": (
        *("cors", lambda: cross("https://example.org", address="https://EXAMPLE.org:443/a"), OK),
        *("CORS does not apply", ""),
    ),
    "another port": (
        *("cors", lambda: cross("https://example.org", address="https://example.org:8443/a"), FAIL),
        *("no Access-Control-Allow-Origin", "the server: Access"),
    ),
    "the same origin, by way of another": (
        "cors",
        lambda: streamed(
            origin="https://example.org", redirects=hops(ADDRESS, source="https://b.example/")
        ),
        *(FAIL, "no Access-Control-Allow-Origin", "the server: Access"),
    ),
    # The beginning.
    "at once": ("first byte", streamed, OK, "first byte 0 ms later, first event after 500 ms", ""),
    "no byte": (
        *("first byte", lambda: streamed([]), WARN, "no byte of the body within 10.0 s"),
        "a comment at once",
    ),
    "no body": (
        *("first byte", lambda: streamed([], end=StreamEnd.ENDED), FAIL, "an empty body", ""),
    ),
    "a late header": (
        *("first byte", lambda: with_head(waited=3.0), WARN, "the head waits for the body"),
        "proxy_buffering",
    ),
    "a late byte": (
        *("first byte", lambda: streamed([(3.0, b"data: a\n\n")]), WARN, "first event with it"),
        "a comment at once",
    ),
    # Delivery.
    "one by one": ("delivery", streamed, OK, "17 events in 17 arrivals", ""),
    "a backlog, then one by one": (
        *("delivery", lambda: streamed([(0.1, TWICE * 50), *STEADY[4:]]), OK, "in 16 arrivals", ""),
    ),
    "too few": ("delivery", lambda: streamed(STEADY[:2]), SKIP, "too few", ""),
    "gathered whole": (
        "delivery",
        lambda: streamed([(0.0, TWICE)], answer=answered(content_length="18")),
        *(FAIL, "buffered completely", "flush"),
    ),
    "of a known length": (
        *("delivery", lambda: with_head(content_length="900"), OK, "in 17 arrivals", ""),
    ),
    "20 a second": ("delivery", lambda: fast(20), OK, "none interrupted", ""),
    "25 a second": ("delivery", lambda: fast(25), OK, "199 events in 199 arrivals", ""),
    "25 a second, unevenly": (
        "delivery",
        lambda: fast(25, jitter=0.02),
        OK,
        "none interrupted",
        "",
    ),
    "16 a second, unevenly": (
        "delivery",
        lambda: fast(16, jitter=0.03),
        OK,
        "none interrupted",
        "",
    ),
    "100 a second": ("delivery", lambda: fast(100), OK, "799 events in 799 arrivals", ""),
    "1000 a second": ("delivery", lambda: fast(1000), OK, "none interrupted", ""),
    "ten times a second, five at once": (
        "delivery",
        lambda: streamed([(n / 10, b"data: x\n\n" * 5) for n in range(1, 80)]),
        *(OK, "none interrupted", ""),
    ),
    "25 a second, for a second at a time": (
        "delivery",
        lambda: streamed(
            [(n + part / 2000, b"data: x\n\n") for n in range(2, 9) for part in range(25)]
        ),
        *(WARN, "bursts of up to 25", "proxy_buffering off"),
    ),
    "in lumps": (
        *("delivery", lambda: streamed(each(18, TWICE * 5, 2.0)), WARN, "bursts of up to 2"),
        "proxy_buffering off",
    ),
    "by the buffer": (
        *(
            "delivery",
            lambda: streamed(each(20, TWICE * 5, 1.0)),
            FAIL,
            "releases 20 bytes when it is full",
        ),
        "proxy_buffering off",
    ),
    "one pause within": (
        *("delivery", lambda: streamed([(2, b"data: "), (4, b"a\n\n")]), WARN, "for up to 2.0 s"),
        "flush",
    ),
    "one of many that stops within": ("delivery", many, OK, "in 989 arrivals", ""),
    "events that are not seen": (
        "delivery",
        lambda: streamed(each(7, b"x" * 70, 0.5), readable=False, coding="br"),
        *(SKIP, "the ends of events are not visible", ""),
    ),
    # Format.
    "well-formed": ("format", streamed, OK, "19 events, 1 comment", ""),
    "nothing arrived": ("format", lambda: streamed([]), SKIP, "nothing arrived", ""),
    "unreadable": (
        *("format", lambda: streamed(readable=False, coding="br"), SKIP, "compressed as “br”", ""),
    ),
    "lines that are none": (
        *("format", lambda: streamed([(0, b"data: {\n 1,\n}\n\n")]), FAIL, "line 2 “ 1,”"),
        "begins with data:",
    ),
    "html": (
        *("format", lambda: streamed([(0, b"<html>\n<b>\n")]), FAIL, "line 1 “<html>”", "login"),
    ),
    "odd, and no more": (
        *("format", lambda: streamed([(0, b"retry: 2s\n\n")]), WARN, "not a number", "digits"),
    ),
    "the worst counts": (
        *("format", lambda: streamed([(0, b"retry: 2s\nfoo\n\n")]), FAIL, "not a number", "digits"),
    ),
    "without an end": (
        *("format", lambda: streamed([(0, b"x" * 2**20)] * 17), FAIL, "bytes of one event"),
        "empty line",
    ),
    "a large event": (
        "format",
        lambda: streamed([(0, b"data: %s\n\n" % (b"x" * 2**21))]),
        *(WARN, "an event of 2097158 bytes: fine in browsers", "the URL"),
    ),
    "part of a large event": (
        *("format", lambda: streamed([(0, b"data: " + b"x" * 2**21)]), OK, "0 events", ""),
    ),
    "an image": (
        "format",
        lambda: streamed([(0, b"data: data:image/png;base64,AAAA\n\n" * 5)]),
        *(OK, "5 events", ""),
    ),
    "encoded twice": (
        "format",
        lambda: streamed([(0, b"data: data: x\ndata: \ndata: \n\n" * 2)]),
        *(WARN, "line 1 “data: x\\n\\n”: the data of events is itself an event", "only the data"),
    ),
    "ended within": (
        "format",
        lambda: streamed([(0, b"data: a\n")], end=StreamEnd.ENDED),
        *(FAIL, "ended within an event", "including the last one"),
    ),
    "cut within": (
        *(
            "format",
            lambda: streamed([(0, b"data: a\n")], end=StreamEnd.BROKEN),
            OK,
            "0 events",
            "",
        ),
    ),
    # Held.
    "open": ("held", streamed, OK, "open for 10.0 s; longest silence 500 ms", ""),
    "silent, how long?": (
        *("held", lambda: streamed(STEADY[:2], until=20.0), WARN, "so far", "--for 70"),
    ),
    "silent for 40 s": (
        *("held", lambda: streamed(STEADY[:2], until=40.0), WARN, "the limit of CloudFront (30 s)"),
        "a comment (a line with a colon) every 15 s",
    ),
    "silent for 61 s, then not": (
        *("held", lambda: streamed([*STEADY[:1], (61, b":\n")], until=62.0), WARN, "nginx (60 s)"),
        "proxy_read_timeout",
    ),
    "cut by a limit": (
        *("held", lambda: cut(60.6), FAIL, "the limit of nginx (60 s) or AWS ALB (60 s)"),
        "proxy_read_timeout",
    ),
    "cut by some limit": ("held", lambda: cut(3.5), FAIL, "3.0 s after the last", "the logs of"),
    "cut in the middle": (
        *("held", lambda: streamed(until=9.6, end=StreamEnd.BROKEN, end_reason="reset"), FAIL),
        *("(reset)", "the logs of the proxy"),
    ),
    "ended": (
        *("held", lambda: streamed(end=StreamEnd.ENDED), WARN, "reconnects after about 3 s"),
        "204 tells",
    ),
    "ended, to come back": (
        "held",
        lambda: streamed([(0, b"retry: 0\n\n")], until=0.1, end=StreamEnd.ENDED),
        *(WARN, "reconnects at once (retry: 0)", ""),
    ),
    "ended, to a POST": ("held", posted, OK, "as the response to a POST does", ""),
    "closed": (
        *("held", lambda: streamed(until=70.0, end=StreamEnd.CLOSED), WARN, "unknown"),
        "proxy_read_timeout",
    ),
    # Resuming.
    "no event": ("resume", lambda: streamed(STEADY[:1]), SKIP, "no events, so no ids", ""),
    "no ids": (
        *("resume", lambda: streamed([(0, b"data: a\n\n")]), WARN, "no ids"),
        "give each event a unique id",
    ),
    "goes on": ("resume", lambda: resumed(resumption("17")), OK, "continued with “17”", ""),
    "sent again": (
        "resume",
        lambda: resumed(resumption("16")),
        WARN,
        "clients get it twice",
        "without repeating it",
    ),
    "anew": ("resume", lambda: resumed(resumption("1")), FAIL, "began again", "Last-Event-ID"),
    "far back": ("resume", lambda: resumed(resumption("9")), FAIL, "began again", "Last-Event-ID"),
    "only what is new": (
        *(
            "resume",
            lambda: resumed(resumption("30")),
            WARN,
            "“30” followed, not “17”",
            "pass the header",
        ),
    ),
    "silence": ("resume", lambda: resumed(resumption()), WARN, "was not sent again", "pass the"),
    "silence after the only one": (
        *(
            "resume",
            lambda: resumed(resumption(expected=None)),
            SKIP,
            "no event with an id within",
            "",
        ),
    ),
    "no more": (
        *(
            "resume",
            lambda: resumed(resumption(expected=None, status=204)),
            OK,
            "no more events (204)",
        ),
        "",
    ),
    "no more, though it goes on": (
        *("resume", lambda: resumed(resumption(status=204)), FAIL, "“17” had followed"),
        "Last-Event-ID",
    ),
    "no more, though it went on": (
        "resume",
        lambda: streamed(resumption=resumption(status=204), end=StreamEnd.ENDED),
        *(WARN, "missed events are lost", "Last-Event-ID"),
    ),
    "refused": (
        *("resume", lambda: resumed(resumption(status=400)), FAIL, "it answered 400: not 200"),
        "accept any Last-Event-ID",
    ),
    "a page instead": (
        *("resume", lambda: resumed(resumption(content_type="text/html")), FAIL),
        *("it answered 200, but “text/html” instead of text/event-stream", "Content-Type"),
    ),
    "another charset": (
        "resume",
        lambda: resumed(resumption("17", content_type="text/event-stream; charset=latin1")),
        *(FAIL, "charset “latin1”", "Content-Type"),
    ),
    "compressed again": (
        *("resume", lambda: resumed(resumption(content_encoding="br")), SKIP),
        *("compressed as “br”", ""),
    ),
    "after a POST": ("resume", posted, SKIP, "a POST is not sent twice", ""),
    "broken": (
        *("resume", lambda: resumed(resumption(status=None, failure="reset")), FAIL, "reset"),
        "log",
    ),
    "not printable": (
        *("resume", lambda: resumed(None, [(0, b"id: a\1\ndata: a\n\n")]), SKIP, r"“a\x01”", ""),
    ),
    "cut short": (*("resume", lambda: resumed(Resumption("16", "17")), SKIP, "interrupted", ""),),
    "the same id for all": (
        "resume",
        lambda: resumed(resumption("7"), [(0, b"id: 7\ndata: a\n\nid: 7\ndata: b\n\n")]),
        *(WARN, "several events have the id “7”", "a unique id"),
    ),
}


@pytest.mark.parametrize(("check", "observed", "mark", "said", "hint"), ROWS.values(), ids=ROWS)
def test_each_observation_brings_its_finding(
    check: str, observed: Callable[[], Observation], mark: Mark, said: str, hint: str
) -> None:
    """Each observation has its mark, its words and its advice; a success needs no advice."""
    finding = found(observed(), check)
    assert finding.mark is mark
    assert said in finding.summary
    assert hint in " ".join(finding.advice)
    assert not finding.advice or mark in (WARN, FAIL)
    for line in (finding.summary, *finding.advice):
        assert line.isprintable()


def test_the_order() -> None:
    """Checks are in order of importance, and those that cannot be made are omitted."""
    full = cross(**allowing("*"))
    full.redirects = hops(f"{ADDRESS}/")
    full.resumption = resumption("17")
    assert [finding.check for finding in findings_of(full)] == [
        *("redirects", "answer", "cors", "protocol", "caching", "compression"),
        *("first byte", "delivery", "format", "held", "resume"),
    ]
    assert [finding.check for finding in findings_of(refused(500))] == ["answer"]


def test_only_the_advice_for_who_is_there() -> None:
    """An answer that names its proxy gets the lines for it, and those for everyone."""
    finding = found(with_head(server="nginx/1.22.1", waited=3.0), "first byte")
    names = [line.partition(":")[0] for line in finding.advice]
    assert names == ["the server", "nginx", "the server", "to find out who buffers"]
    both = applicable(BUFFERING, "Caddy, nginx")
    assert [line for line in BUFFERING if line not in both] == [BUFFERING[2]]
    assert applicable(BUFFERING, "cloudflare") == BUFFERING


@pytest.mark.parametrize(
    ("ids", "pair"),
    [
        ([], None),
        (["1"], ("1", None)),
        (["1", "2"], ("1", "2")),
        (["1", "2", "3"], ("2", "3")),
        (list("123456"), ("3", "4")),
        (["\1", "2"], None),
    ],
)
def test_which_id_is_sent(ids: list[str], pair: tuple[str, str] | None) -> None:
    """It is one a little before the last and not the first, with the one that should follow."""
    body = Examination(0.0)
    for number, id_ in enumerate(ids):
        body.feed(f"id: {id_}\ndata: x\n\n".encode(), float(number))
    assert resume_from(body) == pair


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0004, "0 ms"), (0.9996, "1.0 s"), (59.96, "60.0 s"), (3600.4, "3600 s")],
)
def test_lengths_of_time(value: float, said: str) -> None:
    """They are as one reads them."""
    assert seconds(value) == said


def test_what_a_server_sent_cannot_write_to_the_terminal() -> None:
    """It is printable, and short."""
    assert quoted(b"\x1b[2J\xff\r\n") == r"“\x1b[2J\xff\r\n”"
    assert quoted("x" * 61) == f"“{'x' * 60}…”"
