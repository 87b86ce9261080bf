"""The dispatcher: delivers committed publications from the delivery queue to all subscribers.

Rule 1: publications that wait in the queue are delivered together, to each audience as one chunk.
They are cut into slices of some 64 KiB.

Rule 2: nothing waits for a client. Publications that a client does not take immediately wait in the
queue of its subscription.

Rule 3: no gap, no duplicate. There is no checkpoint between moving `Dispatcher.head` and listing
the members of the audiences: a cursor that joined before is in the list, and a cursor that joins
later begins after the head. A cursor that awaits a position ahead of the head joins once the head
reaches it, and reads from the log anything dispatched together with it.

Rule 4: it does not hold the loop. After some milliseconds of delivery it yields to other tasks, and
then continues.

Rule 5: one member's failure ends that member only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from time import perf_counter
from typing import Final, Protocol, final

import trio

from penstock.hub.committer import DeliveryQueue
from penstock.logs.log import START, Entry, Position
from penstock.publication import Publication
from penstock.selection import EVERY_TOPIC, Selection
from penstock.stream.source import Tally
from penstock.stream.transport import Chunk, DirectWriter

__all__ = ["DEFAULT_BATCH_DELAY", "Dispatcher", "Member"]

# Seconds of delivery after which other tasks may run: a tenth of the delay that people notice. With
# shorter turns, an event would take longer to reach thousands of clients while others connect: each
# turn of the dispatcher is followed by some 10 ms of other tasks.
_TURN: Final = 0.01

# With many clients, most of a hub's work is to write each event to each client, most of it in the
# kernel. So a busy hub batches publications: delivery takes at most a fifth of its time, unless a
# publication would wait longer than these seconds.
_SHARE: Final = 5
DEFAULT_BATCH_DELAY: Final = 0.015

# Seconds: a shorter delay is not worth a timer.
_MIN_BATCH_DELAY: Final = 0.001

# Members between two looks at the clock, at some 5 µs each.
_LOOK: Final = 32

# Bytes to write to a client at once: the size of its socket's buffer (Settings.send_buffer).
_SLICE: Final = 2**16

# Topics to match at once, at some 0.2 µs each.
_SLICE_TOPICS: Final = 2**12


class Member(Protocol):
    """A recipient of the dispatcher: the cursor of one subscription."""

    direct: DirectWriter | None
    """The client's direct writer, while everything before was written."""
    written: Tally
    """Counts direct writes."""
    last_direct_write: float
    """The Trio time of the last direct write."""

    def put(self, publications: Iterable[Publication]) -> bool:
        """Queue publications; return False if the member has left meanwhile."""
        ...

    def head_reached(self) -> None:
        """Join: the head has reached, or passed, the position that the member awaits."""
        ...

    def fail(self, error: Exception) -> None:
        """End, because delivery to this member raised an error."""
        ...


