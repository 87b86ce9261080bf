"""The contract of a log: publications in one order, kept within bounds, so that clients can resume.

Rule 1: what `Log.append` has returned for is kept, in its order, until a bound discards it.

Rule 2: nothing is discarded silently. A `Page` says up to where something that was asked for may
have been discarded; per topic, so that a quiet topic has no gap because others are busy.

Rule 3: a resume costs the publications it returns, not the size of the log.

Rule 4: an id outlives its event while nothing newer on the topic was discarded: whoever has seen
that event has missed nothing.

Rule 5: positions are the log's. Others store and compare them, and do not count with them.

`penstock.testing.check_log` is this contract as an executable suite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, NewType, Protocol

from penstock.publication import Publication
from penstock.selection import Selection

__all__ = ["START", "Bounds", "Entry", "Log", "LogStatistics", "Newest", "Page", "Position"]

Position = NewType("Position", int)
"""A place in a log, which is a whole number from 1 that fits in 64 bits; later ones are greater."""

START: Final = Position(0)
"""The position before the first entry."""


class Entry(NamedTuple):
    """A publication in a log."""

    position: Position
    """Its place."""
    publication: Publication
    """What was published."""


class Newest(NamedTuple):
    """The newest publication that a log has ever taken."""

    position: Position = START
    """Its position; `START`: there is none."""
    id: str | None = None
    """Its id; None: there is none."""


class Page(NamedTuple):
    """A part of a log, in its order."""

    entries: Sequence[Entry]
    """The publications that were asked for, with their positions."""
    until: Position
    """The position up to which this is everything: where the next page begins."""
    discarded_until: Position
    """The position of the newest publication of this selection that was discarded, whether or not
    it is on this page; `START` if none was. It may be higher where the log no longer knows, which
    then says that something may be missing, and never lower."""

    @property
    def publications(self) -> list[Publication]:
        """The publications that were asked for."""
        return [entry.publication for entry in self.entries]


@dataclass(frozen=True, slots=True)
class LogStatistics:
    """A log's figures at one moment."""

    publications: int
    """Publications that it has."""
    bytes: int
    """Bytes that they count for: `Publication.size`."""
    newest: Newest
    """The newest it has ever taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much a log keeps. The oldest goes first; the newest stays, whatever its size or age.

    Args:
      count: publications.
      size: bytes, of which each publication counts for its `Publication.size`.
      age: seconds. What is older is no longer returned.
      per_topic: publications on one topic, of which each counts for every topic that it is on.

    Each is None where nothing is bounded by it.

    Raises:
      ValueError: one of them is not above 0.
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

    A local log belongs to one hub, which opens it, closes it and alone appends to it. A shared log
    has several hubs, each with an object of its own.

    Error handling:
      Every method raises `penstock.errors.LogError` for what may go wrong with its storage, in one
      sentence that says what and what to do. The hub goes on, and asks it again.
    """

    async def open(self) -> None:
        """Make it ready; called before anything else, by its hub.

        Raises:
          LogError: its storage cannot be used, is not its own, or is damaged.

        Cancellation:
          May be a checkpoint. Cancelled, nothing is left open.
        """
        ...

    async def aclose(self) -> None:
        """Let go of everything; called after `open`, also when that was cancelled or failed.

        It may be opened again. Positions are never used again, not even then.

        Cancellation:
          May be a checkpoint. It closes even when it is cancelled. What was acknowledged is kept.
        """
        ...

    @property
    def shared(self) -> bool:
        """Whether others append, too.

        Then a hub delivers what `follow` returns; otherwise, what it has appended itself, without
        waiting for anything.
        """
        ...

    @property
    def newest(self) -> Newest:
        """The newest publication it has ever taken; known without waiting."""
        ...

    @property
    def key(self) -> bytes:
        """16 random bytes for the ids of positions; known without waiting.

        They are the same as long as positions mean the same: in storage that outlives the process,
        they are stored with the publications.
        """
        ...

    def append_nowait(self, publications: Sequence[Publication]) -> Sequence[Position] | None:
        """Append like `append`, if this log never waits for that; else return None.

        It always does, or never. Synchronous, no checkpoint.
        """
        ...

    async def append(self, publications: Sequence[Publication]) -> Sequence[Position]:
        """Keep publications, all of them or none, behind all that there is; return their positions.

        One call at a time: the hub has one task that appends. When it returns they are kept, as
        safely as this log can, `newest` is the last of them, or a later one of others, and what
        passes the bounds is discarded.

        Args:
          publications: at least one.

        Raises:
          LogError: none of them is kept, now or later.

        Cancellation:
          May be a checkpoint. Cancelled, either all of them are kept, or none.
        """
        ...

    async def follow(self, after: Position) -> Sequence[Entry]:
        """Return what anybody has appended behind a position, waiting until there is something.

        Entries come in the log's one order, as soon as they are kept; not all at once if they are
        many: who follows goes on after the last one. What a bound discards before is left out.

        Raises:
          LogError: it cannot be read now.

        Cancellation:
          A checkpoint where it waits. Cancelled, nothing is lost: nothing was taken.
        """
        ...

    async def locate(self, id: str, selection: Selection) -> Position | None:  # noqa: A002 - as usual
        """Return the position of the publication with this id, or None if it is not known.

        It is known if it is kept, or is the newest that was discarded on one of the topics (or of
        all publications, where every topic is selected), and the selection matches it: ids of other
        topics are unknown. Where several have the id, it is the earliest of those that are kept.

        Args:
          id: any text at all, of any length.
          selection: what is to be resumed.

        Raises:
          LogError: it cannot be read now.

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
          until: the last position to look at: `newest`'s, or an earlier one.
          selection: what to return.
          count: the most publications to return.
          size: bytes of events after which to stop; one is returned in any case.

        Raises:
          LogError: it cannot be read now.

        Cancellation:
          May be a checkpoint. It may be called by many tasks at a time, and while `append` runs.
        """
        ...

    def statistics(self) -> LogStatistics:
        """Return its figures as they are now, without waiting."""
        ...
