"""A guarded server in the test's own Trio run, and clients that speak HTTP/1.1 by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import h11
import trio
from hypercorn.config import Config

from penstock.hypercorn import Server, Settings


def config_for(bind: str = "127.0.0.1:0") -> Config:
    config = Config()
    config.bind = [bind]
    config.errorlog = None
    config.graceful_timeout = 0.5
    return config


@asynccontextmanager
async def guarded(
    app: Any, *, config: Config | None = None, **settings: Any
) -> AsyncIterator[tuple[Server, int]]:
    """Serve an application while the block runs, then stop it; the block has two minutes."""
    values = {"drain_window": 0.5, **settings}
    server = Server(app, config or config_for(), settings=Settings(**values), mode="asgi")
    stop = trio.Event()
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            (url,) = await nursery.start(partial(server.serve, shutdown_trigger=stop.wait))
            try:
                yield server, int(url.rpartition(":")[2])
            finally:
                stop.set()


class Client:
    """An HTTP/1.x client; h11 reads what it receives."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.h11 = h11.Connection(h11.CLIENT)
        self.raw = b""

    async def ask(self, path: str = "/", method: str = "GET", **headers: str) -> h11.Response:
        """Send a request without a body, and return the head of the answer."""
        given = [("host", "x"), *((key.replace("_", "-"), headers[key]) for key in headers)]
        request = h11.Request(method=method, target=path, headers=given)
        data = self.h11.send(request)
        assert data is not None
        await self.stream.send_all(data)
        self.h11.send(h11.EndOfMessage())
        event = await self.event()
        assert isinstance(event, h11.Response)
        return event

    async def event(self) -> Any:
        """Return the next event of h11."""
        while (event := self.h11.next_event()) is h11.NEED_DATA:
            data = bytes(await self.stream.receive_some(65536))
            self.raw += data
            self.h11.receive_data(data)
        return event

    async def until(self, mark: bytes) -> bytes:
        """Read the body until it ends in this."""
        body = b""
        while not body.endswith(mark):
            event = await self.event()
            assert isinstance(event, h11.Data), event
            body += event.data
        return body

    async def rest(self) -> bytes:
        """Return the rest of the body, which must end properly."""
        body = b""
        while isinstance(event := await self.event(), h11.Data):
            body += event.data
        assert isinstance(event, h11.EndOfMessage), event
        return body


async def connect(port: int) -> Client:
    """Return a client that is connected."""
    return Client(await trio.open_tcp_stream("127.0.0.1", port))


async def settled(server: Server, **expected: Any) -> None:
    """Wait until the server's statistics are these; the test's own limit bounds it."""
    while any(  # noqa: ASYNC110 - figures have no event
        getattr(server.statistics(), name) != expected[name] for name in expected
    ):
        await trio.sleep(0.002)
