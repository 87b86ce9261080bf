"""What the checks of a history are made of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from penstock.event import ServerSentEvent
from penstock.history import History
from penstock.publication import Publication
from penstock.selection import EVERY_TOPIC, select

__all__ = [
    "HUGE",
    "MANY",
    "append",
    "equal",
    "locate",
    "numbered",
    "opened",
    "publication",
    "read",
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


@asynccontextmanager
async def opened(history: History) -> AsyncIterator[History]:
    """Have a history open while the block runs."""
    await history.open()
    try:
        yield history
    finally:
        await history.aclose()


async def append(history: History, publications: Sequence[Publication]) -> None:
    """Append, as a hub does it."""
    if not history.append_nowait(publications):
        await history.append(publications)


async def read(
    history: History, after: int = 0, topics: Iterable[str] | None = None
) -> tuple[list[int], bool]:
    """Return the numbers of all publications behind a position, and whether any were lost."""
    selection = EVERY_TOPIC if topics is None else select(topics)
    until = history.newest.position
    page = await history.read(after, until, selection, count=MANY, size=HUGE)
    require(page.until == until, "a page that has everything goes up to `until`")
    return [
        int(each.id.removeprefix("id ")) for each in page.publications
    ], page.discarded_until > after


async def locate(history: History, id_: str, topics: Iterable[str] | None = None) -> int | None:
    """Return the position of an id, for a subscription to these topics or to all."""
    return await history.locate(id_, EVERY_TOPIC if topics is None else select(topics))


def require(condition: bool, rule: str) -> None:
    """Refuse a history that breaks a rule."""
    if not condition:
        raise AssertionError(f"the history breaks this rule: {rule}")


def equal(found: Any, expected: Any, rule: str) -> None:
    """Refuse one of which something is not as the rule has it."""
    if found != expected:
        raise AssertionError(f"the history breaks this rule: {rule}: {found!r}, not {expected!r}")
