"""What waits for a subscriber that is behind: within bounds, and what becomes of the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import Publication, ServerSentEvent, WhenSlow
from penstock.hub.backlog import Backlog


def publication(number: int, topic: str = "a", size: int = 300) -> Publication:
    """Return a publication that counts for exactly so many bytes."""
    event = ServerSentEvent("", id=f"{number:04}")
    padding = "x" * (size - Publication(event, [topic]).size)
    made = Publication(ServerSentEvent(padding, id=event.id), [topic])
    assert made.size == size
    return made


def ids(backlog: Backlog) -> list[int]:
    """Take all that waits."""
    return [int(each.id) for each in backlog.pop(2**30)]


def filled(when_slow: WhenSlow, numbers: range, *, count: int = 3, size: int = 10_000) -> Backlog:
    backlog = Backlog(count=count, size=size, when_slow=when_slow)
    for number in numbers:
        assert backlog.add(publication(number))
    return backlog


def test_what_waits_is_taken_in_its_order() -> None:
    """First come, first served; nothing is left, and nothing counted."""
    backlog = filled(WhenSlow.DISCONNECT, range(3))
    assert len(backlog) == 3
    assert backlog.size == 900
    assert ids(backlog) == [0, 1, 2]
    assert len(backlog) == backlog.size == backlog.dropped == 0


@pytest.mark.parametrize(
    ("size", "taken"), [(1, 1), (42, 1), (43, 1), (44, 2), (86, 2), (87, 3), (10**6, 3)]
)
def test_so_many_bytes_are_taken_and_one_in_any_case(size: int, taken: int) -> None:
    """It stops at the first publication that reaches the size."""
    backlog = filled(WhenSlow.DISCONNECT, range(3))
    assert len(publication(0).wire) == 43
    assert len(list(backlog.pop(size))) == taken
    assert len(backlog) == 3 - taken
    assert backlog.size == 300 * (3 - taken)


def test_disconnect_takes_no_more_than_the_count() -> None:
    """What is one too many is refused, and what waits stays."""
    backlog = filled(WhenSlow.DISCONNECT, range(3))
    assert not backlog.add(publication(3))
    assert backlog.dropped == 0
    assert ids(backlog) == [0, 1, 2]
    assert backlog.add(publication(4))


@pytest.mark.parametrize(("size", "taken"), [(899, False), (900, True), (901, True)])
def test_disconnect_takes_no_more_than_the_bytes(size: int, taken: bool) -> None:
    """The limit may be reached, to the byte, and not passed."""
    backlog = filled(WhenSlow.DISCONNECT, range(2), size=size)
    assert backlog.add(publication(2)) is taken
    assert backlog.size == (900 if taken else 600)


@pytest.mark.parametrize("when_slow", WhenSlow)
def test_one_may_wait_whatever_its_size(when_slow: WhenSlow) -> None:
    """A publication larger than the bound is delivered where nothing else waits."""
    backlog = Backlog(count=3, size=1, when_slow=when_slow)
    assert backlog.add(publication(0, size=500))
    assert ids(backlog) == [0]


def test_drop_oldest_makes_room_by_count() -> None:
    """The newest are kept, in their order, and the others counted."""
    backlog = filled(WhenSlow.DROP_OLDEST, range(10))
    assert backlog.dropped == 7
    assert backlog.size == 900
    assert ids(backlog) == [7, 8, 9]


def test_drop_oldest_makes_room_by_bytes() -> None:
    """As many go as have to, and no more."""
    backlog = filled(WhenSlow.DROP_OLDEST, range(3), size=1000)
    assert backlog.add(publication(3, size=700))
    assert backlog.dropped == 2
    assert backlog.size == 1000
    assert backlog.add(publication(4, size=1001))
    assert ids(backlog) == [4]
    assert backlog.dropped == 4


def test_latest_keeps_the_newest_of_each_topic() -> None:
    """A newer one takes the older one's place, and comes last."""
    backlog = Backlog(count=3, size=10_000, when_slow=WhenSlow.LATEST)
    for number, topic in enumerate("abcab"):
        assert backlog.add(publication(number, topic))
    assert backlog.dropped == 2
    assert backlog.size == 900
    assert ids(backlog) == [2, 3, 4]


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
    backlog = Backlog(count=9, size=10_000, when_slow=WhenSlow.LATEST)
    for number, topics in enumerate(published):
        backlog.add(Publication(ServerSentEvent("", id=str(number)), topics))
    assert backlog.dropped == len(published) - len(left)
    assert ids(backlog) == left
    assert backlog.size == 0
    assert not backlog._latest


def test_latest_forgets_the_topic_that_was_silent_longest() -> None:
    """With more topics than the bound, those that spoke last are kept."""
    backlog = Backlog(count=2, size=10_000, when_slow=WhenSlow.LATEST)
    for number, topic in enumerate("abac"):
        assert backlog.add(publication(number, topic))
    assert backlog.dropped == 2
    assert ids(backlog) == [2, 3]


def test_cleared_it_is_as_new() -> None:
    """Nothing waits, and all that may wait may wait again."""
    backlog = filled(WhenSlow.DISCONNECT, range(3))
    backlog.clear()
    assert len(backlog) == backlog.size == 0
    assert ids(backlog) == []
    assert backlog.add(publication(9))
    assert ids(backlog) == [9]


added = st.tuples(st.sampled_from("abcd"), st.integers(285, 360))


@given(
    st.sampled_from(WhenSlow),
    st.integers(1, 4),
    st.integers(1, 1300),
    st.lists(added | st.integers(1, 250), max_size=40),
)
def test_it_is_the_simple_list_that_it_says(
    when_slow: WhenSlow, count: int, size: int, steps: list[tuple[str, int] | int]
) -> None:
    """Whatever is added and taken: the same publications, in the order of a plain list."""
    backlog = Backlog(count=count, size=size, when_slow=when_slow)
    model: list[Publication] = []
    dropped = 0
    for number, step in enumerate(steps):
        if isinstance(step, int):
            expected: list[Publication] = []
            while model and sum(len(each.wire) for each in expected) < step:
                expected.append(model.pop(0))
            assert list(backlog.pop(step)) == expected
        else:
            new = publication(number, *step)
            if when_slow is WhenSlow.LATEST:
                kept = [each for each in model if each.topics != new.topics]
                dropped += len(model) - len(kept)
                model = kept
            within = model
            while within and (
                len(within) + 1 > count or sum(each.size for each in [*within, new]) > size
            ):
                within = within[1:]
            refused = when_slow is WhenSlow.DISCONNECT and within != model
            if not refused:
                dropped += len(model) - len(within)
                model = [*within, new]
            assert backlog.add(new) is not refused
        assert len(backlog) == len(model)
        assert backlog.size == sum(each.size for each in model)
        assert backlog.dropped == dropped
    assert list(backlog.pop(2**30)) == model
