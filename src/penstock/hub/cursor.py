"""A subscription's way from the log to live delivery.

Rule 1: no gap and no duplicate. Every selected publication is taken once, in the log's order.

Rule 2: the dispatcher may write to the client directly in `CursorState.LIVE` only: not before
everything that comes first was taken.

Rule 3: a loss is reported once, by an event named ``gap`` in the place where something is missing.

Rule 4: a client is never given the id of a publication that it does not select. Before it has an
event of its own, it is given the id of a position (`penstock.position_ids`).

    state          the position is …                        next
    ─────────────  ───────────────────────────────────────  ─────────────────────────────────
    NEW            not known                                LOCATING, REPLAYING, ENDED
    LOCATING       being looked up                          NEW (cancelled), REPLAYING, ENDED
    REPLAYING      where the log was read up to             AWAITING_HEAD, CATCHING_UP, LIVE, ENDED
    AWAITING_HEAD  committed, and not dispatched yet        CATCHING_UP, LIVE, ENDED
    CATCHING_UP    short of the mark, or its page not taken LIVE, ENDED
    LIVE           no longer needed                         ENDED
    ENDED          no longer needed

Theory of operation: a cursor reads page after page, each up to the dispatcher's head at that time.
When one is complete it joins its audience, with no checkpoint between looking at the head and
joining; that head is the mark. What comes up to the mark is read from the log, and what is
dispatched after it is queued. When the mark is reached and the page taken, the cursor is live.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
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

# What is read of a log at once, and so what a client that resumes is ahead of its socket.
_PAGE: Final = 256
_PAGE_SIZE: Final = 2**16

_logger = logging.getLogger(__name__)


class CursorState(Enum):
    """Where a cursor is on its way; the table at the head of this module has the transitions."""

    NEW = "new"
    LOCATING = "locating"
    REPLAYING = "replaying"
    AWAITING_HEAD = "awaiting head"
    CATCHING_UP = "catching up"
    LIVE = "live"
    ENDED = "ended"


_State = CursorState

_NEXT: Final = {
    _State.NEW: {_State.LOCATING, _State.REPLAYING, _State.ENDED},
    _State.LOCATING: {_State.NEW, _State.REPLAYING, _State.ENDED},
    _State.REPLAYING: {_State.AWAITING_HEAD, _State.CATCHING_UP, _State.LIVE, _State.ENDED},
    _State.AWAITING_HEAD: {_State.CATCHING_UP, _State.LIVE, _State.ENDED},
    _State.CATCHING_UP: {_State.LIVE, _State.ENDED},
    _State.LIVE: {_State.ENDED},
    _State.ENDED: set[CursorState](),
}


class SubscriptionHub(Protocol):
    """What a subscription and its cursor need of their hub."""

    @property
    def log(self) -> Log:
        """What it resumes from."""
        ...

    @property
    def dispatcher(self) -> Dispatcher:
        """What delivers to it while the hub is open."""
        ...

    @property
    def closed(self) -> bool:
        """Whether the hub was closed."""
        ...

    def check_open(self) -> None:
        """Raise `trio.ClosedResourceError` unless the hub is open."""
        ...

    def check_run(self) -> None:
        """Raise `RuntimeError` in another Trio run than the hub's."""
        ...

    def subscriber_added(self, subscription: Any) -> None:
        """Count a subscription as open; in a hub that is closed, it ends at once."""
        ...

    def subscriber_removed(self, subscription: Any, reason: CloseReason) -> None:
        """Count a subscription as ended."""
        ...


