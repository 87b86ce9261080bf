"""The cursor: one subscription's progress from the log to live delivery.

Rule 1: no gap and no duplicate. Every selected publication is taken once, in the log's order.

Rule 2: the dispatcher may write to the client directly in `CursorState.LIVE` only, and then only
while nothing is queued: everything earlier was taken before.

Rule 3: a loss is reported once, by an event named ``gap`` at the place where events are missing.

Rule 4: a client never gets the id of a publication that it does not select. Before its first event
it gets the id of a position (`penstock.position_ids`).

    state          the position is …                        next
    ─────────────  ───────────────────────────────────────  ─────────────────────────────────
    NEW            not known                                LOCATING, REPLAYING, ENDED
    LOCATING       being looked up                          NEW (cancelled), REPLAYING, ENDED
    REPLAYING      where the log was read up to             AWAITING_HEAD, CATCHING_UP, ENDED
    AWAITING_HEAD  committed, and not dispatched yet        CATCHING_UP, ENDED
    CATCHING_UP    before the mark, or its page not taken   LIVE, ENDED
    LIVE           no longer needed                         ENDED
    ENDED          no longer needed                         (none)

Theory of operation: a cursor reads page after page, each up to the dispatcher's head when the read
begins. Once a page reaches that head, the cursor joins its audience. The head may have moved since;
the mark is the head when the cursor joins, with no checkpoint in between. Publications up to the
mark are read from the log; later publications are queued when they are dispatched. Once everything
up to the mark is read and taken, the cursor is live.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol, final

import trio

from penstock.close_reason import CloseReason
from penstock.errors import LogError
from penstock.event import ServerSentEvent
from penstock.logs.log import START, Position
from penstock.position_ids import PositionIds
from penstock.publication import EARLIEST, GAP, Publication
from penstock.stream.source import Tally

if TYPE_CHECKING:
    from penstock.hub.dispatcher import Dispatcher
    from penstock.hub.subscriber_queue import SubscriberQueue
    from penstock.logs.log import Log, Page
    from penstock.selection import Selection
    from penstock.stream.transport import DirectWriter

__all__ = ["Cursor", "CursorState", "SubscriptionHub"]

# Publications and bytes to read at once, which are also what a client that resumes has in memory.
_PAGE: Final = 256
_PAGE_SIZE: Final = 2**16

_logger = logging.getLogger(__name__)


class CursorState(Enum):
    """The state of a cursor; the table at the head of this module has the transitions."""

    NEW = "new"
    LOCATING = "locating"
    REPLAYING = "replaying"
    AWAITING_HEAD = "awaiting head"
    CATCHING_UP = "catching up"
    LIVE = "live"
    ENDED = "ended"


_State = CursorState  # for the table

_NEXT: Final = {
    _State.NEW: {_State.LOCATING, _State.REPLAYING, _State.ENDED},
    _State.LOCATING: {_State.NEW, _State.REPLAYING, _State.ENDED},
    _State.REPLAYING: {_State.AWAITING_HEAD, _State.CATCHING_UP, _State.ENDED},
    _State.AWAITING_HEAD: {_State.CATCHING_UP, _State.ENDED},
    _State.CATCHING_UP: {_State.LIVE, _State.ENDED},
    _State.LIVE: {_State.ENDED},
    _State.ENDED: set[CursorState](),
}


class SubscriptionHub(Protocol):
    """The hub, as a subscription and its cursor see it."""

    @property
    def log(self) -> Log:
        """The log."""
        ...

    @property
    def dispatcher(self) -> Dispatcher:
        """The dispatcher, while the hub is open."""
        ...

    @property
    def closed(self) -> bool:
        """Whether the hub was closed."""
        ...

    def check_open(self) -> None:
        """Raise `trio.ClosedResourceError` unless the hub is open."""
        ...

    def check_trio_run(self) -> None:
        """Raise `RuntimeError` in another Trio run than the hub's."""
        ...

    def subscriber_added(self, subscription: Any) -> None:
        """Count a subscription as open; if the hub is closed, end it."""
        ...

    def subscriber_removed(self, subscription: Any, reason: CloseReason) -> None:
        """Count a subscription as ended."""
        ...


