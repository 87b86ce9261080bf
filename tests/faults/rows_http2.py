"""Rows 5 and 6: what HTTP/2 keeps in memory, and what it loses."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

from faults_clients import WIDE_OPEN
from faults_table import EVERY_WAY, H2C, TLS, Outcome, Row, Site, Stock
from h2.exceptions import ProtocolError
from rows_stalled import stalled_http2

# Megabytes: what the flow-control windows of a few streams and the kernel's buffers allow for.
GROWTH: Final = 8.0
# Seconds of flood; shorter where it has grown too much by then.
FLOOD: Final = 3.0
TOO_MUCH: Final = 100.0
# Seconds for something to happen in the server of which nobody tells; all are less than LONG.
PAUSE: Final = 0.3
LONG: Final = 20


def growth(site: Site) -> Outcome:
    """Ask for a flood, read one window of it, and weigh the server."""
    before = site.running.memory()
    _, _, start = stalled_http2(site, window=None)
    most = 0.0
    while (took := time.monotonic() - start) < FLOOD and most < TOO_MUCH:
        time.sleep(0.02)
        most = max(most, site.running.memory() - before)
    text = f"{most:.1f} MB in {took:.1f} s"
    return Outcome(most <= GROWTH, text if most < TOO_MUCH else f"> {text}")


def headers_in_step(site: Site) -> Outcome:
    """Reset a stream whose response's headers wait for a socket that is not read; then read on.

    The reset stream's headers have been through the compression, so the client has to see them, or
    each index in the next stream's headers means something else to it.
    """
    client, _, _ = stalled_http2(site, window=WIDE_OPEN, before=[site.key() for _ in range(40)])
    flooded = client.stream
    time.sleep(3 * PAUSE)  # until the socket is full
    first, second, third = site.key(), site.key(), site.key()
    lost = client.get(f"/echo-headers/{first}")
    site.noted(first, "started")
    client.get(f"/echo-headers/{second}")
    site.noted(second, "started")
    time.sleep(PAUSE)  # until the headers wait
    client.h2.reset_stream(lost)
    client.flush()
    time.sleep(PAUSE)  # until the view has been cancelled
    sibling = client.get(f"/echo-headers/{third}")
    site.noted(third, "started")
    time.sleep(PAUSE)
    client.h2.reset_stream(flooded)
    client.flush()
    try:
        headers = client.response(sibling)
    except (ProtocolError, OSError) as error:
        return Outcome(False, f"{type(error).__name__}: {error}"[:40])
    right = headers.get("x-key") == third and headers.get("x-key-twice") == third * 2
    return Outcome(right, "right headers" if right else f"wrong headers: {_wrong(headers)}")


def _wrong(headers: dict[str, str]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in headers.items())[:60]


ROWS: Final = [
    Row(
        "5",
        "window closed, the server's memory",
        protocol,
        growth,
        f"{GROWTH:g} MB more at most, in {FLOOD:g} s",
        settings=settings,
        ways=ways,
        alone=True,
    )
    for protocol, settings, ways in (("h2c", H2C, EVERY_WAY[:1]), ("HTTP/2", TLS, EVERY_WAY[:1]))
] + [
    Row(
        "6",
        "a stream reset while its headers wait",
        "HTTP/2",
        headers_in_step,
        "the next stream has its own headers",
        Stock.FAILS,
        replace(TLS, send_timeout=LONG),
    )
]
