"""Event history, so that reconnecting clients can resume.

Rule 1: what `History.append` has returned for is kept, in its order, until a bound discards it.

Rule 2: nothing is discarded silently. A `Page` says up to where something that was asked for may
have been discarded; per topic, so that a quiet topic has no gap because others are busy.

Rule 3: a resume costs the publications it returns, not the size of the history.

Rule 4: an id outlives its event while nothing newer on the topic was discarded: whoever has seen
that event has missed nothing.

`penstock.testing.check_history` is this contract as an executable suite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from penstock.publication import Publication
from penstock.selection import Selection

__all__ = ["Bounds", "History", "HistoryStatistics", "Newest", "Page"]


class Newest(NamedTuple):
    """The newest publication that a history has ever taken."""

    position: int = 0
    """Its number: the first one's is 1, and each later one's is one higher. 0: there is none."""
    id: str | None = None
    """Its id; None: there is none."""


class Page(NamedTuple):
    """A part of a history, in its order."""

    publications: Sequence[Publication]
    """The publications that were asked for."""
    until: int
    """The position up to which this is everything: where the next page begins."""
    discarded_until: int
    """The position of the newest publication of this selection that was discarded, whether or not
    it is on this page; 0 if none was. It may be higher where the history no longer knows, which
    then says that something may be missing, and never lower."""


@dataclass(frozen=True, slots=True)
class HistoryStatistics:
    """A history's figures at one moment."""

    publications: int
    """Publications that it has."""
    bytes: int
    """Bytes that they count for: `Publication.size`."""
    newest: Newest
    """The newest it has ever taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much a history keeps. The oldest goes first; the newest stays, whatever its size or age.

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


class History(Protocol):
    """Publications in their order, kept within bounds; for one hub, which opens and closes it.

    Positions are whole numbers, from 1, one more for each publication, and never used again, not
    even after the history was closed and opened.

    Error handling:
      Every method raises `penstock.errors.HistoryError` for what may go wrong with its storage, in
      one sentence that says what and what to do. The hub goes on, and asks it again.
    """

    async def open(self) -> None:
        """Make it ready; called before anything else, by the hub that it is for.

        Raises:
          HistoryError: its storage cannot be used, is not its own, or is damaged.

        Cancellation:
          May be a checkpoint. Cancelled, nothing is left open.
        """
        ...

    async def aclose(self) -> None:
        """Let go of everything; called after `open`, also when that was cancelled or failed.

        It may be opened again.

        Cancellation:
          May be a checkpoint. It closes even when it is cancelled. What was acknowledged is kept.
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

    def append_nowait(self, publications: Sequence[Publication]) -> bool:
        """Append like `append`, if this history never waits for that; else return False.

        It always does, or never. Synchronous, no checkpoint.
        """
        ...

    async def append(self, publications: Sequence[Publication]) -> None:
        """Keep publications, all of them or none, behind all that there is.

        One call at a time: the hub has one task that appends. When it returns they are kept, as
        safely as this history can, `newest` is the last of them, and what passes the bounds is
        discarded.

        Raises:
          HistoryError: none of them is kept, now or later.

        Cancellation:
          May be a checkpoint. Cancelled, either all of them are kept, or none.
        """
        ...

    async def locate(self, id: str, selection: Selection) -> int | None:  # noqa: A002 - as usual
        """Return the position of the publication with this id, or None if it is not known.

        It is known if it is kept, or is the newest that was discarded on one of the topics (or of
        all publications, where every topic is selected), and the selection matches it: ids of other
        topics are unknown. Where several have the id, it is the earliest of those that are kept.

        Args:
          id: any text at all, of any length.
          selection: what is to be resumed.

        Raises:
          HistoryError: it cannot be read now.

        Cancellation:
          May be a checkpoint.
        """
        ...

    async def read(
        self, after: int, until: int, selection: Selection, *, count: int, size: int
    ) -> Page:
        """Return the selected publications between two positions, or the first part of them.

        Args:
          after: the position after which to begin; 0 is before all.
          until: the last position to look at: `newest`'s, or an earlier one.
          selection: what to return.
          count: the most publications to return.
          size: bytes of events after which to stop; one is returned in any case.

        Raises:
          HistoryError: it cannot be read now.

        Cancellation:
          May be a checkpoint. It may be called by many tasks at a time, and while `append` runs.
        """
        ...

    def statistics(self) -> HistoryStatistics:
        """Return its figures as they are now, without waiting."""
        ...
