"""The server under torture: a process of its own, with a TLS and a plain port.

    python torture_server.py CERTIFICATE KEY

It is told what to do by lines on stdin, and answers each with a line of JSON on stdout:

- ``statistics``: tasks, sockets, streams, producers, and what the server itself counts;
- ``memory``: the same, with the resident memory after a collection and a `malloc_trim`;
- ``stop``: end gracefully.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import itertools
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio
from hypercorn.config import Config
from quart import request
from quart_trio import QuartTrio
from torture_child import PERIOD, SEND_TIMEOUT, USER_TIMEOUT, parent

import penstock.hypercorn
from penstock import ServerSentEvent, StreamGroup
from penstock.quart import EventSourceResponse

# Seconds between the comments of a silent stream: what vanishes is noticed by what is sent to it.
KEEP_ALIVE: Final = 3.0

# Seconds that a connection may be silent before its request. Longer than any client stays so.
SILENCE: Final = 60.0

Events = trio.abc.SendChannel[ServerSentEvent]
Producer = Callable[[Events], Awaitable[None]]


class Work:
    """What is done for clients, counted at its beginning and in its `finally`."""

    def __init__(self) -> None:
        self.started = 0
        self.finished = 0

    @asynccontextmanager
    async def counted(self) -> AsyncIterator[None]:
        self.started += 1
        try:
            yield
        finally:
            self.finished += 1

    def respond(self, producer: Producer, **options: Any) -> EventSourceResponse:
        """Return the response of a producer that is counted."""

        async def produce(events: Events) -> None:
            async with self.counted():
                await producer(events)

        return EventSourceResponse(produce, keep_alive=KEEP_ALIVE, **options)


async def numbered(period: float, events: Events) -> None:
    """Send events that carry their number, on a schedule that does not drift."""
    begun = trio.current_time()
    for number in itertools.count():
        await trio.sleep_until(begun + number * period)
        await events.send(ServerSentEvent(str(number), id=str(number)))


async def flood(events: Events) -> None:
    """Send 64 KiB at a time, as fast as they are taken."""
    event = ServerSentEvent("x" * 65536)
    while True:
        await events.send(event)


async def idle(events: Events) -> None:
    """Send one event, then nothing."""
    await events.send(ServerSentEvent("idle"))
    await trio.sleep_forever()


def application(work: Work) -> QuartTrio:
    """Return the application."""
    app = QuartTrio("torture")

    @app.get("/good")
    async def good() -> EventSourceResponse:
        return work.respond(partial(numbered, PERIOD))

    @app.get("/sse")
    async def sse() -> EventSourceResponse:
        return work.respond(partial(numbered, 0.05))

    @app.get("/flood")
    async def flooding() -> EventSourceResponse:
        return work.respond(flood, buffer=2)

    @app.get("/idle")
    async def idling() -> EventSourceResponse:
        return work.respond(idle)

    @app.post("/upload")
    async def upload() -> str:
        async with work.counted():
            return str(len(await request.get_data(cache=False)))

    return app


class Served:
    """Penstock's server, and how to read its statistics."""

    def __init__(self, app: QuartTrio, config: Config) -> None:
        module: Any = penstock.hypercorn
        self.bounds: dict[str, float | None] = {"send_timeout": None, "tcp_user_timeout": None}
        if not hasattr(module, "Server"):  # a Penstock that does not guard its connections
            group = StreamGroup()
            self._figures: Callable[[], Any] = group.statistics
            self.serve: Any = partial(module.serve, app, config, group=group)
            return
        options = {"http2": True, "send_timeout": SEND_TIMEOUT, "drain_window": 1.0}
        known = {each.name for each in dataclasses.fields(module.Settings)}
        if "tcp_user_timeout" in known:
            options["tcp_user_timeout"] = USER_TIMEOUT
        settings = module.Settings(**options)
        for name in self.bounds:
            self.bounds[name] = getattr(settings, name, None)
        server = module.Server(app, config, settings=settings)
        self._figures, self.serve = server.statistics, server.serve

    def figures(self) -> dict[str, Any]:
        """Return the server's own statistics, by name; those of its streams among them."""
        flat = dataclasses.asdict(self._figures())
        flat |= flat.pop("streams", None) or {}
        return {name: value for name, value in flat.items() if not isinstance(value, Mapping)}


def statistics(served: Served, work: Work) -> dict[str, Any]:
    """Return all figures, as they are now."""
    sockets = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the folder's own descriptor is closed by now
            sockets += os.readlink(link).startswith("socket:")
    return {
        **{f"server.{name}": value for name, value in served.figures().items()},
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "sockets": sockets,
        "started": work.started,
        "running": work.started - work.finished,
        **dict(zip(("worked", "waited"), processor(), strict=True)),
    }


def processor() -> tuple[float, float]:
    """Return for how long this process has had its processor, and had to wait for it."""
    figures = Path("/proc/self/schedstat").read_text().split()
    return int(figures[0]) / 1e9, int(figures[1]) / 1e9


class Collections:
    """How long the cyclic collector has held everything up, at the longest since last asked."""

    def __init__(self) -> None:
        self._begun = self._longest = 0.0
        gc.callbacks.append(self._note)

    def _note(self, phase: str, _: Mapping[str, int]) -> None:
        if phase == "start":
            self._begun = time.perf_counter()
        else:
            self._longest = max(self._longest, time.perf_counter() - self._begun)

    def longest(self) -> float:
        """Return the longest collection's seconds, and begin anew."""
        longest, self._longest = self._longest, 0.0
        return longest


def memory() -> int:
    """Return the resident memory in bytes, after giving back what can be given back."""
    gc.collect()
    with suppress(OSError, AttributeError):  # only GNU's C library has it
        ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def main(arguments: list[str]) -> None:
    """Serve, and answer, until told to stop or left alone."""
    work, stop, collections = Work(), trio.Event(), Collections()
    config = Config()
    config.bind, config.insecure_bind = ["127.0.0.1:0"], ["127.0.0.1:0"]
    config.certfile, config.keyfile = arguments
    config.backlog = 4096
    config.keep_alive_timeout = SILENCE
    config.graceful_timeout = 2.0
    config.errorlog = logging.getLogger("hypercorn.error")
    config.errorlog.setLevel(logging.WARNING)
    served = Served(application(work), config)
    async with parent() as told:
        async with trio.open_nursery() as nursery:
            run = partial(served.serve, shutdown_trigger=stop.wait)
            addresses = await nursery.start(run)
            ports = {url.partition(":")[0]: int(url.rpartition(":")[2]) for url in addresses}
            told.answer({"ports": [ports["http"], ports["https"]], **served.bounds})
            while (command := await told.command()) and command["do"] != "stop":
                said = statistics(served, work) | {"collection": collections.longest()}
                if command["do"] == "memory":
                    said["rss"] = memory()
                told.answer(said)
            stop.set()
        told.answer({"started": work.started, "finished": work.finished})


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    trio.run(main, sys.argv[1:])
