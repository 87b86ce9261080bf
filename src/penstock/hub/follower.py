"""The follower: what anybody appends to a shared log goes into the delivery queue of this hub."""

from __future__ import annotations

import logging
import math
from typing import Final, final

import trio

from penstock.errors import LogError
from penstock.hub.committer import DeliveryQueue
from penstock.logs.log import Log, Position

__all__ = ["Follower"]

# Seconds after which a log that failed is asked again.
_RETRY: Final = 1.0

# Seconds that a hub which closes waits for what it has committed to come back from the log. Its
# subscribers can resume from there, at another node.
_CLOSING: Final = 5.0

_logger = logging.getLogger(__name__)


@final
class Follower:
    """Follows one shared log; `run` is a task of the hub's.

    Args:
      log: the log.
      queue: where its entries go; closed at the end.
      after: the position after which to begin.
    """

    def __init__(self, log: Log, queue: DeliveryQueue, after: Position) -> None:
        self._log = log
        self._queue = queue
        self._position = after
        self._until: Position | None = None
        self._scope = trio.CancelScope()

    def stop_at(self, position: Position) -> None:
        """Have `run` return when everything up to a position is queued, within 5 s. Synchronous."""
        self._until = position
        reached = self._position >= position
        self._scope.deadline = -math.inf if reached else trio.current_time() + _CLOSING

    async def run(self) -> None:
        """Queue entries as they are appended, until `stop_at` was called.

        Cancellation:
          Checkpoints throughout; entries that were not queued are left out.

        Error handling:
          When the log fails, that is logged once, and the log is asked again each second. If it
          does not return in time what the hub has committed, that is logged when the hub closes.
        """
        failing = False
        with self._scope:
            while self._until is None or self._position < self._until:
                try:
                    entries = await self._log.follow(self._position)
                except LogError as error:
                    if not failing:
                        _logger.error("Following the log failed, delivery suspended: %s", error)
                    failing = True
                    await trio.sleep(_RETRY)
                    continue
                if failing:
                    _logger.info("Following the log recovered, delivery resumed")
                failing = False
                await self._queue.wait_for_room()
                self._queue.put(entries)
                self._position = entries[-1].position
        if self._until is not None and self._position < self._until:
            _logger.warning("The hub closed before the log returned what it has committed")
        self._queue.close()
