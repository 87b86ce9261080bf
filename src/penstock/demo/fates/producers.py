"""What is sent to the clients that have a fate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from penstock.demo.fates.table import HEALTHY_EVENTS, HEALTHY_PERIOD
from penstock.event import ServerSentEvent
from penstock.stream.producer import Producer
from penstock.stream.ticker import Ticker

__all__ = ["Hurt", "producer_of"]

Events = trio.abc.SendChannel[ServerSentEvent]
Hurt = Callable[[], None]

# Seconds between two events, as of `/sse`.
_PERIOD: Final = 0.5

# Seconds until a producer raises: enough to see the stream.
_BEFORE: Final = 1.0

# For who does not read: more than any kernel keeps for one client (4 MB by Linux's default), so
# that another server's buffers fill, too; and no more than that, should it have no end of them.
_BIG: Final = ServerSentEvent("x" * 2**16)
_BIG_EVENTS: Final = 128


def producer_of(name: str, hurt: Hurt) -> Producer:
    """Return the producer for a client with this fate.

    Args:
      name: the fate's.
      hurt: to be called when it is the producer that does what the promise is about.
    """

    async def finish(events: Events) -> None:
        ticker = Ticker(HEALTHY_PERIOD)
        for number in range(1, HEALTHY_EVENTS + 1):
            await ticker.tick()
            await events.send(ServerSentEvent(str(number)))
        hurt()

    async def fail(events: Events) -> None:
        await events.send(ServerSentEvent("the last"))
        await trio.sleep(_BEFORE)
        hurt()
        raise LookupError("raised on purpose, by the demonstration's producer that raises")

    producers: dict[str, Producer] = {
        "healthy": finish,
        "raises": fail,
        "stops-reading": _flood,
        "byte-a-second": _flood,
    }
    return producers.get(name, _ping)


async def _ping(events: Events) -> None:
    """Send a small event now and then."""
    ticker, number = Ticker(_PERIOD), 0
    while True:
        number += 1
        await events.send(ServerSentEvent(str(number)))
        await ticker.tick()


async def _flood(events: Events) -> None:
    """Send much at once, as fast as it is taken."""
    for _ in range(_BIG_EVENTS):
        await events.send(_BIG)
    await trio.sleep_forever()