@final
class Dispatcher:
    """A hub's dispatcher; its `run` is a task of the hub.

    Args:
      queue: the committed entries.
      batch_delay: the most seconds for which a busy dispatcher batches publications.

    Attributes:
      head: the position of the newest publication that has been, or is being, delivered; the hub
        sets it at the beginning.
      delivered: the number of publications delivered, counted for each subscriber.
    """

    def __init__(self, queue: DeliveryQueue, batch_delay: float) -> None:
        self.head: Position = START
        self.delivered: int = 0
        self._queue = queue
        # An audience is the members that have one selection, in the order in which they joined.
        self._audiences: dict[Selection, dict[Member, None]] = {}
        self._on_topic: dict[str, dict[Selection, dict[Member, None]]] = {}
        self._awaiting: dict[Position, dict[Member, None]] = {}  # by the position they await
        self._batch_delay = batch_delay
        self._batches = True
        self._began = 0.0  # when the last delivery began
        self._took = 0.0  # how long that took, other tasks' turns excluded
        self._turn = 0.0  # when this turn of delivery began
        self._until_look = _LOOK

    @property
    def audiences(self) -> int:
        """How many different selections its members have."""
        return len(self._audiences)

    def stop_batching(self) -> None:
        """Deliver immediately from now on: the hub is closing. Synchronous."""
        self._batches = False

    async def run(self) -> None:
        """Deliver queued entries until the queue is closed.

        Cancellation:
          Checkpoints throughout.
        """
        try:
            while True:
                await self._queue.wait()
                await self._delay_batch()
                entries = self._queue.take()
                if entries is None:
                    return
                await self._deliver(entries)
        finally:
            self._queue.abandon()

    async def _delay_batch(self) -> None:
        """Wait for more publications if delivery takes too much of the time."""
        interval = min(_SHARE * self._took, self._batch_delay)
        pause = self._began + interval - trio.current_time()
        if pause > _MIN_BATCH_DELAY and self._batches:
            await trio.sleep(pause)
        self._began = trio.current_time()
        self._took = 0.0

    async def _deliver(self, entries: Sequence[Entry]) -> None:
        self._turn = perf_counter()
        for part in _slices(entries):
            # No checkpoint between moving the head, listing the recipients, and joining others.
            self.head = part[-1].position
            matched = self._match([entry.publication for entry in part])
            self._notify_awaiting()
            for members, received in matched:
                chunk = Chunk(b"".join([publication.wire for publication in received]))
                await self._deliver_to(members, chunk, received)
            await self._yield_if_due()
        self._took += perf_counter() - self._turn

    # The audiences

    def join(self, member: Member, selection: Selection) -> None:
        """Add a member to the audience of its selection. Synchronous."""
        audience = self._audiences.get(selection)
        if audience is None:
            audience = self._audiences[selection] = {}
            for topic in selection.topics or ():
                self._on_topic.setdefault(topic, {})[selection] = audience
        audience[member] = None

    def leave(self, member: Member, selection: Selection) -> None:
        """Remove a member from the audience of its selection. Synchronous."""
        audience = self._audiences[selection]
        del audience[member]
        if audience:
            return
        del self._audiences[selection]
        for topic in selection.topics or ():
            on_topic = self._on_topic[topic]
            del on_topic[selection]
            if not on_topic:
                del self._on_topic[topic]

    def _match(
        self, publications: Sequence[Publication]
    ) -> list[tuple[list[Member], list[Publication]]]:
        """Return the members of each audience that receives publications, and the publications.

        The cost depends on the audiences that receive publications, not on the number of others.
        """
        matched: dict[int, tuple[dict[Member, None], list[Publication]]] = {}
        for publication in publications:
            for topic in publication.topics:
                for audience in self._on_topic.get(topic, {}).values():
                    _, received = matched.setdefault(id(audience), (audience, []))
                    if not received or received[-1] is not publication:
                        received.append(publication)
        found = [(list(audience), received) for audience, received in matched.values()]
        if (everything := self._audiences.get(EVERY_TOPIC)) is not None:
            found.append((list(everything), list(publications)))
        return found

    def add_awaiting(self, position: Position, member: Member) -> None:
        """Call a member's `head_reached` when the head reaches, or passes, a position. Synchronous.

        The position is ahead of the head.
        """
        self._awaiting.setdefault(position, {})[member] = None

    def remove_awaiting(self, position: Position, member: Member) -> None:
        """Cancel `add_awaiting`, also during the call of `head_reached`. Synchronous."""
        awaiting = self._awaiting.get(position, {})
        awaiting.pop(member, None)
        if not awaiting:
            self._awaiting.pop(position, None)

    def _notify_awaiting(self) -> None:
        for position in [each for each in self._awaiting if each <= self.head]:
            for member in self._awaiting.pop(position):
                try:
                    member.head_reached()
                except Exception as error:
                    member.fail(error)

    async def _yield_if_due(self) -> None:
        """Let other tasks run if this turn of delivery has taken long enough."""
        self._until_look = _LOOK
        if (took := perf_counter() - self._turn) > _TURN:
            self._took += took
            await trio.lowlevel.checkpoint()
            self._turn = perf_counter()

    async def _deliver_to(
        self, members: list[Member], chunk: Chunk, publications: list[Publication]
    ) -> None:
        """Deliver a chunk to the members of an audience."""
        now = trio.current_time()
        count, size = len(publications), len(chunk.data)
        events = sum(publication.dispatched for publication in publications)
        for member in members:
            try:
                direct = member.direct
                if direct is not None and direct.write_nowait(chunk):
                    written = member.written
                    written.events += events
                    written.bytes += size
                    member.last_direct_write = now
                elif not member.put(publications):
                    self.delivered -= count
            except Exception as error:
                member.fail(error)
                self.delivered -= count
            self._until_look -= 1
            if not self._until_look:
                await self._yield_if_due()
                now = trio.current_time()
        self.delivered += count * len(members)


def _slices(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Cut entries into slices that are matched and written at once."""
    start = size = topics = 0
    for index, (_, publication) in enumerate(entries):
        size += len(publication.wire)
        topics += len(publication.topics)
        if index > start and (size > _SLICE or topics > _SLICE_TOPICS):
            yield entries[start:index]
            start, size, topics = index, len(publication.wire), len(publication.topics)
    if entries:
        yield entries[start:]
