"""Servers that do not run on Trio: one clear error, and never a hang."""

from __future__ import annotations

import socket
from pathlib import Path

from processes import HYPERCORN, UVICORN, free_port, serving

SAYS = "Streaming unsupported: this application needs Trio"


def ask(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"GET /sse HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    return received


def test_uvicorn_does_not_start(tmp_path: Path) -> None:
    """Uvicorn is told at start-up, and says so itself."""
    with serving(UVICORN, "penstock.demo.asgi:app", "--port", "0", folder=tmp_path) as server:
        assert server.process.wait(timeout=60) != 0
        assert server.log.count(SAYS) == 1
        assert "Traceback" not in server.log


def test_uvicorn_without_lifespan_answers_500(tmp_path: Path) -> None:
    """Where nobody asks at start-up, each request is told."""
    arguments = (UVICORN, "penstock.demo.asgi:app", "--lifespan", "off", "--port", "0")
    with serving(*arguments, folder=tmp_path) as server:
        server.wait_for_log("Uvicorn running on")
        received = ask(server.port)
        assert received.startswith(b"HTTP/1.1 500 ")
        assert received.endswith(b"`hypercorn -k trio MODULE:APP`.\n")
        assert SAYS in received.decode()
        assert server.log.count(SAYS) == 1
        assert "Traceback" not in server.log


def test_hypercorn_on_asyncio_does_not_start(tmp_path: Path) -> None:
    """Hypercorn's default worker is told at start-up; its own way to say so is an exception."""
    arguments = (HYPERCORN, "penstock.demo.asgi:app", "--bind", f"127.0.0.1:{free_port()}")
    with serving(*arguments, folder=tmp_path) as server:
        server.process.wait(timeout=60)
        assert SAYS in server.log
        assert (
            server.log.rstrip().splitlines()[-1].startswith("hypercorn.utils.LifespanFailureError")
        )
