"""From all publishers to all subscribers: what is published is kept, and then delivered.

Rule 1: what is kept while there is delivering goes out together, to each audience as one chunk.
Meanwhile the next publications are kept (`penstock.hub.keeping`).

Rule 2: nobody waits for a client. What a client does not take at once goes into the backlog of its
subscription.

Rule 3: no gap, no duplicate. `Dispatcher.head` moves, and the members of the audiences are noted,
with no checkpoint between: a cursor that joins before is among them, and one that joins later
begins after the head. A cursor whose position is ahead of the head is admitted when the head has
come to it, and reads from the history what was dispatched together with it.

Rule 4: it does not hold the loop. After some milliseconds of delivering it lets others have their
turn, and goes on where it was.

Rule 5: one member's failure ends that member.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import Final, final

import trio

from penstock.history import History
from penstock.hub.audience import Audiences, Member
from penstock.hub.keeping import Keeping, Kept
from penstock.publication import Publication
from penstock.stream.transport import Chunk

__all__ = ["DEFAULT_GATHER", "Dispatcher"]

# Seconds of delivering after which others get their turn: a tenth of what people notice. Shorter
# turns would lengthen the way of an event to thousands while others connect: each turn of ours is
# followed by one of everybody else's, of some 10 ms.
_TURN: Final = 0.01

# With many clients, writing to each of them for each event is most of what a hub does, and most of
# that is the kernel's. So a busy hub gathers what is published in the meantime: delivering takes a
# fifth of its time at most, unless somebody would wait for this longer than these seconds.
_SHARE: Final = 5
DEFAULT_GATHER: Final = 0.015

# Seconds of gathering that are not worth a timer.
_LEAST_GATHER: Final = 0.001

# Members between two looks at the clock, at some 5 µs each.
_LOOK: Final = 32

# Bytes that go to a client at once: what its socket's buffer takes (Settings.send_buffer).
_SLICE: Final = 2**16

# Topics that are matched at once, at some 0.2 µs each.
_SLICE_TOPICS: Final = 2**12


@final
class Dispatcher:
    """A hub's dispatcher; its `run` is a task of the hub's.

    Args:
      history: where publications are kept.
      gather: the most seconds for which a busy one gathers what is published.

    Attributes:
      audiences: the members that receive what is published.
      head: the position of the newest publication that has been, or is being, delivered.
      delivered: how many publications went to subscribers, counted for each subscriber.
    """

    def __init__(self, history: History, gather: float) -> None:
        self.audiences: Audiences = Audiences()
        self.head: int = 0
        self.delivered: int = 0
        self._history = history
        self._kept = Kept()
        self._keeping = Keeping(history, self._kept)
        self._expected: dict[int, dict[Member, None]] = {}  # by the position that they await
        self._gather = gather
        self._closed = False
        self._began = 0.0  # when it last began to deliver
        self._took = 0.0  # how long that took, without the turns of others
        self._turn = 0.0  # when this turn of delivering began
        self._until_look = _LOOK

    @property
    def published(self) -> int:
        """How many publications the history has taken."""
        return self._keeping.published

    @property
    def waiting(self) -> int:
        """How many publications wait for the next commit."""
        return self._keeping.waiting

    async def publish(self, publications: Sequence[Publication]) -> None:
        """Have publications kept and delivered; return when they are kept: `Keeping.publish`."""
        await self._keeping.publish(publications)

    def close(self) -> None:
        """Take nothing more; `run` returns when what waits was kept and delivered."""
        self._closed = True
        self._keeping.close()

    async def run(self) -> None:
        """Keep and deliver, until closed.

        Cancellation:
          Checkpoints throughout. Cancelled, it tells those whose publications were not kept.
        """
        self.head = self._history.newest.position
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._deliver_all, name="dispatcher")
                await self._keeping.run()
        finally:
            self._kept.abandon()

    async def _deliver_all(self) -> None:
        """Deliver all that was kept, again and again, until there will be nothing more."""
        while True:
            await self._kept.wait()
            await self._gather_more()
            runs = self._kept.take()
            if runs is None:
                return
            for run in runs:
                # A history may have kept what it reported as failed: there are positions between.
                self.head = run.before
                await self._deliver(run.publications)

    async def _gather_more(self) -> None:
        """Wait a little when delivering takes much of the time."""
        interval = min(_SHARE * self._took, self._gather)
        pause = self._began + interval - trio.current_time()
        if pause > _LEAST_GATHER and not self._closed:
            await trio.sleep(pause)
        self._began = trio.current_time()
        self._took = 0.0

    async def _deliver(self, publications: Sequence[Publication]) -> None:
        self._turn = perf_counter()
        for part in _slices(publications):
            # No checkpoint before all who receive this are noted, and who awaits it is admitted.
            self.head += len(part)
            matched = [
                (list(audience.members), theirs) for audience, theirs in self.audiences.match(part)
            ]
            self._admit_expected()
            for members, theirs in matched:
                chunk = Chunk(b"".join([publication.wire for publication in theirs]))
                await self._deliver_to(members, chunk, theirs)
            await self._let_others()
        self._took += perf_counter() - self._turn

    def expect(self, position: int, member: Member) -> None:
        """Have a member admitted when the head is at a position, or has passed it.

        Cancellation:
          Synchronous, no checkpoint.
        """
        self._expected.setdefault(position, {})[member] = None

    def forget(self, position: int, member: Member) -> None:
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
                    member.silent_since = now
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


def _slices(publications: Sequence[Publication]) -> Iterator[Sequence[Publication]]:
    """Cut what is delivered into parts that are matched and written at once."""
    start = size = topics = 0
    for index, publication in enumerate(publications):
        size += len(publication.wire)
        topics += len(publication.topics)
        if index > start and (size > _SLICE or topics > _SLICE_TOPICS):
            yield publications[start:index]
            start, size, topics = index, len(publication.wire), len(publication.topics)
    yield publications[start:]
