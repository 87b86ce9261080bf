"""The dispatcher: committed publications, from the delivery queue to all subscribers.

Rule 1: all that waits in the queue goes out together, to each audience as one chunk.

Rule 2: nobody waits for a client. What a client does not take at once waits in the queue of its
subscription.

Rule 3: no gap, no duplicate. `Dispatcher.head` moves, and the members of the audiences are noted,
with no checkpoint between: a cursor that joins before is among them, and one that joins later
begins after the head. A cursor whose position is ahead of the head is admitted when the head has
come to it, and reads from the log what was dispatched together with it.

Rule 4: it does not hold the loop. After some milliseconds of delivering it lets others have their
turn, and goes on where it was.

Rule 5: one member's failure ends that member.
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

# Seconds of delivering after which others get their turn: a tenth of what people notice. Shorter
# turns would lengthen the way of an event to thousands while others connect: each turn of ours is
# followed by one of everybody else's, of some 10 ms.
_TURN: Final = 0.01

# With many clients, writing to each of them for each event is most of what a hub does, and most of
# that is the kernel's. So a busy hub collects what is published in the meantime: delivering takes a
# fifth of its time at most, unless somebody would wait for this longer than these seconds.
_SHARE: Final = 5
DEFAULT_BATCH_DELAY: Final = 0.015

# Seconds of delay that are not worth a timer.
_MIN_BATCH_DELAY: Final = 0.001

# Members between two looks at the clock, at some 5 µs each.
_LOOK: Final = 32

# Bytes that go to a client at once: what its socket's buffer takes (Settings.send_buffer).
_SLICE: Final = 2**16

# Topics that are matched at once, at some 0.2 µs each.
_SLICE_TOPICS: Final = 2**12


class Member(Protocol):
    """What the dispatcher delivers to: the cursor of one subscription."""

    direct: DirectWriter | None
    """The client's direct writer, while it has taken everything before."""
    written: Tally
    """What was written directly is counted here."""
    last_direct_write: float
    """When something was last written directly."""

    def put(self, publications: Iterable[Publication]) -> bool:
        """Queue publications; False if the member has left meanwhile."""
        ...

    def admit(self) -> None:
        """Join: the head has come to the position that the member awaits, or has passed it."""
        ...

    def fail(self, error: Exception) -> None:
        """End, for an error that delivery to this member raised."""
        ...


@final
class Dispatcher:
    """A hub's dispatcher; its `run` is a task of the hub's.

    Args:
      queue: the committed entries.
      batch_delay: the most seconds for which a busy dispatcher collects what is published.
      head: where it begins.

    Attributes:
      head: the position of the newest publication that has been, or is being, delivered.
      delivered: how many publications went to subscribers, counted for each subscriber.
    """

    def __init__(self, queue: DeliveryQueue, batch_delay: float, head: Position = START) -> None:
        self.head: Position = head
        self.delivered: int = 0
        self._queue = queue
        # The members with one selection are an audience, in the order of their joining.
        self._audiences: dict[Selection, dict[Member, None]] = {}
        self._on_topic: dict[str, dict[Selection, dict[Member, None]]] = {}
        self._expected: dict[Position, dict[Member, None]] = {}  # by the position that they await
        self._batch_delay = batch_delay
        self._hurries = False
        self._began = 0.0  # when it last began to deliver
        self._took = 0.0  # how long that took, without the turns of others
        self._turn = 0.0  # when this turn of delivering began
        self._until_look = _LOOK

    @property
    def audiences(self) -> int:
        """How many different selections its members have."""
        return len(self._audiences)

    def hurry(self) -> None:
        """Collect nothing any more: the queue is about to be closed. Synchronous."""
        self._hurries = True

    async def run(self) -> None:
        """Deliver all that is queued, again and again, until the queue is closed.

        Cancellation:
          Checkpoints throughout.
        """
        try:
            while True:
                await self._queue.wait()
                await self._collect()
                entries = self._queue.take()
                if entries is None:
                    return
                await self._deliver(entries)
        finally:
            self._queue.abandon()

    async def _collect(self) -> None:
        """Wait a little when delivering takes much of the time."""
        interval = min(_SHARE * self._took, self._batch_delay)
        pause = self._began + interval - trio.current_time()
        if pause > _MIN_BATCH_DELAY and not self._hurries:
            await trio.sleep(pause)
        self._began = trio.current_time()
        self._took = 0.0

    async def _deliver(self, entries: Sequence[Entry]) -> None:
        self._turn = perf_counter()
        for part in _slices(entries):
            # No checkpoint before all who receive this are noted, and who awaits it is admitted.
            self.head = part[-1].position
            matched = self._match([entry.publication for entry in part])
            self._admit_expected()
            for members, theirs in matched:
                chunk = Chunk(b"".join([publication.wire for publication in theirs]))
                await self._deliver_to(members, chunk, theirs)
            await self._let_others()
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
        """Return the members of each audience that receives any of these, with those.

        It costs what the audiences that receive something cost, however many others there are, and
        whatever the number of their members.
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

    def expect(self, position: Position, member: Member) -> None:
        """Have a member admitted when the head is at a position, or has passed it.

        Cancellation:
          Synchronous, no checkpoint.
        """
        self._expected.setdefault(position, {})[member] = None

    def forget(self, position: Position, member: Member) -> None:
        """Expect a member no longer; also one that is being admitted. Synchronous."""
        expected = self._expected.get(position, {})
        expected.pop(member, None)
        if not expected:
            self._expected.pop(position, None)

    def _admit_expected(self) -> None:
        for position in [each for each in self._expected if each <= self.head]:
            for member in self._expected.pop(position):
                try:
                    member.admit()
                except Exception as error:
                    member.fail(error)

    async def _let_others(self) -> None:
        """Let others have their turn, if it is time."""
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
                await self._let_others()
                now = trio.current_time()
        self.delivered += count * len(members)


def _slices(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Cut what is delivered into parts that are matched and written at once."""
    start = size = topics = 0
    for index, (_, publication) in enumerate(entries):
        size += len(publication.wire)
        topics += len(publication.topics)
        if index > start and (size > _SLICE or topics > _SLICE_TOPICS):
            yield entries[start:index]
            start, size, topics = index, len(publication.wire), len(publication.topics)
    if entries:
        yield entries[start:]
