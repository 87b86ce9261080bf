"""The contract of a log, as a suite of checks that any test can run on any log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, TypeAlias, final

import trio

from penstock.event import ServerSentEvent
from penstock.logs.log import START, Log, LogStatistics, Position
from penstock.position_ids import KEY_SIZE
from penstock.publication import Publication
from penstock.selection import EVERY_TOPIC, Selection, select
from penstock.testing.leaks import describe, task_tree
from penstock.testing.waiting import TimeLimit

__all__ = [
    "HUGE",
    "MANY",
    "CheckedLog",
    "Maker",
    "check_age",
    "check_count",
    "check_log",
    "check_per_topic",
    "check_quiet_topics",
    "check_shared_topics",
    "check_size",
    "check_unused_topics",
    "equal",
    "numbered",
    "opened",
    "publication",
    "require",
]

# Limits of a page that nothing reaches.
MANY: Final = 10_000
HUGE: Final = 2**30


def publication(number: int, *topics: str, size: int = 0) -> Publication:
    """Return a publication that is identified by a number."""
    event = ServerSentEvent(f"{number} {'x' * size}", id=f"id {number}")
    return Publication(event, topics or ["a topic"])


def numbered(numbers: Iterable[int], *topics: str) -> list[Publication]:
    """Return publications with these numbers."""
    return [publication(number, *topics) for number in numbers]


@final
class CheckedLog:
    """A log under test, with ordinal numbers for positions: `START` is 0.

    So a check can say what it expects, whatever the log's positions are.

    Args:
      log: the log.
      renew: called before each call of the log, to restart its time limit.
    """

    def __init__(self, log: Log, renew: Callable[[], None]) -> None:
        self._log = log
        self._renew = renew
        self._positions = [START]

    async def open(self) -> None:
        """Open the log."""
        self._renew()
        await self._log.open()

    async def aclose(self) -> None:
        """Close the log."""
        self._renew()
        await self._log.aclose()

    @property
    def newest(self) -> tuple[int, str | None]:
        """The ordinal number of the newest publication, and its id."""
        position, id_ = self._log.newest
        return self._ordinal(position), id_

    @property
    def appended(self) -> int:
        """The ordinal number of the newest publication for which `append` has returned."""
        return len(self._positions) - 1

    @property
    def key(self) -> bytes:
        """The key of its position ids."""
        return self._log.key

    def statistics(self) -> LogStatistics:
        """Return its figures; `newest` is the log's own."""
        return self._log.statistics()

    async def append(self, publications: Sequence[Publication]) -> None:
        """Append as a hub does, and record the positions."""
        self._renew()
        positions = self._log.append_nowait(publications)
        if positions is None:
            positions = await self._log.append(publications)
        require(
            len(positions) == len(publications), "`append` returns a position for each publication"
        )
        for position in positions:
            require(position > self._positions[-1], "later entries have greater positions")
            self._positions.append(position)
        require(
            self._log.newest.position == positions[-1],
            "`newest` is the last publication that was appended",
        )

    async def note_positions(self) -> None:
        """Record the positions that a cancelled `append` did not return."""
        self._renew()
        until = self._log.newest.position
        page = await self._log.read(self._positions[-1], until, EVERY_TOPIC, count=MANY, size=HUGE)
        self._positions += [entry.position for entry in page.entries]

    async def follow(self, after: int) -> list[str]:
        """Return the ids of the next entries, and check their positions."""
        self._renew()
        last = self._positions[after]
        entries = await self._log.follow(last)
        require(bool(entries), "`follow` returns at least one entry")
        for position, _ in entries:
            require(position > last, "`follow` returns each entry once, in order")
            last = position
        return [entry.publication.id for entry in entries]

    async def locate(self, id_: str, topics: Iterable[str] | None = None) -> int | None:
        """Return the ordinal number of an id, for a subscription to these topics or to all."""
        self._renew()
        selection = EVERY_TOPIC if topics is None else select(topics)
        position = await self._log.locate(id_, selection)
        return None if position is None else self._ordinal(position)

    async def page(
        self, after: int, until: int, selection: Selection, *, count: int = MANY, size: int = HUGE
    ) -> tuple[list[Publication], int, int]:
        """Return a page's publications, and the ordinal numbers of its end and of its last gap."""
        self._renew()
        first, last = self._positions[after], self._positions[until]
        page = await self._log.read(first, last, selection, count=count, size=size)
        for position, publication in page.entries:
            require(first < position <= last, "a page has only entries between `after` and `until`")
            require(selection.matches(publication.topics), "a page has only selected entries")
        return page.publications, self._ordinal(page.until), self._ordinal(page.discarded_until)

    async def read(
        self, after: int = 0, topics: Iterable[str] | None = None
    ) -> tuple[list[int], bool]:
        """Return the numbers of all publications after a position, and whether there is a gap."""
        selection = EVERY_TOPIC if topics is None else select(topics)
        until, _ = self.newest
        publications, end, discarded = await self.page(after, until, selection)
        require(end == until, "a complete page ends at `until`")
        return [int(each.id.removeprefix("id ")) for each in publications], discarded > after

    def _ordinal(self, position: Position) -> int:
        require(position in self._positions, "all positions were returned by `append`")
        return self._positions.index(position)


