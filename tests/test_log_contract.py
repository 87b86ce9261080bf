"""Both histories keep to the contract; histories that do not are found out."""

# Positions of these logs are 1, 2, …: they are counted here, as nobody else may.
# mypy: disable-error-code="arg-type, return-value"

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from penstock.event import ServerSentEvent
from penstock.logs import MemoryLog, SQLiteLog
from penstock.logs.log import Entry, Newest, Page, Position
from penstock.publication import Publication
from penstock.selection import EVERY_TOPIC, Selection, select
from penstock.testing import check_log
from penstock.testing.waiting import TimeLimit


def unbounded(**bounds: Any) -> dict[str, Any]:
    return {"count": None, "size": None, **bounds}


async def test_in_memory() -> None:
    """MemoryLog keeps to it."""
    await check_log(lambda **bounds: MemoryLog(**unbounded(**bounds)))


async def test_in_a_file(tmp_path: Path) -> None:
    """SQLiteLog keeps to it."""
    numbers = count()
    await check_log(
        lambda **bounds: SQLiteLog(tmp_path / str(next(numbers)), **unbounded(**bounds))
    )


class Broken:
    """A history in memory, which does something else where a test says so."""

    def __init__(self, **bounds: Any) -> None:
        self.inner = MemoryLog(**unbounded(**bounds))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class WrongOrder(Broken):
    def append_nowait(self, publications: Sequence[Publication]) -> Sequence[Position] | None:
        return self.inner.append_nowait(publications[::-1])


class Forgets(Broken):
    def append_nowait(self, publications: Sequence[Publication]) -> Sequence[Position] | None:
        return self.inner.append_nowait(publications[:4096])


class BeginsTooEarly(Broken):
    async def read(self, after: int, *args: Any, **limits: Any) -> Page:
        return await self.inner.read(max(0, after - 1), *args, **limits)


class EndsTooLate(Broken):
    async def read(self, after: int, until: int, *args: Any, **limits: Any) -> Page:
        return await self.inner.read(after, until + 1, *args, **limits)


class NoLimits(Broken):
    async def read(self, *args: Any, count: int, size: int) -> Page:
        return await self.inner.read(*args, count=10**9, size=10**9)


class StopsShort(Broken):
    async def read(self, after: int, until: int, *args: Any, **limits: Any) -> Page:
        page = await self.inner.read(after, until, *args, **limits)
        return page._replace(until=until)


class SaysNothingOfLosses(Broken):
    async def read(self, *args: Any, **limits: Any) -> Page:
        return (await self.inner.read(*args, **limits))._replace(discarded_until=0)


class AlwaysLost(Broken):
    async def read(self, *args: Any, **limits: Any) -> Page:
        return (await self.inner.read(*args, **limits))._replace(discarded_until=10**9)


class KnowsNoTopics(Broken):
    async def read(
        self, after: Position, until: Position, selection: Selection, **limits: Any
    ) -> Page:
        return await self.inner.read(after, until, EVERY_TOPIC, **limits)


class Twice(Broken):
    async def read(self, *args: Any, **limits: Any) -> Page:
        page = await self.inner.read(*args, **limits)
        return page._replace(entries=[each for each in page.entries for _ in (1, 2)])


class LocatesTheLatest(Broken):
    async def locate(self, id: str, selection: Selection) -> Position | None:  # noqa: A002 - as in Log
        page = await self.inner.read(0, 10**9, EVERY_TOPIC, count=10**9, size=10**9)
        positions = [n for n, each in enumerate(page.publications, start=1) if each.id == id]
        return positions[-1] if positions else None


class LocatesAnything(Broken):
    async def locate(self, id: str, selection: Selection) -> Position | None:  # noqa: A002 - as in Log
        return await self.inner.locate(id, selection) or (1 if self.inner.newest.position else None)


class LocatesTheFirstEver(Broken):
    """Which may be gone, when another one with the same id is not."""

    def __init__(self, **bounds: Any) -> None:
        super().__init__(**bounds)
        self.first: dict[str, int] = {}

    def append_nowait(self, publications: Sequence[Publication]) -> Sequence[Position] | None:
        for position, each in enumerate(publications, start=self.inner.newest.position + 1):
            self.first.setdefault(each.id, position)
        return self.inner.append_nowait(publications)

    async def locate(self, id: str, selection: Selection) -> Position | None:  # noqa: A002 - as in Log
        position = await self.inner.locate(id, selection)
        return position if position == self.first.get(id) else None


class LocatesWhatLooksTheSame(Broken):
    async def locate(self, id: str, selection: Selection) -> Position | None:  # noqa: A002 - as in Log
        return await self.inner.locate(id.encode(errors="replace").decode(), selection)


