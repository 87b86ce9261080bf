"""The committer: what is published is appended to the log, all that waits in one step.

Group commit: while the log takes one group, the next one grows. The busier the hub, the less each
event costs. What is committed goes into the `DeliveryQueue`, from which the dispatcher takes it;
when that does not keep up, publishers wait. It is the event loop that cannot, then: nobody waits
for a client.
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

# Publications that are committed without waiting before others get their turn: with many clients,
# as many are then delivered at once.
_COMMITS_PER_TURN: Final = 8

# Bytes of publications, with what each takes beside them, that may wait for the dispatcher; whoever
# publishes more waits.
_MAX_SIZE: Final = 2**24
_OVERHEAD: Final = 500

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
        """Put in nothing more: `take` returns None when the rest was taken. Synchronous."""
        self._closed = True
        self._filled.set()

    def abandon(self) -> None:
        """Take out nothing more: nobody is to wait for room. Synchronous."""
        self._abandoned = True
        self._emptied.set()

    async def wait_for_room(self) -> None:
        """Wait until there is room, or `abandon` was called; a checkpoint if it waits."""
        while self._size > _MAX_SIZE and not self._abandoned:
            await self._emptied.wait()

    async def wait(self) -> None:
        """Wait until there may be something to take; a checkpoint."""
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
    """Publications that are appended together, and what their publishers wait for."""

    __slots__ = ("done", "error", "publications", "raises")

    def __init__(self) -> None:
        self.publications: list[Publication] = []
        self.done = trio.Event()
        self.error: str | None = "the hub was closed: this may or may not have been published"
        self.raises: type[Exception] = trio.ClosedResourceError


@final
class Committer:
    """Commits publications to the log; `run` is a task of the hub's.

    Args:
      log: where publications are kept.
      queue: what takes the committed entries; not those of a shared log, which the hub follows.

    Attributes:
      committed: how many publications the log has taken.
      newest: the position of the last of them.
    """

    def __init__(self, log: Log, queue: DeliveryQueue) -> None:
        self.committed: int = 0
        self.newest: Position = START
        self._log = log
        self._queue = queue
        self._closed = False
        self._failing = False  # the log, at the last append
        self._group = _Group()  # waits for the next append
        self._grown = trio.Event()

    @property
    def waiting(self) -> int:
        """How many publications wait for the next append."""
        return len(self._group.publications)

    async def publish(self, publications: Sequence[Publication]) -> None:
        """Commit publications; return when the log has them.

        Raises:
          LogError: the log could not keep them: none was published.
          trio.ClosedResourceError: the hub is closed, or was closed before they were committed.

        Cancellation:
          A checkpoint. Cancelled before it waits, or while it waits for the dispatcher to keep up,
          nothing is published; later, they are published all the same. Where the log is in memory,
          other tasks get their turn at every eighth publication only.
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
        self._grown.set()
        await group.done.wait()
        if group.error is not None:
            raise group.raises(group.error)

    def close(self) -> None:
        """Take nothing more; `run` returns when what waits was committed."""
        self._closed = True
        self._grown.set()

    async def run(self) -> None:
        """Append all that waits, again and again; where appending is immediate, nothing waits.

        Cancellation:
          Checkpoints throughout. Cancelled, it tells those whose publications were not committed.
        """
        try:
            while not self._closed or self._group.publications:
                await self._grown.wait()
                group, self._group = self._group, _Group()
                if not self._closed:
                    self._grown = trio.Event()
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
        """Append a group; an error is its publishers' to know, and the hub goes on."""
        try:
            positions = await self._log.append(group.publications)
        except LogError as error:
            group.error, group.raises = str(error), LogError
            if not self._failing:
                _logger.error("History write failed, publishing suspended: %s", error)
            self._failing = True
        except Exception as error:
            _logger.exception("The log failed")
            group.error, group.raises = f"the log failed: {error!r}", LogError
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
