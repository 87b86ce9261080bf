"""An EventSource for programs: the events of a URL, with reconnection and resumption."""

from penstock.client.event_source import EventSource, SourceState

__all__ = ["EventSource", "SourceState"]
