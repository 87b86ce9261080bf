"""The contract of a log, as a suite that any test may run on any log."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import trio

from penstock.event import ServerSentEvent
from penstock.logs.log import Log
from penstock.position_ids import KEY_SIZE
from penstock.publication import Publication
from penstock.selection import EVERY_TOPIC, select
from penstock.testing.bounds import (
    check_age,
    check_count,
    check_per_topic,
    check_quiet_topics,
    check_shared_topics,
    check_size,
    check_topics_that_went,
)
from penstock.testing.leaks import below, tell
from penstock.testing.rules import (
    HUGE,
    MANY,
    CheckedLog,
    Maker,
    equal,
    numbered,
    opened,
    publication,
    require,
)
from penstock.testing.waiting import Patience

__all__ = ["check_log"]


# Seconds for which nothing comes from what has nothing; more would find no more.
_NOTHING_COMES: Final = 0.01

# Seconds that a call may take: many times what a slow machine and a slow log need.
_PATIENCE: Final = 30.0


async def check_log(maker: Callable[..., Log], *, patience: float = _PATIENCE) -> None:
    """Check that a log keeps to `penstock.logs.log.Log`.

        async def test_my_log(tmp_path):
            numbers = itertools.count()
            await check_log(lambda **bounds: MyLog(tmp_path / str(next(numbers)), **bounds))

    It takes about a second of real time, so it is not for a virtual clock.

    Args:
      maker: returns a new log each time, which is empty and not open. It is given bounds as
        keywords: none, or one of ``count``, ``size``, ``age`` and ``per_topic``, as in `Bounds`;
        nothing else may bound it.
      patience: seconds of real time, on any clock, after which a call is given up.

    Raises:
      AssertionError: the log does not keep to the rule that the message names, or a call of it
        does not return: the message says where it waits.

    Cancellation:
      Checkpoints throughout; the log being checked is closed. One that shields itself from
      being cancelled, for ever, keeps this from returning.
    """
    checking = trio.lowlevel.current_task()
    for check in (
        *(_check_empty, _check_order, _check_pages, _check_limits, _check_topics, _check_ids),
        *(_check_content, _check_batches, _check_reading_meanwhile, _check_following),
        *(_check_cancelled,),
        *(_check_reopened, check_count, check_size, check_per_topic, check_age),
        *(check_shared_topics, check_quiet_topics, check_topics_that_went),
    ):
        limit = Patience(patience, real=True, look=lambda: tell(below(checking)))
        with limit:
            await check(partial(_checked, maker, limit))
        if limit.exhausted:
            what = check.__name__.removeprefix("_").removeprefix("check_").replace("_", " ")
            raise AssertionError(
                f"the log breaks this rule: every call returns; in the check of {what}, one "
                f"did not within {patience:g} s:\n{limit.tasks}"
            )


def _checked(maker: Callable[..., Log], limit: Patience, **bounds: Any) -> CheckedLog:
    return CheckedLog(maker(**bounds), limit.renew)


async def _check_empty(maker: Maker) -> None:
    async with opened(maker()) as log:
        equal(log.newest, (0, None), "an empty log has no newest publication")
        equal(await log.read(), ([], False), "an empty log returns nothing, loses nothing")
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
            equal(log.newest, newest, "`newest` is the last one that was appended")
        equal(await log.read(), ([1, 2, 3, 4, 5], False), "what was appended is returned")
        figures = log.statistics()
        equal(figures.publications, 5, "statistics count what is kept")
        size = sum(each.size for each in numbered([1, 2, 3, 4, 5]))
        equal(figures.bytes, size, "statistics have the bytes of what is kept")
        equal(figures.newest.id, "id 5", "statistics have the newest")


async def _check_pages(maker: Maker) -> None:
    async with opened(maker()) as log:
        await log.append(numbered(range(1, 11)))
        for after in range(11):
            for until in range(after, 11):
                publications, end, _ = await log.page(after, until, EVERY_TOPIC)
                found = [each.id for each in publications]
                expected = [f"id {number}" for number in range(after + 1, until + 1)]
                equal(found, expected, "a page begins behind `after`, and ends with `until`")
                equal(end, until, "a page that is complete says so by its `until`")


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
                    require(len(publications) <= count, "a page has at most `count`")
                    sizes = sum(len(each.wire) for each in publications[:-1])
                    require(sizes < size, "a page ends when it has `size` bytes")
                    require(end > after, "each page gets on")
                    rule = "nothing is lost where nothing was discarded"
                    equal(discarded, 0, rule)
                    found += [int(each.id[3:]) for each in publications]
                    after = end
                equal(found, numbers, "pages together have everything once, in its order")


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
            rule = f"what is on any of the topics {topics} is returned, once"
            equal(await log.read(0, topics), (numbers, False), rule)


async def _check_ids(maker: Maker) -> None:
    async with opened(maker()) as log:
        await log.append(numbered([1, 2, 3]))
        await log.append(numbered([2, 4, 2]))
        for number, position in ((1, 1), (3, 3), (4, 5)):
            equal(await log.locate(f"id {number}"), position, "an id is located")
            equal(await log.locate(f"id {number}", ["other"]), None, "for its topics only")
        equal(await log.locate("id 2"), 2, "an id that several have is the earliest one's")
        await log.append([publication(2, "other"), publication(3, "other", "a topic")])
        rule = "an id that several have is the earliest one's that is selected"
        equal(await log.locate("id 2", ["other"]), 7, rule)
        equal(await log.locate("id 3", ["other"]), 8, rule)
        await log.append([Publication(ServerSentEvent("x", id="?"), ["a topic"])])
        for odd in ("", "ID 1", "id", "id 1 ", "%", "'", "\0", "\ud800", "é", "x" * 100_000):
            equal(await log.locate(odd), None, f"the id {odd[:10]!r} is not there")


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
        equal(found, publications, "what is returned is what was appended")
        ids = [each.id for each in found]
        equal(ids, ["é", "empty", "no data"], "ids are returned as they were")
        encoded = [each.event.encode() for each in found]
        equal(encoded, [each.wire for each in publications], "events are returned as they were")


async def _check_batches(maker: Maker) -> None:
    async with opened(maker()) as log:
        await log.append(numbered(range(5000)))
        equal(log.newest[0], 5000, "a large batch is kept")
        numbers, lost = await log.read(4990)
        equal((numbers, lost), (list(range(4990, 5000)), False), "a large batch is in its order")


async def _check_reading_meanwhile(maker: Maker) -> None:
    async with opened(maker()) as log:
        await log.append(numbered(range(1, 101)))

        async def read_often() -> None:
            for _ in range(20):
                until = log.appended
                publications, _, _ = await log.page(0, until, EVERY_TOPIC)
                expected = [f"id {number}" for number in range(1, until + 1)]
                equal([each.id for each in publications], expected, "reads see what is kept")

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
            equal(found, expected, "`follow` returns everything behind `after`, in its order, once")
        with trio.move_on_after(_NOTHING_COMES):
            await log.follow(5)
            require(False, "`follow` waits where there is nothing new")
        await log.append(numbered([6]))
        equal(await log.follow(5), ["id 6"], "one can follow again after being cancelled")


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
        require(numbers in kept, "an append that is cancelled keeps all or none")
        equal(log.newest[0], len(numbers), "`newest` counts what is kept")
        await log.append(numbered([4]))
        equal((await log.read())[0], [*numbers, 4], "it goes on after one was cancelled")


async def _check_reopened(maker: Maker) -> None:
    log = maker(count=3)
    async with opened(log):
        await log.append(numbered([1, 2, 3, 4, 5]))
        before = await log.read(2), log.newest, log.statistics()
        key = log.key
        equal(len(key), KEY_SIZE, "the key has as many bytes as position ids need")
        other = maker()
        async with opened(other):
            require(other.key != key, "another log has another key")
    async with opened(log):
        after = await log.read(2), log.newest, log.statistics()
        equal(after, before, "what was kept is there when it is opened again")
        found = await log.locate("id 5"), await log.locate("id 2")
        equal(found, (5, 2), "what was kept is found by its id when it is opened again")
        equal(await log.locate("id 1"), None, "what was discarded is not located")
        equal(log.key, key, "the key is the same when it is opened again")
        await log.append(numbered([6]))
        equal(log.newest, (6, "id 6"), "positions are not used again")
        equal(await log.read(3), ([4, 5, 6], False), "it goes on when it is opened again")
        equal(await log.read(2), ([4, 5, 6], True), "it remembers what it has discarded")
    log = maker(per_topic=1)
    async with opened(log):
        await log.append([publication(1, "quiet"), *numbered([2, 3], "busy")])
    async with opened(log):
        rule = "it remembers of which topics it has discarded something"
        equal(await log.read(1, ["busy"]), ([3], True), rule)
        equal(await log.read(0, ["quiet"]), ([1], False), rule)
