"""Where a stream's bytes go.

A transport has one duty, `Transport.send`, and one way to say that the peer is gone. What a head, a
frame or a socket is stays on its side; what an event is stays on the stream's.

`ASGITransport` serves any ASGI application on Trio. A Quart response needs no transport: Quart
pulls its body itself (see `penstock.quart`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, final

import trio

__all__ = ["ASGITransport", "Transport"]


class Transport(Protocol):
    """What a stream is written to; called by one task, one chunk at a time."""

    async def send(self, chunk: bytes) -> None:
        """Write all of a chunk, waiting while the peer takes none.

        Raises:
          trio.BrokenResourceError: the peer is gone.
          trio.ClosedResourceError: our side was closed.

        Cancellation:
          A checkpoint. Not atomic: a cancelled send may have written a part of the chunk.
        """
        ...


@final
class ASGITransport:
    """A transport over an ASGI server's ``send``, between its response's head and end.

    The application sends ``http.response.start`` before and the last ``http.response.body`` after,
    and cancels the stream when ``receive`` gives ``http.disconnect``: ASGI servers tell of a lost
    client there, and need not raise in ``send``.

    Spec: ASGI, "Disconnected Client - send Exception": a server that does raise raises `OSError`.
    """

    __slots__ = ("_send",)

    def __init__(self, send: Callable[[Mapping[str, Any]], Awaitable[None]]) -> None:
        self._send = send

    async def send(self, chunk: bytes) -> None:
        """Hand a chunk to the server as one body message; see `Transport.send`."""
        try:
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        except OSError as error:
            raise trio.BrokenResourceError("the ASGI server has lost the client") from error