class ForgetsIdsWhenItIsClosed(Broken):
    def __init__(self, **bounds: Any) -> None:
        super().__init__(**bounds)
        self.ids: set[str] = set()

    def append_nowait(self, publications: Sequence[Publication]) -> Sequence[Position] | None:
        self.ids.update(each.id for each in publications)
        return self.inner.append_nowait(publications)

    async def locate(self, id: str, selection: Selection) -> Position | None:  # noqa: A002 - as in Log
        return await self.inner.locate(id, selection) if id in self.ids else None

    async def aclose(self) -> None:
        self.ids.clear()
        await self.inner.aclose()


class SaysNothingToOtherTopics(Broken):
    async def read(
        self, after: Position, until: Position, selection: Selection, **limits: Any
    ) -> Page:
        page = await self.inner.read(after, until, selection, **limits)
        return page._replace(discarded_until=0) if selection == select(["quiet"]) else page


class TellsEverybody(Broken):
    async def read(
        self, after: Position, until: Position, selection: Selection, **limits: Any
    ) -> Page:
        page = await self.inner.read(after, until, selection, **limits)
        everything = await self.inner.read(after, until, EVERY_TOPIC, **limits)
        return page._replace(discarded_until=everything.discarded_until)


class LocatesIdsOfOtherTopics(Broken):
    async def locate(self, id: str, selection: Selection) -> Position | None:  # noqa: A002 - as in Log
        return await self.inner.locate(id, EVERY_TOPIC)


class ForgetsTheNewestThatWasDiscarded(Broken):
    async def locate(self, id: str, selection: Selection) -> Position | None:  # noqa: A002 - as in Log
        position = await self.inner.locate(id, selection)
        if position is None:
            return None
        page = await self.inner.read(position - 1, position, selection, count=1, size=1)
        return position if page.publications else None


class LosesWhatOthersLost(Broken):
    """The floor of all topics is the floor of each."""

    async def read(
        self, after: Position, until: Position, selection: Selection, **limits: Any
    ) -> Page:
        page = await self.inner.read(after, until, selection, **limits)
        rest = await self.inner.read(0, 10**9, EVERY_TOPIC, count=1, size=1)
        floor = rest.until - 1 if rest.publications else 0
        return page._replace(discarded_until=max(page.discarded_until, floor))


class CountsEventsOnly(Broken):
    def __init__(self, **bounds: Any) -> None:
        super().__init__(**{**bounds, "size": None})


class ChangesItsKey(Broken):
    @property
    def key(self) -> bytes:
        return secrets.token_bytes(16)


class HasACommonKey(Broken):
    key = bytes(16)


class ForgetsAnOldNewest(Broken):
    def __init__(self, **bounds: Any) -> None:
        super().__init__(**bounds)
        self.age = bounds.get("age", math.inf)
        self.appended = -math.inf

    def append_nowait(self, publications: Sequence[Publication]) -> Sequence[Position] | None:
        self.appended = trio.current_time()
        return self.inner.append_nowait(publications)

    async def locate(self, id: str, selection: Selection) -> Position | None:  # noqa: A002 - as in Log
        too_old = self.appended < trio.current_time() - self.age
        return None if too_old else await self.inner.locate(id, selection)


class ForgetsGapsWhenClosed(Broken):
    closed = False

    async def aclose(self) -> None:
        self.closed = True

    async def read(
        self, after: Position, until: Position, selection: Selection, **limits: Any
    ) -> Page:
        page = await self.inner.read(after, until, selection, **limits)
        return page._replace(discarded_until=0) if self.closed and selection.topics else page


class NewestIsTheFirst(Broken):
    @property
    def newest(self) -> Newest:
        return self.inner.newest._replace(id="id 1")


class CountsItsSizeWrong(Broken):
    def statistics(self) -> Any:
        figures = self.inner.statistics()
        return type(figures)(figures.publications, figures.bytes + 1, figures.newest)


class BeginsAnew(Broken):
    async def aclose(self) -> None:
        self.inner = MemoryLog()


class KnowsNoBounds(Broken):
    def __init__(self, **bounds: Any) -> None:
        super().__init__()


class LosesContent(Broken):
    def append_nowait(self, publications: Sequence[Publication]) -> Sequence[Position] | None:
        bare = [Publication.from_log(one.id, one.topics[:1], one.wire) for one in publications]
        return self.inner.append_nowait(bare)


