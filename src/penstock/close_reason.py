"""A stream's close reason, and its statistics."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["CloseReason", "EventStreamStatistics", "ProducerState"]


class CloseReason(StrEnum):
    """Why a stream ended; each stream has exactly one reason."""

    FINISHED = "finished"
    """The producer returned or closed its channel, and everything that it sent was written."""
    DISCONNECTED = "disconnected"
    """The client disconnected, or the server closed its connection."""
    SLOW = "slow"
    """The client did not read its events fast enough."""
    EXPIRED = "expired"
    """The stream reached its maximum lifetime."""
    DRAINING = "draining"
    """The server is stopping."""
    KICKED = "kicked"
    """The application ended the stream."""
    FAILED = "failed"
    """The producer, or delivery to the client, raised an error, which was logged."""


class ProducerState(StrEnum):
    """The state of a stream's producer."""

    WAITING = "waiting"
    """The stream has not been opened."""
    RUNNING = "running"
    RETURNED = "returned"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class EventStreamStatistics:
    """A stream's statistics at one moment."""

    open: bool
    """Whether the stream's block is running."""
    seconds: float
    """How long the stream has been open, or was open."""
    events_sent: int
    """Events written, that is, accepted by the transport; only events with data are counted."""
    bytes_sent: int
    """Bytes written, keep-alive comments included."""
    keep_alives_sent: int
    """Keep-alive comments written."""
    events_buffered: int
    """Events that wait for the writer."""
    producer: ProducerState | None
    """The state of the producer; None for a subscription, which has no producer."""
    close_reason: CloseReason | None
    """Why the stream ended or is ending; None while nothing ends it."""
