"""A hub's figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from penstock.history import HistoryStatistics
from penstock.outcome import CloseReason

__all__ = ["HubStatistics"]


@dataclass(frozen=True, slots=True)
class HubStatistics:
    """A hub's figures at one moment."""

    subscriptions_open: int
    """Subscriptions that receive, or read the history before they do."""
    subscriptions_closed: Mapping[CloseReason, int]
    """Subscriptions that have ended, by reason; reasons that did not occur are not in it."""
    audiences: int
    """Different selections of topics among those that receive."""
    published: int
    """Publications that the history has taken from this hub."""
    waiting: int
    """Publications that wait for the history's next commit."""
    delivered: int
    """Publications handed on live, counted for each subscription; those replayed are not."""
    producers_running: int
    """Producers on demand that are running."""
    history: HistoryStatistics
    """What the history has."""
