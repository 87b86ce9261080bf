"""Penstock behind nginx, Caddy and HAProxy, with the documentation's configuration files."""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser
from processes import PATIENCE, Server, free_port, wait_until
from proxied import FILES, KINDS, Edits, Proxy, proxied
from proxied_clients import APP, DEMO, Fifty, One, client_of, listening, opened, penstock

from figures import JUDGED, figure

NUMBERS = count()  # for names that no other test has


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("proxies")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """Serve the application for all tests that do not stop it."""
    with penstock(folder, 0, APP, "--send-timeout", "2") as server:
        yield server
        assert "Traceback" not in server.log


@pytest.fixture(scope="module", params=KINDS)
def proxy(request: pytest.FixtureRequest, server: Server, folder: Path) -> Iterator[Proxy]:
    """Run each proxy in front of it, with its file as it stands."""
    with proxied(request.param, server.port, folder) as proxy:
        yield proxy


@pytest.fixture(params=["HTTP/1.1", "HTTP/2"])
def http(request: pytest.FixtureRequest, proxy: Proxy) -> Iterator[httpx2.Client]:
    """Make a client of either protocol."""
    with client_of(proxy, request.param) as client:
        yield client


def in_step(client: httpx2.Client, server: Server, events: int = 20) -> list[float]:
    """Have an event sent only when the one before has come; return how late each was, in seconds.

    An event that anything holds back until there is more never comes, and httpx2 gives up.
    """
    name = f"step{next(NUMBERS)}"
    late = []
    with listening(client, f"/steps/{name}") as stream:
        for number in range(events):
            assert httpx2.post(f"{server.url}/tell/{name}/{number}").status_code == 200
            word, moment = (stream.event().data or "").split()
            late.append(time.monotonic() - float(moment))
            assert word == str(number)
    return late


# What passes, and when.


def test_each_event_comes_when_it_is_sent(
    proxy: Proxy, http: httpx2.Client, server: Server
) -> None:
    """The first, and every other, although nothing follows it."""
    late = [seconds * 1000 for seconds in in_step(http, server, 100 if JUDGED else 20)]
    version = http.get("/headers").http_version
    print(f"{proxy.name}, {version}: {median(late):.1f} ms late, at most {max(late):.1f} ms")


HOLDING_BACK = {
    "nginx": {
        "proxy_buffering off;": "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;",
    },
    "caddy": {"lb_try_duration 30s": "buffer_responses"},
}


@pytest.mark.parametrize("name", HOLDING_BACK)
def test_a_proxy_that_buffers_is_found_out(name: str, server: Server, folder: Path) -> None:
    """With buffering turned on, the test above fails: what it asserts is the configuration's."""
    edits = HOLDING_BACK[name]
    if name == "caddy":
        edits = {**edits, "\t\tlb_try_interval 250ms\n": ""}
    with proxied(name, server.port, folder, edits) as proxy:
        with client_of(proxy, "HTTP/1.1") as client:
            client.timeout = httpx2.Timeout(3)
            with pytest.raises(httpx2.ReadTimeout):
                in_step(client, server)


def test_haproxy_without_tls(server: Server, folder: Path) -> None:
    """Events come at once there, too; without `http-no-delay`, each is a fifth of a second late."""
    plain = {"    http-request redirect scheme https unless { ssl_fc }\n": ""}
    late: list[list[float]] = []
    for edits in (plain, {**plain, "    option http-no-delay": "    #"}):
        with proxied("haproxy", server.port, folder, edits) as proxy:
            with httpx2.Client(base_url=proxy.plain_url, timeout=60) as client:
                late.append(in_step(client, server))
    with_option, without = median(late[0]) * 1000, median(late[1]) * 1000
    print(f"without TLS: {with_option:.1f} ms late; without the option {without:.1f} ms")
    # The quickest of twenty: a busy machine delays some events, the missing option nearly all.
    assert min(late[0]) < 0.1 < median(late[1])


def test_nothing_is_compressed(http: httpx2.Client) -> None:
    """Not even for a client that asks for it."""
    with listening(http, "/quiet/plain", **{"Accept-Encoding": "gzip, br, zstd"}) as stream:
        assert "content-encoding" not in stream.response.headers
        assert stream.event().data == "hello"


