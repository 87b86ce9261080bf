"""A hub for the length of a block."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from penstock.history import History
from penstock.hub.dispatcher import DEFAULT_GATHER
from penstock.hub.hub import DEFAULT_MAX_EVENT_SIZE, Hub, check_trio

__all__ = ["open_hub"]


@asynccontextmanager
async def open_hub(
    *,
    history: History | None = None,
    max_event_size: int = DEFAULT_MAX_EVENT_SIZE,
    gather: float = DEFAULT_GATHER,
) -> AsyncIterator[Hub]:
    """Run a hub while the block runs.

    Args:
      history: as in `Hub`.
      max_event_size: as in `Hub`.
      gather: as in `Hub`.

    Raises:
      HistoryError: the history cannot be opened; as all that leaves the block, in a group.
      RuntimeError: this task is not Trio's.

    Cancellation:
      Entering is a checkpoint. Leaving waits until what was published is kept and delivered; the
      block cancelled, it does not.

    Resource handling:
      When the block has been left, no task and no subscription of the hub is left, and the history
      is closed.
    """
    check_trio("a hub runs")
    hub = Hub(history=history, max_event_size=max_event_size, gather=gather)
    async with trio.open_nursery() as nursery:
        await nursery.start(hub.run)
        try:
            yield hub
        finally:
            hub.close()