Maker: TypeAlias = Callable[..., CheckedLog]
"""Returns a new log, with the bounds that are given as keywords."""


@asynccontextmanager
async def opened(log: CheckedLog) -> AsyncIterator[CheckedLog]:
    """Open a log while the block runs."""
    await log.open()
    try:
        yield log
    finally:
        await log.aclose()


def require(condition: bool, rule: str) -> None:
    """Raise unless a rule is kept."""
    if not condition:
        raise AssertionError(f"the log breaks this rule: {rule}")


def equal(found: Any, expected: Any, rule: str) -> None:
    """Raise unless two values are equal, as a rule demands."""
    if found != expected:
        raise AssertionError(f"the log breaks this rule: {rule}: {found!r}, not {expected!r}")


# Seconds: the bound of age that is checked, in real time, since a log may have its own clock.
_AGE: Final = 0.2


async def check_count(maker: Maker) -> None:
    """Check the bound `count`."""
    async with opened(maker(count=3)) as log:
        for number in range(1, 8):
            await log.append(numbered([number]))
            kept = list(range(max(1, number - 2), number + 1))
            rule = "the newest `count` publications are kept"
            equal((await log.read(kept[0] - 1))[0], kept, rule)
            equal(log.statistics().publications, len(kept), rule)
        equal(
            (await log.read(4))[1],
            False,
            "there is no gap for a client that has all discarded publications",
        )
        equal(
            (await log.read(3))[1],
            True,
            "there is a gap for a client that missed a discarded publication",
        )
        equal((await log.read(0))[1], True, "there is a gap for a client that has nothing")
        equal(await log.locate("id 3"), None, "a discarded publication is not located")
        equal(await log.locate("id 4"), 4, "the newest discarded publication is located")
        equal(await log.locate("id 5"), 5, "a kept publication is located")
        await log.append(numbered(range(100, 110)))
        equal(
            (await log.read())[0],
            [107, 108, 109],
            "the newest of a batch larger than `count` are kept",
        )
        await log.append(numbered([109, 110, 111]))
        equal(
            await log.locate("id 109"),
            18,
            "an id belongs to the earliest kept publication that has it",
        )


async def check_size(maker: Maker) -> None:
    """Check the bound `size`."""
    each = publication(1, size=100).size
    async with opened(maker(size=3 * each)) as log:
        for number in range(1, 8):
            await log.append([publication(number, size=100)])
        equal(await log.read(4), ([5, 6, 7], False), "publications are kept up to `size`")
        equal(log.statistics().bytes, 3 * each, "`statistics` has the size of what is kept")
        await log.append([publication(8, size=1000)])
        equal(await log.read(7), ([8], False), "the newest publication is kept, whatever its size")
        equal(
            log.statistics().publications,
            1,
            "nothing else is kept if the newest publication exceeds `size`",
        )
    many_topics = [f"{'x' * 900} {number}" for number in range(50)]
    async with opened(maker(size=100_000)) as log:
        for number in range(3):
            await log.append([publication(number, *many_topics)])
        equal((await log.read())[0], [2], "topics count towards `size`")


