"""A client for programs, as a browser's EventSource is one for pages."""

from penstock.client.event_source import EventSource, SourceState

__all__ = ["EventSource", "SourceState"]
