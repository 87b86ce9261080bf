"""Access control: loopback only; destructive actions only from the demonstration's own page.

There is no authentication. A request that came through a proxy is not from this machine: behind a
proxy on this machine every client has a loopback address, and any host it likes. A page of another
origin in a browser on this machine can send a POST without a preflight, but not without an Origin;
and if it reaches this server by another name (DNS rebinding), it sends that name as the host.
"""

from __future__ import annotations

import reprlib
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from quart import request

__all__ = ["HURT", "Refusal", "is_of_the_page", "is_of_this_machine", "why_not_hurt"]

# The environment variable that decides who may hurt the demonstration: with 1 everybody who can
# reach its page, with 0 nobody, and unless it is set, this machine.
HURT: Final = "PENSTOCK_DEMO_HURT"


class Refusal(NamedTuple):
    """Why somebody may not hurt the demonstration."""

    short: str
    """In a few words, for a button."""
    sentence: str
    """With the remedy."""


# What proxies add to the requests of others. One that adds nothing cannot be recognised, and some
# add nothing unless they are told to: nginx's bare `proxy_pass`, HAProxy without `forwardfor`.
_OF_PROXIES: Final = frozenset({"forwarded", "via", "x-real-ip"})


def is_of_this_machine() -> bool:
    """Tell whether the request was made by a program on this machine, by a name of this machine."""
    client: Any = request.scope.get("client")
    return (
        bool(client)
        and _is_loopback(client[0])
        and _is_loopback(_host_of(request.host))
        and not _came_through_a_proxy()
    )


def is_of_the_page() -> bool:
    """Tell whether a browser says that the request is of a page of the request's own origin."""
    own = f"{request.scheme}://{request.host}"
    return (
        request.headers.getlist("Origin") == [own]
        and request.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"
    )


def why_not_hurt(switch: str) -> Refusal | None:
    """Return why the current request may not hurt the demonstration, or None.

    Args:
      switch: the value of `HURT` that the demonstration was started with; empty: not set.
    """
    match switch:
        case "1":
            return None
        case "0":
            return Refusal("switched off", f"what hurts is switched off here, by {HURT}=0")
        case "":
            if is_of_this_machine():
                return None
            return Refusal(
                "open to this machine only",
                "what hurts is open to this machine only, and not through a proxy; "
                f"{HURT}=1 opens it to everyone who can reach the page",
            )
        case _:
            return Refusal(
                "switched off",
                f"what hurts is switched off here: {HURT} is neither 0 nor 1, "
                f"but {reprlib.repr(switch)}",
            )


def _came_through_a_proxy() -> bool:
    names = {name.lower() for name in request.headers.keys()}  # noqa: SIM118 - pairs without it
    return bool(names & _OF_PROXIES) or any(name.startswith("x-forwarded-") for name in names)


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
