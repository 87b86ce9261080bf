"""Access control: loopback only; destructive actions only from the demonstration's own page.

There is no authentication. A request that came through a proxy counts as remote: behind a proxy on
this machine every client has a loopback address, and sends any host it likes. A page of another
origin, in a browser on this machine, can send a POST without a preflight, but not without an
Origin; and if it reaches this server by another name (DNS rebinding), it sends that name as host.
"""

from __future__ import annotations

import reprlib
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from quart import request

__all__ = ["ACTIONS", "Refusal", "is_from_own_page", "is_from_this_machine", "refusal_of_actions"]

# The environment variable that decides who may use destructive actions: 1 allows everybody who can
# reach the page, 0 nobody; if it is not set, programs on this machine may.
ACTIONS: Final = "PENSTOCK_DEMO_ACTIONS"


class Refusal(NamedTuple):
    """Why a client may not use destructive actions."""

    short: str
    """In a few words, for a button."""
    sentence: str
    """With the remedy."""


# Headers that proxies add. A proxy that adds none cannot be recognised, and some add none unless
# configured to: nginx's bare `proxy_pass`, HAProxy without `forwardfor`.
_PROXY_HEADERS: Final = frozenset({"forwarded", "via", "x-real-ip"})


def is_from_this_machine() -> bool:
    """Return whether the request comes from this machine, and addresses it by a loopback name."""
    client: Any = request.scope.get("client")
    return (
        bool(client)
        and _is_loopback(client[0])
        and _is_loopback(_host_of(request.host))
        and not _came_through_a_proxy()
    )


def is_from_own_page() -> bool:
    """Return whether the request comes from a page of its own origin, by what the browser says."""
    own = f"{request.scheme}://{request.host}"
    return (
        request.headers.getlist("Origin") == [own]
        and request.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"
    )


def refusal_of_actions(switch: str) -> Refusal | None:
    """Return why the current request may not use destructive actions, or None.

    Args:
      switch: the value of `ACTIONS` that the demonstration was started with; empty: not set.
    """
    match switch:
        case "1":
            return None
        case "0":
            sentence = f"destructive actions are switched off, by {ACTIONS}=0"
            return Refusal("switched off", sentence)
        case "":
            if is_from_this_machine():
                return None
            return Refusal(
                "from this machine only",
                "destructive actions are allowed from this machine only, and not through a proxy; "
                f"{ACTIONS}=1 allows them to everyone who can reach the page",
            )
        case _:
            return Refusal(
                "switched off",
                f"destructive actions are switched off: {ACTIONS} is neither 0 nor 1, "
                f"but {reprlib.repr(switch)}",
            )


def _came_through_a_proxy() -> bool:
    names = {name.lower() for name in request.headers.keys()}  # noqa: SIM118 - pairs without it
    return bool(names & _PROXY_HEADERS) or any(name.startswith("x-forwarded-") for name in names)


def _host_of(authority: str) -> str:
    host, _, port = authority.rpartition(":")
    return (host if host and port.isdecimal() else authority).strip("[]")


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