@final
class Cursor:
    """One subscription's cursor, and a member of its hub's audiences.

    Args:
      hub: whose log it reads.
      selection: which publications it takes.
      requested: the id after which to resume, ``earliest``, or None to begin with what is published
        from now on.
      queue: where publications wait that are dispatched before the client takes them.
      on_end: called when the cursor cannot go on, with the reason; it calls `end`.

    Attributes:
      state: where it is; only this class changes it.
      resume_id: the id after which it goes on: that of the last publication of a page, before that
        the one requested or a position's. None until it is located.
      complete: whether everything before its end was taken or can be.
      direct: the client's direct writer, while the dispatcher may use it.
      written: what was written directly, or by the stream.
      last_direct_write: when something was last written directly.
    """

    __slots__ = (
        *("_after", "_dispatcher", "_hub", "_mark", "_missed_after", "_on_end"),
        *("_page", "_queue", "_reading", "_reported", "_requested", "_selection", "_waiting"),
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
        self._after: Position = START  # the position up to which everything is on pages
        self._mark: Position = START  # after it, everything is queued; from CATCHING_UP on
        self._missed_after: str | None = None  # the id after which a failed read was reported
        self._reported: Position = START  # losses up to this position are known to the client
        self._page: Sequence[Publication | ServerSentEvent] = ()
        self._reading = False
        self._dispatcher: Dispatcher | None = None  # while it has begun, and not ended
        self._waiting: trio.Event | None = None

    def __repr__(self) -> str:
        return f"<Cursor {self.state.value}, {self.waiting} waiting>"

    @property
    def waiting(self) -> int:
        """How many items are read or queued, and not taken."""
        return len(self._page) + len(self._queue)

    @property
    def position_id(self) -> str | None:
        """The id of the position at which it began, if the client is to be given that."""
        return self.resume_id if self._requested is None else None

    @property
    def _joined(self) -> bool:
        return self.state in (CursorState.CATCHING_UP, CursorState.LIVE)

    # Locating

    async def locate(self) -> None:
        """Find the position after which to go on; done once.

        An id that is not known, or a log that cannot be read now, is a gap: the cursor goes on
        after the newest publication.

        Cancellation:
          May be a checkpoint. Cancelled, it can be called again.

        Raises:
          trio.BusyResourceError: another task is locating it.
        """
        if self.state is CursorState.LOCATING:
            raise trio.BusyResourceError("another task is locating this subscription")
        if self.state is not CursorState.NEW:
            return
        if self._requested is None:
            self._start_now()
        elif self._requested == EARLIEST:
            await self._look_for_any()
        elif (position := self._decode(self._requested)) is not None:
            self._start(position, self._requested)
        else:
            await self._look_up(self._requested)

    async def _look_up(self, requested: str) -> None:
        position = None
        with self._locating():
            try:
                position = await self._hub.log.locate(requested, self._selection)
            except LogError as error:
                if not self._hub.closed:
                    _logger.error("History lookup failed, resuming with a gap: %s", error)
        if self.state is not CursorState.LOCATING:
            return  # it has ended meanwhile
        if position is not None:
            self._start(position, requested)
        else:
            self._start_now()
            self._page = [_gap(requested, self.resume_id)]

    async def _look_for_any(self) -> None:
        """Start at the beginning, or now if nothing of the selection is kept.

        Who receives nothing is given the id of the position: ``earliest`` would hide a loss.
        """
        newest = self._hub.log.newest.position
        begins_now = False
        with self._locating(), suppress(LogError):  # reading it again will report that
            page = await self._hub.log.read(START, newest, self._selection, count=1, size=1)
            begins_now = not page.publications
        if self.state is not CursorState.LOCATING:
            return  # it has ended meanwhile
        if begins_now:
            self._requested = None
            self._start(newest, self._id_of(newest))
        else:
            self._start(START, EARLIEST)

    @contextmanager
    def _locating(self) -> Iterator[None]:
        """Ask the log in the block; what leaves it, such as a cancellation, is no answer."""
        self._move(CursorState.LOCATING)
        try:
            yield
        except BaseException:
            if self.state is CursorState.LOCATING:
                self._move(CursorState.NEW)
            raise

    def _decode(self, id_: str) -> Position | None:
        log = self._hub.log
        number = PositionIds(log.key).decode(id_)
        # One that is ahead was lost with a copy of the log that was newer.
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
        """Begin to receive: at once if nothing of the log is needed.

        Cancellation:
          Synchronous, no checkpoint.
        """
        self._dispatcher = dispatcher
        if self.state is CursorState.NEW and self._requested is None:
            self._start_now()
        if self.state is CursorState.REPLAYING:
            self._join_at_head()

    async def ready(self) -> bool:
        """Return whether `take` has something; before that, read the log as far as is due.

        If not, `wait` for it, unless the cursor has ended.

        Cancellation:
          May be a checkpoint. Cancelled, nothing is lost, and it can be called again.

        Raises:
          trio.BusyResourceError: another task is locating or reading for this cursor.
        """
        while not self._page and self._dispatcher is not None:
            if self.state in (CursorState.NEW, CursorState.LOCATING):
                await self.locate()
                continue  # it may have ended meanwhile, or have a gap to report
            if self.state is CursorState.REPLAYING:
                self._join_at_head()
            if self.state not in (CursorState.REPLAYING, CursorState.CATCHING_UP):
                break
            await self._read(self._dispatcher)
        return bool(self._page or (self._queue and self.state in (_State.LIVE, _State.ENDED)))

    async def wait(self, direct: DirectWriter | None = None) -> None:
        """Wait until `ready` may have changed; in between, the dispatcher may write directly.

        Args:
          direct: the client's direct writer, if the client has taken everything it was given.

        Cancellation:
          A checkpoint.

        Raises:
          trio.BusyResourceError: another task is waiting for this cursor.
        """
        if self._waiting is not None:
            raise trio.BusyResourceError("another task is waiting for this subscription")
        self._waiting = trio.Event()
        if self.state is CursorState.LIVE and not self.waiting:
            self.direct = direct
        try:
            await self._waiting.wait()
        finally:
            self._waiting = self.direct = None

    def take(self, size: int) -> Sequence[Publication | ServerSentEvent]:
        """Take what comes next: a page, or up to this many bytes of the queue, at least one item.

        An item is a publication, or a gap, which is an event that was not published.
        """
        if self._page:
            page, self._page = self._page, ()
            self._go_live_at_mark()
            return page
        return list(self._queue.pop(size))

    def take_one(self) -> Publication | ServerSentEvent:
        """Take the one item that comes next."""
        if self._page:
            first, self._page = self._page[0], self._page[1:]
            self._go_live_at_mark()
            return first
        return next(self._queue.pop(1))

    async def _read(self, dispatcher: Dispatcher) -> None:
        """Read the next page, and join if the log was read up to the dispatcher's head."""
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
            # The client keeps its last id, and with it can ask for the rest again.
            if self._missed_after != self.resume_id:  # one gap for one loss
                self._missed_after = self.resume_id
                self._page = [_gap(self.resume_id, None)]
            self._after = until
        else:
            if self.state is CursorState.ENDED:
                return
            if self._after == START and self._requested == EARLIEST:
                self._reported = page.discarded_until  # whoever asks for what is left misses none
            self._page = page.publications
            if page.discarded_until > max(self._after, self._reported):
                self._reported = page.discarded_until
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
        """Return the gap that comes before a page; behind one without any event it goes on."""
        missed, goes_on = self.resume_id, None
        if not page.publications:
            # With the id it had, the client would get the same gap at each reconnection.
            goes_on = self.resume_id = self._id_of(page.until)
        return _gap(missed, goes_on)

    # Joining; no checkpoint between looking at the dispatcher's head and joining

    def _join_at_head(self) -> None:
        """Join if nothing of the log is needed, or will be when the head is there."""
        assert self._dispatcher is not None
        head = self._dispatcher.head
        if self._page or self._after < head:
            return
        if self._after == head:
            self._join()
            self._go_live_at_mark()
        else:
            self._move(CursorState.AWAITING_HEAD)
            self._dispatcher.expect(self._after, self)

    def admit(self) -> None:
        """Join: the dispatcher's head has come to the position, or passed it.

        Publications that were dispatched together with that one are read from the log.
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
        """Queue publications, since they were not written directly; False if it has ended.

        A client that is too far behind ends with `CloseReason.SLOW`, and loses what is queued; the
        log has it.
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
        """End for an error of this client's own, which nobody else notices."""
        _logger.error("Delivery to a subscriber failed, its subscription ended", exc_info=error)
        self._give_up(CloseReason.FAILED)

    def _give_up(self, reason: CloseReason) -> None:
        self._queue.clear()
        if self._on_end is not None:
            self._on_end(reason)

    def end(self) -> None:
        """Receive no more: what is read, and what is queued behind it, can still be taken.

        What is queued behind a part of the log that was not read is dropped.

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
                self._dispatcher.forget(self._after, self)
        self._move(CursorState.ENDED)
        # What refers to each other here would wait for the cyclic collector.
        self._dispatcher = self.direct = self._on_end = None
        self._wake()

    def clear(self) -> None:
        """Drop what was not taken."""
        self._page = ()
        self._queue.clear()

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.set()

    def _move(self, to: CursorState) -> None:
        assert to in _NEXT[self.state], f"{self.state} → {to}"
        self.state = to


def _gap(missed: str | None, goes_on: str | None) -> ServerSentEvent:
    """Return the event that reports a loss after an id, and where to go on if that is elsewhere."""
    # In ASCII, since what was requested may be text that UTF-8 cannot carry.
    data = json.dumps({"last_event_id": missed}, separators=(",", ":"))
    return ServerSentEvent(data, event=GAP, id=goes_on)