@final
class Cursor:
    """One subscription's cursor, which is the dispatcher's `Member`.

    Args:
      hub: the hub.
      selection: which publications to take.
      requested: the id after which to resume, ``earliest``, or None to begin with the next
        publication.
      queue: the queue for publications that are dispatched before the client takes them.
      on_end: called with a reason when the cursor has to end; it calls `end`.

    Attributes:
      state: the state; only this class changes it.
      resume_id: the id after which the pages continue: that of the last publication read, before
        that the requested id or the id of a position. None until the cursor is located.
      complete: whether everything before the end was taken, or can still be.
      direct: the client's direct writer, while the dispatcher may use it.
      written: counts of all that was written, directly or by the stream.
      last_direct_write: the Trio time of the last direct write.
    """

    __slots__ = (
        *("_after", "_dispatcher", "_failed_after", "_hub", "_mark", "_on_end", "_page"),
        *("_queue", "_reading", "_reported_until", "_requested", "_selection", "_wakeup"),
        *("complete", "direct", "resume_id", "last_direct_write", "state", "written"),
    )

    def __init__(
        self,
        hub: SubscriptionHub,
        selection: Selection,
        requested: str | None,
        queue: SubscriberQueue,
        on_end: Callable[[CloseReason], None],
    ) -> None:
        self.state: CursorState = CursorState.NEW
        self.resume_id: str | None = None
        self.complete: bool = False
        self.direct: DirectWriter | None = None
        self.written: Tally = Tally()
        self.last_direct_write: float = -math.inf
        self._hub = hub
        self._selection = selection
        self._requested = requested
        self._queue = queue
        self._on_end: Callable[[CloseReason], None] | None = on_end
        self._after: Position = START  # everything up to this position was read
        self._mark: Position = START  # from CATCHING_UP on, everything after it is queued
        self._failed_after: str | None = None  # the id after which a failed read was reported
        self._reported_until: Position = START  # losses up to this position were reported
        self._page: Sequence[Publication | ServerSentEvent] = ()  # read, and not taken
        self._reading = False
        self._dispatcher: Dispatcher | None = None  # from `begin` to `end`
        self._wakeup: trio.Event | None = None  # while a task is in `wait`

    def __repr__(self) -> str:
        return f"<Cursor {self.state.value}, {self.waiting} waiting>"

    @property
    def waiting(self) -> int:
        """The number of items that are read or queued, and not taken."""
        return len(self._page) + len(self._queue)

    @property
    def position_id(self) -> str | None:
        """The id of the position at which the cursor began, if the client needs it."""
        return self.resume_id if self._requested is None else None

    @property
    def _joined(self) -> bool:
        return self.state in (CursorState.CATCHING_UP, CursorState.LIVE)

    # Locating

    async def locate(self) -> None:
        """Find the position after which to begin; later calls do nothing.

        If the id is unknown or the log cannot be read now, there is a gap, and the cursor begins
        after the newest publication.

        Cancellation:
          May be a checkpoint. If cancelled, it can be called again.

        Raises:
          trio.BusyResourceError: another task is locating it.
        """
        if self.state is CursorState.LOCATING:
            raise trio.BusyResourceError("another task is locating this subscription")
        if self.state is not CursorState.NEW:
            return
        if self._requested is None:
            self._start_now()
        elif (position := self._decode(self._requested)) is not None:
            self._start(position, self._requested)
        else:
            await self._look_up(self._requested)

    async def _look_up(self, requested: str) -> None:
        self._move(CursorState.LOCATING)
        try:
            position = await self._find(requested)
        except BaseException:  # such as Cancelled
            if self.state is CursorState.LOCATING:
                self._move(CursorState.NEW)
            raise
        if self.state is not CursorState.LOCATING:
            return  # it has ended meanwhile
        if position is None:
            self._start_now()
            self._page = [_gap(requested, self.resume_id)]
        else:
            self._start(position, self._requested or self._id_of(position))

    async def _find(self, requested: str) -> Position | None:
        """Return the position of an id, or of the beginning; None if it is unknown.

        If the log has no selected publication, ``earliest`` is the newest position, and the client
        gets its id: if it requested ``earliest`` again, a loss in between would be hidden.
        """
        log = self._hub.log
        if requested == EARLIEST:
            newest = log.newest.position
            with suppress(LogError):  # the next read reports the error
                page = await log.read(START, newest, self._selection, count=1, size=1)
                if not page.entries:
                    self._requested = None
                    return newest
            return START
        try:
            return await log.locate(requested, self._selection)
        except LogError as error:
            if not self._hub.closed:
                _logger.error("History lookup failed, resuming with a gap: %s", error)
            return None

    def _decode(self, id_: str) -> Position | None:
        log = self._hub.log
        number = PositionIds(log.key).decode(id_)
        # A position after the newest was lost: the log is an older copy that was restored.
        return None if number is None or number > log.newest.position else Position(number)

    def _start_now(self) -> None:
        position = self._hub.log.newest.position
        self._start(position, self._id_of(position))

    def _id_of(self, position: Position) -> str:
        return PositionIds(self._hub.log.key).encode(position)

    def _start(self, position: Position, resume_id: str) -> None:
        self._after, self.resume_id = position, resume_id
        self._move(CursorState.REPLAYING)

    # Reading

    def begin(self, dispatcher: Dispatcher) -> None:
        """Begin to receive: immediately if nothing has to be read from the log.

        Cancellation:
          Synchronous, no checkpoint.
        """
        self._dispatcher = dispatcher
        if self.state is CursorState.NEW and self._requested is None:
            self._start_now()
        if self.state is CursorState.REPLAYING:
            self._join_at_head()

    async def ready(self) -> bool:
        """Return whether there is something to `take`, after reading the log if necessary.

        If there is nothing, `wait`, unless the cursor has ended.

        Cancellation:
          May be a checkpoint. If cancelled, nothing is lost, and it can be called again.

        Raises:
          trio.BusyResourceError: another task is locating or reading for this cursor.
        """
        while not self._page and self._dispatcher is not None:
            if self.state in (CursorState.NEW, CursorState.LOCATING):
                await self.locate()
                continue  # meanwhile it may have ended, or have a gap to report
            if self.state is CursorState.REPLAYING:
                self._join_at_head()
            if self.state not in (CursorState.REPLAYING, CursorState.CATCHING_UP):
                break
            await self._read(self._dispatcher)
        can_take_queue = self.state in (CursorState.LIVE, CursorState.ENDED)
        return bool(self._page or (self._queue and can_take_queue))

    async def wait(self, direct: DirectWriter | None = None) -> None:
        """Wait until `ready` may have changed; meanwhile, the dispatcher may write directly.

        Args:
          direct: the client's direct writer, if everything taken was written.

        Cancellation:
          A checkpoint.

        Raises:
          trio.BusyResourceError: another task is waiting for this cursor.
        """
        if self._wakeup is not None:
            raise trio.BusyResourceError("another task is waiting for this subscription")
        self._wakeup = trio.Event()
        if self.state is CursorState.LIVE and not self.waiting:
            self.direct = direct
        try:
            await self._wakeup.wait()
        finally:
            self._wakeup = self.direct = None

    def take(self, size: int) -> Sequence[Publication | ServerSentEvent]:
        """Take the next items: a page, or items from the queue, until they have this many bytes.

        An item is a publication, or a gap, which is an event that was not published.
        """
        if self._page:
            page, self._page = self._page, ()
            self._go_live_at_mark()
            return page
        return list(self._queue.pop(size))

    def take_one(self) -> Publication | ServerSentEvent:
        """Take the next item."""
        if self._page:
            first, self._page = self._page[0], self._page[1:]
            self._go_live_at_mark()
            return first
        return next(self._queue.pop(1))

    async def _read(self, dispatcher: Dispatcher) -> None:
        """Read the next page, and join once the log is read up to the dispatcher's head."""
        if self._reading:
            raise trio.BusyResourceError("another task is reading for this subscription")
        until = self._mark if self.state is CursorState.CATCHING_UP else dispatcher.head
        self._reading = True
        try:
            page = await self._hub.log.read(
                self._after, until, self._selection, count=_PAGE, size=_PAGE_SIZE
            )
        except LogError as error:
            if self.state is CursorState.ENDED:
                return
            _logger.error("History read failed, replaying with a gap: %s", error)
            # The client keeps its last id, and can resume after it later.
            if self._failed_after != self.resume_id:  # one gap for one loss
                self._failed_after = self.resume_id
                self._page = [_gap(self.resume_id, None)]
            self._after = until
        else:
            if self.state is CursorState.ENDED:
                return
            if self._after == START and self._requested == EARLIEST:
                # For a request for whatever is left, nothing is missing.
                self._reported_until = page.discarded_until
            self._page = page.publications
            if page.discarded_until > max(self._after, self._reported_until):
                self._reported_until = page.discarded_until
                self._page = [self._gap_before(page), *page.publications]
            self._after = page.until
            if page.publications:
                self.resume_id = page.publications[-1].id
        finally:
            self._reading = False
        if self._after == until and self.state is CursorState.REPLAYING:
            self._join()
        self._go_live_at_mark()

    def _gap_before(self, page: Page) -> ServerSentEvent:
        """Return the gap to report before a page; if the page is empty, the gap has a new id."""
        missed, resumes = self.resume_id, None
        if not page.publications:
            # With its last id, the client would get the same gap at each reconnection.
            resumes = self.resume_id = self._id_of(page.until)
        return _gap(missed, resumes)

    # Joining; no checkpoint between looking at the dispatcher's head and joining

    def _join_at_head(self) -> None:
        """Join if everything before the head is read; if the head is behind, await it."""
        assert self._dispatcher is not None
        head = self._dispatcher.head
        if self._page or self._after < head:
            return
        if self._after == head:
            self._join()
            self._go_live_at_mark()
        else:
            self._move(CursorState.AWAITING_HEAD)
            self._dispatcher.add_awaiting(self._after, self)

    def head_reached(self) -> None:
        """Join: the dispatcher's head has reached, or passed, the position.

        Publications that are dispatched together with the awaited one are read from the log.
        """
        if self.state is CursorState.AWAITING_HEAD:
            self._join()
            self._go_live_at_mark()
            self._wake()

    def _join(self) -> None:
        assert self._dispatcher is not None
        self._mark = self._dispatcher.head
        self._dispatcher.join(self, self._selection)
        self._move(CursorState.CATCHING_UP)

    def _go_live_at_mark(self) -> None:
        if self.state is CursorState.CATCHING_UP and self._after == self._mark and not self._page:
            self._move(CursorState.LIVE)

    # Receiving

    def put(self, publications: Iterable[Publication]) -> bool:
        """Queue publications that were not written directly; return False if it has ended.

        A subscription that is too far behind ends with `CloseReason.SLOW`, and its queue is
        cleared; the log has the publications.
        """
        self.direct = None
        if not self._joined:
            return False
        for publication in publications:
            if not self._queue.add(publication):
                self._give_up(CloseReason.SLOW)
                return True
        self._wake()
        return True

    def fail(self, error: Exception) -> None:
        """End because of an error that concerns this client only."""
        _logger.error("Delivery to a subscriber failed, its subscription ended", exc_info=error)
        self._give_up(CloseReason.FAILED)

    def _give_up(self, reason: CloseReason) -> None:
        self._queue.clear()
        if self._on_end is not None:
            self._on_end(reason)

    def end(self) -> None:
        """Receive no more; items that were read, and those queued after them, can still be taken.

        Items queued after a part of the log that was not read are dropped.

        Cancellation:
          Synchronous, no checkpoint.
        """
        if self.state is CursorState.ENDED:
            return
        self.complete = self.state is CursorState.LIVE or (
            self.state is CursorState.CATCHING_UP and self._after == self._mark
        )
        if not self.complete:
            self._queue.clear()
        if self._dispatcher is not None:
            if self._joined:
                self._dispatcher.leave(self, self._selection)
            elif self.state is CursorState.AWAITING_HEAD:
                self._dispatcher.remove_awaiting(self._after, self)
        self._move(CursorState.ENDED)
        # Reference cycles would wait for the cyclic collector.
        self._dispatcher = self.direct = self._on_end = None
        self._wake()

    def clear(self) -> None:
        """Drop all items that were not taken."""
        self._page = ()
        self._queue.clear()

    def _wake(self) -> None:
        if self._wakeup is not None:
            self._wakeup.set()

    def _move(self, to: CursorState) -> None:
        assert to in _NEXT[self.state], f"{self.state} → {to}"
        self.state = to


def _gap(missed: str | None, resumes: str | None) -> ServerSentEvent:
    """Return the event that reports a loss.

    Args:
      missed: the id after which events are missing.
      resumes: the id after which to resume next, if it is another one.
    """
    # In ASCII, since a requested id may be text that UTF-8 cannot carry.
    data = json.dumps({"last_event_id": missed}, separators=(",", ":"))
    return ServerSentEvent(data, event=GAP, id=resumes)