async def check_per_topic(maker: Maker) -> None:
    """Check the bound `per_topic`."""
    async with opened(maker(per_topic=2)) as log:
        await log.append([publication(1, "quiet"), *numbered([2, 3], "busy")])
        await log.append([*numbered([4, 5], "busy"), publication(6, "quiet")])
        equal(
            await log.read(), ([1, 4, 5, 6], True), "the newest publications of each topic are kept"
        )
        rule = "a topic without discarded publications has no gap"
        equal(await log.read(1, ["quiet"]), ([6], False), rule)
        equal(await log.read(0, ["busy"]), ([4, 5], True), rule)
        equal(await log.read(2, ["busy", "quiet"]), ([4, 5, 6], True), rule)
        equal(await log.read(3, ["busy"]), ([4, 5], False), rule)
        equal(await log.locate("id 2"), None, "a discarded publication is not located")
        rule = "the newest discarded publication of a topic is located"
        equal(await log.locate("id 3", ["quiet", "busy"]), 3, rule)
        equal(await log.locate("id 3", ["quiet"]), None, "an id of another topic is unknown")
        await log.append([publication(7, "busy", "quiet")])
        rule = "a publication on several topics counts for each of them"
        equal((await log.read(0, ["busy"]))[0], [5, 7], rule)
        equal((await log.read(0, ["quiet"]))[0], [6, 7], rule)
        equal(log.statistics().publications, 3, rule)


async def check_shared_topics(maker: Maker) -> None:
    """Check `per_topic` for publications on several topics."""
    async with opened(maker(per_topic=2)) as log:
        await log.append([publication(1, "busy", "quiet"), *numbered([2, 3], "busy")])
        shared = "a publication discarded because of one of its topics is a gap on its others"
        require(await log.read(0, ["quiet"]) in (([1], False), ([], True)), shared)
        equal(
            await log.read(0, ["busy"]),
            ([2, 3], True),
            "the newest publications of each topic are kept",
        )
        rule = "a topic without discarded publications has no gap"
        equal(await log.read(0, ["other"]), ([], False), rule)
        equal(await log.read(1, ["quiet"]), ([], False), rule)
    async with opened(maker(per_topic=2)) as log:
        await log.append([publication(1, "a", "quiet"), publication(2, "b", "quiet")])
        await log.append([*numbered([3, 4], "b"), *numbered([5, 6], "a")])
        require(await log.read(1, ["quiet"]) in (([2], False), ([], True)), shared)


async def check_age(maker: Maker) -> None:
    """Check the bound `age`."""
    async with opened(maker(age=_AGE)) as log:
        await log.append(numbered([1, 2]))
        await trio.sleep(2 * _AGE)  # real time: longer than the bound, however slow the machine is
        await log.append(numbered([3]))
        equal((await log.read())[0], [3], "publications older than `age` are not returned")
        equal((await log.read())[1], True, "publications older than `age` are a gap")
        equal(await log.locate("id 1"), None, "publications older than `age` are not located")
        equal(await log.locate("id 2"), 2, "the newest publication older than `age` is located")
        equal(
            (await log.read(2))[1],
            False,
            "there is no gap for a client that has all publications older than `age`",
        )
        equal(log.newest, (3, "id 3"), "`newest` does not depend on the age")
        await trio.sleep(2 * _AGE)  # as above
        rule = "the newest publication is kept, whatever its age, and is not a gap"
        equal(await log.read(2), ([3], False), rule)
        equal(await log.locate("id 3"), 3, rule)


async def check_quiet_topics(maker: Maker) -> None:
    """Check that discarded publications on busy topics are no gap on a quiet one."""
    async with opened(maker(count=5)) as log:
        await log.append([publication(1, "quiet"), publication(2, "twice")])
        await log.append([publication(3, "twice"), *numbered(range(4, 50), "busy")])
        rule = "a topic without discarded publications has no gap, however many others have"
        equal(await log.read(0, ["never"]), ([], False), rule)
        equal(await log.read(1, ["quiet"]), ([], False), rule)
        equal(await log.read(3, ["quiet", "twice"]), ([], False), rule)
        equal(await log.read(0, ["quiet"]), ([], True), "a discarded publication is a gap")
        equal(await log.read(2, ["twice"]), ([], True), "a discarded publication is a gap")
        rule = "the newest id of a topic is remembered longer than its event"
        equal(await log.locate("id 1", ["quiet"]), 1, rule)
        equal(await log.locate("id 3", ["quiet", "twice"]), 3, rule)
        equal(await log.locate("id 2", ["twice"]), None, "older ids of a topic are not remembered")
        equal(await log.locate("id 1", ["twice"]), None, "an id of another topic is unknown")
        equal(await log.locate("id 49", ["quiet"]), None, "an id of another topic is unknown")
        await log.append([publication(50, "quiet")])
        equal(
            await log.read(1, ["quiet"]),
            ([50], False),
            "a topic can be used again after all its publications were discarded",
        )
        equal(await log.read(0, ["quiet"]), ([50], True), "a discarded publication is a gap")