def test_compression_is_found_out(server: Server, folder: Path) -> None:
    """With `encode` in the Caddyfile, the test above fails."""
    edits = {"\treverse_proxy": "\tencode {\n\t\tgzip\n\t\tminimum_length 1\n\t}\n\treverse_proxy"}
    with proxied("caddy", server.port, folder, edits) as proxy, client_of(proxy) as client:
        with listening(client, "/quiet/gzip", **{"Accept-Encoding": "gzip"}) as stream:
            assert stream.response.headers["content-encoding"] == "gzip"


def test_many_streams(proxy: Proxy, server: Server) -> None:
    """Each hears all ten events, in order; of 130, a hundred share two connections."""
    with ExitStack() as stack:
        # By hand: httpx2 holds back a shared connection's streams until another hears something.
        singly = [stack.enter_context(closing(One(proxy, "/ten"))) for _ in range(30)]
        shared = [stack.enter_context(closing(Fifty(proxy, "/ten"))) for _ in range(2)]
        listeners: list[One | Fifty] = [*singly, *shared]
        for each in listeners:
            each.read(lambda heard: heard == ["begun"])
        for number in range(10):
            httpx2.post(f"{server.url}/news", content=f"{number}")
        expected = ["begun", *(str(number) for number in range(10))]
        for each in listeners:
            each.read(lambda heard: heard == expected)


def test_resuming(http: httpx2.Client) -> None:
    """Last-Event-ID arrives, on both ways; so do ids, `retry`, the proper end, and 204."""
    with listening(http, "/count") as stream:
        assert stream.response.headers["Last-Event-ID"] == "0"
        assert [event.id for event in stream.rest()] == ["1", "2", "3"]
        assert stream.retry == 1234
    with listening(http, "/count", **{"Last-Event-ID": "1"}) as stream:
        assert stream.response.headers["Last-Event-ID"] == "1"
        assert [event.data for event in stream.rest()] == ["2", "3"]
    assert http.get("/count", headers={"Last-Event-ID": "3"}).status_code == 204
    # A hub's ids, published through the proxy, too.
    ids = [http.post("/news", content=text).text for text in ("a", "b", "c")]
    with listening(http, "/news", **{"Last-Event-ID": ids[0]}) as stream:
        assert stream.response.headers["Last-Event-ID"] == ids[0]
        assert [(event.id, event.data) for event in (stream.event(), stream.event())] == [
            (ids[1], "b"),
            (ids[2], "c"),
        ]


# Who leaves.


def closes(connection: Any) -> None:
    connection.close()


def resets(connection: Any) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def half_closes(connection: Any) -> None:
    socket.socket.shutdown(connection, socket.SHUT_WR)


def leaves_one_stream(connection: Any) -> None:
    connection.h2.reset_stream(1)
    connection.sendall(connection.h2.data_to_send())


LEAVING: dict[str, tuple[str, Callable[[Any], None]]] = {
    "closes": ("http/1.1", closes),
    "resets": ("http/1.1", resets),
    "half-closes": ("http/1.1", half_closes),
    "RST_STREAM": ("h2", leaves_one_stream),
    "closes HTTP/2": ("h2", closes),
}


def leave(proxy: Proxy, server: Server, how: str, *, within: float = PATIENCE) -> float:
    """Begin a quiet stream, leave it, and return the seconds until the server logs its end."""
    protocol, leaving = LEAVING[how]
    path = f"/quiet/left{next(NUMBERS)}"
    connection = opened(proxy, protocol, path)
    left = time.monotonic()
    leaving(connection)
    server.wait_for_log(f"INFO {path} .* disconnected after .*, producer cancelled", within=within)
    seconds = time.monotonic() - left
    connection.close()
    return seconds


@pytest.mark.parametrize("how", LEAVING)
def test_a_client_that_leaves(proxy: Proxy, server: Server, how: str) -> None:
    """Its producer is cancelled, although nothing is sent to it that could fail."""
    seconds = leave(proxy, server, how)
    figure(seconds < 1, f"{proxy.name}: {how}: {seconds * 1000:.0f} ms")


NOT_TELLING = {
    "nginx": {"proxy_buffering off;": "proxy_buffering off; proxy_ignore_client_abort on;"},
    "caddy": {"lb_try_duration 30s": "lb_try_duration 30s\n\t\tflush_interval -1"},
    "haproxy": {"    option abortonclose": "    #"},
}


