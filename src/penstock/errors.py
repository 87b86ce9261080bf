"""The errors that Penstock defines.

    PenstockError
    ├── InvalidEvent (ValueError)             the event stream format cannot carry your event
    ├── InvalidPublication (ValueError)       this cannot be published, or not on these topics
    │   └── PublicationTooLarge               the event or batch is larger than the hub accepts
    ├── InvalidSubscription (ValueError)      these topics cannot be subscribed to
    ├── InvalidSettings (ValueError)          the server cannot run with these settings
    ├── ConnectionFailed                      the peer has no event stream for the client
    ├── DecodeError                           the peer's event stream cannot be decoded further
    ├── LogError                              the log cannot append or read publications now
    └── StreamingUnsupported (RuntimeError)   the server cannot run a Trio stream

For the states of resources, Penstock raises Trio's errors: `trio.ClosedResourceError`,
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
    """The base class of all errors that Penstock defines."""


class InvalidEvent(PenstockError, ValueError):
    """An event was built from values that the event stream format cannot carry."""


class InvalidPublication(PenstockError, ValueError):
    """A hub does not accept this publication; nothing was published.

    Attributes:
      index: the publication's place in its batch, from 0; None if there is no batch.
    """

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message)
        self.index: int | None = index


class PublicationTooLarge(InvalidPublication):
    """An event or a batch is larger than the hub accepts; over HTTP, this is 413."""


class InvalidSubscription(PenstockError, ValueError):
    """A hub does not accept a subscription to these topics.

    Topics usually come from a URL: an application with `penstock.quart.add_hub` answers 400.
    """


class InvalidSettings(PenstockError, ValueError):
    """The server's settings are impossible, or would break its guarantee."""


class ConnectionFailed(PenstockError):
    """A client failed to get the event stream that it requested, and gives up.

    Attributes:
      status: the HTTP status of the response that caused it; None if there was no response.
      body: the beginning of that response's body, if it is text; at most 2048 bytes.
    """

    def __init__(self, message: str, *, status: int | None = None, body: bytes = b"") -> None:
        super().__init__(message)
        self.status: int | None = status
        self.body: bytes = body


class DecodeError(PenstockError):
    """A peer sent an event stream that cannot be decoded further."""


class LogError(PenstockError):
    """A log failed, for example because its disk is full, or its file belongs to something else.

    Publications acknowledged before are not affected. Once the cause is fixed, a later call may
    succeed.
    """


class StreamingUnsupported(PenstockError, RuntimeError):
    """The application's server does not run on Trio.

    Serve it with ``penstock serve`` or ``hypercorn -k trio``.
    """

    def __init__(self) -> None:
        super().__init__(
            "Streaming unsupported: this application needs Trio, and its server does not run on "
            "Trio. Serve it with `penstock serve MODULE:APP` or `hypercorn -k trio MODULE:APP`."
        )
