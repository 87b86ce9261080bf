"""Whom the demonstration's hub answers, over real sockets: programs of this machine, no page."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio
from guarded import guarded
from hub_clients import JSON, Answer, Listener, ask, newest, refused
from processes import PENSTOCK, serving
from quart_trio import QuartTrio

from penstock.demo.hub_routes import add_hub_routes

GOOD = b'{"topics": ["a"], "data": "good"}'

# Hosts that a page could be made to ask under, each with whether it is this machine for certain.
HOSTS = {
    "127.0.0.1": True,
    "127.8.9.1:8080": True,
    "localhost": True,
    "localhost:8080": True,
    "LocalHost:8080": True,
    "[::1]": True,
    "[::1]:8080": True,
    "example.org": False,
    "example.org:8080": False,
    "localhost.example.org": False,
    "127.0.0.1.example.org": False,
    "127.0.0.1@example.org": False,
    "192.0.2.1": False,
    "0.0.0.0": False,
    "[::]": False,
    "[2001:db8::1]:80": False,
    "2130706433": False,
    "": False,
}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Serve the demonstration for all tests of the module, on its loopback address."""
    folder = tmp_path_factory.mktemp("hub")
    with serving(PENSTOCK, "serve", "--bind", "127.0.0.1:0", folder=folder) as server:
        yield server.port
        assert "Traceback" not in server.log


@pytest.mark.parametrize("host", HOSTS)
def test_only_names_of_this_machine_are_answered(port: int, host: str) -> None:
    """A page that had its own name point here (DNS rebinding) can neither publish nor listen."""
    before = newest(port)
    published = ask(port, "POST", "/publish", GOOD, {**JSON, "Host": host})
    with Listener(port, "?topic=a", Host=host) as listener:
        status = listener.response.status
    if HOSTS[host]:
        assert (published.status, status) == (200, 200)
        return
    assert "this machine only" in refused(published, 403)["error"]
    assert status == 403
    assert newest(port) == before


# What proxies add: the world stands behind a proxy on this machine, and comes from loopback.
PROXIED = {
    "Forwarded": "for=127.0.0.1",
    "X-Forwarded-For": "127.0.0.1",
    "X-Forwarded-Host": "localhost",
    "x-forwarded-proto": "https",
    "X-FORWARDED-SERVER": "localhost",
    "X-Real-IP": "127.0.0.1",
    "Via": "1.1 localhost",
}


@pytest.mark.parametrize("header", PROXIED)
def test_what_came_through_a_proxy_is_refused(port: int, header: str) -> None:
    """Whatever it says: who is behind it is not known, and could say the same."""
    before = newest(port)
    through = {header: PROXIED[header], "Host": "localhost"}
    published = ask(port, "POST", "/publish", GOOD, {**JSON, **through})
    assert "this machine only" in refused(published, 403)["error"]
    assert ask(port, "GET", "/subscribe?topic=a", headers=through).status == 403
    assert ask(port, "GET", "/", headers=through).status == 200
    assert newest(port) == before


def test_a_page_elsewhere_is_told_nothing(port: int) -> None:
    """Neither a preflight nor a stream has a header that would let another origin read or send."""
    asked = {
        "Origin": "http://example.org",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    answers = [ask(port, "OPTIONS", "/publish", headers=asked)]
    answers.append(ask(port, "POST", "/publish", GOOD, {**JSON, "Origin": "http://example.org"}))
    for answer in answers:
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
    with Listener(port, "?topic=a", Origin="http://example.org") as listener:
        assert "Access-Control-Allow-Origin" not in listener.response.headers


@pytest.mark.parametrize(
    ("client", "taken"),
    [
        (("127.0.0.1", 1), True),
        (("127.200.0.9", 1), True),
        (("::1", 1, 0, 0), True),
        (("192.0.2.1", 1), False),
        (("10.0.0.1", 1), False),
        (("0.0.0.0", 1), False),
        (("2001:db8::1", 1, 0, 0), False),
        (("::ffff:192.0.2.1", 1, 0, 0), False),
        (("fe80::1%eth0", 1, 0, 2), False),
        (("", 1), False),
        (None, False),
    ],
)
async def test_only_clients_of_this_machine_are_answered(client: Any, taken: bool) -> None:
    """Whatever name they use for it."""
    app = QuartTrio(__name__)
    add_hub_routes(app)

    async def elsewhere(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope["client"] = client
        await app(scope, receive, send)

    async with guarded(elsewhere) as (_, port):
        answers = [
            await trio.to_thread.run_sync(ask, port, "POST", "/publish", GOOD, JSON),
            await trio.to_thread.run_sync(head_of, port),
        ]
    for answer in answers:
        assert answer.status == (200 if taken else 403)


def head_of(port: int) -> Answer:
    return ask(port, "HEAD", "/subscribe?topic=a")


def address_of_this_machine() -> str | None:
    """Return an address of this machine that is not loopback's, if it has one."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as asking:
        try:
            asking.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return None
        address = asking.getsockname()[0]
        return None if address.startswith("127.") or address == "0.0.0.0" else address


def test_an_address_that_others_could_have_is_refused(tmp_path: Path) -> None:
    """Bound to every address, the hub answers to loopback only; the page is open to all."""
    address = address_of_this_machine()
    if address is None:
        pytest.skip("this machine has no address but loopback")
    with serving(PENSTOCK, "serve", "--bind", "0.0.0.0:0", folder=tmp_path) as server:
        for headers in ({**JSON}, {**JSON, "Host": "localhost"}):
            answer = ask(server.port, "POST", "/publish", GOOD, headers, host=address)
            assert "this machine only" in refused(answer, 403)["error"]
        assert ask(server.port, "GET", "/subscribe?topic=a", host=address).status == 403
        assert ask(server.port, "GET", "/", host=address).status == 200
        assert ask(server.port, "POST", "/publish", GOOD, JSON).status == 200
