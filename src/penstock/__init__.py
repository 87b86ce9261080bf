"""Penstock: Server-Sent Events for Trio.

This package exports everything that needs no web framework. `penstock.quart` has the response for
Quart-Trio, `penstock.hypercorn` the server, `penstock.demo` a demonstration.

A name is imported when it is first used: `penstock.event` and `penstock.decode` do not import Trio,
and the command line starts without importing any of them.
"""

TYPE_CHECKING = False  # as type checkers know it, without importing `typing`
if TYPE_CHECKING:
    from penstock.close_reason import CloseReason, EventStreamStatistics, ProducerState
    from penstock.decode import EventStreamDecoder
    from penstock.errors import (
        ConnectionFailed,
        DecodeError,
        InvalidEvent,
        InvalidPublication,
        InvalidSettings,
        InvalidSubscription,
        LogError,
        PenstockError,
        PublicationTooLarge,
        StreamingUnsupported,
    )
    from penstock.event import ServerSentEvent
    from penstock.hub import Hub, HubStatistics, open_hub
    from penstock.hub.subscriber_queue import OverflowPolicy
    from penstock.hub.subscription import Subscription
    from penstock.logs.log import Log
    from penstock.publication import Publication
    from penstock.selection import EVERY_TOPIC, Selection
    from penstock.stream.event_stream import EventStream
    from penstock.stream.group import StreamGroup, StreamGroupStatistics
    from penstock.stream.producer import Producer
    from penstock.stream.ticker import Ticker
    from penstock.stream.transport import DirectWriter, asgi_sender

__all__ = [
    "EVERY_TOPIC",
    "CloseReason",
    "ConnectionFailed",
    "DecodeError",
    "DirectWriter",
    "EventStream",
    "EventStreamDecoder",
    "EventStreamStatistics",
    "Hub",
    "HubStatistics",
    "InvalidEvent",
    "InvalidPublication",
    "InvalidSettings",
    "InvalidSubscription",
    "Log",
    "LogError",
    "OverflowPolicy",
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
    "asgi_sender",
    "open_hub",
]

_HOMES = {
    "EVERY_TOPIC": "penstock.selection",
    "CloseReason": "penstock.close_reason",
    "ConnectionFailed": "penstock.errors",
    "DecodeError": "penstock.errors",
    "DirectWriter": "penstock.stream.transport",
    "EventStream": "penstock.stream.event_stream",
    "EventStreamDecoder": "penstock.decode",
    "EventStreamStatistics": "penstock.close_reason",
    "Hub": "penstock.hub",
    "HubStatistics": "penstock.hub",
    "InvalidEvent": "penstock.errors",
    "InvalidPublication": "penstock.errors",
    "InvalidSettings": "penstock.errors",
    "InvalidSubscription": "penstock.errors",
    "Log": "penstock.logs.log",
    "LogError": "penstock.errors",
    "PenstockError": "penstock.errors",
    "Producer": "penstock.stream.producer",
    "ProducerState": "penstock.close_reason",
    "Publication": "penstock.publication",
    "PublicationTooLarge": "penstock.errors",
    "Selection": "penstock.selection",
    "ServerSentEvent": "penstock.event",
    "StreamGroup": "penstock.stream.group",
    "StreamGroupStatistics": "penstock.stream.group",
    "StreamingUnsupported": "penstock.errors",
    "Subscription": "penstock.hub.subscription",
    "Ticker": "penstock.stream.ticker",
    "OverflowPolicy": "penstock.hub.subscriber_queue",
    "asgi_sender": "penstock.stream.transport",
    "open_hub": "penstock.hub",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
