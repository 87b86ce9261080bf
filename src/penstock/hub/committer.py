"""The committer: appends publications to the log, all that wait in one step.

Group commit: while the log appends one group, the next group collects. The busier the hub, the less
each event costs. Committed entries go into the `DeliveryQueue`, from which the dispatcher takes
them. When the dispatcher does not keep up, publishers wait: then the event loop is overloaded, and
no client is the cause.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Final, final

import trio

from penstock.errors import LogError
from penstock.logs.log import START, Entry, Log, Position
from penstock.publication import Publication

__all__ = ["Committer", "DeliveryQueue"]

# Publications to commit without a checkpoint: with many clients, this many are delivered at once.
_COMMITS_PER_TURN: Final = 8

# Bytes of publications that may wait for the dispatcher before publishers wait.
_MAX_SIZE: Final = 2**24
_OVERHEAD: Final = 500  # of each publication, in addition to its size

_logger = logging.getLogger(__name__)


@final
class DeliveryQueue:
    """Committed entries that wait for the dispatcher, in their order."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._size = 0
        self._filled = trio.Event()
        self._emptied = trio.Event()
        self._closed = False
        self._abandoned = False

    def put(self, entries: Iterable[Entry]) -> None:
        """Append entries. Synchronous."""
        for entry in entries:
            self._entries.append(entry)
            self._size += entry.publication.size + _OVERHEAD
        self._filled.set()

    def close(self) -> None:
        """Accept no more entries: `take` returns None once the rest is taken. Synchronous."""
        self._closed = True
        self._filled.set()

    def abandon(self) -> None:
        """Take no more entries: nothing waits for room any longer. Synchronous."""
        self._abandoned = True
        self._emptied.set()

    async def wait_for_room(self) -> None:
        """Wait until there is room, or `abandon` was called; a checkpoint if it waits."""
        while self._size > _MAX_SIZE and not self._abandoned:
            await self._emptied.wait()

    async def wait(self) -> None:
        """Wait until there may be entries to take; a checkpoint."""
        await self._filled.wait()

    def take(self) -> list[Entry] | None:
        """Take all entries; None when the queue is closed and empty. Synchronous."""
        entries, self._entries, self._size = self._entries, [], 0
        self._emptied.set()
        self._emptied = trio.Event()
        if self._closed:
            return entries or None
        self._filled = trio.Event()
        return entries


@final
class _Group:
    """Publications that are appended together, and the event that their publishers wait for."""

    __slots__ = ("done", "error", "error_type", "publications")

    def __init__(self) -> None:
        self.publications: list[Publication] = []
        self.done = trio.Event()
        self.error: str | None = "the hub was closed: this may or may not have been published"
        self.error_type: type[Exception] = trio.ClosedResourceError


@final
class Committer:
    """Commits publications to the log; `run` is a task of the hub.

    Args:
      log: the log.
      queue: the queue for committed entries; entries of a shared log come from the follower.

    Attributes:
      committed: the number of publications committed.
      newest: the position of the last of them.
    """

    def __init__(self, log: Log, queue: DeliveryQueue) -> None:
        self.committed: int = 0
        self.newest: Position = START
        self._log = log
        self._queue = queue
        self._closed = False
        self._failing = False  # whether the last append failed
        self._group = _Group()  # waits for the next append
        self._group_filled = trio.Event()

    @property
    def waiting(self) -> int:
        """The number of publications that wait for the next append."""
        return len(self._group.publications)

    async def publish(self, publications: Sequence[Publication]) -> None:
        """Commit publications; return once the log has them.

        Raises:
          LogError: the log failed: none was published.
          trio.ClosedResourceError: the hub is closed, or was closed before they were committed.

        Cancellation:
          A checkpoint. If cancelled before it waits, or while it waits for the dispatcher to keep
          up, nothing is published; if cancelled later, they are published anyway. With a log in
          memory, other tasks may run at every eighth publication only.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._queue.wait_for_room()
        if self._closed:
            raise trio.ClosedResourceError("the hub is closed")
        positions = self._log.append_nowait(publications)
        if positions is not None:
            turn = self.committed // _COMMITS_PER_TURN
            self._note_committed(publications, positions)
            if turn != self.committed // _COMMITS_PER_TURN:
                await trio.lowlevel.cancel_shielded_checkpoint()
            return
        group = self._group
        group.publications += publications
        self._group_filled.set()
        await group.done.wait()
        if group.error is not None:
            raise group.error_type(group.error)

    def close(self) -> None:
        """Accept no more publications; `run` returns once those that wait are committed."""
        self._closed = True
        self._group_filled.set()

    async def run(self) -> None:
        """Append group after group until closed; if `append_nowait` works, none ever waits.

        Cancellation:
          Checkpoints throughout. If cancelled, publishers whose publications are not committed get
          an error.
        """
        try:
            while not self._closed or self._group.publications:
                await self._group_filled.wait()
                group, self._group = self._group, _Group()
                if not self._closed:
                    self._group_filled = trio.Event()
                try:
                    if group.publications:
                        await self._queue.wait_for_room()
                        await self._commit(group)
                finally:
                    group.done.set()
        finally:
            self._closed = True
            self._group.done.set()

    async def _commit(self, group: _Group) -> None:
        """Append a group; an error is raised in its publishers, and the hub keeps running."""
        try:
            positions = await self._log.append(group.publications)
        except LogError as error:
            group.error, group.error_type = str(error), LogError
            if not self._failing:
                _logger.error("History write failed, publishing suspended: %s", error)
            self._failing = True
        except Exception as error:
            _logger.exception("The log failed")
            group.error, group.error_type = f"the log failed: {error!r}", LogError
        else:
            group.error = None
            if self._failing:
                _logger.info("History recovered, publishing resumed")
            self._failing = False
            self._note_committed(group.publications, positions)

    def _note_committed(
        self, publications: Sequence[Publication], positions: Sequence[Position]
    ) -> None:
        self.committed += len(publications)
        self.newest = positions[-1]
        if not self._log.shared:
            self._queue.put(map(Entry, positions, publications))
