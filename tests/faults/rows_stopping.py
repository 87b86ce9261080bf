"""Rows 1d, 3, 7, 9 to 12: what stops the server, and what must not stop a stream."""

from __future__ import annotations

import re
import signal
import time
from dataclasses import replace
from functools import partial
from typing import Any, Final

from faults_clients import WIDE_OPEN, Http1
from faults_servers import Settings, Way
from faults_table import BOTH, EVERY_WAY, PLAIN, TLS, Measure, Outcome, Row, Site, Stock
from processes import wait_until
from rows_stalled import stalled_http1, stalled_http2

DRAINED: Final = PLAIN.drain_window + 0.5
_DRAINED: Final = f"{DRAINED:g} s, status 0: drain_window {PLAIN.drain_window:g} + 0.5"
# One end after the other over the window, and then half a second for the last to clean up.
CLEANED: Final = DRAINED + 0.5
# With nothing to drain; it covers the end of an interpreter, and not stock's grace of 3 s.
NOTHING_OPEN: Final = 1.0
_NOTHING_OPEN: Final = f"{NOTHING_OPEN:g} s, status 0"
# Stock's grace is 3 s: whoever is not gone by then does not go.
STUCK: Final = 6.0

# Seconds. A stop must not depend on it.
LONG: Final = 20

STREAMS: Final = 3
CUT_AFTER: Final = 1


def stop(site: Site, limit: float) -> Outcome:
    """Send SIGTERM, and judge when the process has ended and how."""
    status, took = site.stopped(signal.SIGTERM, STUCK)
    outcome = site.within(took, limit, STUCK)
    if status is None:
        return outcome
    return replace(outcome, kept=outcome.kept and status == 0, text=f"{outcome.text}, {status}")


def stop_stalled(site: Site) -> Outcome:
    """Stop while a client does not read."""
    stalled_http1(site)
    time.sleep(0.5)
    return stop(site, DRAINED)


def stop_stalled_http2(window: int | None, site: Site) -> Outcome:
    """Stop while a client does not read, or has closed its window."""
    stalled_http2(site, window=window)
    time.sleep(0.5)
    return stop(site, DRAINED)


def stop_after_a_response(site: Site) -> Outcome:
    """Stop while a connection is idle that has had its response."""
    client = site.http1()
    client.get("/hello")
    client.read_until(b"hello")
    time.sleep(0.1)
    return stop(site, NOTHING_OPEN)


def stop_after_a_reset(site: Site) -> Outcome:
    """Stop while a connection is idle whose only stream was reset."""
    client, key = site.http2(), site.key()
    stream = client.get(f"/idle/{key}")
    client.first_data(stream)
    client.reset_stream()
    site.noted(key, "finally")
    return stop(site, NOTHING_OPEN)


def stop_with_a_stream(site: Site) -> Outcome:
    """Stop while a stream is open: its producer's `finally`, a proper end, and status 0."""
    key = site.key()
    client = site.stream("sse", key)
    outcome = stop(site, DRAINED)
    ran = "finally" in {note["what"] for note in site.running.notes()}
    proper = _ended_properly(client)
    text = f"{outcome.text}, {'' if ran else 'no '}finally, {'' if proper else 'no '}last chunk"
    return Outcome(outcome.kept and ran and proper, text)


def _ended_properly(client: Http1) -> bool:
    try:
        client.read_until(b"\r\n0\r\n\r\n")
    except OSError:
        return False
    return True


def one_worker_ends_first(site: Site) -> Outcome:
    """Stop two workers of which only one has streams; each takes half a second to clean up."""
    clients: dict[int, dict[str, Http1]] = {}
    for _ in range(2 * STREAMS - 1):  # so one of the two has as many as it takes
        key = site.key()
        client = site.stream("slow-end", key)
        clients.setdefault(site.noted(key, "started")["pid"], {})[key] = client
    *few, most = sorted(clients.values(), key=len)
    left = [item for streams in few for item in streams.items()]
    left += list(most.items())[STREAMS:]
    for _, client in left:
        client.close()
    for key, _ in left:
        site.noted(key, "finally")
    keys = list(most)[:STREAMS]
    outcome = stop(site, CLEANED)
    time.sleep(0.2)
    done = {note["key"] for note in site.running.notes() if note["what"] == "finally"}
    count = len(done.intersection(keys))
    return Outcome(outcome.kept and count == STREAMS, f"{count} of {STREAMS}, {outcome.text}")


def enough_requests(site: Site) -> Outcome:
    """Have more requests answered than a worker should, while a stream is open."""
    client = site.stream("sse", site.key())
    for _ in range(5):
        try:
            other = site.http1()
            other.get("/hello", headers="Connection: close\r\n")
            other.read_until(b"hello", 1)
        except OSError:
            break
    proper = _ended_properly(client)
    return Outcome(proper, "last chunk" if proper else "cut: no last chunk")


