"""What became of a stream: its figures, and the one reason why it ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["CloseReason", "EventStreamStatistics", "ProducerState"]


class CloseReason(StrEnum):
    """Why a stream ended; exactly one for each stream."""

    FINISHED = "finished"
    """Its producer returned or closed its channel, and everything it sent was written."""
    DISCONNECTED = "disconnected"
    """The client went away, or the server took its connection away."""
    SLOW = "slow"
    """The client did not take its events fast enough."""
    EXPIRED = "expired"
    """It reached its greatest lifetime."""
    DRAINING = "draining"
    """The server is stopping."""
    KICKED = "kicked"
    """The application ended it."""
    FAILED = "failed"
    """Its producer, or delivery to its client, raised an error, which was logged."""


class ProducerState(StrEnum):
    """What a stream's producer is doing, or how it ended."""

    WAITING = "waiting"
    """The stream has not been opened."""
    RUNNING = "running"
    RETURNED = "returned"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class EventStreamStatistics:
    """A stream's figures at one moment."""

    open: bool
    """Whether the stream's block is running."""
    seconds: float
    """How long it has been open, or was."""
    events_sent: int
    """Events with data, which clients dispatch, that were written: the transport has come back."""
    bytes_sent: int
    """Bytes that were written, keep-alive comments included."""
    keep_alives_sent: int
    """Comments that were written because the stream was silent."""
    events_buffered: int
    """Events that the producer sent and no writer has taken yet."""
    producer: ProducerState | None
    """What the producer is doing, or how it ended; None for a subscription, which has none."""
    close_reason: CloseReason | None
    """Why the stream ended or is ending; None while nothing ends it."""
