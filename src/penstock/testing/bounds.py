"""The contract of a log that discards."""

from __future__ import annotations

from typing import Final

import trio

from penstock.testing.rules import (
    Maker,
    equal,
    numbered,
    opened,
    publication,
    require,
)

__all__ = [
    "check_age",
    "check_count",
    "check_per_topic",
    "check_quiet_topics",
    "check_shared_topics",
    "check_size",
    "check_topics_that_went",
]

# Seconds: the age bound that is checked, in real time, since a log may have its own clock.
_AGE: Final = 0.2


async def check_count(maker: Maker) -> None:
    """Check the bound, or what it leaves."""
    async with opened(maker(count=3)) as log:
        for number in range(1, 8):
            await log.append(numbered([number]))
            kept = list(range(max(1, number - 2), number + 1))
            rule = "the newest of them are kept, as many as `count`"
            equal((await log.read(kept[0] - 1))[0], kept, rule)
            equal(log.statistics().publications, len(kept), rule)
        equal((await log.read(4))[1], False, "who has what was discarded lost nothing")
        equal((await log.read(3))[1], True, "who has not, is told")
        equal((await log.read(0))[1], True, "who has nothing is told")
        equal(await log.locate("id 3"), None, "what was discarded is not located")
        equal(await log.locate("id 4"), 4, "but the newest that was discarded is")
        equal(await log.locate("id 5"), 5, "what is kept is located")
        await log.append(numbered(range(100, 110)))
        equal((await log.read())[0], [107, 108, 109], "a batch above `count` keeps its end")
        await log.append(numbered([109, 110, 111]))
        equal(await log.locate("id 109"), 18, "an id is the earliest one's of those left")


async def check_size(maker: Maker) -> None:
    """Check the bound, or what it leaves."""
    each = publication(1, size=100).size
    async with opened(maker(size=3 * each)) as log:
        for number in range(1, 8):
            await log.append([publication(number, size=100)])
        equal(await log.read(4), ([5, 6, 7], False), "as many are kept as `size` allows")
        equal(log.statistics().bytes, 3 * each, "statistics have the bytes that are kept")
        await log.append([publication(8, size=1000)])
        equal(await log.read(7), ([8], False), "the newest stays, whatever its size")
        equal(log.statistics().publications, 1, "and nothing else, if it is too large")
    many_topics = [f"{'x' * 900} {number}" for number in range(50)]
    async with opened(maker(size=100_000)) as log:
        for number in range(3):
            await log.append([publication(number, *many_topics)])
        equal((await log.read())[0], [2], "topics count for `size`, too")


async def check_per_topic(maker: Maker) -> None:
    """Check the bound, or what it leaves."""
    async with opened(maker(per_topic=2)) as log:
        await log.append([publication(1, "quiet"), *numbered([2, 3], "busy")])
        await log.append([*numbered([4, 5], "busy"), publication(6, "quiet")])
        equal(await log.read(), ([1, 4, 5, 6], True), "each topic has its newest")
        rule = "a topic of which nothing was discarded has no gap"
        equal(await log.read(1, ["quiet"]), ([6], False), rule)
        equal(await log.read(0, ["busy"]), ([4, 5], True), rule)
        equal(await log.read(2, ["busy", "quiet"]), ([4, 5, 6], True), rule)
        equal(await log.read(3, ["busy"]), ([4, 5], False), rule)
        equal(await log.locate("id 2"), None, "what was discarded is not located")
        rule = "the newest that was discarded on a topic is located"
        equal(await log.locate("id 3", ["quiet", "busy"]), 3, rule)
        equal(await log.locate("id 3", ["quiet"]), None, "an id of another topic is unknown")
        await log.append([publication(7, "busy", "quiet")])
        rule = "what is on several topics counts for each"
        equal((await log.read(0, ["busy"]))[0], [5, 7], rule)
        equal((await log.read(0, ["quiet"]))[0], [6, 7], rule)
        equal(log.statistics().publications, 3, rule)


