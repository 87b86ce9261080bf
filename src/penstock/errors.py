"""The errors Penstock raises of its own.

    PenstockError
    ├── InvalidEvent (ValueError)             your event cannot be sent as it is
    ├── InvalidPublication (ValueError)       this cannot be published, or not on these topics
    │   └── PublicationTooLarge               the event is larger than the hub takes
    ├── InvalidSubscription (ValueError)      this cannot be subscribed to
    ├── InvalidSettings (ValueError)          the server cannot be set up like this
    ├── ConnectionFailed                      their event stream cannot be had, now or later
    ├── DecodeError                           their event stream cannot be read further
    ├── LogError                          the history cannot keep or read publications now
    └── StreamingUnsupported (RuntimeError)   this server cannot carry a Trio stream

The state of a resource is told with Trio's own errors: `trio.ClosedResourceError`,
`trio.BrokenResourceError`, `trio.EndOfChannel`, `trio.WouldBlock`.
"""

from __future__ import annotations

__all__ = [
    "ConnectionFailed",
    "DecodeError",
    "InvalidEvent",
    "InvalidPublication",
    "InvalidSettings",
    "InvalidSubscription",
    "LogError",
    "PenstockError",
    "PublicationTooLarge",
    "StreamingUnsupported",
]


class PenstockError(Exception):
    """The base of every error Penstock defines."""


class InvalidEvent(PenstockError, ValueError):
    """An event was built from values that the event stream format cannot carry."""


class InvalidPublication(PenstockError, ValueError):
    """A hub does not accept this publication; nothing was published.

    Attributes:
      index: the publication's place in its batch, from 0; None where there was no batch.
    """

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message)
        self.index: int | None = index


class PublicationTooLarge(InvalidPublication):
    """An event or a batch is larger than the hub accepts; over HTTP, this is 413."""


class InvalidSubscription(PenstockError, ValueError):
    """A hub does not accept a subscription to these topics.

    Topics mostly come from a URL: an application with `penstock.quart.add_hub` answers 400.
    """


class InvalidSettings(PenstockError, ValueError):
    """A server was to be set up in a way that cannot be, or that breaks its guarantee."""


class ConnectionFailed(PenstockError):
    """A client cannot have the event stream it asked for, and gives up.

    Attributes:
      status: the HTTP status of the answer that decided it; None if there was none.
      body: how the body of that answer begins, if it is text; 2048 bytes of it at most.
    """

    def __init__(self, message: str, *, status: int | None = None, body: bytes = b"") -> None:
        super().__init__(message)
        self.status: int | None = status
        self.body: bytes = body


class DecodeError(PenstockError):
    """A peer sent an event stream that cannot be read further."""


class LogError(PenstockError):
    """A history could not do what it was asked: its disk is full, or its file is not its own.

    What it had acknowledged before is not affected. It may succeed later, when the cause is mended.
    """


class StreamingUnsupported(PenstockError, RuntimeError):
    """The application runs where no Trio event stream can be served.

    Penstock needs Trio underneath: ``penstock serve``, or ``hypercorn -k trio``.
    """

    def __init__(self) -> None:
        super().__init__(
            "Streaming unsupported: this application needs Trio, and its server does not run on "
            "Trio. Serve it with `penstock serve MODULE:APP` or `hypercorn -k trio MODULE:APP`."
        )
