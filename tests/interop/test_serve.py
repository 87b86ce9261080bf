"""`penstock serve` and the stock Hypercorn, over real sockets, as a user runs them."""

from __future__ import annotations

import itertools
import re
import signal
import socket
import time
from pathlib import Path

import pytest
import trustme
from demo_actions import post, told
from processes import HYPERCORN, PENSTOCK, CurlFixture, Server, serving, wait_until

from figures import figure


def test_the_go_program_through_curl(demo: Server, curl: CurlFixture) -> None:
    """A comment at once, then id, event and data every 500 ms: 20 events take 10 s."""
    url = demo.url
    start = time.monotonic()
    client = curl(f"{url}/sse")
    lines = (line.decode().rstrip("\n") for line in client.lines)
    assert next(lines) == ":"
    figure(time.monotonic() - start < 0.3, f"a comment after {time.monotonic() - start:.3f} s")
    assert next(lines) == "retry: 1000"
    times = []
    for _ in range(20):
        block = list(itertools.takewhile(bool, lines))
        times.append(time.monotonic() - start)
        fields = dict(line.split(": ") for line in block)
        assert list(fields) == ["id", "event", "data"]
        assert fields["event"] == "ping"
        assert fields["id"] == fields["data"]
        assert abs(int(fields["data"]) - time.time()) < 120
    assert all(at >= 0.5 * n for n, at in enumerate(times, 1))
    late = max(at - 0.5 * n for n, at in enumerate(times, 1))
    figure(late < 0.25, f"20 events in {times[-1]:.3f} s, at most {late:.3f} s late")
    client.go_away()
    demo.wait_for_log(r"/sse 127.0.0.1:\d+ disconnected after 1\d\.\d\d s, 2\d events sent")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_streams_and_server(
    demo: Server, curl: CurlFixture, number: signal.Signals
) -> None:
    """Every client has a proper end, and the process ends with status 0."""
    clients = [curl(f"{demo.url}/{path}") for path in ("sse", "ticks") * 5]
    for client in clients:
        assert client.lines.readline() == b":\n"
    start = time.monotonic()
    assert demo.stop(number) == 0
    took = time.monotonic() - start
    figure(took < 2, f"stopped in {took:.3f} s")
    # curl's status is 18 for a chunked body without its end.
    assert [client.status() for client in clients] == [0] * 10
    assert demo.log.count("draining after") == 10
    assert "Traceback" not in demo.log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_it_at_once(tmp_path: Path, number: signal.Signals) -> None:
    """Who cannot wait for a drain need not: the process ends by the signal."""
    options = ("--bind", "127.0.0.1:0", "--drain-window", "600", "--send-timeout", "600")
    with serving(PENSTOCK, "serve", *options, folder=tmp_path) as server:
        port = server.port
        assert post(port, "/scenarios/stops-reading").status == 201
        wait_until(lambda: told(port)["rows"][0]["triggered"])
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log(r"Stopping: \d streams? to end; a second signal stops at once")
        assert server.stop(number) == -number
        assert "Traceback" not in server.log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_application_starts(tmp_path: Path, number: signal.Signals) -> None:
    """The application is cancelled, its `finally` has run, and the status is 0."""
    (tmp_path / "slow.py").write_text(
        """
import trio
from quart_trio import QuartTrio

app = QuartTrio(__name__)

@app.before_serving
async def connect():
    try:
        print("http://starting", flush=True)
        await trio.sleep_forever()
    finally:
        print("finally", flush=True)
"""
    )
    with serving(
        PENSTOCK, "serve", "slow:app", "-b", "127.0.0.1:0", folder=tmp_path, cwd=tmp_path
    ) as server:
        assert server.url == "http://starting"
        assert server.stop(number) == 0
        assert "Listening" not in server.output
        assert server.output.endswith("finally\n")
        assert "Traceback" not in server.log


def test_a_signal_as_soon_as_it_listens(tmp_path: Path) -> None:
    """Who waits for the first line may stop the server then."""
    for _ in range(4):
        with serving(PENSTOCK, "serve", "-b", "127.0.0.1:0", folder=tmp_path) as server:
            wait_until(lambda: "Listening" in server.output)
            assert server.stop() == 0


