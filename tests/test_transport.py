"""`asgi_sender`: a stream over any ASGI server's send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import trio

from penstock import CloseReason, EventStream, ServerSentEvent, asgi_sender


async def once(events: trio.abc.SendChannel[ServerSentEvent]) -> None:
    await events.send(ServerSentEvent("once"))


async def test_sends_body_messages() -> None:
    """Each chunk is one body message, with more to follow."""
    messages = []

    async def send(message: Mapping[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        messages.append(message)

    assert await EventStream(once).run(asgi_sender(send)) is CloseReason.FINISHED
    assert messages == [
        {"type": "http.response.body", "body": b":\n", "more_body": True},
        {"type": "http.response.body", "body": b"data: once\n\n", "more_body": True},
    ]


@pytest.mark.parametrize("error", [OSError, ConnectionResetError])
async def test_a_server_that_raises_oserror_has_lost_the_client(error: type[OSError]) -> None:
    """What ASGI servers may raise is told in Trio's word for it, and ends the stream."""

    async def send(message: Mapping[str, Any]) -> None:
        raise error

    with pytest.raises(trio.BrokenResourceError):
        await asgi_sender(send)(b"x")
    assert await EventStream(once).run(asgi_sender(send)) is CloseReason.DISCONNECTED
