"""The Go hub, with sse-starlette: an asyncio queue for each client, an event encoded once.

`/subscribe` yields each event, as sse-starlette's documentation does; `/joined` yields all that
waits as one, as the Go hub writes it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from bench_schedule import NOTHING, Schedule
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

# Events that a client may be behind, as in the Go hub; what comes then is dropped for it.
BUFFER = 256


class Hub:
    def __init__(self) -> None:
        self.schedule = NOTHING
        self.dropped = 0
        self._queues: set[asyncio.Queue[bytes]] = set()

    def join(self) -> asyncio.Queue[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue(BUFFER)
        self._queues.add(queue)
        return queue

    async def each(self, queue: asyncio.Queue[bytes]) -> AsyncIterator[bytes]:
        try:
            while True:
                yield await queue.get()
        finally:
            self._queues.remove(queue)

    async def joined(self, queue: asyncio.Queue[bytes]) -> AsyncIterator[bytes]:
        try:
            while True:
                events = [await queue.get()]
                while not queue.empty():
                    events.append(queue.get_nowait())
                yield b"".join(events)
        finally:
            self._queues.remove(queue)

    def publish(self, event: bytes) -> None:
        for queue in self._queues:
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self.dropped += 1

    async def run(self, rate: float, seconds: float) -> None:
        schedule = self.schedule = Schedule(rate, seconds, start=time.monotonic_ns())
        while not schedule.ended(now := time.monotonic_ns()):
            for _ in range(schedule.count(now)):
                number = str(schedule.published)
                data = schedule.next(time.monotonic_ns())
                self.publish(ServerSentEvent(data, id=number, sep="\n").encode())
            await asyncio.sleep(schedule.wait(time.monotonic_ns()))


hub = Hub()


async def subscribe(request: Request) -> EventSourceResponse:
    return EventSourceResponse(hub.each(hub.join()))


async def joined(request: Request) -> EventSourceResponse:
    return EventSourceResponse(hub.joined(hub.join()))


async def start(request: Request) -> Response:
    query = request.query_params
    run = BackgroundTask(hub.run, float(query["rate"]), float(query["seconds"]))
    return Response(background=run)


async def statistics(request: Request) -> JSONResponse:
    return JSONResponse({**hub.schedule.figures(time.monotonic_ns()), "dropped": hub.dropped})


app = Starlette(
    routes=[
        Route("/subscribe", subscribe),
        Route("/joined", joined),
        Route("/start", start, methods=["POST"]),
        Route("/statistics", statistics),
    ]
)
