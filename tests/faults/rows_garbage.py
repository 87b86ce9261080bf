"""Rows 2: a client sends what it should not, while another one listens to its stream."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from faults_clients import Http1, Http2
from faults_servers import Settings, Way
from faults_table import BOTH, EVERY_WAY, H2C, PLAIN, TLS, Outcome, Row, Site, Stock
from h2.exceptions import ProtocolError
from processes import wait_until

# Seconds for which the other client is watched.
WATCHED: Final = 0.6

STREAMS: Final = 6

PROMISED: Final = "that connection ends, no other"


def data_after_the_end(client: Http2) -> None:
    """Send DATA on a stream whose response is over, and whose request is not."""
    stream = client.get("/hello", end_stream=False)
    client.ended(stream)
    client.h2.send_data(stream, b"late")
    client.flush()


def non_ascii_path(client: Http2) -> None:
    """Send a :path of UTF-8."""
    client.get("/h\u00e9llo")


def non_ascii_method(client: Http2) -> None:
    """Send a :method of UTF-8."""
    client.get("/hello", method="G\u00cbT")


def many_priorities(client: Http2) -> None:
    """Send a PRIORITY frame for each of 1001 streams that there are not."""
    for stream in range(1, 2003, 2):
        client.h2.prioritize(stream, weight=16, depends_on=0)
    client.flush()


def connect_without_path(client: Http2) -> None:
    """Send a CONNECT, which has no :path."""
    stream = client.h2.get_next_available_stream_id()
    client.h2.send_headers(stream, [(":method", "CONNECT"), (":authority", "x")])
    client.flush()


def no_frames(client: Http2) -> None:
    """Send what is no HTTP/2 frame."""
    client.socket.sendall(b"\xff" * 100)


GARBAGE_2: Final[dict[str, Callable[[Http2], None]]] = {
    "DATA after the response's end": data_after_the_end,
    "non-ASCII :path": non_ascii_path,
    "non-ASCII :method": non_ascii_method,
    "1001 PRIORITY frames": many_priorities,
    "CONNECT without :path": connect_without_path,
    "what is no frame": no_frames,
}

_UPGRADE: Final = b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
_WEBSOCKET: Final = (
    b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
)

GARBAGE_1: Final = {
    "no HTTP at all": b"\x00\xff\r\n\r\n",
    "non-ASCII target": b"GET /h\xc3\xa9llo HTTP/1.1\r\nHost: x\r\n\r\n",
    "non-ASCII method": b"G\xc3\x8bT /hello HTTP/1.1\r\nHost: x\r\n\r\n",
    "100 kB of headers": b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000,
    "negative length": b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "no chunk": b"POST /hello HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "h2c upgrade, bad settings": _UPGRADE + b"Upgrade: h2c\r\nHTTP2-Settings: AAAA\r\n\r\n",
    "WebSocket, no key": _WEBSOCKET + b"\xff\r\n\r\n",
    "WebSocket, no frames": _WEBSOCKET + b"dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + b"\xff" * 100,
}


def others_go_on(site: Site, do: Callable[[], None]) -> Outcome:
    """Do something while another client listens; it must go on, and a third must be answered."""
    witness = site.stream("sse", site.key())
    start = time.monotonic()
    with suppress(OSError, ProtocolError):  # the server has had enough, as it may
        do()
    goes_on = witness.goes_on(WATCHED, site.patience)
    if not goes_on:
        took = time.monotonic() - start
        with suppress(AssertionError):  # whether the whole process went
            wait_until(lambda: not site.running.alive(), within=0.5)
        status = site.running.server.process.poll()
        gone = "" if status is None else f", and the process, status {status}"
        return Outcome(False, f"the other ended in {took * 1000:.0f} ms{gone}")
    other = site.http1()
    other.get("/hello", headers="Connection: close\r\n")
    other.read_until(b"hello")
    return Outcome(True, "goes on")


def http2_garbage(send: Callable[[Http2], None], site: Site) -> Outcome:
    """Send it on a connection of its own."""

    def do() -> None:
        client = site.http2()
        send(client)
        client.ends(0.2)

    return others_go_on(site, do)


def http1_garbage(data: bytes, site: Site) -> Outcome:
    """Send it on a connection of its own, which has to end where it was no HTTP."""
    ended: float | None = None

    def do() -> None:
        nonlocal ended
        client = site.http1()
        with suppress(OSError):  # it may end before it has everything
            client.send(data)
        ended = client.ends(max(WATCHED, site.patience) if b"Upgrade" not in data else WATCHED)

    outcome = others_go_on(site, do)
    if outcome.kept and ended is None and b"Upgrade" not in data:
        return Outcome(False, "its own connection stays")
    return outcome


def not_tls(site: Site) -> Outcome:
    """Speak plain HTTP to a port of TLS."""

    def do() -> None:
        client = Http1(site.running, tls=False)
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        client.ends(0.2)
        client.close()

    return others_go_on(site, do)


def workers(site: Site) -> Outcome:
    """Crash one of two workers, as far as it can be crashed, while both have streams."""
    witnesses = [site.stream("sse", site.key()) for _ in range(STREAMS)]
    for send in (non_ascii_path, data_after_the_end, many_priorities):
        with suppress(OSError, ProtocolError):
            send(site.http2())
    time.sleep(WATCHED)
    going = sum(witness.goes_on(0.3, site.patience) for witness in witnesses)
    status = site.running.server.process.poll()
    gone = "" if status is None else f", exit status {status}"
    return Outcome(going == STREAMS and not gone, f"{going} of {STREAMS}{gone}")


def _http2() -> list[Row]:
    keeps = {"what is no frame"}
    rows = []
    for what, send in GARBAGE_2.items():
        stock = Stock.KEEPS if what in keeps else Stock.FAILS
        act = partial(http2_garbage, send)
        rows.append(Row("2", what, "h2c", act, PROMISED, stock, H2C, EVERY_WAY))
        rows.append(Row("2", what, "HTTP/2", act, PROMISED, stock, TLS))
    act = partial(http2_garbage, non_ascii_path)
    off = "non-ASCII :path, http2 is off"
    return [*rows, Row("2", off, "h2c", act, PROMISED, settings=PLAIN, ways=EVERY_WAY)]


def _http1() -> list[Row]:
    fails = {"h2c upgrade, bad settings", "WebSocket, no frames"}
    return [
        Row("2", what, name, partial(http1_garbage, data), PROMISED, stock, settings, ways)
        for what, data in GARBAGE_1.items()
        for stock in [Stock.FAILS if what in fails else Stock.KEEPS]
        for name, settings, ways in BOTH
    ]


ROWS: Final = [
    *_http2(),
    *_http1(),
    Row("2", "no TLS", "TLS", not_tls, PROMISED, Stock.KEEPS, TLS),
    Row(
        "2b",
        "-w 2: one worker is sent garbage",
        "h2c",
        workers,
        f"{STREAMS} of {STREAMS} streams go on",
        settings=Settings(http2=True, workers=2),
        ways=(Way.INSTALL_CLI,),
        alone=True,
    ),
]