def lives_on(path: str, site: Site) -> Outcome:
    """Listen for twice the time after which something would cut the stream."""
    client = site.stream(path, site.key())
    start = time.monotonic()
    goes_on = client.goes_on(2 * CUT_AFTER, site.patience)
    return Outcome(
        goes_on, "goes on" if goes_on else f"cut within {time.monotonic() - start:.1f} s"
    )


def response_timeout(site: Site) -> Outcome:
    """Listen for twice Quart's RESPONSE_TIMEOUT: on stock, to a response of Quart's own."""
    if site.way is not Way.STOCK:
        return lives_on("sse", site)
    client, key = site.http1(), site.key()
    client.get(f"/generator/{key}")
    client.read_until(b"tick")
    start = time.monotonic()
    goes_on = client.goes_on(2 * CUT_AFTER, site.patience)
    return Outcome(
        goes_on, "goes on" if goes_on else f"cut within {time.monotonic() - start:.1f} s"
    )


def quic_refused(site: Site) -> Outcome:
    """Expect the process to end with one line that says why."""
    process = site.running.server.process
    try:
        wait_until(lambda: process.poll() is not None, within=max(5, site.patience))
    except AssertionError:
        return Outcome(False, "runs")
    lines = [line for line in site.running.server.log.split("\n") if line.strip()]
    clear = len(lines) == 1 and re.search("quic", lines[0], re.IGNORECASE) is not None
    text = f"status {process.returncode}, {len(lines)} line{'' if len(lines) == 1 else 's'}"
    return Outcome(clear and process.returncode != 0, text)


def _row(number: str, what: str, act: Measure, promised: str, **more: Any) -> Row:
    return Row(number, what, "HTTP/1.1", act, promised, alone=True, **more)


CLI: Final = (Way.INSTALL_CLI,)
NOT_SERVE: Final = (Way.INSTALL_SERVE, Way.INSTALL_CLI)
# Without a master process, SIGTERM kills stock at once: row 11.
MASTER: Final = replace(PLAIN, workers=1)


def _http2(number: str, what: str, act: Measure, promised: str) -> Row:
    settings = replace(TLS, workers=1, send_timeout=LONG, tcp_user_timeout=LONG)
    return Row(number, what, "HTTP/2", act, promised, settings=settings, alone=True, quick=True)


ROWS: Final = [
    *(
        Row(
            number,
            what,
            name,
            act,
            promised,
            settings=replace(settings, workers=1, send_timeout=LONG, tcp_user_timeout=LONG),
            ways=ways,
            alone=True,
            quick=True,
        )
        for number, what, act, promised in (
            ("1d", "SIGTERM while a client does not read", stop_stalled, _DRAINED),
            ("3", "SIGTERM, one idle connection", stop_after_a_response, _NOTHING_OPEN),
        )
        for name, settings, ways in BOTH
    ),
    _http2("1d", "SIGTERM, socket not read", partial(stop_stalled_http2, WIDE_OPEN), _DRAINED),
    _http2("1d", "SIGTERM, window closed", partial(stop_stalled_http2, None), _DRAINED),
    _http2("7", "SIGTERM after RST_STREAM", stop_after_a_reset, _NOTHING_OPEN),
    _row(
        "9",
        "quic_bind",
        quic_refused,
        "refused with one line",
        stock=Stock.ABSENT,
        ways=CLI,
        starts=False,
        settings=replace(TLS, more=(("quic_bind", ("127.0.0.1:0",)),)),
    ),
    _row(
        "10",
        "-w 2, SIGTERM, one has no streams",
        one_worker_ends_first,
        f"{STREAMS} of {STREAMS} `finally`, {CLEANED:g} s, status 0",
        settings=Settings(workers=2),
        ways=CLI,
    ),
    _row(
        "11",
        "-w 0, SIGTERM, one stream",
        stop_with_a_stream,
        f"{DRAINED:g} s, status 0, finally, last chunk",
        ways=EVERY_WAY,
    ),
    _row(
        "11",
        "-w 1, SIGTERM, one stream",
        stop_with_a_stream,
        f"{DRAINED:g} s, status 0, finally, last chunk",
        settings=MASTER,
        ways=CLI,
    ),
    _row(
        "12",
        "max_requests reached",
        enough_requests,
        "the last chunk comes",
        ways=NOT_SERVE,
        settings=replace(PLAIN, more=(("max_requests", 3),)),
    ),
    _row(
        "12",
        f"read_timeout = {CUT_AFTER}",
        partial(lives_on, "sse"),
        "the stream goes on",
        ways=NOT_SERVE,
        settings=replace(PLAIN, more=(("read_timeout", CUT_AFTER),)),
    ),
    _row(
        "12",
        f"RESPONSE_TIMEOUT = {CUT_AFTER}",
        response_timeout,
        "the stream goes on",
        ways=EVERY_WAY,
    ),
]
