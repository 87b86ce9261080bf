"""What the Go program does, with sse-starlette."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route


async def ping() -> AsyncIterator[ServerSentEvent]:
    while True:
        await asyncio.sleep(0.5)
        now = str(int(time.time()))
        yield ServerSentEvent(now, event="ping", id=now)


async def silence() -> AsyncIterator[ServerSentEvent]:
    await asyncio.Event().wait()
    yield ServerSentEvent()


async def sse(request: Request) -> EventSourceResponse:
    return EventSourceResponse(ping())


async def idle(request: Request) -> EventSourceResponse:
    return EventSourceResponse(silence())


app = Starlette(routes=[Route("/sse", sse), Route("/idle", idle)])
