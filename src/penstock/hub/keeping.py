"""What is published is kept: appended to the history, all that waits in one step.

Group commit: while the history takes one group, the next one grows. The busier the hub, the less
each event costs. What is kept goes to `Kept`, which the dispatcher empties; when that does not keep
up, publishers wait. It is the loop that cannot, then: nobody waits for a client.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, final

import trio

from penstock.errors import HistoryError
from penstock.history import History
from penstock.publication import Publication

__all__ = ["Keeping", "Kept", "Run"]

# Publications that are kept without waiting before others get their turn: with many clients, as
# many are then delivered at once.
_KEPT_PER_TURN: Final = 8

# Bytes of publications, with what each takes beside them, that may wait to be delivered; who
# publishes more waits.
_MOST_KEPT: Final = 2**24
_OVERHEAD: Final = 500

_logger = logging.getLogger(__name__)


@final
class Run:
    """Publications with positions that follow each other.

    Attributes:
      before: the position before that of the first.
      publications: they.
    """

    __slots__ = ("before", "publications")

    def __init__(self, before: int) -> None:
        self.before: int = before
        self.publications: list[Publication] = []

    @property
    def newest(self) -> int:
        """The position of the last."""
        return self.before + len(self.publications)


@final
class Kept:
    """What was kept and waits to be delivered, in its order."""

    def __init__(self) -> None:
        self._runs: list[Run] = []
        self._size = 0
        self._called = trio.Event()
        self._taken = trio.Event()
        self._complete = False
        self._abandoned = False

    def add(self, publications: Sequence[Publication], newest: int) -> None:
        """Have publications wait; ``newest`` is the position of the last of them. Synchronous."""
        before = newest - len(publications)
        if not self._runs or self._runs[-1].newest != before:
            self._runs.append(Run(before))
        self._runs[-1].publications += publications
        for publication in publications:
            self._size += publication.size + _OVERHEAD
        self._called.set()

    def complete(self) -> None:
        """Note that nothing is added any more. Synchronous."""
        self._complete = True
        self._called.set()

    def abandon(self) -> None:
        """Note that nothing is taken any more: nobody is to wait for room. Synchronous."""
        self._abandoned = True
        self._taken.set()

    async def wait_for_room(self) -> None:
        """Wait until there is room, or nothing is taken any more; a checkpoint if it waits."""
        while self._size > _MOST_KEPT and not self._abandoned:
            await self._taken.wait()

    async def wait(self) -> None:
        """Wait until there may be something to take; a checkpoint."""
        await self._called.wait()

    def take(self) -> list[Run] | None:
        """Return all that waits; None when that was all that there will be. Synchronous."""
        runs, self._runs, self._size = self._runs, [], 0
        self._taken.set()
        self._taken = trio.Event()
        if self._complete:
            return runs or None
        self._called = trio.Event()
        return runs


@final
class _Group:
    """What is appended together, and what its publishers wait for."""

    __slots__ = ("done", "error", "publications", "raises")

    def __init__(self) -> None:
        self.publications: list[Publication] = []
        self.done = trio.Event()
        self.error: str | None = "the hub was closed: this may or may not have been published"
        self.raises: type[Exception] = trio.ClosedResourceError


@final
class Keeping:
    """Takes what is published; its `run` is a task of the dispatcher's.

    Args:
      history: where publications are kept.
      kept: what takes them then.

    Attributes:
      published: how many publications the history has taken.
    """

    def __init__(self, history: History, kept: Kept) -> None:
        self.published: int = 0
        self._history = history
        self._kept = kept
        self._closed = False
        self._failing = False  # the history, when it was last asked to keep something
        self._group = _Group()  # waits to be kept
        self._grown = trio.Event()

    @property
    def waiting(self) -> int:
        """How many publications wait for the next commit."""
        return len(self._group.publications)

    async def publish(self, publications: Sequence[Publication]) -> None:
        """Have publications kept and delivered; return when they are kept.

        Raises:
          HistoryError: the history could not keep them: none was published.
          trio.ClosedResourceError: the hub is closed, or was closed before they were kept.

        Cancellation:
          A checkpoint. Cancelled before it waits, or while it waits for delivering to keep up,
          nothing is published; later, they are published all the same. Where the history is in
          memory, other tasks get their turn at every eighth publication only.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._kept.wait_for_room()
        if self._closed:
            raise trio.ClosedResourceError("the hub is closed")
        if self._history.append_nowait(publications):
            turn = self.published // _KEPT_PER_TURN
            self._note_kept(publications)
            if turn != self.published // _KEPT_PER_TURN:
                await trio.lowlevel.cancel_shielded_checkpoint()
            return
        group = self._group
        group.publications += publications
        self._grown.set()
        await group.done.wait()
        if group.error is not None:
            raise group.raises(group.error)

    def close(self) -> None:
        """Take nothing more; `run` returns when what waits was kept."""
        self._closed = True
        self._grown.set()

    async def run(self) -> None:
        """Append all that waits, again and again; where appending is immediate, nothing waits.

        Cancellation:
          Checkpoints throughout. Cancelled, it tells those whose publications were not kept.
        """
        try:
            while not self._closed or self._group.publications:
                await self._grown.wait()
                group, self._group = self._group, _Group()
                if not self._closed:
                    self._grown = trio.Event()
                try:
                    if group.publications:
                        await self._kept.wait_for_room()
                        await self._keep(group)
                finally:
                    group.done.set()
        finally:
            self._closed = True
            self._group.done.set()
        self._kept.complete()

    async def _keep(self, group: _Group) -> None:
        """Append a group; what goes wrong is its publishers' to know, and the hub goes on."""
        try:
            await self._history.append(group.publications)
        except HistoryError as error:
            group.error, group.raises = str(error), HistoryError
            if not self._failing:
                _logger.error("History write failed, publishing suspended: %s", error)
            self._failing = True
        except Exception as error:
            _logger.exception("The history failed")
            group.error, group.raises = f"the history failed: {error!r}", HistoryError
        else:
            group.error = None
            if self._failing:
                _logger.info("History recovered, publishing resumed")
            self._failing = False
            self._note_kept(group.publications)

    def _note_kept(self, publications: Sequence[Publication]) -> None:
        self.published += len(publications)
        self._kept.add(publications, self._history.newest.position)
