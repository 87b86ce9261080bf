"""Rows 1: clients that stop reading, and then leave, stay, or read a little now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from faults_clients import PATIENCE, WIDE_OPEN, Http1, Http2
from faults_table import BOTH, BOUND, PLAIN, TLS, Measure, Outcome, Row, Site, Stock

# Bytes: the client's share of what is under way while it does not read.
SMALL: Final = 16384

RELEASED: Final = 0.5
CUT: Final = PLAIN.send_timeout + 0.5
_CUT_SAID: Final = f"{CUT:g} s: send_timeout {PLAIN.send_timeout:g} + 0.5"


def stalled_http1(site: Site) -> tuple[Http1, str, float]:
    """Ask for a flood, read its beginning, and no more."""
    client, key = site.http1(SMALL), site.key()
    client.get(f"/flood/{key}")
    client.read_until(b":\n")
    return client, key, time.monotonic()


def stalled_http2(
    site: Site, *, window: int | None, before: Sequence[str] = ()
) -> tuple[Http2, str, float]:
    """Ask for a flood; let its window close, or open the window wide and leave the socket.

    What is asked for ``before`` fills the tables of the header compression.
    """
    client, key = site.http2(window, SMALL), site.key()
    for each in before:
        client.ended(client.get(f"/echo-headers/{each}"))
    stream = client.get(f"/flood/{key}")
    if window is None:
        client.exhaust(stream)
    else:
        client.first_data(stream)
    return client, key, time.monotonic()


def leaves(leave: Callable[[Http1], None], site: Site) -> Outcome:
    """Leave half a second after the last read."""
    client, key, _ = stalled_http1(site)
    time.sleep(0.5)
    start = time.monotonic()
    leave(client)
    return site.within(site.released(key, start), RELEASED)


def leaves_http2(leave: Callable[[Http2], None], window: int | None, site: Site) -> Outcome:
    """Leave half a second after the last read."""
    client, key, _ = stalled_http2(site, window=window)
    time.sleep(0.5)
    start = time.monotonic()
    leave(client)
    return site.within(site.released(key, start), RELEASED)


def stays(site: Site) -> Outcome:
    """Do nothing at all any more."""
    _, key, start = stalled_http1(site)
    return site.within(site.released(key, start), CUT)


def stays_http2(window: int | None, site: Site) -> Outcome:
    """Do nothing at all any more."""
    _, key, start = stalled_http2(site, window=window)
    return site.within(site.released(key, start), CUT)


def sips(size: int, every: float, site: Site) -> Outcome:
    """Take a little out of the socket, again and again."""
    client, key, start = stalled_http1(site)
    return _released_while(site, key, start, lambda: client.sip(size), every)


def sips_http2(site: Site) -> Outcome:
    """Open the stream's window by one byte, again and again."""
    client, key, start = stalled_http2(site, window=None)

    def open_by_one() -> bool:
        client.h2.increment_flow_control_window(1)
        client.h2.increment_flow_control_window(1, client.stream)
        try:
            client.flush()
        except OSError:
            return False
        return client.sip(4096)

    return _released_while(site, key, start, open_by_one, 0.05)


def _released_while(
    site: Site, key: str, start: float, act: Callable[[], bool], every: float
) -> Outcome:
    """Act until the server does not go on, or long enough; then look when it let go."""
    while time.monotonic() < start + BOUND and act():
        time.sleep(every)
    return site.within(site.released(key, start, max(BOUND, CUT)), CUT)


def _http1() -> list[Row]:
    cases: list[tuple[str, str, Measure, str, Stock]] = [
        (
            "1a",
            "stops reading, then half-closes",
            partial(leaves, Http1.half_close),
            "",
            Stock.FAILS,
        ),
        ("1a", "stops reading, then closes", partial(leaves, Http1.close), "", Stock.KEEPS),
        ("1b", "stops reading, and stays", stays, _CUT_SAID, Stock.FAILS),
        ("1c", "reads 1 byte every 50 ms", partial(sips, 1, 0.05), _CUT_SAID, Stock.FAILS),
        ("1c", "reads 2 KiB every 250 ms", partial(sips, 2048, 0.25), _CUT_SAID, Stock.FAILS),
    ]
    return [
        Row(number, what, name, act, said or f"{RELEASED:g} s", stock, settings, ways)
        for number, what, act, said, stock in cases
        for name, settings, ways in BOTH
    ]


def _http2() -> list[Row]:
    leaving: list[tuple[str, Callable[[Http2], None]]] = [
        ("RST_STREAM", Http2.reset_stream),
        ("GOAWAY, then closes", Http2.go_away),
        ("half-closes", Http2.half_close),
        ("closes", Http2.close),
    ]
    windows = (("window closed", None), ("socket not read", WIDE_OPEN))
    rows = []
    for state, window in windows:
        for what, leave in leaving:
            act: Measure = partial(leaves_http2, leave, window)
            said = f"{state}, then {what}"
            rows.append(Row("1a", said, "HTTP/2", act, f"{RELEASED:g} s", Stock.KEEPS, TLS))
        act = partial(stays_http2, window)
        rows.append(Row("1b", f"{state}, and stays", "HTTP/2", act, _CUT_SAID, settings=TLS))
    opens = "opens its window by 1 byte every 50 ms"
    return [*rows, Row("1c", opens, "HTTP/2", sips_http2, _CUT_SAID, settings=TLS)]


ROWS: Final = [*_http1(), *_http2()]

assert max(CUT, RELEASED) < BOUND < PATIENCE
