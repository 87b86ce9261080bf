"""Penstock: Server-Sent Events for Trio.

What needs no web framework can be imported from here. `penstock.quart` has the response for
Quart-Trio, `penstock.hypercorn` serves it, `penstock.demo` shows it.

A name is looked up when it is first used: `penstock.event` and `penstock.decode` do not import
Trio, and the command line starts without importing anything.
"""

TYPE_CHECKING = False  # as type checkers know it, without importing `typing`
if TYPE_CHECKING:
    from penstock.decode import EventStreamDecoder
    from penstock.errors import (
        ConnectionFailed,
        DecodeError,
        HistoryError,
        InvalidEvent,
        InvalidPublication,
        InvalidSettings,
        InvalidSubscription,
        PenstockError,
        PublicationTooLarge,
        StreamingUnsupported,
    )
    from penstock.event import ServerSentEvent
    from penstock.history import History
    from penstock.hub import Hub, open_hub
    from penstock.hub.backlog import WhenSlow
    from penstock.hub.statistics import HubStatistics
    from penstock.hub.subscription import Subscription
    from penstock.outcome import CloseReason, EventStreamStatistics, ProducerState
    from penstock.publication import Publication
    from penstock.selection import EVERY_TOPIC, Selection
    from penstock.stream.event_stream import EventStream
    from penstock.stream.group import StreamGroup, StreamGroupStatistics
    from penstock.stream.producer import Producer
    from penstock.stream.ticker import Ticker
    from penstock.stream.transport import ASGITransport, Transport, WriteThrough

__all__ = [
    "EVERY_TOPIC",
    "ASGITransport",
    "CloseReason",
    "ConnectionFailed",
    "DecodeError",
    "EventStream",
    "EventStreamDecoder",
    "EventStreamStatistics",
    "History",
    "HistoryError",
    "Hub",
    "HubStatistics",
    "InvalidEvent",
    "InvalidPublication",
    "InvalidSettings",
    "InvalidSubscription",
    "PenstockError",
    "Producer",
    "ProducerState",
    "Publication",
    "PublicationTooLarge",
    "Selection",
    "ServerSentEvent",
    "StreamGroup",
    "StreamGroupStatistics",
    "StreamingUnsupported",
    "Subscription",
    "Ticker",
    "Transport",
    "WhenSlow",
    "WriteThrough",
    "open_hub",
]

_HOMES = (
    *("event", "errors", "decode", "outcome", "stream.producer", "stream", "stream.transport"),
    *("stream.group", "stream.ticker", "hub.backlog", "history", "hub", "publication"),
    "hub.subscription",
    "selection",
)


def __getattr__(name: str) -> object:
    if name in __all__:
        from importlib import import_module

        for home in _HOMES:
            module = import_module(f"penstock.{home}")
            if name in module.__all__:
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
