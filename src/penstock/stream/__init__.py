"""One client's event stream: its source, its writer, and the server that takes its bytes."""

from penstock.stream.event_stream import DEFAULT_BUFFER, DEFAULT_KEEP_ALIVE, EventStream

__all__ = ["DEFAULT_BUFFER", "DEFAULT_KEEP_ALIVE", "EventStream"]