def test_a_client_that_keeps_its_connection_does_not_hold_the_server(demo: Server) -> None:
    """The stop takes the grace of a second then, and no more."""
    with socket.create_connection(("127.0.0.1", demo.port)) as connection:
        connection.sendall(b"GET /sse HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(10)
        assert demo.stop() == 0


def test_listens_where_it_says(tmp_path: Path) -> None:
    """One line for each bind, with the real port, first on stdout; and nothing else there."""
    binds = ("--bind", "127.0.0.1:0", "-b", "[::1]:0", "--bind", "localhost:0")
    with serving(PENSTOCK, "serve", *binds, folder=tmp_path) as server:
        wait_until(lambda: server.output.count("\n") == 3)
        first, second, third = re.findall(r"(?m)^Listening on http://(.+):(\d+)$", server.output)
        assert [first[0], second[0], third[0]] == ["127.0.0.1", "[::1]", "127.0.0.1"]
        for host, (_, port) in (("127.0.0.1", first), ("::1", second), ("localhost", third)):
            assert int(port) > 0
            socket.create_connection((host, int(port))).close()
        assert server.stop() == 0
        assert server.output.count("\n") == 3
        assert "Running on" not in server.log


def test_an_application_of_ones_own(tmp_path: Path, curl: CurlFixture) -> None:
    """MODULE:APP is found in the current directory, and its failing producer harms nobody."""
    (tmp_path / "shop.py").write_text(
        """
import trio
from quart_trio import QuartTrio
from penstock import ServerSentEvent
from penstock.quart import EventSourceResponse

app = QuartTrio(__name__)

async def good(events):
    for n in range(3):
        await events.send(ServerSentEvent(str(n)))
    await trio.sleep(1)
    await events.send(ServerSentEvent("bye"))

async def bad(events):
    await events.send(ServerSentEvent("x"))
    raise LookupError("no such thing")

@app.get("/good")
async def good_view():
    return EventSourceResponse(good)

@app.get("/bad")
async def bad_view():
    return EventSourceResponse(bad)
"""
    )
    arguments = (PENSTOCK, "serve", "shop:app", "--bind", "127.0.0.1:0")
    with serving(*arguments, folder=tmp_path, cwd=tmp_path) as server:
        good = curl(f"{server.url}/good")
        bad = [curl(f"{server.url}/bad") for _ in range(3)]
        for client in bad:
            assert client.lines.read() == b":\ndata: x\n\n"
            assert client.status() == 0
        assert (
            good.lines.read()
            == b":\n" + b"".join(b"data: %d\n\n" % n for n in range(3)) + b"data: bye\n\n"
        )
        assert server.stop() == 0
        assert re.search(r"… repeated 2 times .*: LookupError: no such thing\n", server.log)
        assert server.log.count("Traceback") == 1


def test_http_1_0(demo: Server) -> None:
    """HTTP/1.0 gets the stream as it is, without chunks."""
    with socket.create_connection(("127.0.0.1", demo.port), timeout=60) as connection:
        connection.sendall(b"GET /sse HTTP/1.0\r\n\r\n")
        received = b""
        while b"data: " not in received:
            received += connection.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert body.startswith(b":\nretry: 1000\nid: ")
    demo.wait_for_log("/sse .* disconnected after")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("HEAD /sse", b"200"),
        ("POST /sse", b"405"),
        ("GET /nothing", b"404"),
    ],
)
def test_short_answers(demo: Server, request_line: str, status: bytes) -> None:
    """HEAD has no body and is over; what is not there or not allowed says so in a body."""
    line, *headers = request_line.split("\r\n")
    lines = [f"{line} HTTP/1.1", "Host: x", *headers, "", ""]
    with socket.create_connection(("127.0.0.1", demo.port), timeout=60) as connection:
        with connection.makefile("rb") as received:
            connection.sendall("\r\n".join(lines).encode())
            head = list(itertools.takewhile(lambda line: line != b"\r\n", received))
            lengths = [line.split()[1] for line in head if line.startswith(b"content-length:")]
            body = received.read(int(lengths[0])) if lengths else b""
            # Whatever came beyond it would be taken for this answer.
            connection.sendall(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
            following = received.readline()
    assert head[0].split()[1] == status
    assert bool(body) == (status != b"200")
    assert following.startswith(b"HTTP/1.1 404")


def test_http_2(tmp_path: Path, curl: CurlFixture) -> None:
    """Over HTTP/2 there is no Connection header, and a client that goes is noticed as well."""
    arguments = (PENSTOCK, "serve", "--http2", "--bind", "127.0.0.1:0")
    with serving(*arguments, folder=tmp_path) as server:
        client = curl("-i", "--http2-prior-knowledge", f"{server.url}/sse")
        head = list(itertools.takewhile(lambda line: line != b"\r\n", client.lines))
        assert head[0].startswith(b"HTTP/2 200")
        assert b"content-type: text/event-stream\r\n" in head
        assert not any(line.lower().startswith(b"connection:") for line in head)
        assert client.lines.readline() == b":\n"
        client.go_away()
        server.wait_for_log("/sse .* disconnected after")


def test_http_2_on_a_plain_port_is_refused_unless_asked_for(demo: Server) -> None:
    """Prior knowledge is answered with 505, and an upgrade to h2c is not made."""
    with socket.create_connection(("127.0.0.1", demo.port), timeout=60) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert connection.makefile("rb").read().startswith(b"HTTP/1.1 505 ")
    with socket.create_connection(("127.0.0.1", demo.port), timeout=60) as connection:
        connection.sendall(
            b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
            b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 404 ")


def test_under_the_stock_hypercorn(tmp_path: Path, curl: CurlFixture) -> None:
    """`hypercorn -k trio penstock.demo.asgi:app` serves the same, and logs the same line."""
    arguments = (HYPERCORN, "-k", "trio", "penstock.demo.asgi:app", "--bind", "127.0.0.1:0")
    with serving(*arguments, folder=tmp_path) as server:
        client = curl(f"{server.url}/sse")
        assert client.lines.readline() == b":\n"
        client.go_away()
        server.wait_for_log("/sse .* disconnected after .* producer cancelled")
        client = curl(f"{server.url}/ticks")
        assert client.lines.readline() == b":\n"
        assert server.stop() == 0
        client.status()
        assert "Traceback" not in server.log


def test_out_of_file_descriptors(tmp_path: Path, curl: CurlFixture) -> None:
    """Clients wait until others go; the stream that is open goes on; the log says it once."""
    limited = f"ulimit -n 64; exec {PENSTOCK} serve --bind 127.0.0.1:0"
    with serving("bash", "-c", limited, folder=tmp_path) as server:
        stream = curl(f"{server.url}/sse")
        assert stream.lines.readline() == b":\n"
        crowd = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
        server.wait_for_log("accepts no clients until others leave: Too many open files")
        while b"data" not in stream.lines.readline():
            pass
        for client in crowd:
            client.close()

        def ready() -> bool:
            late = curl("-o", "/dev/null", "-w", "%{http_code}", f"{server.url}/-/ready")
            return late.lines.read() == b"200"  # 503 while the others' ends are being read

        wait_until(ready)
        assert server.log.count("accepts no clients") == 1
        assert "Traceback" not in server.log


def test_over_tls(tmp_path: Path, curl: CurlFixture) -> None:
    """HTTP/2 is negotiated, HTTP/1.1 is to be had; both stream, and notice who leaves."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    options = ("--certfile", f"{tmp_path}/cert.pem", "--keyfile", f"{tmp_path}/key.pem")
    command = (PENSTOCK, "serve", "--bind", "127.0.0.1:0", *options)
    with serving(*command, folder=tmp_path) as server:
        assert server.url.startswith("https://")
        for version, said in (("--http1.1", b"HTTP/1.1 200"), ("--http2", b"HTTP/2 200")):
            trusting = ("--cacert", f"{tmp_path}/authority.pem", "-i", version)
            client = curl(*trusting, f"{server.url}/ticks")
            assert client.lines.readline().startswith(said)
            while client.lines.readline() != b":\n":
                pass
            client.go_away()
        server.wait_for_log("(?s)(/ticks .* disconnected after.*){2}")
        late = curl("--cacert", f"{tmp_path}/authority.pem", f"{server.url}/ticks")
        assert late.lines.readline() == b":\n"
        assert server.stop() == 0
        assert late.lines.read().splitlines()[-2].startswith(b"retry: ")
        assert late.status() == 0