async def check_unused_topics(maker: Maker) -> None:
    """Check that topics without publications leave nothing behind."""
    async with opened(maker(count=5)) as log:
        for number in range(50):
            await log.append([publication(number, f"topic {number}", "all")])
        rule = "topics without kept publications do not affect other topics"
        equal((await log.read(0, ["topic 3"]))[0], [], rule)
        equal((await log.read(0, ["topic 48"]))[0], [48], rule)
        equal((await log.read(45, ["all"])), ([45, 46, 47, 48, 49], False), rule)
        await log.append([publication(50, "topic 3")])
        equal(
            (await log.read(46, ["topic 3"])),
            ([50], False),
            "a topic can be used again after all its publications were discarded",
        )


# Seconds to wait for something that must not happen.
_SILENCE: Final = 0.01

# Seconds that a call may take: many times what a slow machine and a slow log need.
_PATIENCE: Final = 30.0


async def check_log(maker: Callable[..., Log], *, patience: float = _PATIENCE) -> None:
    """Check that a log keeps the contract of `penstock.logs.log.Log`.

        async def test_my_log(tmp_path):
            numbers = itertools.count()
            await check_log(lambda **bounds: MyLog(tmp_path / str(next(numbers)), **bounds))

    It takes about a second of real time, so do not use a virtual clock.

    Args:
      maker: returns a new, empty log that is not open. Its keyword arguments are bounds: none, or
        one of ``count``, ``size``, ``age`` and ``per_topic``, as in `Bounds`; the log must have no
        other bounds.
      patience: seconds of real time, on any clock, that a call may take.

    Raises:
      AssertionError: the log breaks the rule that the message names, or a call does not return:
        the message says where it waits.

    Cancellation:
      Checkpoints throughout; the log being checked is closed. It cannot return while a log shields
      itself from cancellation.
    """
    checking = trio.lowlevel.current_task()
    for check in (
        *(_check_empty, _check_order, _check_pages, _check_limits, _check_topics, _check_ids),
        *(_check_content, _check_batches, _check_reading_meanwhile, _check_following),
        *(_check_cancelled,),
        *(_check_reopened, check_count, check_size, check_per_topic, check_age),
        *(check_shared_topics, check_quiet_topics, check_unused_topics),
    ):
        limit = TimeLimit(patience, real=True, describe=lambda: describe(task_tree(checking)))
        with limit:
            await check(partial(_checked, maker, limit))
        if limit.exceeded:
            what = check.__name__.removeprefix("_").removeprefix("check_").replace("_", " ")
            raise AssertionError(
                f"the log breaks this rule: every call returns; in the check of {what}, a call "
                f"did not within {patience:g} s:\n{limit.tasks}"
            )


def _checked(maker: Callable[..., Log], limit: TimeLimit, **bounds: Any) -> CheckedLog:
    return CheckedLog(maker(**bounds), limit.renew)


async def _check_empty(maker: Maker) -> None:
    async with opened(maker()) as log:
        equal(log.newest, (0, None), "an empty log has no newest publication")
        equal(await log.read(), ([], False), "an empty log returns nothing and has no gap")
        equal(await log.locate("id 1"), None, "an empty log locates nothing")
        figures = log.statistics()
        equal((figures.publications, figures.bytes), (0, 0), "an empty log has no size")


async def _check_order(maker: Maker) -> None:
    async with opened(maker()) as log:
        position = 0
        for numbers in ([1], [2, 3, 4], [5]):
            await log.append(numbered(numbers))
            position += len(numbers)
            newest = (position, f"id {numbers[-1]}")
            equal(log.newest, newest, "`newest` is the last publication that was appended")
        equal(await log.read(), ([1, 2, 3, 4, 5], False), "appended publications are returned")
        figures = log.statistics()
        equal(figures.publications, 5, "`statistics` counts what is kept")
        size = sum(each.size for each in numbered([1, 2, 3, 4, 5]))
        equal(figures.bytes, size, "`statistics` has the size of what is kept")
        equal(figures.newest.id, "id 5", "`statistics` has the newest publication")


