"""Requests that the server itself refuses, and how a response begins that is an event stream."""

from __future__ import annotations

from hypercorn.config import Config
from hypercorn.protocol.events import Response

from penstock.hypercorn.protocol.head import RequestRefused

__all__ = ["begins_event_stream", "log_line", "log_refusal"]


async def log_refusal(
    config: Config, client: tuple[str, int] | None, refusal: RequestRefused
) -> None:
    """Log a request that is refused, in one line."""
    await log_line(
        config, client, f"sent a request that was answered {refusal.status}: {refusal.why}"
    )


async def log_line(config: Config, client: tuple[str, int] | None, what: str) -> None:
    """Log something that a client did."""
    where = "a local client" if client is None else f"{client[0]}:{client[1]}"
    await config.log.warning("%s %s", where, what)


def begins_event_stream(response: Response) -> bool:
    """Tell whether the response is an event stream."""
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in response.headers
    )
