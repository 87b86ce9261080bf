"""What a finding is made of: its mark, its words, and the advice to give.

What the advice says of nginx 1.22, Caddy 2.6 and HAProxy 2.6 was tried with them; the limits of
other services are those that their operators document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from penstock.printable import printable

__all__ = [
    *("ACCESS", "BUFFERING", "CACHE", "COMPRESSION", "HTTP2", "IDLE", "IDLE_LIMITS", "RESUMING"),
    *("Figure", "Finding", "Mark", "applicable", "quoted", "seconds", "shown", "worst"),
]

# Characters of a server's text that a line shows.
_MAX_SHOWN: Final = 60

Figure = str | int | float | bool | None | list[str]


class Mark(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARN = "warn"
    """It works, but perhaps not for everybody, or not for long."""
    FAIL = "FAIL"
    SKIP = "skip"
    """There was no evidence."""


_SEVERITY: Final = (Mark.SKIP, Mark.OK, Mark.WARN, Mark.FAIL)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
      check: the name of the check.
      mark: its result.
      summary: the result in a line, with what was measured.
      advice: what to configure, one line each.
      figures: what was measured, for programs; times are in seconds.
    """

    check: str
    mark: Mark
    summary: str
    advice: tuple[str, ...] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)


def worst(*marks: Mark) -> Mark:
    """Return the worst of some marks."""
    return max(marks, key=_SEVERITY.index)


def shown(text: str | bytes) -> str:
    """Return a server's text, printable and short."""
    return printable(text, limit=_MAX_SHOWN)


def quoted(text: str | bytes) -> str:
    """Return a server's text, printable and short, in quotes."""
    return f"“{shown(text)}”"


def seconds(value: float) -> str:
    """Return a duration with its unit."""
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 100 else f"{value:.0f} s"


# Proxies with lines of advice of their own, which begin with the name.
_PROXIES: Final = ("nginx", "Caddy", "HAProxy")

BUFFERING: Final = (
    "nginx: proxy_buffering off; or, from the server, the header X-Accel-Buffering: no",
    "Caddy: passes text/event-stream on as it arrives, unless encode compresses it",
    "HAProxy: passes data on as it arrives, unless it compresses it; option http-no-delay",
    "the server: flush after each event",
    "to find out who buffers: test the server directly, without the proxy, and compare",
)

COMPRESSION: Final = (
    "the server: Cache-Control: no-cache, no-transform; respected by HAProxy, not by nginx or "
    "Caddy",
    "nginx: gzip off; in the location, or gzip_types without text/event-stream and without *",
    "Caddy: encode with a matcher that excludes the stream's path",
    "HAProxy: compression type without text/event-stream",
)

CACHE: Final = ("the server: Cache-Control: no-store (or no-cache)",)

HTTP2: Final = (
    "nginx: listen 443 ssl http2; (since 1.25.1: http2 on;)",
    "Caddy: uses HTTP/2 by default where it has a certificate",
    "HAProxy: bind :443 ssl crt … alpn h2,http/1.1",
)

IDLE: Final = (
    "the server: send a comment (a line with a colon) every 15 s, as Penstock does by default",
    "nginx: proxy_read_timeout longer than the time between comments",
    "HAProxy: timeout server and timeout client, likewise",
    "Caddy: has no such limit by default; read_timeout would set one",
)

RESUMING: Final = (
    "the server: send the events after the one with that Last-Event-ID, without repeating it",
    "the proxy: pass the header Last-Event-ID on",
)

ACCESS: Final = (
    "a browser's EventSource sends cookies but no custom headers: let the server accept a cookie",
    "to authenticate here: --header 'Cookie: …' or --header 'Authorization: Bearer …'",
)

# Seconds without a byte after which a connection is cut by default.
IDLE_LIMITS: Final = (
    (30.0, "CloudFront (30 s)"),
    (50.0, "HAProxy with Debian's configuration (50 s)"),
    (55.0, "Heroku (55 s)"),
    (60.0, "nginx (60 s)"),
    (60.0, "AWS ALB (60 s)"),
    (100.0, "Cloudflare (100 s)"),
)


def applicable(advice: Sequence[str], named: str) -> tuple[str, ...]:
    """Return advice without the lines for other proxies, if the response names its proxy.

    Args:
      advice: lines of advice.
      named: the response's Server and Via.
    """
    present = [proxy for proxy in _PROXIES if proxy.lower() in named.lower()]
    absent = tuple(f"{proxy}:" for proxy in _PROXIES if present and proxy not in present)
    return tuple(line for line in advice if not line.startswith(absent))
