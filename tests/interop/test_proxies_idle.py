"""Idle connections between nginx and Penstock, and the Unix socket that they may share."""

from __future__ import annotations

import os
import signal
import ssl
import time
from pathlib import Path

import pytest
from processes import PENSTOCK, serving, wait_until
from proxied import Proxy, proxied
from proxied_clients import APP, penstock

POST = b"POST /tell/a/b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx"


def answered(client: ssl.SSLSocket) -> bytes:
    """Return the status of an answer."""
    return client.recv(65536).split()[1]


def signal_workers(proxy: Proxy, number: signal.Signals) -> None:
    """Send a signal to all of a proxy's processes but the first."""
    master = proxy.process.pid
    for child in Path(f"/proc/{master}/task/{master}/children").read_text().split():
        os.kill(int(child), number)


def posted_when_idle(proxy: Proxy, seconds: float) -> bytes:
    """Return the status of a POST that nginx takes up when its connection was idle for so long.

    nginx is stopped before the POST is sent, so that it reads that first and a close afterwards:
    the order that it meets by chance when both come in one moment.
    """
    with proxy.connect() as client:
        client.sendall(POST)
        assert answered(client) == b"200"
        signal_workers(proxy, signal.SIGSTOP)
        try:
            client.sendall(POST)
            time.sleep(seconds)
        finally:
            signal_workers(proxy, signal.SIGCONT)
        return answered(client)


def test_an_idle_connection_is_not_closed_under_a_post(tmp_path: Path) -> None:
    """Penstock keeps connections longer than the proxy does: no request meets its close."""
    with penstock(tmp_path) as server, proxied("nginx", server.port, tmp_path) as proxy:
        assert posted_when_idle(proxy, 7) == b"200"


def test_a_server_that_closes_first_is_found_out(tmp_path: Path) -> None:
    """With a shorter time than the proxy's, the same POST is lost."""
    with penstock(tmp_path, 0, APP, "--keep-alive-timeout", "1") as server:
        with proxied("nginx", server.port, tmp_path) as proxy:
            assert posted_when_idle(proxy, 3) == b"503"


@pytest.mark.parametrize("target", ["/tell/a/b", "/quiet/a"])
def test_nginx_on_a_unix_socket(target: str, tmp_path: Path) -> None:
    """What the configuration shows works: requests and streams come by the socket."""
    path = tmp_path / "penstock.sock"
    command = (PENSTOCK, "serve", APP[0], "--bind", f"unix:{path}")
    edits = {"proxy_pass http://penstock;": f"proxy_pass http://unix:{path};"}
    with serving(*command, folder=tmp_path, cwd=APP[1]) as server:
        wait_until(lambda: "Listening" in server.output, within=30)
        path.chmod(0o777)
        with proxied("nginx", 1, tmp_path, edits) as proxy, proxy.connect() as client:
            method = b"GET" if "quiet" in target else b"POST"
            client.sendall(POST.replace(b"POST /tell/a/b", method + b" " + target.encode()))
            response = client.makefile("rb")
            assert response.readline().split()[1] == b"200"
            if method == b"GET":
                # Only a stream that has begun, which its head does not show, is logged.
                assert b"data: hello\n" in iter(response.readline, b"")
        if method == b"GET":
            # The middleware of this application takes the address from the proxy's header.
            server.wait_for_log(r"INFO /quiet/a 127\.0\.0\.1:0 disconnected", within=20)
