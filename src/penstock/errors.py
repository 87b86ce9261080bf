"""The errors Penstock raises of its own.

    PenstockError
    ├── InvalidEvent (ValueError)             your event cannot be sent as it is
    ├── InvalidSettings (ValueError)          the server cannot be set up like this
    ├── DecodeError                           their event stream cannot be read further
    └── StreamingUnsupported (RuntimeError)   this server cannot carry a Trio stream

The state of a resource is told with Trio's own errors: `trio.ClosedResourceError`,
`trio.BrokenResourceError`, `trio.EndOfChannel`, `trio.WouldBlock`.
"""

from __future__ import annotations

__all__ = [
    "DecodeError",
    "InvalidEvent",
    "InvalidSettings",
    "PenstockError",
    "StreamingUnsupported",
]


class PenstockError(Exception):
    """The base of every error Penstock defines."""


class InvalidEvent(PenstockError, ValueError):
    """An event was built from values that the event stream format cannot carry."""


class InvalidSettings(PenstockError, ValueError):
    """A server was to be set up in a way that cannot be, or that breaks its guarantee."""


class DecodeError(PenstockError):
    """A peer sent an event stream that cannot be read further."""


class StreamingUnsupported(PenstockError, RuntimeError):
    """The application runs where no Trio event stream can be served.

    Penstock needs Trio underneath: `penstock serve`, or `hypercorn -k trio`.
    """

    def __init__(self) -> None:
        super().__init__(
            "Streaming unsupported: this application needs Trio, and its server does not run on "
            "Trio. Serve it with `penstock serve MODULE:APP` or `hypercorn -k trio MODULE:APP`."
        )
