"""What a history has to keep to, as a suite that any test may run on any history."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, final

import trio

from penstock.event import ServerSentEvent
from penstock.history import History, Newest
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
    append,
    equal,
    locate,
    numbered,
    opened,
    publication,
    read,
    require,
)
from penstock.testing.waiting import Patience

__all__ = ["check_history"]


# Seconds that a call may take: many times what a slow machine and a slow history need.
_PATIENCE: Final = 30.0


async def check_history(maker: Callable[..., History], *, patience: float = _PATIENCE) -> None:
    """Check that a history keeps to `penstock.history.History`.

        async def test_my_history(tmp_path):
            numbers = itertools.count()
            await check_history(lambda **bounds: MyHistory(tmp_path / str(next(numbers)), **bounds))

    It takes about a second of real time, so it is not for a virtual clock.

    Args:
      maker: returns a new history each time, which is empty and not open. It is given bounds as
        keywords: none, or one of ``count``, ``size``, ``age`` and ``per_topic``, as in `Bounds`;
        nothing else may bound it.
      patience: seconds of real time, on any clock, after which a call is given up.

    Raises:
      AssertionError: the history does not keep to the rule that the message names, or a call of it
        does not return: the message says where it waits.

    Cancellation:
      Checkpoints throughout; the history being checked is closed. One that shields itself from
      being cancelled, for ever, keeps this from returning.
    """
    checking = trio.lowlevel.current_task()
    for check in (
        *(_check_empty, _check_order, _check_pages, _check_limits, _check_topics, _check_ids),
        *(_check_content, _check_batches, _check_reading_meanwhile, _check_cancelled),
        *(_check_reopened, check_count, check_size, check_per_topic, check_age),
        *(check_shared_topics, check_quiet_topics, check_topics_that_went),
    ):
        limit = Patience(patience, real=True, look=lambda: tell(below(checking)))
        with limit:
            await check(partial(_timed, maker, limit))
        if limit.exhausted:
            what = check.__name__.removeprefix("_").removeprefix("check_").replace("_", " ")
            raise AssertionError(
                f"the history breaks this rule: every call returns; in the check of {what}, one "
                f"did not within {patience:g} s:\n{limit.tasks}"
            )


def _timed(maker: Callable[..., History], limit: Patience, **bounds: Any) -> Any:
    return _Timed(maker(**bounds), limit)


@final
class _Timed:
    """A history each call of which has all of the patience."""

    def __init__(self, history: History, limit: Patience) -> None:
        self._history = history
        self._limit = limit

    def __getattr__(self, name: str) -> Any:
        self._limit.renew()
        return getattr(self._history, name)


async def _check_empty(maker: Callable[..., History]) -> None:
    async with opened(maker()) as history:
        equal(history.newest, Newest(0, None), "an empty history has no newest publication")
        equal(await read(history), ([], False), "an empty history returns nothing, loses nothing")
        equal(await locate(history, "id 1"), None, "an empty history locates nothing")
        figures = history.statistics()
        equal((figures.publications, figures.bytes), (0, 0), "an empty history has no size")


async def _check_order(maker: Callable[..., History]) -> None:
    async with opened(maker()) as history:
        position = 0
        for numbers in ([1], [2, 3, 4], [5]):
            await append(history, numbered(numbers))
            position += len(numbers)
            newest = Newest(position, f"id {numbers[-1]}")
            equal(history.newest, newest, "`newest` is the last one that was appended")
        equal(await read(history), ([1, 2, 3, 4, 5], False), "what was appended is returned")
        figures = history.statistics()
        equal(figures.publications, 5, "statistics count what is kept")
        size = sum(each.size for each in numbered([1, 2, 3, 4, 5]))
        equal(figures.bytes, size, "statistics have the bytes of what is kept")
        equal(figures.newest, history.newest, "statistics have the newest")


async def _check_pages(maker: Callable[..., History]) -> None:
    async with opened(maker()) as history:
        await append(history, numbered(range(1, 11)))
        for after in range(11):
            for until in range(after, 11):
                page = await history.read(after, until, EVERY_TOPIC, count=MANY, size=HUGE)
                found = [each.id for each in page.publications]
                expected = [f"id {number}" for number in range(after + 1, until + 1)]
                equal(found, expected, "a page begins behind `after`, and ends with `until`")
                equal(page.until, until, "a page that is complete says so by its `until`")


async def _check_limits(maker: Callable[..., History]) -> None:
    async with opened(maker()) as history:
        for number in range(1, 31):
            parity = "even" if number % 2 == 0 else "odd"
            await append(history, [publication(number, "both", parity, size=100)])
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
                    page = await history.read(after, 30, selection, count=count, size=size)
                    require(len(page.publications) <= count, "a page has at most `count`")
                    before_last = page.publications[:-1]
                    sizes = sum(len(each.wire) for each in before_last)
                    require(sizes < size, "a page ends when it has `size` bytes")
                    require(page.until > after, "each page gets on")
                    rule = "nothing is lost where nothing was discarded"
                    equal(page.discarded_until, 0, rule)
                    found += [int(each.id[3:]) for each in page.publications]
                    after = page.until
                equal(found, numbers, "pages together have everything once, in its order")


async def _check_topics(maker: Callable[..., History]) -> None:
    async with opened(maker()) as history:
        await append(history, [publication(1, "a"), publication(2, "b", "a")])
        await append(history, [publication(3, "b"), publication(4, "c\u2028d", "a", "b")])
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
            equal(await read(history, 0, topics), (numbers, False), rule)


async def _check_ids(maker: Callable[..., History]) -> None:
    async with opened(maker()) as history:
        await append(history, numbered([1, 2, 3]))
        await append(history, numbered([2, 4, 2]))
        for number, position in ((1, 1), (3, 3), (4, 5)):
            equal(await locate(history, f"id {number}"), position, "an id is located")
            equal(await locate(history, f"id {number}", ["other"]), None, "for its topics only")
        equal(await locate(history, "id 2"), 2, "an id that several have is the earliest one's")
        await append(history, [publication(2, "other"), publication(3, "other", "a topic")])
        rule = "an id that several have is the earliest one's that is selected"
        equal(await locate(history, "id 2", ["other"]), 7, rule)
        equal(await locate(history, "id 3", ["other"]), 8, rule)
        await append(history, [Publication(ServerSentEvent("x", id="?"), ["a topic"])])
        for odd in ("", "ID 1", "id", "id 1 ", "%", "'", "\0", "\ud800", "é", "x" * 100_000):
            equal(await locate(history, odd), None, f"the id {odd[:10]!r} is not there")


async def _check_content(maker: Callable[..., History]) -> None:
    async with opened(maker()) as history:
        event = ServerSentEvent("a\r\nb\n\nÄ\u2028", event="ping", id="é", retry=5, comment="\nc")
        publications = [
            Publication(event, ["Ä", "b c"]),
            Publication(ServerSentEvent("", id="empty"), ["Ä"]),
            Publication(ServerSentEvent(retry=1, id="no data"), ["Ä"]),
        ]
        await append(history, publications)
        page = await history.read(0, 3, EVERY_TOPIC, count=MANY, size=HUGE)
        equal(list(page.publications), publications, "what is returned is what was appended")
        ids = [each.id for each in page.publications]
        equal(ids, ["é", "empty", "no data"], "ids are returned as they were")
        encoded = [each.event.encode() for each in page.publications]
        equal(encoded, [each.wire for each in publications], "events are returned as they were")


async def _check_batches(maker: Callable[..., History]) -> None:
    async with opened(maker()) as history:
        await append(history, numbered(range(5000)))
        equal(history.newest.position, 5000, "a large batch is kept")
        numbers, lost = await read(history, 4990)
        equal((numbers, lost), (list(range(4990, 5000)), False), "a large batch is in its order")


async def _check_reading_meanwhile(maker: Callable[..., History]) -> None:
    async with opened(maker()) as history:
        await append(history, numbered(range(1, 101)))

        async def read_often() -> None:
            for _ in range(20):
                until = history.newest.position
                page = await history.read(0, until, EVERY_TOPIC, count=MANY, size=HUGE)
                expected = [f"id {number}" for number in range(1, until + 1)]
                equal([each.id for each in page.publications], expected, "reads see what is kept")

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(read_often)
            for number in range(101, 121):
                await append(history, numbered([number]))
                await trio.lowlevel.checkpoint()


async def _check_cancelled(maker: Callable[..., History]) -> None:
    async with opened(maker()) as history:
        await append(history, numbered([1]))
        with trio.CancelScope() as scope:
            scope.cancel()
            await append(history, numbered([2, 3]))
        numbers, _ = await read(history)
        kept = [[1], [1, 2, 3]]
        require(numbers in kept, "an append that is cancelled keeps all or none")
        equal(history.newest.position, len(numbers), "`newest` counts what is kept")
        await append(history, numbered([4]))
        equal((await read(history))[0], [*numbers, 4], "it goes on after one was cancelled")


async def _check_reopened(maker: Callable[..., History]) -> None:
    history = maker(count=3)
    async with opened(history):
        await append(history, numbered([1, 2, 3, 4, 5]))
        before = await read(history, 2), history.newest, history.statistics()
        key = history.key
        equal(len(key), KEY_SIZE, "the key has as many bytes as position ids need")
        other = maker()
        async with opened(other):
            require(other.key != key, "another history has another key")
    async with opened(history):
        after = await read(history, 2), history.newest, history.statistics()
        equal(after, before, "what was kept is there when it is opened again")
        found = await locate(history, "id 5"), await locate(history, "id 2")
        equal(found, (5, 2), "what was kept is found by its id when it is opened again")
        equal(await locate(history, "id 1"), None, "what was discarded is not located")
        equal(history.key, key, "the key is the same when it is opened again")
        await append(history, numbered([6]))
        equal(history.newest, Newest(6, "id 6"), "positions are not used again")
        equal(await read(history, 3), ([4, 5, 6], False), "it goes on when it is opened again")
        equal(await read(history, 2), ([4, 5, 6], True), "it remembers what it has discarded")
    history = maker(per_topic=1)
    async with opened(history):
        await append(history, [publication(1, "quiet"), *numbered([2, 3], "busy")])
    async with opened(history):
        rule = "it remembers of which topics it has discarded something"
        equal(await read(history, 1, ["busy"]), ([3], True), rule)
        equal(await read(history, 0, ["quiet"]), ([1], False), rule)
