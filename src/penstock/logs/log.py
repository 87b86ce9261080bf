"""The contract of a log: publications in one order, kept within bounds, so that clients can resume.

Rule 1: once `Log.append` has returned, its publications are kept, in order, until a bound discards
them.

Rule 2: nothing is discarded silently. A `Page` has the position up to which selected publications
may have been discarded. It is kept per topic, so busy topics cause no gap on a quiet topic.

Rule 3: the cost of a resume depends on the publications it returns, not on the size of the log.

Rule 4: a discarded event can still be located by its id until a newer event on its topic is
discarded: a client that has seen it has missed nothing.

Rule 5: positions are opaque. Only the log computes them; others store and compare them.

`penstock.testing.check_log` is this contract as an executable suite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, NewType, Protocol

import trio

from penstock.publication import Publication
from penstock.selection import EVERY_TOPIC, Selection

__all__ = [
    "START",
    "Bounds",
    "Entry",
    "Log",
    "LogStatistics",
    "Newest",
    "Page",
    "Position",
    "follow_local",
]

# Entries and bytes that `follow_local` reads at once.
_PAGE: Final = 256
_PAGE_SIZE: Final = 2**16

Position = NewType("Position", int)
"""A place in a log, as a whole number from 1 that fits in 64 bits. Later positions are greater."""

START: Final = Position(0)
"""The position before the first entry."""


class Entry(NamedTuple):
    """A publication in a log."""

    position: Position
    """Its position."""
    publication: Publication
    """The publication itself."""


class Newest(NamedTuple):
    """The newest publication that a log has ever taken, or has discarded."""

    position: Position = START
    """Its position; `START` if there is none."""
    id: str | None = None
    """Its id; None if there is none."""


class Page(NamedTuple):
    """A part of a log, in its order."""

    entries: Sequence[Entry]
    """The selected publications, with their positions."""
    until: Position
    """The position up to which the page is complete; the next page begins after it."""
    discarded_until: Position
    """The position of the newest discarded publication of the selection, whether or not it is in
    this part of the log; `START` if there is none. Where the log no longer knows it, this may be
    higher, so that a possible loss is reported, and is never lower."""

    @property
    def publications(self) -> list[Publication]:
        """The selected publications."""
        return [entry.publication for entry in self.entries]


@dataclass(frozen=True, slots=True)
class LogStatistics:
    """A log's statistics at one moment."""

    publications: int
    """The number of publications that it has."""
    bytes: int
    """The sum of their `Publication.size`."""
    newest: Newest
    """The newest publication that it has ever taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much a log keeps. The oldest publication is discarded first, the newest never.

    Args:
      count: the most publications.
      size: the most bytes, as the sum of `Publication.size`.
      age: the most seconds. Older publications are no longer returned.
      per_topic: the most publications on one topic; a publication counts on each of its topics.

    None sets no bound.

    Raises:
      ValueError: a bound is not above 0.
    """

    count: int | None = None
    size: int | None = None
    age: float | None = None
    per_topic: int | None = None

    def __post_init__(self) -> None:
        for name in ("count", "size", "age", "per_topic"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, or None: {value}")


class Log(Protocol):
    """Publications in their order, kept within bounds.

    A local log belongs to one hub, which opens it, closes it and is the only one to append to it.
    A shared log has several hubs, each with its own object.

    Error handling:
      Every method raises `penstock.errors.LogError` when its storage fails, with one sentence that
      names the problem and the remedy. The hub keeps running, and calls the log again.
    """

    async def open(self) -> None:
        """Open the log; the hub calls this first.

        Raises:
          LogError: the storage cannot be used, belongs to something else, or is damaged.

        Cancellation:
          May be a checkpoint. If cancelled, nothing is left open.
        """
        ...

    async def aclose(self) -> None:
        """Release everything; called after `open`, even if that failed or was cancelled.

        The log may be opened again. Positions are never reused, not even then.

        Cancellation:
          May be a checkpoint. It closes even if cancelled. Acknowledged publications are kept.
        """
        ...

    @property
    def shared(self) -> bool:
        """Whether several hubs append to it.

        If so, a hub delivers the entries that `follow` returns. If not, it delivers the entries
        that it has appended, and waits for nothing else.
        """
        ...

    @property
    def newest(self) -> Newest:
        """The newest publication it has ever taken; does not wait."""
        ...

    @property
    def key(self) -> bytes:
        """16 random bytes, the key of position ids; does not wait.

        The key stays the same as long as positions keep their meaning: storage that outlives the
        process stores the key with the publications.
        """
        ...

    def append_nowait(self, publications: Sequence[Publication]) -> Sequence[Position] | None:
        """Append as `append` does, if this log can append without waiting; else return None.

        A log always appends here, or never. Synchronous, no checkpoint.
        """
        ...

    async def append(self, publications: Sequence[Publication]) -> Sequence[Position]:
        """Append publications at the end, all of them or none; return their positions.

        One call at a time: the hub has one task that appends. When it returns, the publications are
        kept as safely as this log can, `newest` is the last of them, or a later publication of
        another hub, and publications beyond the bounds are discarded.

        Args:
          publications: at least one publication.

        Raises:
          LogError: none of them is kept, now or later.

        Cancellation:
          May be a checkpoint. If cancelled, either all of them are kept, or none.
        """
        ...

    async def follow(self, after: Position) -> Sequence[Entry]:
        """Return the entries after a position, whoever appended them; wait until there are some.

        Entries are returned in the log's one order, as soon as they are kept. One call may return
        a part of them: the next call continues after the last entry. Entries that a bound has
        already discarded are left out.

        Raises:
          LogError: the log cannot be read now.

        Cancellation:
          A checkpoint where it waits. If cancelled, nothing is lost: nothing was taken.
        """
        ...

    async def locate(self, id: str, selection: Selection) -> Position | None:  # noqa: A002 - as usual
        """Return the position of the publication with this id, or None if it is unknown.

        A publication is known if the selection matches it, and it is kept, or is the newest
        discarded publication on one of the topics (or in the log, where every topic is selected).
        Ids on other topics are unknown. If several publications have the id, the earliest one kept
        counts.

        Args:
          id: any text, of any length.
          selection: the selection to resume.

        Raises:
          LogError: the log cannot be read now.

        Cancellation:
          May be a checkpoint.
        """
        ...

    async def read(
        self, after: Position, until: Position, selection: Selection, *, count: int, size: int
    ) -> Page:
        """Return the selected publications between two positions, or the first part of them.

        Args:
          after: the position after which to begin.
          until: the last position to read: that of `newest`, or an earlier one.
          selection: which publications to return.
          count: the most publications to return.
          size: bytes of events after which to stop; the first event is returned whatever its size.

        Raises:
          LogError: the log cannot be read now.

        Cancellation:
          May be a checkpoint. Many tasks may call it at a time, and while `append` runs.
        """
        ...

    def statistics(self) -> LogStatistics:
        """Return the log's statistics as they are now; does not wait."""
        ...


async def follow_local(
    log: Log, after: Position, appended: trio.lowlevel.ParkingLot
) -> Sequence[Entry]:
    """Follow a log to which only this process appends; see `Log.follow`.

    Args:
      log: the log.
      after: the position after which to begin.
      appended: where this waits; the log wakes all tasks in it after each append.
    """
    while True:
        while log.newest.position <= after:
            await appended.park()
        until = log.newest.position
        page = await log.read(after, until, EVERY_TOPIC, count=_PAGE, size=_PAGE_SIZE)
        if page.entries:
            return page.entries
        after = page.until
