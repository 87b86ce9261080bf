"""From all publishers to all subscribers: what is published is kept, and then delivered.

Rule 1: what is kept while there is delivering goes out together, to each audience as one chunk.
Meanwhile the next publications are kept (`penstock.hub.keeping`).

Rule 2: nobody waits for a client. What a client does not take at once goes into the backlog of its
subscription.

Rule 3: no gap, no duplicate. `Dispatcher.head` moves, and the members of the audiences are noted,
with no checkpoint between: who joins before is among them, who joins later begins behind the head.
Who begins behind what is kept, but not delivered yet, joins when it is, and reads from the history
what was delivered together with it.

Rule 4: it does not hold the loop. After some milliseconds of delivering it lets others have their
turn, and goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Final, final

import trio

from penstock.history import History, Newest
from penstock.hub.audience import Audiences
from penstock.hub.keeping import Keeping, Kept
from penstock.publication import Publication
from penstock.stream.transport import Chunk

if TYPE_CHECKING:
    from penstock.hub.reception import Reception

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


@final
class Dispatcher:
    """A hub's dispatcher; its `run` is a task of the hub's.

    Args:
      history: where publications are kept.
      audiences: whom they are for.
      gather: the most seconds for which a busy one gathers what is published.

    Attributes:
      head: the newest publication that has been, or is being, delivered.
      delivered: how many publications went to subscribers, counted for each subscriber.
    """

    def __init__(self, history: History, audiences: Audiences, gather: float) -> None:
        self.head: Newest = Newest()
        self.delivered: int = 0
        self._history = history
        self._audiences = audiences
        self._kept = Kept()
        self._keeping = Keeping(history, self._kept)
        self._latecomers: dict[int, set[Reception]] = {}  # by the position they begin behind
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
        self.head = self._history.newest
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
            publications = self._kept.take()
            if publications is None:
                return
            if publications:
                await self._deliver(publications)

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
            # No checkpoint from here to the end of `heard`, and of those who join: see rule 3.
            self.head = Newest(self.head.position + len(part), part[-1].id)
            heard = [
                (list(audience.members), theirs) for audience, theirs in self._audiences.match(part)
            ]
            self._admit_latecomers()
            for members, theirs in heard:
                chunk = Chunk(b"".join([publication.wire for publication in theirs]))
                await self._deliver_to(members, chunk, theirs)
            await self._let_others()
        self._took += perf_counter() - self._turn

    def expect(self, position: int, subscription: Reception) -> None:
        """Have a subscription join when the head is at a position, or behind it.

        Cancellation:
          Synchronous, no checkpoint.
        """
        self._latecomers.setdefault(position, set()).add(subscription)

    def _admit_latecomers(self) -> None:
        for position in [each for each in self._latecomers if each <= self.head.position]:
            for latecomer in self._latecomers.pop(position):
                latecomer.join()
                latecomer.wake()

    async def _let_others(self) -> None:
        """Let others have their turn, if it is time."""
        self._until_look = _LOOK
        if (took := perf_counter() - self._turn) > _TURN:
            self._took += took
            await trio.lowlevel.checkpoint()
            self._turn = perf_counter()

    async def _deliver_to(
        self, members: list[Reception], chunk: Chunk, heard: list[Publication]
    ) -> None:
        """Deliver a chunk to the members of an audience."""
        now = trio.current_time()
        count, size = len(heard), len(chunk.data)
        for member in members:
            through = member.through
            if through is not None and through.write_nowait(chunk):
                written = member.written
                written.events += count
                written.bytes += size
                member.silent_since = now
            elif not member.put(heard):
                self.delivered -= count
            self._until_look -= 1
            if not self._until_look:
                await self._let_others()
                now = trio.current_time()
        self.delivered += count * len(members)


def _slices(publications: Sequence[Publication]) -> Iterator[Sequence[Publication]]:
    """Cut what is delivered into parts that are written at once."""
    start = size = 0
    for index, publication in enumerate(publications):
        if size and size + len(publication.wire) > _SLICE:
            yield publications[start:index]
            start, size = index, 0
        size += len(publication.wire)
    yield publications[start:]