async def _check_pages(maker: Maker) -> None:
    async with opened(maker()) as log:
        await log.append(numbered(range(1, 11)))
        for after in range(11):
            for until in range(after, 11):
                publications, end, _ = await log.page(after, until, EVERY_TOPIC)
                found = [each.id for each in publications]
                expected = [f"id {number}" for number in range(after + 1, until + 1)]
                equal(found, expected, "a page begins after `after` and ends with `until`")
                equal(end, until, "the `until` of a complete page is the one that was requested")


async def _check_limits(maker: Maker) -> None:
    async with opened(maker()) as log:
        for number in range(1, 31):
            parity = "even" if number % 2 == 0 else "odd"
            await log.append([publication(number, "both", parity, size=100)])
        cases: list[tuple[list[str] | None, list[int]]] = [
            (None, list(range(1, 31))),
            (["even"], list(range(2, 31, 2))),
            (["even", "odd", "both"], list(range(1, 31))),
            (["odd", "nothing"], list(range(1, 31, 2))),
        ]
        for topics, numbers in cases:
            selection = EVERY_TOPIC if topics is None else select(topics)
            for count, size in ((1, HUGE), (7, HUGE), (MANY, 1), (MANY, 500), (30, 10_000)):
                found: list[int] = []
                after = 0
                while after < 30:
                    publications, end, discarded = await log.page(
                        after, 30, selection, count=count, size=size
                    )
                    require(len(publications) <= count, "a page has at most `count` entries")
                    sizes = sum(len(each.wire) for each in publications[:-1])
                    require(sizes < size, "a page ends once it has `size` bytes")
                    require(end > after, "each page ends after the one before")
                    rule = "there is no gap if nothing was discarded"
                    equal(discarded, 0, rule)
                    found += [int(each.id[3:]) for each in publications]
                    after = end
                equal(found, numbers, "successive pages have each publication once, in order")


async def _check_topics(maker: Maker) -> None:
    async with opened(maker()) as log:
        await log.append([publication(1, "a"), publication(2, "b", "a")])
        await log.append([publication(3, "b"), publication(4, "c\u2028d", "a", "b")])
        for topics, numbers in (
            (["a"], [1, 2, 4]),
            (["b"], [2, 3, 4]),
            (["a", "b"], [1, 2, 3, 4]),
            (["c\u2028d"], [4]),
            (["A"], []),
            (["a", "nothing"], [1, 2, 4]),
            (None, [1, 2, 3, 4]),
        ):
            rule = f"a publication on any of the topics {topics} is returned once"
            equal(await log.read(0, topics), (numbers, False), rule)


async def _check_ids(maker: Maker) -> None:
    async with opened(maker()) as log:
        await log.append(numbered([1, 2, 3]))
        await log.append(numbered([2, 4, 2]))
        for number, position in ((1, 1), (3, 3), (4, 5)):
            equal(await log.locate(f"id {number}"), position, "an id is located")
            equal(
                await log.locate(f"id {number}", ["other"]),
                None,
                "an id is located only for the topics of its publication",
            )
        equal(await log.locate("id 2"), 2, "an id belongs to the earliest publication that has it")
        await log.append([publication(2, "other"), publication(3, "other", "a topic")])
        rule = "an id belongs to the earliest selected publication that has it"
        equal(await log.locate("id 2", ["other"]), 7, rule)
        equal(await log.locate("id 3", ["other"]), 8, rule)
        await log.append([Publication(ServerSentEvent("x", id="?"), ["a topic"])])
        for odd in ("", "ID 1", "id", "id 1 ", "%", "'", "\0", "\ud800", "é", "x" * 100_000):
            equal(await log.locate(odd), None, f"the id {odd[:10]!r} is not located")


