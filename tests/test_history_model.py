"""Both histories, beside a model that forgets nothing: what is kept, located and lost."""

# Positions of these logs are 1, 2, …: they are counted here, as nobody else may.
# mypy: disable-error-code="arg-type, return-value"

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from unittest.mock import patch

import pytest
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.event import ServerSentEvent
from penstock.logs import MemoryLog, SQLiteLog
from penstock.logs.log import Bounds, Log, Newest
from penstock.publication import Publication
from penstock.selection import EVERY_TOPIC, Selection, select

TOPICS: Final = ("a", "b", "c")
IDS: Final = ("1", "2", "3", "4")


@dataclass
class Entry:
    """A publication of the model, which stays in it when it is gone."""

    position: int
    at: float
    publication: Publication
    gone: str = ""


class Model:
    """What a history has to do, said in the simplest way."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.entries: list[Entry] = []

    @property
    def kept(self) -> list[Entry]:
        return [entry for entry in self.entries if not entry.gone]

    @property
    def newest(self) -> Newest:
        if not self.entries:
            return Newest()
        return Newest(len(self.entries), self.entries[-1].publication.id)

    def append(self, publications: list[Publication], now: float) -> None:
        for publication in publications:
            self.entries.append(Entry(len(self.entries) + 1, now, publication))
            for topic in publication.topics if self.bounds.per_topic is not None else ():
                on_topic = [each for each in self.kept if topic in each.publication.topics]
                for entry in on_topic[: -(self.bounds.per_topic or 0)]:
                    entry.gone = "too many on its topic"
        self.trim(now)

    def trim(self, now: float) -> None:
        for entry in self.kept[:-1]:
            kept = self.kept
            count, size, age = self.bounds.count, self.bounds.size, self.bounds.age
            if (
                (count is not None and len(kept) > count)
                or (size is not None and sum(each.publication.size for each in kept) > size)
                or (age is not None and entry.at < now - age)
            ):
                entry.gone = "among the oldest"

    def newest_discarded(self, topic: str | None) -> Entry | None:
        gone = [
            entry
            for entry in self.entries
            if entry.gone and (topic is None or topic in entry.publication.topics)
        ]
        return gone[-1] if gone else None

    def located(self, id_: str, selection: Selection) -> set[int | None]:
        """Return the positions that an id may be located at."""
        for entry in self.kept:
            if entry.publication.id == id_ and selection.matches(entry.publication.topics):
                return {entry.position}
        newest = [self.newest_discarded(topic) for topic in selection.topics or (None,)]
        return {each.position for each in newest if each and each.publication.id == id_} or {None}

    def check_page(
        self, page: Any, after: int, until: int, selection: Selection, limits: Any
    ) -> None:
        asked = [
            entry
            for entry in self.entries
            if after < entry.position and selection.matches(entry.publication.topics)
        ]
        expected: list[Publication] = []
        end, size = until, 0
        for entry in asked:
            if entry.gone or entry.position > until:
                continue
            expected.append(entry.publication)
            size += len(entry.publication.wire)
            if len(expected) == limits["count"] or size >= limits["size"]:
                end = entry.position
                break
        assert list(page.publications) == expected
        assert [each.id for each in page.publications] == [each.id for each in expected]
        assert page.until == end
        newest = [self.newest_discarded(topic) for topic in selection.topics or (None,)]
        discarded_until = max((each.position for each in newest if each), default=0)
        assert page.discarded_until == discarded_until, "what was discarded is known exactly"


publications = st.builds(
    lambda id_, topics, size: Publication(ServerSentEvent("x" * size, id=id_), topics),
    st.sampled_from(IDS),
    st.lists(st.sampled_from(TOPICS), min_size=1, max_size=3),
    st.integers(0, 400),
)
bounds = st.builds(
    Bounds,
    count=st.none() | st.integers(1, 6),
    size=st.none() | st.integers(1, 3000),
    age=st.none() | st.integers(1, 10).map(float),
    per_topic=st.none() | st.integers(1, 4),
)
positions = st.integers(0, 12)
selections = st.just(EVERY_TOPIC) | st.builds(
    Selection, st.frozensets(st.sampled_from((*TOPICS, "none")), min_size=1)
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(publications, min_size=1, max_size=5)),
        st.tuples(st.just("wait"), st.integers(1, 12)),
        st.tuples(st.just("locate"), st.tuples(st.sampled_from(IDS), selections)),
        st.tuples(st.just("reopen"), st.none()),
        st.tuples(
            st.just("read"),
            st.tuples(
                positions,
                positions,
                selections,
                st.fixed_dictionaries({"count": st.integers(1, 12), "size": st.integers(1, 4000)}),
            ),
        ),
    ),
    max_size=25,
)


async def check_all(history: Log, model: Model) -> None:
    """Compare what both return, from several places on."""
    newest = model.newest.position
    limits = {"count": 1000, "size": 10**6}
    for after in {0, newest // 2, newest - 1}:
        for selection in (EVERY_TOPIC, select(["a"]), select(["b"]), select(["c", "none"])):
            page = await history.read(after, newest, selection, **limits)
            model.check_page(page, after, newest, selection, limits)


async def compare(
    make: Callable[..., Log], kept_within: Bounds, steps: list[Any], clock: Any
) -> None:
    """Do the same with a history and with the model."""
    model = Model(kept_within)
    history = make(
        count=kept_within.count,
        size=kept_within.size,
        age=kept_within.age,
        per_topic=kept_within.per_topic,
    )
    await history.open()
    try:
        for what, value in steps:
            now = clock.current_time()
            if what == "append":
                if not history.append_nowait(value):
                    await history.append(value)
                model.append(value, now)
                figures = history.statistics()
                sizes = [entry.publication.size for entry in model.kept]
                assert (figures.publications, figures.bytes) == (len(sizes), sum(sizes))
                await check_all(history, model)
            elif what == "wait":
                clock.jump(value)
            elif what == "reopen":
                await history.aclose()
                await history.open()
            elif what == "locate":
                model.trim(now)
                assert await history.locate(*value) in model.located(*value)
            else:
                model.trim(now)
                after, more, selection, limits = value
                until = min(after + more, model.newest.position)
                after = min(after, until)
                page = await history.read(after, until, selection, **limits)
                model.check_page(page, after, until, selection, limits)
            assert history.newest == model.newest
    finally:
        await history.aclose()


@pytest.mark.parametrize("kind", [MemoryLog, SQLiteLog])
@settings(max_examples=3 * settings().max_examples // 5)
@given(kept_within=bounds, steps=steps)
@example(
    kept_within=Bounds(age=1.0),
    steps=[
        ("append", [Publication(ServerSentEvent("x", id=each), ["a"]) for each in "12"]),
        ("wait", 1),
        ("reopen", None),
        ("read", (0, 2, EVERY_TOPIC, {"count": 1, "size": 1})),
    ],
)
def test_beside_the_model(kind: Any, kept_within: Bounds, steps: list[Any]) -> None:
    """Whatever is appended, read, located, waited for and opened again, it does as the model."""
    clock = trio.testing.MockClock()
    with tempfile.TemporaryDirectory() as folder:
        make: Callable[..., Log] = MemoryLog
        if kind is SQLiteLog:

            def make(**bounds: Any) -> Log:
                path = Path(folder) / "events.db"
                return SQLiteLog(path, clock=clock.current_time, **bounds)

        # Between two runs, memory's own clock goes on by the system's: here that is virtual, too.
        with patch("penstock.logs.memory.time", SimpleNamespace(monotonic=clock.current_time)):
            trio.run(compare, make, kept_within, steps, clock, clock=clock)