class HalfOfWhatIsCancelled(Broken):
    def append_nowait(self, publications: Sequence[Publication]) -> None:
        return None

    async def append(self, publications: Sequence[Publication]) -> Sequence[Position]:
        positions: list[Position] = []
        for publication in publications:
            positions += self.inner.append_nowait([publication])
            if len(publications) < 5:
                await trio.lowlevel.checkpoint()
        return positions


class FollowsTwice(Broken):
    async def follow(self, after: Position) -> Sequence[Entry]:
        entries = await self.inner.follow(after)
        return [*entries, *entries]


class FollowsWithoutWaiting(Broken):
    async def follow(self, after: Position) -> Sequence[Entry]:
        until = self.inner.newest.position
        page = await self.inner.read(after, until, EVERY_TOPIC, count=10**6, size=10**9)
        return page.entries


class ForgetsItsPositions(Broken):
    def append_nowait(self, publications: Sequence[Publication]) -> Sequence[Position]:
        return self.inner.append_nowait(publications)[1:]


async def test_what_is_not_broken_is_not_found_to_be() -> None:
    """So that what is found of those below is what they break."""
    await check_log(Broken)


@pytest.mark.parametrize("broken", Broken.__subclasses__())
async def test_a_broken_one_is_found_out(broken: type[Broken]) -> None:
    """The suite refuses each, and says which rule it breaks."""
    with pytest.raises(AssertionError, match="the log breaks this rule: "):
        await check_log(broken)


async def test_what_is_remembered_of_topics_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest silent topics are forgotten: they may have lost something."""
    monkeypatch.setattr("penstock.logs.memory._REMEMBERED_SIZE", 1000 * 320)
    history = MemoryLog(count=10)
    for number in range(10_000):
        event = ServerSentEvent(str(number), id=f"id {number}")
        history.append_nowait([Publication(event, ["all", f"topic {number}"])])
    assert len(history._remembered) < 1100

    async def discarded_until(topic: str) -> int:
        page = await history.read(0, 10_000, select([topic]), count=1, size=1)
        return page.discarded_until

    forgotten = await discarded_until("topic 0")
    assert 8900 <= forgotten < 9100
    assert await discarded_until("topic 5000") == await discarded_until("new") == forgotten
    assert await discarded_until("topic 9980") == 9981
    assert await history.locate("id 9980", select(["topic 9980"])) == 9981
    assert await history.locate("id 5000", select(["topic 5000"])) is None
    history.append_nowait([Publication(ServerSentEvent("x", id="x"), ["topic 0"])])
    assert await discarded_until("topic 0") == forgotten


async def _hang(*_: object, **__: object) -> None:
    await trio.sleep_forever()


class Hanging(Broken):
    """A history of which a call does not return."""

    def __init__(self, call: str, **bounds: Any) -> None:
        super().__init__(**bounds)
        self._call = call

    def __getattribute__(self, name: str) -> Any:
        if name != "_call" and name == self._call:
            return _hang
        if name == "append_nowait":
            return lambda publications: None  # so that `append` is called
        return super().__getattribute__(name)


@pytest.mark.parametrize("call", ["open", "aclose", "append", "read", "locate", "follow"])
@pytest.mark.parametrize(
    "clock",
    [trio.testing.MockClock(autojump_threshold=0), trio.testing.MockClock(), None],
    ids=["jumps", "stands", "real"],
)
def test_one_that_hangs_is_found_out(call: str, clock: trio.abc.Clock | None) -> None:
    """A call that does not return fails the check on any clock; the message says where it waits."""

    async def check() -> None:
        with pytest.raises(
            AssertionError, match=r"every call returns; .* did not within"
        ) as caught:
            await check_log(lambda **bounds: Hanging(call, **bounds), patience=0.3)
        assert "waiting at" in str(caught.value)

    trio.run(check, clock=clock)


async def test_each_call_has_all_of_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow history whose calls all return is not given up, however many there are."""
    begun = count()
    renew = TimeLimit.renew

    def counting(limit: TimeLimit) -> None:
        next(begun)
        renew(limit)

    monkeypatch.setattr(TimeLimit, "renew", counting)
    await check_log(MemoryLog)
    assert next(begun) > 500


async def test_a_slow_thread_is_not_given_up_on_a_clock_that_jumps() -> None:
    """An autojump clock jumps while a thread works: the time of a log's threads is real.

    Few calls are in threads: the clock, which jumps all the time, slows each of them down.
    """
    clock = trio.testing.MockClock(autojump_threshold=0)

    class Slow(Broken):
        async def open(self) -> None:
            await trio.to_thread.run_sync(time.sleep, 0.05)
            await self.inner.open()

    def check() -> None:
        trio.run(check_log, Slow, clock=clock)

    await trio.to_thread.run_sync(check)
