"""What a hub remembers, so that who was away can go on where they were.

Rule 1: what `History.append` has returned for is kept, in its order, until a bound discards it.

Rule 2: nothing is discarded silently. A `Page` says when something that it should have had is gone.

Rule 3: a resume costs the publications it returns, not the size of the history.

`penstock.testing.check_history` is this contract as an executable suite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from penstock.publication import Publication

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
    """What there is on the topics that were asked for."""
    until: int
    """The position up to which this is everything: where the next page goes on."""
    lost: bool
    """Whether, of what was asked for and comes before the end of this page, anything may have been
    discarded."""


@dataclass(frozen=True, slots=True)
class HistoryStatistics:
    """A history's figures at one moment."""

    publications: int
    """Publications that it has."""
    bytes: int
    """Bytes of their events, as they go over the wire."""
    newest: Newest
    """The newest it has ever taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much a history keeps. The oldest goes first; the newest stays, whatever its size or age.

    Args:
      count: publications.
      size: bytes of their events, as they go over the wire.
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

    async def locate(self, id: str) -> int | None:  # noqa: A002 - it is called so everywhere
        """Return the position of the publication with this id, or None if there is none (any more).

        Where several had the same id, it is the earliest of those that are left.

        Args:
          id: any text at all, of any length.

        Raises:
          HistoryError: it cannot be read now.

        Cancellation:
          May be a checkpoint.
        """
        ...

    async def read(
        self, after: int, until: int, topics: frozenset[str] | None, *, count: int, size: int
    ) -> Page:
        """Return the publications on any of these topics between two positions, or the first part.

        Args:
          after: the position after which to begin; 0 is before all.
          until: the last position to look at: `newest`'s, or an earlier one.
          topics: None means every topic.
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
