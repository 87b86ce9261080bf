"""Rows 3, 4 and the first of the guarantee: connections that end as they should."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from faults_clients import Connection, Http1, Http2
from faults_table import BOTH, EVERY_WAY, PLAIN, TLS, Measure, Outcome, Row, Site, Stock

AT_ONCE: Final = 0.05
BYTES_AFTER: Final = 0.1
# The worst of so many is what is judged.
TIMES: Final = 5

REAPED: Final = f"keep_alive_timeout + 0.5 s ({PLAIN.keep_alive_timeout:g} s; penstock serve: 5)"


def gone(leave: Callable[[Http1], None], more: bytes, limit: float, site: Site) -> Outcome:
    """Leave a stream on which nothing is sent: only the leaving can be noticed."""
    return _worst(site, partial(_left, leave, more, site), limit)


def _left(leave: Callable[[Http1], None], more: bytes, site: Site) -> float | None:
    key = site.key()
    client = site.stream("idle", key, more=more)
    time.sleep(0.02)
    start = time.monotonic()
    leave(client)
    return site.released(key, start)


def gone_http2(leave: Callable[[Http2], None], site: Site) -> Outcome:
    """Leave a stream on which nothing is sent."""
    return _worst(site, partial(_left_http2, leave, site), AT_ONCE)


def _left_http2(leave: Callable[[Http2], None], site: Site) -> float | None:
    client, key = site.http2(), site.key()
    stream = client.get(f"/idle/{key}")
    client.first_data(stream)
    site.noted(key, "started")
    start = time.monotonic()
    leave(client)
    return site.released(key, start)


def _worst(site: Site, once: Callable[[], float | None], limit: float) -> Outcome:
    worst = 0.0
    for _ in range(TIMES):
        took = once()
        if took is None:
            return site.within(None, limit)
        worst = max(worst, took)
    return site.within(worst, limit)


def reaped(site: Site) -> Outcome:
    """Have a request answered, and wait to be disconnected."""
    client = site.http1()
    client.get("/hello")
    client.read_until(b"hello")
    return _ends(client, site)


def reaped_http2(site: Site) -> Outcome:
    """Have a request answered, and wait to be disconnected."""
    client = site.http2()
    client.ended(client.get("/hello"))
    return _ends(client, site)


def reaped_after_reset(site: Site) -> Outcome:
    """Reset the connection's only stream, and wait to be disconnected."""
    client, key = site.http2(), site.key()
    stream = client.get(f"/idle/{key}")
    client.first_data(stream)
    client.reset_stream()
    return _ends(client, site)


def _ends(client: Connection, site: Site) -> Outcome:
    limit = site.running.keep_alive_timeout + 0.5
    bound = limit + 1.5
    return site.ends(client, limit, bound)


def closed_after(version: str, headers: str, site: Site) -> Outcome:
    """Have a request answered after which the server closes."""
    client = site.http1()
    client.get("/hello", version=version, headers=headers)
    client.read_until(b"hello")
    return site.ends(client, 0.2, 2)


def raises(site: Site) -> Outcome:
    """Ask for a producer that raises, while another one goes on."""
    witness, key = site.stream("sse", site.key()), site.key()
    client = site.http1()
    client.get(f"/raise/{key}")
    client.read_until(b"0\r\n\r\n")
    goes_on = witness.goes_on(0.5, site.patience)
    records = site.running.server.log.count(f"LookupError: raised by {key}")
    said = f"{records} traceback{'' if records == 1 else 's'}, the other stream "
    return Outcome(goes_on and records == 1, said + ("goes on" if goes_on else "ended"))


def _leaving() -> list[Row]:
    next_request = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"
    actions: list[tuple[str, Callable[[Connection], None]]] = [
        ("half-closes", Connection.half_close),
        ("closes", Connection.close),
        ("resets", Connection.reset),
    ]
    more = [("G", "", b"", AT_ONCE, Stock.KEEPS)]
    more += [("4", "sent a CRLF, then ", b"\r\n", BYTES_AFTER, Stock.FAILS)]
    more += [("4", "sent a request, then ", next_request, BYTES_AFTER, Stock.FAILS)]
    rows = []
    for number, before, data, limit, stock in more:
        said = f"{limit * 1000:.0f} ms (worst of {TIMES})"
        for what, leave in actions:
            act = partial(gone, leave, data, limit)
            for name, settings, ways in BOTH:
                described = before + what
                row = Row(number, described, name, act, said, stock, settings, ways, quick=True)
                rows.append(row)
    act = partial(gone, Connection.close_notify, b"", AT_ONCE)
    said = f"{AT_ONCE * 1000:.0f} ms (worst of {TIMES})"
    rows.append(Row("G", "sends close_notify", "TLS", act, said, Stock.KEEPS, TLS, quick=True))
    actions_2: list[tuple[str, Callable[[Http2], None]]] = [
        ("RST_STREAM", Http2.reset_stream),
        ("GOAWAY, then closes", Http2.go_away),
        *actions,
    ]
    for what, leave_2 in actions_2:
        act = partial(gone_http2, leave_2)
        rows.append(Row("G", what, "HTTP/2", act, said, Stock.KEEPS, TLS, quick=True))
    return rows


def _idle() -> list[Row]:
    rows = []
    cases: list[tuple[str, Measure, str]] = [
        ("idle after a response", reaped, REAPED),
        ("Connection: close", partial(closed_after, "1.1", "Connection: close\r\n"), "0.2 s"),
        ("HTTP/1.0", partial(closed_after, "1.0", ""), "0.2 s"),
    ]
    for what, act, said in cases:
        for name, settings, ways in BOTH:
            # Stock closes under TLS, if not in the way of TLS: a cancelled `aclose` is forceful.
            closes = settings.tls and act is not reaped
            stock = Stock.KEEPS if closes else Stock.FAILS
            rows.append(Row("3", what, name, act, said, stock, settings, ways))
    rows.append(Row("3", "idle after a response", "HTTP/2", reaped_http2, REAPED, settings=TLS))
    reset = "RST_STREAM of the last stream, idle"
    rows.append(Row("7", reset, "HTTP/2", reaped_after_reset, REAPED, settings=TLS))
    return rows


ROWS: Final = [
    *_leaving(),
    *_idle(),
    Row(
        "G",
        "a producer raises",
        "HTTP/1.1",
        raises,
        "only that stream ends, one traceback",
        Stock.KEEPS,
        PLAIN,
        EVERY_WAY,
    ),
]
