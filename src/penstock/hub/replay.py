"""The way of a subscription through the history, up to where it hears what is published.

Rule: far behind, it reads page after page up to the dispatcher's head. Before the page that can be
the last one it has to hear what is published: whoever reads joins then, with no checkpoint between
looking at the head and joining, and `Replay.joined` notes the head as the mark. Everything up to
the mark comes from the history, everything behind it has been waiting since.

What the history has and the dispatcher has not begun to deliver is published already: who begins
now, or goes on from there, waits until the head is where it begins.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, final

from penstock.errors import HistoryError
from penstock.event import ServerSentEvent
from penstock.history import Newest
from penstock.publication import EARLIEST, Publication

if TYPE_CHECKING:
    from penstock.hub.hub import Hub

__all__ = ["GAP", "Item", "Replay"]

# The name of the event that tells a client that it missed something.
GAP: Final = "gap"

# What is read of a history at once, and so what a client that resumes is ahead of its socket.
_PAGE: Final = 256
_PAGE_SIZE: Final = 2**16

# An event that is no publication tells of a gap.
Item: TypeAlias = Publication | ServerSentEvent

_logger = logging.getLogger(__name__)


@final
class Replay:
    """What one subscription gets of the history.

    Args:
      hub: whose history it is; when the hub has been closed, nothing more is read.
      topics: what it selects; None means every topic.
      requested: the id after which it wants to go on, ``earliest``, or None for nothing at all.

    Attributes:
      goes_on: the id after which it goes on, once that is known; None if there is none.
    """

    __slots__ = ("_after", "_hub", "_mark", "_page", "_topics", "goes_on", "requested")

    def __init__(self, hub: Hub, topics: frozenset[str] | None, requested: str | None) -> None:
        self.requested: str | None = requested
        self.goes_on: str | None = None
        self._hub = hub
        self._topics = topics
        self._after: int | None = None  # the position up to which all was taken into pages
        self._mark: int | None = None
        self._page: Sequence[Item] = ()

    def __len__(self) -> int:
        return len(self._page)

    @property
    def done(self) -> bool:
        """Whether what comes next is what was published since it has joined."""
        return self._after == self._mark and self._mark is not None and not self._page

    def begin(self) -> None:
        """Begin behind all there is, if nothing of that is requested, and it has not begun."""
        if self.requested is None and self._after is None:
            self._begin_now()

    async def locate(self) -> None:
        """Find where it goes on; done once.

        An id that is not found, or a history that cannot be read now, is a gap: it goes on behind
        all there is, whose last id the gap tells, so that there is one gap only.

        Cancellation:
          May be a checkpoint. Cancelled, it can be called again.
        """
        if self._after is not None:
            return
        if self.requested is None:
            self._begin_now()
        elif self.requested == EARLIEST:
            self._after, self.goes_on = 0, EARLIEST
        else:
            position = None
            try:
                position = await self._hub.history.locate(self.requested)
            except HistoryError as error:
                if self._hub.closed:
                    return
                _logger.error("Nothing can be resumed: %s", error)
            if position is not None:
                self._after, self.goes_on = position, self.requested
            else:
                self._begin_now()
                self._page = [_gap(self.requested, self.goes_on or "")]

    def is_at(self, head: Newest) -> bool:
        """Tell whether it needs nothing of the history."""
        return self._after == head.position

    def beyond(self, head: Newest) -> int | None:
        """Return the position that it begins behind, if that is not delivered yet."""
        return self._after if self._after is not None and self._after > head.position else None

    def ends_soon(self, head: Newest) -> bool:
        """Tell whether the next page can be the last one, so that it is time to join."""
        return self._after is not None and head.position - self._after <= _PAGE

    def joined(self, head: Newest) -> None:
        """Note that what is published behind the head is waiting from now on."""
        self._mark = head.position

    async def read(self, head: Newest) -> None:
        """Read the next page, if there is one to read.

        Cancellation:
          May be a checkpoint. Cancelled, nothing was read.
        """
        until = head.position if self._mark is None else self._mark
        after = self._after
        if self._page or after is None or after == until:
            return
        try:
            page = await self._hub.history.read(
                after, until, self._topics, count=_PAGE, size=_PAGE_SIZE
            )
        except HistoryError as error:
            if self._hub.closed:
                return
            _logger.error("Nothing can be replayed: %s", error)
            self._after = until
            self._page = [_gap(self.goes_on, None)]
            return
        self._after = page.until
        self._page = page.publications
        # Who asks for all that there is misses nothing of what there was.
        if page.lost and (after or self.requested != EARLIEST):
            self._page = [_gap(self.goes_on, None), *page.publications]
        if page.publications:
            self.goes_on = page.publications[-1].id

    def take(self) -> Sequence[Item]:
        """Return the page that was read, and forget it."""
        page, self._page = self._page, ()
        return page

    def take_one(self) -> Item:
        """Return the first of the page that was read, and forget it."""
        first, self._page = self._page[0], self._page[1:]
        return first

    def _begin_now(self) -> None:
        newest = self._hub.history.newest
        self._after = newest.position
        # Before there is anything, what comes after the beginning is what comes from now on.
        self.goes_on = newest.id if newest.position else EARLIEST


def _gap(missed: str | None, goes_on: str | None) -> ServerSentEvent:
    """Return the event that tells what was asked for, and where it goes on if that is elsewhere."""
    # In ASCII, since what was asked for may be text that UTF-8 cannot carry.
    data = json.dumps({"last_event_id": missed}, separators=(",", ":"))
    return ServerSentEvent(data, event=GAP, id=goes_on)
