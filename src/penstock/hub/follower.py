"""The follower: puts all entries of a shared log into the hub's delivery queue."""

from __future__ import annotations

import logging
import math
from typing import Final, final

import trio

from penstock.errors import LogError
from penstock.hub.committer import DeliveryQueue
from penstock.logs.log import Log, Position

__all__ = ["Follower"]

# Seconds before another attempt, after the log failed.
_RETRY_DELAY: Final = 1.0

# Seconds for which a closing hub waits for the log to return the entries that it has committed.
# After that, its subscribers can resume at another node.
_MAX_CLOSE_WAIT: Final = 5.0

_logger = logging.getLogger(__name__)


@final
class Follower:
    """Follows one shared log; `run` is a task of the hub.

    Args:
      log: the log.
      queue: the queue for its entries; closed at the end.
      after: the position after which to begin.
    """

    def __init__(self, log: Log, queue: DeliveryQueue, after: Position) -> None:
        self._log = log
        self._queue = queue
        self._position = after
        self._until: Position | None = None
        self._scope = trio.CancelScope()

    def stop_at(self, position: Position) -> None:
        """Let `run` return once it has queued a position, in 5 s at most. Synchronous."""
        self._until = position
        reached = self._position >= position
        self._scope.deadline = -math.inf if reached else trio.current_time() + _MAX_CLOSE_WAIT

    async def run(self) -> None:
        """Queue entries as they are appended, until `stop_at` is called.

        Cancellation:
          Checkpoints throughout; entries that are not queued yet are left out.

        Error handling:
          A failure of the log is logged once, and the log is called again each second. If it does
          not return the hub's own entries in time when the hub closes, that is logged.
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
                    await trio.sleep(_RETRY_DELAY)
                    continue
                if failing:
                    _logger.info("Following the log recovered, delivery resumed")
                failing = False
                await self._queue.wait_for_room()
                self._queue.put(entries)
                self._position = entries[-1].position
        if self._until is not None and self._position < self._until:
            _logger.warning("Hub closed before the log returned all entries it had committed")
        self._queue.close()
