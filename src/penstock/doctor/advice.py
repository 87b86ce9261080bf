"""What to set where something is wrong: in the server, and in the proxies that one meets most.

What is said of nginx 1.22, Caddy 2.6 and HAProxy 2.6 was tried with them; what is said of the
others is what their operators document.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

__all__ = [
    *("ACCESS", "BUFFERING", "CACHE", "COMPRESSION", "HTTP2", "IDLE", "IDLE_LIMITS"),
    *("RESUMING", "meant_for"),
]

# Those for whom there is a line of their own, which begins with the name.
_PROXIES: Final = ("nginx", "Caddy", "HAProxy")

BUFFERING: Final = (
    "nginx: proxy_buffering off; or, from the server, the header X-Accel-Buffering: no",
    "Caddy: passes on text/event-stream as it comes, unless encode compresses it",
    "HAProxy: passes on what comes, unless it compresses; option http-no-delay",
    "the server: flush after each event",
    "to know who holds it back: ask the server itself, past the proxy, and compare",
)

COMPRESSION: Final = (
    "the server: Cache-Control: no-cache, no-transform; HAProxy heeds it, nginx and Caddy do not",
    "nginx: gzip off; in the location, or gzip_types without text/event-stream and without *",
    "Caddy: encode with a matcher that leaves the stream's path out",
    "HAProxy: compression type without text/event-stream",
)

CACHE: Final = ("the server: Cache-Control: no-store (or no-cache)",)

HTTP2: Final = (
    "nginx: listen 443 ssl http2; (from 1.25.1 on: http2 on;)",
    "Caddy: speaks it by itself where it has a certificate",
    "HAProxy: bind :443 ssl crt … alpn h2,http/1.1",
)

IDLE: Final = (
    "the server: a comment (a line with a colon) every 15 s, as Penstock sends by itself",
    "nginx: proxy_read_timeout longer than from comment to comment",
    "HAProxy: timeout server and timeout client, likewise",
    "Caddy: has no such limit by itself; read_timeout would set one",
)

RESUMING: Final = (
    "the server: send what came after the event of that Last-Event-ID, and not itself",
    "the proxy: pass the header Last-Event-ID on",
)

ACCESS: Final = (
    "a browser's EventSource sends cookies, and no header of yours: let the server take a cookie",
    "to ask as somebody here: --header 'Cookie: …' or --header 'Authorization: Bearer …'",
)

# Seconds without a byte after which a connection is cut, where nobody set anything else.
IDLE_LIMITS: Final = (
    (30.0, "CloudFront (30 s)"),
    (50.0, "HAProxy as Debian sets it up (50 s)"),
    (55.0, "Heroku (55 s)"),
    (60.0, "nginx (60 s)"),
    (60.0, "AWS ALB (60 s)"),
    (100.0, "Cloudflare (100 s)"),
)


def meant_for(advice: Sequence[str], named: str) -> tuple[str, ...]:
    """Leave out what is for other proxies, where the answer names the one that it came through.

    Args:
      advice: lines of the above.
      named: the answer's Server and Via.
    """
    there = [proxy for proxy in _PROXIES if proxy.lower() in named.lower()]
    absent = [f"{proxy}:" for proxy in _PROXIES if there and proxy not in there]
    return tuple(line for line in advice if not line.startswith(tuple(absent)))
