"""A network of the tests for EventSource, on the virtual clock."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import trio
import trio.testing

from penstock.client import EventSource

URL = "https://example.org/events"
Clock = trio.testing.MockClock
STREAM = {"content-type": "text/event-stream"}


class Body(httpx2.AsyncByteStream):
    """A body as a network gives it: in async generators, one in the other, that must all end."""

    def __init__(self, parts: Sequence[bytes | float | Exception]) -> None:
        self.parts = parts
        self.begun = self.ended = self.closed = False

    async def _receive(self) -> AsyncIterator[bytes]:
        self.begun = True
        try:
            for part in self.parts:
                if isinstance(part, Exception):
                    raise part
                if isinstance(part, bytes):
                    await trio.lowlevel.checkpoint()
                    yield part
                else:
                    await trio.sleep(part)
        finally:
            self.ended = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._receive():
            yield chunk

    async def aclose(self) -> None:
        try:
            await trio.lowlevel.checkpoint()
        finally:
            self.closed = True  # as every resource of Trio's: closed even when cancelled

    @property
    def gone(self) -> bool:
        """Whether nothing of it is left."""
        return self.closed and self.ended >= self.begun


@dataclass
class Answer:
    """What the server does with one request; a number among the parts is a pause in seconds."""

    parts: Sequence[bytes | float | Exception] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: dict(STREAM))
    after: float = 0.0
    raw: list[tuple[bytes, bytes]] = field(default_factory=list)


HANGS = Answer([math.inf])
OVER = Answer(status=204, headers={})
REFUSED = httpx2.ConnectError("Connection refused")


class Network(httpx2.AsyncBaseTransport):
    """A network on which one script answers; it knows what was asked for, and when."""

    def __init__(self, *script: Answer | Exception) -> None:
        self.script = iter(script)
        self.requests: list[httpx2.Request] = []
        self.times: list[float] = []
        self.bodies: list[Body] = []
        self.closed = False
        self.began = trio.current_time()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        self.times.append(trio.current_time() - self.began)
        answer = next(self.script)
        await trio.lowlevel.checkpoint()
        if isinstance(answer, Exception):
            raise answer
        await trio.sleep(answer.after)
        body = Body(answer.parts)
        self.bodies.append(body)
        headers = answer.raw or answer.headers
        return httpx2.Response(answer.status, headers=headers, stream=body)

    async def aclose(self) -> None:
        self.closed = True

    def ids(self) -> list[str | None]:
        """Return what was sent as Last-Event-ID, request for request."""
        return [request.headers.get("last-event-id") for request in self.requests]


@asynccontextmanager
async def source_on(network: Network, **options: Any) -> AsyncIterator[EventSource]:
    """Open a source; nothing of its connections may be left when its block is over."""
    before = trio.lowlevel.current_statistics().tasks_living
    options = {"jitter": 0, **options}
    async with httpx2.AsyncClient(transport=network) as client:
        options.setdefault("client", client)
        async with EventSource(options.pop("url", URL), **options) as source:
            yield source
        assert not client.is_closed
    assert all(body.gone for body in network.bodies)
    assert trio.lowlevel.current_statistics().tasks_living == before


async def data_of(source: EventSource, count: float = math.inf) -> list[str | None]:
    """Return the data of so many events, or of all."""
    heard: list[str | None] = []
    while len(heard) < count:
        try:
            event = await anext(source)
        except StopAsyncIteration:
            break
        heard.append(event.data)
    return heard


def redirect(location: str, status: int = 302) -> Answer:
    return Answer([b"x", math.inf], status=status, headers={"location": location})