@pytest.mark.parametrize("name", NOT_TELLING)
def test_a_proxy_that_does_not_tell_is_found_out(name: str, server: Server, folder: Path) -> None:
    """Without the line, or with the wrong one, the test above fails."""
    with proxied(name, server.port, folder, NOT_TELLING[name]) as proxy:
        with pytest.raises(AssertionError, match="not within"):
            leave(proxy, server, "closes", within=2)


def test_a_client_that_stops_reading(proxy: Proxy, server: Server) -> None:
    """It is `slow` as soon as the proxy takes no more, and the proxy does not take much."""
    before = server.log.count("INFO /flood ")
    connection = proxy.connect()
    connection.sendall(b"GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n")
    began = time.monotonic()
    wait_until(lambda: server.log.count("INFO /flood ") > before)
    seconds = time.monotonic() - began
    connection.close()
    said = re.findall(r"INFO /flood .*", server.log)[-1]
    print(f"{proxy.name}: {said}, with a send timeout of 2 s: {seconds:.2f} s")
    ended = re.search(r" slow after \S+ s, (\d+) events sent", said)
    assert ended is not None, said
    assert int(ended[1]) < 1000  # of 64 KiB each


# Silence.

IDLE = {
    "nginx": {"proxy_read_timeout 60s": "proxy_read_timeout 2s"},
    "haproxy": {
        "timeout client 60s": "timeout client 2s",
        "timeout server 60s": "timeout server 2s",
    },
    # Caddy has no such limit unless it is given one.
    "caddy": {"keepalive 60s": "keepalive 60s\n\t\t\tread_timeout 2s"},
}


@pytest.mark.parametrize("name", IDLE)
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
def test_silence(name: str, version: str, server: Server, folder: Path) -> None:
    """Comments keep a quiet stream open beyond the proxy's patience; without them, it is cut."""
    with proxied(name, server.port, folder, IDLE[name]) as proxy:
        with client_of(proxy, version) as client:
            with listening(client, "/quiet/kept?keep_alive=0.5") as stream:
                began = time.monotonic()
                while time.monotonic() - began < 4:
                    assert stream.read()
            with listening(client, "/quiet/cut") as stream:
                began = time.monotonic()
                # Some proxies make the end look like a proper one.
                with suppress(httpx2.RemoteProtocolError):
                    stream.rest()
                assert time.monotonic() - began > 1


# The stop.


def ask(client: httpx2.Client, path: str = "/count") -> httpx2.Response:
    return client.get(path, headers={"Accept": "text/event-stream"})


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
def test_a_restart(name: str, version: str, folder: Path) -> None:
    """Streams end properly, with a `retry`; nobody who asks for one gets anything but 200."""
    port = free_port()
    with proxied(name, port, folder) as proxy:
        with penstock(folder, port) as server:
            with client_of(proxy, version) as client:
                with listening(client, "/quiet/drained") as stream:
                    assert stream.event().data == "hello"
                    assert server.stop() == 0
                    assert stream.rest() == []
                    assert stream.retry is not None
                    assert 500 <= stream.retry <= 5500
                    assert "draining after" in server.log
                if name == "nginx":  # which cannot wait
                    answer = ask(client)
                    assert answer.status_code == 200
                    assert answer.headers["content-type"] == "text/event-stream"
                    assert answer.text == "retry: 2000\n\n"
                    assert client.get("/headers").status_code == 503
                    with penstock(folder, port):
                        assert "data: 3" in ask(client).text
                    return
                with ThreadPoolExecutor(1) as thread:
                    asked = thread.submit(ask, client)
                    with pytest.raises(TimeoutError):
                        asked.result(timeout=1)
                    with penstock(folder, port):
                        answer = asked.result(timeout=60)
                        assert answer.status_code == 200
                        assert "data: 3" in answer.text


@pytest.mark.parametrize("name", KINDS)
def test_a_browser_comes_back(name: str, folder: Path, browser: Browser) -> None:
    """Its EventSource hears, after a restart of Penstock, what was published while it was away."""
    assert heard_after_restart(name, folder, browser, {}) == ["before", "after"]


