"""Settings of the guarded worker, beyond Hypercorn's own configuration.

Every setting has a name, a unit and a reason. Pass them as `Settings(…)`. Where only Hypercorn's
configuration can be passed, they are its attribute ``penstock``: in a TOML file, a table
``[penstock]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self, final

from hypercorn.config import Config

from penstock.errors import InvalidSettings

__all__ = ["SETTINGS", "Settings"]

# The entry of an ASGI scope's "extensions" that holds the server's settings, so that an application
# can read what the server guarantees.
SETTINGS: Final = "penstock.settings"

# Settings that may be 0. The others are positive numbers, or None where that is allowed.
_MAY_BE_ZERO = frozenset({"drain_window", "reconnect_spread"})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The guarded worker's settings, validated at construction.

    Raises:
      InvalidSettings: a value is of the wrong kind or out of its range.
    """

    send_timeout: float = 15.0
    """Disconnect a client that accepts no data for this many seconds. The limit applies to each
    piece of 64 KiB on HTTP/1.1, and to each chunk of a stream's body on HTTP/2. nginx (60 s) and
    Caddy wait longer, but the client of an event stream that is 15 s behind should reconnect."""
    body_timeout: float = 30.0
    """Disconnect an HTTP/1.1 client that is silent for this many seconds within a request's body.
    On HTTP/2 the application has to set a time limit."""
    head_timeout: float = 5.0
    """Seconds that a client has for its TLS handshake, for its first request to arrive, and for the
    rest of a request's head once it has begun to send it. Hypercorn's ``ssl_handshake_timeout`` and
    ``keep_alive_timeout`` apply if they are shorter. nginx and Apache allow 60 s and 20 s, for slow
    lines that hardly exist any more."""
    keep_alive_timeout: float = 130.0
    """Seconds that a connection may be idle between two requests. Hypercorn's setting of the same
    name takes precedence if the configuration has it. If the server closed first, a proxy could
    send a request into a closed connection; for a POST, which must not be sent twice, the answer is
    a 502. So the server keeps connections longer than proxies do: nginx and Amazon's load balancers
    60 s, Traefik 90 s, Caddy 120 s. Kestrel uses 130 s, too; Hypercorn's default is 5 s."""
    drain_window: float = 5.0
    """Seconds over which a stopping server ends its streams. Other requests may continue for as
    long, or for Hypercorn's ``graceful_timeout`` (3 s by default) if that is longer."""
    reconnect_spread: float = 5.0
    """Seconds over which the clients of a stopped server reconnect, each at a random moment."""
    http2: bool = False
    """Whether plain ports also speak HTTP/2 (h2c). Browsers never use it, and a request can be
    smuggled past the rules of a proxy that forwards ``Upgrade: h2c``. Over TLS, HTTP/2 is always
    negotiated, unless Hypercorn's ``alpn_protocols`` lacks ``h2``."""
    max_connections: int | None = None
    """Maximum number of connections. A client beyond it gets 503, after which a browser's
    EventSource does not reconnect by itself: it accepts no status but 200. None: as many as the
    process may have file descriptors, less some for the application's own files and sockets."""
    max_connections_per_address: int | None = None
    """Maximum number of connections from one address. A client beyond it gets 429. None: no limit,
    because behind a proxy all clients have one address."""
    health: str | None = "/-"
    """Path prefix under which the server itself answers ``/ready`` and ``/live``; None disables
    both. A stopping server accepts no connections, which means "not ready". The prefix is the
    convention of Prometheus and GitLab; applications do not use it for pages."""
    tcp_user_timeout: float | None = 20.0
    """Seconds that sent bytes may stay unacknowledged (``TCP_USER_TIMEOUT``). Nothing else detects
    a client that vanished with data in flight; the system's default is some 15 minutes."""
    tcp_keep_alive: float | None = 15.0
    """Seconds of silence after which the kernel probes whether the peer is still there."""
    send_buffer: int | None = 64 * 1024
    """Bytes that the kernel buffers for a client that does not read (``SO_SNDBUF``, which Linux
    doubles). By default the buffer grows to 4 MB per client. A single download over a long distance
    is slower for it: 64 KiB per round trip. None leaves the size to the system."""

    def __post_init__(self) -> None:
        for field in fields(self):
            _check(field.name, str(field.type), getattr(self, field.name))

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Return the settings in a Hypercorn configuration's attribute ``penstock``.

        Raises:
          InvalidSettings: the attribute is not a table of settings, or has an unknown setting.
        """
        given = getattr(config, "penstock", {})
        if isinstance(given, cls):
            return given
        if not isinstance(given, Mapping):
            raise InvalidSettings("penstock must be a table of settings, such as {send_timeout: 5}")
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(given) - known):
            raise InvalidSettings(
                f"unknown setting {unknown[0]!r}; the settings are {', '.join(sorted(known))}"
            )
        return cls(**given)


def _check(name: str, kind: str, value: Any) -> None:
    if value is None and "None" in kind:
        return
    if name == "health":
        good = isinstance(value, str) and value.startswith("/") and not value.endswith("/")
        wanted = "a path such as '/-', or None"
    elif kind == "bool":
        good, wanted = isinstance(value, bool), "true or false"
    elif "int" in kind:
        good, wanted = type(value) is int and value > 0, "a whole number above 0"
    else:
        good = type(value) in (int, float) and (value > 0 or (value == 0 and name in _MAY_BE_ZERO))
        wanted = "a number of seconds" + ("" if name in _MAY_BE_ZERO else " above 0")
    if not good:
        raise InvalidSettings(f"{name} must be {wanted}: {value!r}")
