"""One client's event stream: what feeds it, the writer, and where its bytes go."""

from penstock.stream.event_stream import DEFAULT_BUFFER, DEFAULT_KEEP_ALIVE, EventStream

__all__ = ["DEFAULT_BUFFER", "DEFAULT_KEEP_ALIVE", "EventStream"]
