"""A hub's surroundings on the virtual clock: histories that are slow or fail, and a server."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from penstock.errors import LogError
from penstock.event import ServerSentEvent
from penstock.logs.log import Entry, LogStatistics, Newest, Page, Position
from penstock.logs.memory import MemoryLog
from penstock.publication import Publication
from penstock.selection import Selection
from penstock.stream.transport import Chunk


class SlowHistory:
    """A history in memory whose methods take time, and fail while they are told to.

    Args:
      takes: seconds of virtual time for each `append`; None appends at once, as memory does.
      reads: seconds for each `locate` and `read`.

    Attributes:
      failing: which method raises `LogError` now: "open", "append", "locate" or "read".
      groups: how many publications each `append` had.
    """

    def __init__(
        self, takes: float | None = 1, *, reads: float = 0, inner: MemoryLog | None = None
    ) -> None:
        self.inner = MemoryLog() if inner is None else inner
        self.takes = takes
        self.reads = reads
        self.failing: str | None = None
        self.broken: Exception | None = None
        self.groups: list[int] = []
        self.appended_at: list[float] = []
        self.opened = self.closed = 0

    async def open(self) -> None:
        self.opened += 1
        self._fail("open")

    async def aclose(self) -> None:
        self.closed += 1

    @property
    def newest(self) -> Newest:
        return self.inner.newest

    @property
    def key(self) -> bytes:
        return self.inner.key

    @property
    def shared(self) -> bool:
        return False

    async def follow(self, after: Position) -> Sequence[Entry]:
        entries = await self.inner.follow(after)
        await trio.sleep(self.reads)
        self._fail("follow")
        return entries

    def append_nowait(self, publications: Sequence[Publication]) -> Sequence[Position] | None:
        if self.takes is not None:
            return None
        self.groups.append(len(publications))
        return self.inner.append_nowait(publications)

    async def append(self, publications: Sequence[Publication]) -> Sequence[Position]:
        assert self.takes is not None
        self.groups.append(len(publications))
        await trio.sleep(self.takes)
        self._fail("append")
        positions = self.inner.append_nowait(publications)
        self.appended_at.append(trio.current_time())
        return positions

    async def locate(self, id: str, selection: Selection) -> Position | None:  # noqa: A002 - as there
        await trio.sleep(self.reads)
        self._fail("locate")
        return await self.inner.locate(id, selection)

    async def read(
        self, after: Position, until: Position, selection: Selection, *, count: int, size: int
    ) -> Page:
        await trio.sleep(self.reads)
        self._fail("read")
        return await self.inner.read(after, until, selection, count=count, size=size)

    def statistics(self) -> LogStatistics:
        return self.inner.statistics()

    def _fail(self, method: str) -> None:
        if self.failing == method:
            raise self.broken or LogError(f"{method} fails")


class Server:
    """A server that writes through, and a client of it that may stop reading.

    Attributes:
      wire: what the client has.
      through: how many chunks were written past the stream's writer.
    """

    def __init__(self) -> None:
        self.wire = b""
        self.through = 0
        self.stalled = False
        self.gone = False
        self._reads = trio.Event()
        self._reads.set()

    def set_sender(self, send: object) -> None:
        pass

    def try_enable(self) -> bool:
        return True

    def write_nowait(self, chunk: Chunk) -> bool:
        if self.gone or not self._reads.is_set():
            return False
        self.wire += chunk.data
        self.through += 1
        return True

    async def send(self, chunk: bytes) -> None:
        await self._reads.wait()
        await trio.lowlevel.checkpoint()
        if self.gone:
            raise trio.BrokenResourceError
        self.wire += chunk

    def stop_reading(self) -> None:
        if self._reads.is_set():
            self._reads = trio.Event()

    def read_on(self) -> None:
        self._reads.set()

    @property
    def data(self) -> list[str | None]:
        return [event.data for event in self.events]

    @property
    def events(self) -> list[ServerSentEvent]:
        return events_of(self.wire)


def events_of(wire: bytes) -> list[ServerSentEvent]:
    """Return the events with data that a client dispatches of these bytes, as they were sent."""
    events = []
    for block in wire.decode().split("\n\n"):
        fields: dict[str, list[str]] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(": ")
            fields.setdefault(name, []).append(value)
        if "data" in fields:
            events.append(
                ServerSentEvent(
                    "\n".join(fields["data"]),
                    event=fields.get("event", [None])[0],
                    id=fields.get("id", [None])[0],
                )
            )
    return events
