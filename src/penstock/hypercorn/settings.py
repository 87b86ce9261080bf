"""What can be set about the guarded worker, beyond Hypercorn's own configuration.

Every setting is named, has a unit and a reason. They are given as `Settings(…)` or, where only
Hypercorn's configuration can be handed over, as its attribute ``penstock``: in a TOML file, a table
``[penstock]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self, final

from hypercorn.config import Config

from penstock.errors import InvalidSettings

__all__ = ["SETTINGS", "Settings"]

# The entry of an ASGI scope's "extensions" in which the server tells an application its settings,
# and with them what it promises.
SETTINGS: Final = "penstock.settings"

# Settings that may be 0; the others are numbers above it, or None where that is allowed.
_MAY_BE_ZERO = frozenset({"drain_window", "reconnect_spread"})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The guarded worker's settings; valid if they exist.

    Raises:
      InvalidSettings: a value is of the wrong kind or out of its range.
    """

    send_timeout: float = 15.0
    """Seconds that the client may take to accept bytes that wait for it: each piece of 64 KiB on
    HTTP/1.1, each chunk of a stream's body on HTTP/2. Then it is cut off. nginx (60 s) and Caddy
    wait longer; an event stream's client that is 15 s behind is better off reconnecting."""
    body_timeout: float = 30.0
    """Seconds of silence after which a client of HTTP/1.1 that has sent a part of a request's body
    is cut off; on HTTP/2 that is the application's to do."""
    head_timeout: float = 5.0
    """Seconds that a client has for its TLS handshake, for its first request to arrive, and for the
    rest of a request's head once it has begun to send it. Hypercorn's ``ssl_handshake_timeout`` and
    ``keep_alive_timeout`` count where they are shorter. nginx and Apache allow 60 s and 20 s, for
    lines that hardly exist any more."""
    keep_alive_timeout: float = 130.0
    """Seconds that a connection may be idle between two requests; Hypercorn's own setting of this
    name counts where the configuration has one. A proxy sends a request on a connection that it
    kept, and must not find it closed at that moment: that is 502 for a POST, which nobody may send
    twice. So the server keeps it longer than proxies do: nginx and Amazon's load balancers 60 s,
    Traefik 90 s, Caddy 120 s. Kestrel has 130 s, too; Hypercorn's default is 5 s."""
    drain_window: float = 5.0
    """Seconds over which the streams of a stopping server end. Other requests may go on as long, or
    for Hypercorn's ``graceful_timeout``, 3 s by default, if that is longer."""
    reconnect_spread: float = 5.0
    """Seconds over which the clients of a stopped server come back, each at a random moment."""
    http2: bool = False
    """Whether plain ports speak HTTP/2, too (h2c). Browsers never do; and a proxy in front that
    passes ``Upgrade: h2c`` on unread can be used to smuggle requests past its rules. Over TLS,
    HTTP/2 is negotiated in any case, unless Hypercorn's ``alpn_protocols`` has no ``h2``."""
    max_connections: int | None = None
    """Connections in all; who comes beyond it is answered with 503 (a browser's EventSource, which
    takes no other status than 200, does not come back by itself then). None: as many as the process
    may have file descriptors, less some for the application's own files and sockets."""
    max_connections_per_address: int | None = None
    """Connections from one address; who comes beyond it is answered with 429. None: no limit,
    because behind a proxy all clients have one address."""
    health: str | None = "/-"
    """Where the server itself answers ``/ready`` and ``/live``; None: nowhere. A server that stops
    accepts no connection, which is not ready. The prefix is the convention of Prometheus and
    GitLab, which no application's pages use."""
    tcp_user_timeout: float | None = 20.0
    """Seconds that sent bytes may go unacknowledged (``TCP_USER_TIMEOUT``), the only thing that
    finds a client that vanished with data in flight; the system's own patience is 15 minutes."""
    tcp_keep_alive: float | None = 15.0
    """Seconds of silence after which the kernel asks whether the peer is still there."""
    send_buffer: int | None = 64 * 1024
    """Bytes that the kernel keeps for a client that does not read (``SO_SNDBUF``, which Linux
    doubles); left alone, it grows to 4 MB for each. A single download over a long way is slower for
    it: 64 KiB for each round trip. None leaves it to the system."""

    def __post_init__(self) -> None:
        for field in fields(self):
            _check(field.name, str(field.type), getattr(self, field.name))

    @classmethod
    def of(cls, config: Config) -> Self:
        """Return the settings that a Hypercorn configuration carries as its attribute ``penstock``.

        Raises:
          InvalidSettings: it is no table of settings, or names one that does not exist.
        """
        given = getattr(config, "penstock", {})
        if isinstance(given, cls):
            return given
        if not isinstance(given, Mapping):
            raise InvalidSettings("penstock must be a table of settings, such as {send_timeout: 5}")
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(given) - known):
            raise InvalidSettings(
                f"there is no setting {unknown[0]!r}; there are {', '.join(sorted(known))}"
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