@pytest.mark.parametrize(
    ("name", "edits"),
    [
        ("nginx", {"error_page 502 504 = $unavailable;": ""}),
        ("caddy", {"lb_try_duration 30s": ""}),
        ("haproxy", {"retries 30": "retries 0"}),
    ],
)
def test_a_browser_that_gives_up_is_found_out(
    name: str, edits: Edits, folder: Path, browser: Browser
) -> None:
    """Without the line, it asks once while nobody is there, and then never again."""
    assert heard_after_restart(name, folder, browser, edits) == ["before", None]


def heard_after_restart(
    name: str, folder: Path, browser: Browser, edits: Edits
) -> list[str | None]:
    """Restart Penstock under a browser's stream; None stands for a stream that was given up."""
    port = free_port()
    with proxied(name, port, folder, edits) as proxy:
        with browser.new_context(ignore_https_errors=True) as context:
            page = context.new_page()
            with penstock(folder, port, APP, "--reconnect-spread", "0") as server:
                page.goto(f"{proxy.url}/page")
                page.wait_for_function("source.readyState === EventSource.OPEN")
                httpx2.post(f"{server.url}/news", content="before")
                page.wait_for_function("heard.length === 1")
                # It comes back half a second after the end, and so before Penstock is there.
                with page.expect_request("**/news"):
                    assert server.stop() == 0
            if edits:
                page.wait_for_function("source.readyState === EventSource.CLOSED")
                return [*page.evaluate("heard"), None]
            with penstock(folder, port) as server:
                page.wait_for_function("source.readyState === EventSource.OPEN")
                httpx2.post(f"{server.url}/news", content="after")
                page.wait_for_function("heard.length === 2")
                heard: list[str | None] = page.evaluate("heard")
                return heard


# Who the client is.


def test_the_client_s_address(proxy: Proxy, http: httpx2.Client, server: Server) -> None:
    """The log has the address that the proxy saw, whatever the client itself says of it."""
    name = f"/quiet/address{next(NUMBERS)}"
    lies = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Host": "elsewhere.example",
        "X-Forwarded-Proto": "gopher",
    }
    with listening(http, name, **lies) as stream:
        assert stream.event().data == "hello"
    http.close()
    # The proxy's connections have a port: 0 is that of an address that a header gave.
    server.wait_for_log(rf"INFO {name} 127\.0\.0\.1:0 disconnected")
    with client_of(proxy) as client:
        seen = client.get("/headers", headers=lies).json()
    assert seen["x-forwarded-for"] == "127.0.0.1"
    assert seen["x-forwarded-proto"] == "https"
    assert seen["x-forwarded-host"].partition(":")[0] == "localhost"
    assert seen["host"].partition(":")[0] == "localhost"


def test_without_tls_there_is_only_the_way_to_it(proxy: Proxy) -> None:
    """The plain port sends everyone on."""
    answer = httpx2.get(f"{proxy.plain_url}/count?a=b")
    assert answer.status_code in (301, 302, 308)
    assert re.fullmatch(r"https://localhost(:\d+)?/count\?a=b", answer.headers["location"])


@pytest.mark.parametrize("name", KINDS)
def test_the_demonstration_s_hub_is_closed_to_all(name: str, folder: Path) -> None:
    """Behind a proxy everybody comes from this machine, and so nobody is taken to."""
    with penstock(folder, 0, DEMO) as server, proxied(name, server.port, folder) as proxy:
        trusted = proxy.place.certificate.trusted()
        for host in ("localhost", "127.0.0.1:8080"):
            with httpx2.Client(
                verify=trusted, base_url=proxy.url, headers={"Host": host}
            ) as client:
                publication = {"topics": ["a"], "data": "x"}
                answers = [
                    client.post("/publish", json=publication),
                    client.get("/subscribe?topic=a"),
                ]
                for answer in answers:
                    if name == "caddy" and host != "localhost":
                        assert answer.text == ""  # no site of that name: Penstock was not asked
                        continue
                    assert answer.status_code == 403
                    assert "this machine only" in answer.json()["error"]
        assert httpx2.post(f"{server.url}/publish", json=publication).status_code == 200


# The documentation.


@pytest.mark.parametrize("name", KINDS)
def test_the_page_shows_the_files(name: str) -> None:
    """Each is there as it stands."""
    page = (FILES.parent / "proxies.md").read_text()
    blocks = re.findall(r"(?ms)^```\w+\n(.*?)^```$", page)
    assert (FILES / KINDS[name].file).read_text() in blocks
