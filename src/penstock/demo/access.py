"""Whom the demonstration obeys: programs on this machine; and where it can be hurt, only its page.

It asks nobody who they are. What came through a proxy is not from this machine: behind one on this
machine, everybody comes from loopback, and says as the host whatever they like. A page of another
origin in a browser on this machine can send a POST without asking first, but not without saying
where it comes from; and what it asks for under another name, it asks for with that name as host.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any, Final

from quart import request

__all__ = ["HURT", "is_of_the_page", "is_of_this_machine", "why_not_hurt"]

# The variable of the environment that, as 1, lets everybody hurt the demonstration who can reach it
# and has its page open.
HURT: Final = "PENSTOCK_DEMO_HURT"

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


def why_not_hurt(*, everyone: bool) -> str | None:
    """Return why who asks may not hurt the demonstration, in a sentence, or None.

    Args:
      everyone: whether it was started with `HURT`.
    """
    if everyone or is_of_this_machine():
        return None
    return (
        "what hurts is open to this machine only, and not through a proxy; "
        f"{HURT}=1 opens it to everyone who can reach the page"
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
