"""What the checks of a log are made of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias, final

from penstock.event import ServerSentEvent
from penstock.logs.log import START, Log, LogStatistics, Position
from penstock.publication import Publication
from penstock.selection import EVERY_TOPIC, Selection, select

__all__ = [
    "HUGE",
    "MANY",
    "CheckedLog",
    "Maker",
    "equal",
    "numbered",
    "opened",
    "publication",
    "require",
]

# What is asked for where nothing is to be cut off.
MANY: Final = 10_000
HUGE: Final = 2**30


def publication(number: int, *topics: str, size: int = 0) -> Publication:
    """Return a publication that is told by its number."""
    event = ServerSentEvent(f"{number} {'x' * size}", id=f"id {number}")
    return Publication(event, topics or ["a topic"])


def numbered(numbers: Iterable[int], *topics: str) -> list[Publication]:
    """Return publications with these numbers."""
    return [publication(number, *topics) for number in numbers]


@final
class CheckedLog:
    """A log under test, whose positions are told by ordinal numbers: `START` is 0.

    So a rule can name what it expects, whatever the log's positions are.

    Args:
      log: the log.
      renew: called before each call of it, whose patience begins then.
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
        """Append, as a hub does it, and note the positions."""
        self._renew()
        positions = self._log.append_nowait(publications)
        if positions is None:
            positions = await self._log.append(publications)
        require(len(positions) == len(publications), "`append` returns a position for each")
        for position in positions:
            require(position > self._positions[-1], "later entries have greater positions")
            self._positions.append(position)
        require(self._log.newest.position == positions[-1], "the last one appended is the newest")

    async def note_positions(self) -> None:
        """Note the positions that a cancelled `append` did not return."""
        self._renew()
        until = self._log.newest.position
        page = await self._log.read(self._positions[-1], until, EVERY_TOPIC, count=MANY, size=HUGE)
        self._positions += [entry.position for entry in page.entries]

    async def follow(self, after: int) -> list[str]:
        """Return the ids of what was appended, and check the positions."""
        self._renew()
        last = self._positions[after]
        entries = await self._log.follow(last)
        require(bool(entries), "`follow` returns something")
        for position, _ in entries:
            require(position > last, "`follow` returns entries in their order, once")
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
        """Return a page's publications, and the ordinal numbers that it ends with and has lost."""
        self._renew()
        first, last = self._positions[after], self._positions[until]
        page = await self._log.read(first, last, selection, count=count, size=size)
        for position, publication in page.entries:
            require(first < position <= last, "a page has nothing that was not asked for")
            require(selection.matches(publication.topics), "a page has what is selected")
        return page.publications, self._ordinal(page.until), self._ordinal(page.discarded_until)

    async def read(
        self, after: int = 0, topics: Iterable[str] | None = None
    ) -> tuple[list[int], bool]:
        """Return the numbers of all publications behind a position, and whether any were lost."""
        selection = EVERY_TOPIC if topics is None else select(topics)
        until, _ = self.newest
        publications, end, discarded = await self.page(after, until, selection)
        require(end == until, "a page that has everything goes up to `until`")
        return [int(each.id.removeprefix("id ")) for each in publications], discarded > after

    def _ordinal(self, position: Position) -> int:
        require(position in self._positions, "positions are those that `append` returned")
        return self._positions.index(position)


Maker: TypeAlias = Callable[..., CheckedLog]
"""Returns a new log, with the bounds that are given as keywords."""


@asynccontextmanager
async def opened(log: CheckedLog) -> AsyncIterator[CheckedLog]:
    """Have a log open while the block runs."""
    await log.open()
    try:
        yield log
    finally:
        await log.aclose()


def require(condition: bool, rule: str) -> None:
    """Refuse a log that breaks a rule."""
    if not condition:
        raise AssertionError(f"the log breaks this rule: {rule}")


def equal(found: Any, expected: Any, rule: str) -> None:
    """Refuse one of which something is not as the rule has it."""
    if found != expected:
        raise AssertionError(f"the log breaks this rule: {rule}: {found!r}, not {expected!r}")