async def _check_content(maker: Maker) -> None:
    async with opened(maker()) as log:
        event = ServerSentEvent("a\r\nb\n\nÄ\u2028", event="ping", id="é", retry=5, comment="\nc")
        publications = [
            Publication(event, ["Ä", "b c"]),
            Publication(ServerSentEvent("", id="empty"), ["Ä"]),
            Publication(ServerSentEvent(retry=1, id="no data"), ["Ä"]),
        ]
        await log.append(publications)
        found, _, _ = await log.page(0, 3, EVERY_TOPIC)
        equal(found, publications, "publications are returned as they were appended")
        ids = [each.id for each in found]
        equal(ids, ["é", "empty", "no data"], "ids are returned as they were appended")
        encoded = [each.event.encode() for each in found]
        equal(
            encoded,
            [each.wire for each in publications],
            "events are returned as they were appended",
        )


async def _check_batches(maker: Maker) -> None:
    async with opened(maker()) as log:
        await log.append(numbered(range(5000)))
        equal(log.newest[0], 5000, "a large batch is kept")
        numbers, lost = await log.read(4990)
        equal((numbers, lost), (list(range(4990, 5000)), False), "a large batch is kept in order")


async def _check_reading_meanwhile(maker: Maker) -> None:
    async with opened(maker()) as log:
        await log.append(numbered(range(1, 101)))

        async def read_often() -> None:
            for _ in range(20):
                until = log.appended
                publications, _, _ = await log.page(0, until, EVERY_TOPIC)
                expected = [f"id {number}" for number in range(1, until + 1)]
                equal(
                    [each.id for each in publications],
                    expected,
                    "a read during an append returns everything appended before",
                )

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(read_often)
            for number in range(101, 121):
                await log.append(numbered([number]))
                await trio.lowlevel.checkpoint()


async def _check_following(maker: Maker) -> None:
    async with opened(maker()) as log:
        await log.append(numbered([1, 2, 3]))
        for after in range(4):
            found: list[str] = []
            while len(found) < 5 - after:
                found += await log.follow(after + len(found))
                if found == ["id 1", "id 2", "id 3"]:
                    await log.append(numbered([4, 5]))
            expected = [f"id {number}" for number in range(after + 1, 6)]
            equal(found, expected, "`follow` returns everything after `after` once, in order")
        with trio.move_on_after(_SILENCE):
            await log.follow(5)
            require(False, "`follow` waits if there is nothing new")
        await log.append(numbered([6]))
        equal(await log.follow(5), ["id 6"], "`follow` can be called again after it was cancelled")


async def _check_cancelled(maker: Maker) -> None:
    async with opened(maker()) as log:
        await log.append(numbered([1]))
        with trio.CancelScope() as scope:
            scope.cancel()
            await log.append(numbered([2, 3]))
        if scope.cancelled_caught:
            await log.note_positions()
        numbers, _ = await log.read()
        kept = [[1], [1, 2, 3]]
        require(numbers in kept, "a cancelled append keeps all or nothing")
        equal(log.newest[0], len(numbers), "`newest` counts what is kept")
        await log.append(numbered([4]))
        equal(
            (await log.read())[0], [*numbers, 4], "a log can be used after an append was cancelled"
        )


async def _check_reopened(maker: Maker) -> None:
    log = maker(count=3)
    async with opened(log):
        await log.append(numbered([1, 2, 3, 4, 5]))
        before = await log.read(2), log.newest, log.statistics()
        key = log.key
        equal(len(key), KEY_SIZE, "the key has the size that position ids need")
        other = maker()
        async with opened(other):
            require(other.key != key, "another log has another key")
    async with opened(log):
        after = await log.read(2), log.newest, log.statistics()
        equal(after, before, "what is kept is returned after reopening")
        found = await log.locate("id 5"), await log.locate("id 2")
        equal(found, (5, 2), "what is kept is located after reopening")
        equal(await log.locate("id 1"), None, "a discarded publication is not located")
        equal(log.key, key, "the key is the same after reopening")
        await log.append(numbered([6]))
        equal(log.newest, (6, "id 6"), "positions are not used again")
        equal(await log.read(3), ([4, 5, 6], False), "appends continue after reopening")
        equal(await log.read(2), ([4, 5, 6], True), "gaps are remembered after reopening")
    log = maker(per_topic=1)
    async with opened(log):
        await log.append([publication(1, "quiet"), *numbered([2, 3], "busy")])
    async with opened(log):
        rule = "the topics of gaps are remembered after reopening"
        equal(await log.read(1, ["busy"]), ([3], True), rule)
        equal(await log.read(0, ["quiet"]), ([1], False), rule)
