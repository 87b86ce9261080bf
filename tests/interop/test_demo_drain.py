"""The demonstration's drain: the server ends in good order, and starts its command again."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import pytest
from demo_actions import post, told
from hub_clients import ask, refused
from processes import PENSTOCK, Server, free_port, serving, wait_until


def test_a_drain_needs_a_port_of_its_own(demo: Server) -> None:
    """Port 0 would be another one afterwards: it is refused, and nothing stops."""
    assert ":0" in refused(post(demo.port, "/drain"), 409)["error"]
    assert ":0" in told(demo.port)["drain"]["why_not"]


@pytest.mark.parametrize("module", [False, True])
def test_a_drain_and_the_same_command_again(module: bool, tmp_path: Path) -> None:
    """Streams end in good order, and the same process serves the same port again; and again."""
    port = free_port()
    command = [sys.executable, "-m", "penstock"] if module else [PENSTOCK]
    options = ("--bind", f"127.0.0.1:{port}", "--drain-window", "2", "--reconnect-spread", "0.5")
    with serving(*command, "serve", *options, folder=tmp_path) as server:
        pid = server.process.pid
        for turn in range(1, 3):
            listens(server, turn)
            assert server.url.endswith(f":{port}")
            clients = [opened(port) for _ in range(5)]
            assert post(port, "/scenarios/raises").status == 201
            answer = post(port, "/drain")
            assert answer.status == 202
            assert "PENSTOCK_HISTORY" in answer.said["text"]
            for client in clients:
                rest = client.makefile("rb").read()
                assert b"retry: " in rest
                assert rest.endswith(b"\r\n0\r\n\r\n")  # a proper end
                client.close()
            server.wait_for_log(f"(?s)(Stopping, to start again.*Starting again: .*){{{turn}}}")
        listens(server, 3)
        again = opened(port)
        assert told(port)["rows"] == []
        assert (server.process.poll(), server.process.pid) == (None, pid)
        again.close()
        assert server.stop(signal.SIGINT) == 0
        assert server.output.count("Listening") == 3
        assert server.log.count("Starting again") == 2


def listens(server: Server, times: int) -> None:
    """Wait until it has said so many times where it listens."""
    wait_until(lambda: server.output.count("Listening") == times)


def opened(port: int) -> socket.socket:
    """Return a connection on which the stream of pings has begun."""
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    client.sendall(b"GET /sse HTTP/1.1\r\nHost: x\r\n\r\n")
    received = b""
    while b"retry: 1000" not in received:
        data = client.recv(65536)
        assert data, received
        received += data
    return client


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_a_drain_is_for_good(number: signal.Signals, tmp_path: Path) -> None:
    """The process ends, and no other takes its place."""
    port = free_port()
    options = ("--bind", f"127.0.0.1:{port}", "--drain-window", "20")
    with serving(PENSTOCK, "serve", *options, folder=tmp_path) as server:
        assert server.url
        assert post(port, "/scenarios/stops-reading").status == 201
        assert post(port, "/drain").status == 202
        server.wait_for_log("Stopping, to start again")
        assert server.stop(number) == -number
        assert "Starting again" not in server.log


def test_other_applications_cannot_be_restarted(tmp_path: Path) -> None:
    """The restart is between the demonstration and its command: the server offers nobody any."""
    (tmp_path / "shop.py").write_text(
        """
from quart import request
from quart_trio import QuartTrio

app = QuartTrio(__name__)

@app.get("/")
async def offers():
    return sorted(request.scope["extensions"])
"""
    )
    bind = f"127.0.0.1:{free_port()}"
    arguments = (PENSTOCK, "serve", "shop:app", "--bind", bind)
    with serving(*arguments, folder=tmp_path, cwd=tmp_path) as server:
        offers = ask(server.port, "GET", "/").said
    assert "penstock.settings" in offers
    assert [name for name in offers if "restart" in name] == []
