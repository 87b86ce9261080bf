"""What waits for a subscriber that is behind: within bounds, and what becomes of the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import OverflowPolicy, Publication, ServerSentEvent
from penstock.hub.subscriber_queue import SubscriberQueue


def publication(number: int, topic: str = "a", size: int = 300) -> Publication:
    """Return a publication that counts for exactly so many bytes."""
    event = ServerSentEvent("", id=f"{number:04}")
    padding = "x" * (size - Publication(event, [topic]).size)
    made = Publication(ServerSentEvent(padding, id=event.id), [topic])
    assert made.size == size
    return made


def ids(queue: SubscriberQueue) -> list[int]:
    """Take all that waits."""
    return [int(each.id) for each in queue.pop(2**30)]


def filled(
    overflow: OverflowPolicy, numbers: range, *, count: int = 3, size: int = 10_000
) -> SubscriberQueue:
    queue = SubscriberQueue(count=count, size=size, overflow=overflow)
    for number in numbers:
        assert queue.add(publication(number))
    return queue


def test_what_waits_is_taken_in_its_order() -> None:
    """First come, first served; nothing is left, and nothing counted."""
    queue = filled(OverflowPolicy.DISCONNECT, range(3))
    assert len(queue) == 3
    assert queue.size == 900
    assert ids(queue) == [0, 1, 2]
    assert len(queue) == queue.size == queue.dropped == 0


@pytest.mark.parametrize(
    ("size", "taken"), [(1, 1), (42, 1), (43, 1), (44, 2), (86, 2), (87, 3), (10**6, 3)]
)
def test_so_many_bytes_are_taken_and_one_in_any_case(size: int, taken: int) -> None:
    """It stops at the first publication that reaches the size."""
    queue = filled(OverflowPolicy.DISCONNECT, range(3))
    assert len(publication(0).wire) == 43
    assert len(list(queue.pop(size))) == taken
    assert len(queue) == 3 - taken
    assert queue.size == 300 * (3 - taken)


def test_disconnect_takes_no_more_than_the_count() -> None:
    """What is one too many is refused, and what waits stays."""
    queue = filled(OverflowPolicy.DISCONNECT, range(3))
    assert not queue.add(publication(3))
    assert queue.dropped == 0
    assert ids(queue) == [0, 1, 2]
    assert queue.add(publication(4))


@pytest.mark.parametrize(("size", "taken"), [(899, False), (900, True), (901, True)])
def test_disconnect_takes_no_more_than_the_bytes(size: int, taken: bool) -> None:
    """The limit may be reached, to the byte, and not passed."""
    queue = filled(OverflowPolicy.DISCONNECT, range(2), size=size)
    assert queue.add(publication(2)) is taken
    assert queue.size == (900 if taken else 600)


@pytest.mark.parametrize("overflow", OverflowPolicy)
def test_one_may_wait_whatever_its_size(overflow: OverflowPolicy) -> None:
    """A publication larger than the bound is delivered where nothing else waits."""
    queue = SubscriberQueue(count=3, size=1, overflow=overflow)
    assert queue.add(publication(0, size=500))
    assert ids(queue) == [0]


def test_drop_oldest_makes_room_by_count() -> None:
    """The newest are kept, in their order, and the others counted."""
    queue = filled(OverflowPolicy.DROP_OLDEST, range(10))
    assert queue.dropped == 7
    assert queue.size == 900
    assert ids(queue) == [7, 8, 9]


def test_drop_oldest_makes_room_by_bytes() -> None:
    """As many go as have to, and no more."""
    queue = filled(OverflowPolicy.DROP_OLDEST, range(3), size=1000)
    assert queue.add(publication(3, size=700))
    assert queue.dropped == 2
    assert queue.size == 1000
    assert queue.add(publication(4, size=1001))
    assert ids(queue) == [4]
    assert queue.dropped == 4


def test_latest_keeps_the_newest_of_each_topic() -> None:
    """A newer one takes the older one's place, and comes last."""
    queue = SubscriberQueue(count=3, size=10_000, overflow=OverflowPolicy.LATEST)
    for number, topic in enumerate("abcab"):
        assert queue.add(publication(number, topic))
    assert queue.dropped == 2
    assert queue.size == 900
    assert ids(queue) == [2, 3, 4]


@pytest.mark.parametrize(
    ("published", "left"),
    [
        ([["quotes", "AAPL"], ["quotes", "MSFT"]], [0, 1]),
        ([["quotes", "AAPL"], ["quotes", "MSFT"], ["quotes", "AAPL"]], [1, 2]),
        ([["a", "b"], ["b", "a"], ["a"]], [1, 2]),
        ([["a", "b"], ["a"], ["b"]], [1, 2]),
        ([["a"], ["b"], ["a", "b"]], [2]),
        ([["a", "b"], ["c"], ["b", "a"]], [1, 2]),
    ],
)
def test_latest_goes_by_every_topic(published: list[list[str]], left: list[int]) -> None:
    """What waits is the newest on one of its topics, whichever place that has in its list."""
    queue = SubscriberQueue(count=9, size=10_000, overflow=OverflowPolicy.LATEST)
    for number, topics in enumerate(published):
        queue.add(Publication(ServerSentEvent("", id=str(number)), topics))
    assert queue.dropped == len(published) - len(left)
    assert ids(queue) == left
    assert queue.size == 0
    assert not queue._latest


def test_latest_forgets_the_topic_that_was_silent_longest() -> None:
    """With more topics than the bound, those that spoke last are kept."""
    queue = SubscriberQueue(count=2, size=10_000, overflow=OverflowPolicy.LATEST)
    for number, topic in enumerate("abac"):
        assert queue.add(publication(number, topic))
    assert queue.dropped == 2
    assert ids(queue) == [2, 3]


def test_cleared_it_is_as_new() -> None:
    """Nothing waits, and all that may wait may wait again."""
    queue = filled(OverflowPolicy.DISCONNECT, range(3))
    queue.clear()
    assert len(queue) == queue.size == 0
    assert ids(queue) == []
    assert queue.add(publication(9))
    assert ids(queue) == [9]


added = st.tuples(st.sampled_from("abcd"), st.integers(285, 360))


@given(
    st.sampled_from(OverflowPolicy),
    st.integers(1, 4),
    st.integers(1, 1300),
    st.lists(added | st.integers(1, 250), max_size=40),
)
def test_it_is_the_simple_list_that_it_says(
    overflow: OverflowPolicy, count: int, size: int, steps: list[tuple[str, int] | int]
) -> None:
    """Whatever is added and taken: the same publications, in the order of a plain list."""
    queue = SubscriberQueue(count=count, size=size, overflow=overflow)
    model: list[Publication] = []
    dropped = 0
    for number, step in enumerate(steps):
        if isinstance(step, int):
            expected: list[Publication] = []
            while model and sum(len(each.wire) for each in expected) < step:
                expected.append(model.pop(0))
            assert list(queue.pop(step)) == expected
        else:
            new = publication(number, *step)
            if overflow is OverflowPolicy.LATEST:
                kept = [each for each in model if each.topics != new.topics]
                dropped += len(model) - len(kept)
                model = kept
            within = model
            while within and (
                len(within) + 1 > count or sum(each.size for each in [*within, new]) > size
            ):
                within = within[1:]
            refused = overflow is OverflowPolicy.DISCONNECT and within != model
            if not refused:
                dropped += len(model) - len(within)
                model = [*within, new]
            assert queue.add(new) is not refused
        assert len(queue) == len(model)
        assert queue.size == sum(each.size for each in model)
        assert queue.dropped == dropped
    assert list(queue.pop(2**30)) == model
