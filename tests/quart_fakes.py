"""An application of the tests whose requests are served on the virtual clock."""

from __future__ import annotations

import logging
from typing import Any

import trio
import trio.testing
from quart_trio import QuartTrio

from penstock import ServerSentEvent
from penstock.quart import EventSourceResponse

Events = trio.abc.SendChannel[ServerSentEvent]


class App(QuartTrio):
    """An application with one stream, and a note of what its producer did."""

    def __init__(self, **options: Any) -> None:
        super().__init__("stream_test")
        self.started = 0
        self.sent = 0
        self.finished_at: list[float] = []
        self.logger.setLevel(logging.INFO)

        @self.get("/")
        async def stream() -> EventSourceResponse:
            return EventSourceResponse(self.produce, **options)

    async def produce(self, events: Events) -> None:
        self.started += 1
        try:
            while True:
                await trio.sleep(1)
                await events.send(ServerSentEvent("tick"))
                self.sent += 1
        finally:
            self.finished_at.append(trio.current_time())
