"""A server that did not look at its clients for a while, and does not blame them for that."""

from __future__ import annotations

import signal
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from hyperframe.frame import DataFrame, WindowUpdateFrame
from processes import Server, serving
from raw_http2 import RawHTTP2

# Seconds: what the server allows its clients, and how long it is away.
PATIENCE = 1.0
AWAY = 3.0

APP = """
import json, sys, time
import trio
from hypercorn.config import Config
from penstock.hypercorn import Settings, serve

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    async def body(data, more=True):
        await send({"type": "http.response.body", "body": data, "more_body": more})
    await_body = scope["method"] == "POST"
    while await_body:
        message = await receive()
        await_body = message["type"] == "http.request" and message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/block":
        time.sleep(AWAY)
        await body(b"blocked", False)
    elif scope["path"] == "/flood":
        while True:
            await body(b"x" * 100_000)
    else:
        await body(b"answer", False)

config = Config()
config.bind = ["127.0.0.1:0"]
config.keep_alive_timeout = PATIENCE
if len(sys.argv) > 1:
    config.certfile, config.keyfile = sys.argv[1:]
limits = dict.fromkeys(("send_timeout", "body_timeout", "head_timeout"), PATIENCE)
settings = Settings(http2=True, **limits)

async def start(*, task_status):
    await serve(app, config, settings=settings, mode="asgi", task_status=task_status)

async def main():
    async with trio.open_nursery() as nursery:
        print((await nursery.start(start))[0], flush=True)

trio.run(main)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    program = tmp_path / "program.py"
    program.write_text(APP.replace("PATIENCE", str(PATIENCE)).replace("AWAY", str(AWAY)))
    with serving(sys.executable, str(program), folder=tmp_path) as server:
        yield server


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[tuple[Server, ssl.SSLContext]]:
    program = tmp_path / "program.py"
    program.write_text(APP.replace("PATIENCE", str(PATIENCE)).replace("AWAY", str(AWAY)))
    authority = trustme.CA()
    identity = authority.issue_cert("127.0.0.1")
    identity.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    identity.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    files = (str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    with serving(sys.executable, str(program), *files, folder=tmp_path) as server:
        yield server, context


async def answered(stream: trio.abc.ReceiveStream, expected: bytes = b"answer") -> None:
    """Read until this has come."""
    received = b""
    while expected not in received:
        data = bytes(await stream.receive_some(65536))
        assert data, received[-200:]
        received += data


class Downloading:
    """It has not read for a moment, and reads on during the pause."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream

    async def before(self) -> None:
        await self.stream.send_all(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
        await trio.sleep(0.7 * PATIENCE)  # what the kernels take is taken, and a piece waits

    async def during(self) -> None:
        with trio.move_on_after(AWAY / 3):
            while await self.stream.receive_some(2**20):
                pass

    async def behind(self) -> None:
        size = 0
        while size < 50_000_000:
            data = await self.stream.receive_some(2**20)
            assert data, size
            size += len(data)


class InParts:
    """It has sent a part of a request, and sends the rest during the pause."""

    def __init__(self, stream: trio.abc.Stream, first: bytes, rest: bytes) -> None:
        self.stream = stream
        self.first = first
        self.rest = rest

    async def before(self) -> None:
        if self.first.startswith(b"kept"):
            await self.stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await answered(self.stream, b"answer\r\n0\r\n\r\n")
        else:
            await self.stream.send_all(self.first)
        await trio.sleep(0.2 * PATIENCE)

    async def during(self) -> None:
        await self.stream.send_all(self.rest)

    async def behind(self) -> None:
        await answered(self.stream)


class Windows:
    """Its HTTP/2 window has been closed for a moment, and it opens it during the pause."""

    def __init__(self, client: RawHTTP2) -> None:
        self.client = client

    async def before(self) -> None:
        await self.client.send(self.client.headers(1, "/flood"))
        size = 0
        while size < 65535:
            size += len((await self.client.until(DataFrame, 1)).data)
        await trio.sleep(0.5 * PATIENCE)

    async def during(self) -> None:
        update = {"window_increment": 10_000_000}
        await self.client.send(WindowUpdateFrame(0, **update), WindowUpdateFrame(1, **update))

    async def behind(self) -> None:
        size = 0
        while size < 5_000_000:
            size += len((await self.client.until(DataFrame, 1)).data)


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc"
PARTS = [(b"kept", GET), (GET[:10], GET[10:]), (POST, b"def")]


async def away(server: Server, how: str) -> None:
    """Begin a pause of the server's."""
    if how == "stopped":
        server.process.send_signal(signal.SIGSTOP)
    else:
        blocker = await trio.open_tcp_stream("127.0.0.1", server.port)
        await blocker.send_all(b"GET /block HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await trio.sleep(0.1)
        await blocker.aclose()


@pytest.mark.parametrize("how", ["stopped", "blocked"])
async def test_clients_are_not_blamed_for_a_pause(server: Server, how: str) -> None:
    """Each of them did in time what it had to; nobody looked. Each goes on."""
    port = server.port

    async def connected() -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", port)

    with trio.fail_after(60):
        clients: list[Any] = [
            Downloading(await connected()),
            Windows(await RawHTTP2.connect(port)),
            *[InParts(await connected(), *parts) for parts in PARTS],
        ]
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(client.before)
        await away(server, how)
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(client.during)
            await trio.sleep(AWAY)
        server.process.send_signal(signal.SIGCONT)
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(client.behind)
        for client in clients:
            stream = client.client.stream if isinstance(client, Windows) else client.stream
            await trio.aclose_forcefully(stream)
    assert "Traceback" not in server.log


async def test_clients_over_tls_are_not_blamed_for_a_pause(
    tls_server: tuple[Server, ssl.SSLContext],
) -> None:
    """Neither in what they send, nor in what they read, nor in their handshakes."""
    server, context = tls_server
    port = server.port

    async def connected(*, handshake: bool = True) -> trio.SSLStream[trio.SocketStream]:
        plain = await trio.open_tcp_stream("127.0.0.1", port)
        stream = trio.SSLStream(plain, context, server_hostname="127.0.0.1", https_compatible=True)
        if handshake:
            await stream.do_handshake()
        return stream

    with trio.fail_after(60):
        clients: list[Any] = [
            Downloading(await connected()),
            *[InParts(await connected(), *parts) for parts in PARTS],
        ]
        late = await connected(handshake=False)
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(client.before)
        server.process.send_signal(signal.SIGSTOP)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(late.send_all, GET)
            for client in clients:
                nursery.start_soon(client.during)
            await trio.sleep(AWAY)
            server.process.send_signal(signal.SIGCONT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answered, late)
            for client in clients:
                nursery.start_soon(client.behind)
        for stream in (late, *(client.stream for client in clients)):
            await trio.aclose_forcefully(stream)
    assert "Traceback" not in server.log


async def test_a_client_that_does_not_read_is_blamed_all_the_same(server: Server) -> None:
    """A pause gives it as much time as it lasted, and no more."""
    with trio.fail_after(60):
        client = Downloading(await trio.open_tcp_stream("127.0.0.1", server.port))
        await client.before()
        server.process.send_signal(signal.SIGSTOP)
        await trio.sleep(AWAY)
        server.process.send_signal(signal.SIGCONT)
        await trio.sleep(5 * PATIENCE)
        with pytest.raises(trio.BrokenResourceError):
            await client.behind()
        await client.stream.aclose()