async def check_shared_topics(maker: Maker) -> None:
    """Check the bound, or what it leaves."""
    async with opened(maker(per_topic=2)) as log:
        await log.append([publication(1, "busy", "quiet"), *numbered([2, 3], "busy")])
        shared = "what goes because one of its topics has too many is told to those of its others"
        require(await log.read(0, ["quiet"]) in (([1], False), ([], True)), shared)
        equal(await log.read(0, ["busy"]), ([2, 3], True), "each topic has its newest")
        rule = "a topic of which nothing was discarded has no gap"
        equal(await log.read(0, ["other"]), ([], False), rule)
        equal(await log.read(1, ["quiet"]), ([], False), rule)
    async with opened(maker(per_topic=2)) as log:
        await log.append([publication(1, "a", "quiet"), publication(2, "b", "quiet")])
        await log.append([*numbered([3, 4], "b"), *numbered([5, 6], "a")])
        require(await log.read(1, ["quiet"]) in (([2], False), ([], True)), shared)


async def check_age(maker: Maker) -> None:
    """Check the bound, or what it leaves."""
    async with opened(maker(age=_AGE)) as log:
        await log.append(numbered([1, 2]))
        await trio.sleep(2 * _AGE)  # real time: longer than the bound, however slow the machine is
        await log.append(numbered([3]))
        equal((await log.read())[0], [3], "what is older than `age` is not returned")
        equal((await log.read())[1], True, "and who asks for it is told")
        equal(await log.locate("id 1"), None, "what is older than `age` is not located")
        equal(await log.locate("id 2"), 2, "but the newest of it is")
        equal((await log.read(2))[1], False, "and whoever has that lost nothing")
        equal(log.newest, (3, "id 3"), "`newest` does not depend on the age")
        await trio.sleep(2 * _AGE)  # as above
        rule = "the newest stays, whatever its age: who has it lost nothing"
        equal(await log.read(2), ([3], False), rule)
        equal(await log.locate("id 3"), 3, rule)


async def check_quiet_topics(maker: Maker) -> None:
    """Check that what was discarded on busy topics is no gap on a quiet one."""
    async with opened(maker(count=5)) as log:
        await log.append([publication(1, "quiet"), publication(2, "twice")])
        await log.append([publication(3, "twice"), *numbered(range(4, 50), "busy")])
        rule = "a topic of which nothing was discarded has no gap, however many others were"
        equal(await log.read(0, ["never"]), ([], False), rule)
        equal(await log.read(1, ["quiet"]), ([], False), rule)
        equal(await log.read(3, ["quiet", "twice"]), ([], False), rule)
        equal(await log.read(0, ["quiet"]), ([], True), "what was discarded is a gap")
        equal(await log.read(2, ["twice"]), ([], True), "what was discarded is a gap")
        rule = "the newest id of a topic is remembered longer than its event"
        equal(await log.locate("id 1", ["quiet"]), 1, rule)
        equal(await log.locate("id 3", ["quiet", "twice"]), 3, rule)
        equal(await log.locate("id 2", ["twice"]), None, "older ones are not")
        equal(await log.locate("id 1", ["twice"]), None, "an id of another topic is unknown")
        equal(await log.locate("id 49", ["quiet"]), None, "an id of another topic is unknown")
        await log.append([publication(50, "quiet")])
        equal(await log.read(1, ["quiet"]), ([50], False), "a topic may come back")
        equal(await log.read(0, ["quiet"]), ([50], True), "what was discarded is a gap")


async def check_topics_that_went(maker: Maker) -> None:
    """Check the bound, or what it leaves."""
    async with opened(maker(count=5)) as log:
        for number in range(50):
            await log.append([publication(number, f"topic {number}", "all")])
        rule = "topics of which nothing is left leave nothing that disturbs the others"
        equal((await log.read(0, ["topic 3"]))[0], [], rule)
        equal((await log.read(0, ["topic 48"]))[0], [48], rule)
        equal((await log.read(45, ["all"])), ([45, 46, 47, 48, 49], False), rule)
        await log.append([publication(50, "topic 3")])
        equal((await log.read(46, ["topic 3"])), ([50], False), "a topic may come back")
