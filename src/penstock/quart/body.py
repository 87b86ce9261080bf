"""The body of an event stream's response, and what a head in front of it must not say.

Quart pulls: it enters the body, sends each chunk that it iterates, and leaves it, all in one task,
which is thereby the stream's writer.
"""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Any, Final, final

from quart.wrappers.response import ResponseBody
from werkzeug.datastructures import Headers

from penstock.stream.event_stream import EventStream
from penstock.stream.group import STREAM_GROUP, StreamGroup
from penstock.stream.transport import DIRECT_WRITER, DirectWriter

__all__ = ["EventStreamBody", "check_headers", "check_status"]

# Its length is not known, and how such a body is framed is for the server to say.
_FRAMING: Final = ("Content-Length", "Transfer-Encoding")

# Values of Content-Encoding that leave a body as it is; "none" is no registered coding, and widely
# used to keep intermediaries from compressing.
_NO_ENCODING: Final = ("", "identity", "none")


def check_status(status: int) -> None:
    """Refuse a status whose response has no body, or that is none.

    Spec: RFC 9110, 6.4.1: responses to 1xx, 204 and 304 have no content; 15.3.6: nor has 205.

    Raises:
      ValueError: no event stream can be sent with it.
    """
    if not 200 <= status <= 599:
        raise ValueError(f"status must be from 200 to 599 for an event stream: {status}")
    if status in (204, 205, 304):
        remedy = ": return stop_reconnecting() instead" if status == 204 else ""
        raise ValueError(f"a response with status {status} has no body to stream{remedy}")


def check_headers(headers: Headers) -> None:
    """Refuse headers that say of an event stream's body what does not hold.

    Raises:
      ValueError: one of them frames or encodes the body.
    """
    for name in _FRAMING:
        if name in headers:
            raise ValueError(f"an event stream must not have the header {name}: remove it")
    encoding = headers.get("Content-Encoding")
    if encoding is not None and encoding.strip().lower() not in _NO_ENCODING:
        raise ValueError(
            f"an event stream must not have the header Content-Encoding: {encoding}: it is sent as "
            "it is; remove the header, or encode in a middleware that also sets it"
        )


@final
class EventStreamBody(ResponseBody):
    """The body that Quart enters, iterates and leaves.

    It counts the stream in the server's group, if there is one, and logs what became of it.

    Args:
      stream: whose bytes it gives.
      offered: the request's ``scope["extensions"]``.
      logger: gets a line when the stream has ended.

    Attributes:
      headers: those of the response that is sent, to be checked when the body is entered.
    """

    def __init__(self, stream: EventStream, offered: Any, logger: logging.Logger) -> None:
        self.headers: Headers | None = None
        self._stream = stream
        self._through: DirectWriter | None = offered.get(DIRECT_WRITER)
        self._group: StreamGroup | None = offered.get(STREAM_GROUP)
        self._block = stream.open(self._through)
        self._logger = logger

    def set_sender(self, send: object) -> None:
        """Name the ASGI ``send`` that is given each chunk of this body, unchanged.

        Called by a connection that is about to send this very body, and not another one that wraps
        it: see `penstock.stream.transport.DirectWriter.set_sender`.
        """
        if self._through is not None:
            self._through.set_sender(send)

    async def __aenter__(self) -> EventStream:
        if self.headers is not None:
            # It is sent by a connection that did not check them; the head is on its way.
            check_headers(self.headers)
        try:
            stream = await self._block.__aenter__()
        except Exception:
            _log(self._stream, self._logger)
            raise
        if self._group is not None:
            self._group.add(stream)
        return stream

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            # ASYNC102: the block's own exit, which waits for tasks it has cancelled; nothing to
            # shield.
            await self._block.__aexit__(exc_type, exc_value, traceback)  # noqa: ASYNC102
        finally:
            if self._group is not None:
                self._group.remove(self._stream)
            _log(self._stream, self._logger)


def _log(stream: EventStream, logger: logging.Logger) -> None:
    figures = stream.statistics()
    logger.info(
        "%s %s after %.2f s, %d event%s sent%s",
        stream.name,
        figures.close_reason,
        figures.seconds,
        figures.events_sent,
        "" if figures.events_sent == 1 else "s",
        "" if figures.producer is None else f", producer {figures.producer}",
    )
