"""A hub with the lifetime of a Quart-Trio application."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from quart import Response
from quart_trio import QuartTrio

from penstock.errors import (
    InvalidPublication,
    InvalidSubscription,
    LogError,
    PublicationTooLarge,
)
from penstock.hub.dispatcher import DEFAULT_BATCH_DELAY
from penstock.hub.hub import DEFAULT_MAX_EVENT_SIZE, Hub
from penstock.logs.log import Log
from penstock.quart.response import text_response

__all__ = ["add_hub"]


def add_hub(
    app: QuartTrio,
    *,
    log: Log | None = None,
    max_event_size: int = DEFAULT_MAX_EVENT_SIZE,
    batch_delay: float = DEFAULT_BATCH_DELAY,
) -> Hub:
    """Add a hub to an application, open while the application is served.

        app = QuartTrio(__name__)
        hub = add_hub(app, log=SQLiteLog("events.db"))

    The hub opens before the first request. A stopping server first ends the streams of the hub's
    subscribers, like all streams; then the hub commits what was published, and closes.

    A view may pass topics and data from its request to `penstock.hub.Hub.subscription` and
    `penstock.hub.Hub.publish`. Invalid topics and events are answered with status 400, and what is
    too large with 413; the body says why.

    Args:
      app: the application, before it is served.
      log: as in `penstock.hub.Hub`.
      max_event_size: as in `penstock.hub.Hub`.
      batch_delay: as in `penstock.hub.Hub`.

    Returns:
      The hub.

    Error handling:
      If the log cannot be opened, the application does not start, and reports why.
    """
    hub = Hub(log=log, max_event_size=max_event_size, batch_delay=batch_delay)

    @app.before_serving
    async def open_() -> None:
        nursery: Any = app.nursery
        try:
            await nursery.start(hub.run, name="hub")
        except LogError as error:
            # The server reports it in one line; keep Quart from logging it with a traceback.
            app.logger.addFilter(partial(_concerns_other_error, error))
            raise

    @app.after_serving
    async def close() -> None:
        hub.close()
        await hub.wait_closed()

    app.register_error_handler(InvalidSubscription, partial(_refuse, 400))
    app.register_error_handler(InvalidPublication, partial(_refuse, 400))
    app.register_error_handler(PublicationTooLarge, partial(_refuse, 413))
    return hub


async def _refuse(status: int, error: Any) -> Response:
    return text_response(status, str(error))


def _concerns_other_error(error: LogError, record: logging.LogRecord) -> bool:
    return record.exc_info is None or record.exc_info[1] is not error
