"""The body of an event stream's response, and the statuses and headers that do not fit it.

Quart enters the body, iterates it, sends each chunk, and leaves it, all in one task.
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

# The length of a stream is unknown, and its framing is the server's business.
_FRAMING: Final = ("Content-Length", "Transfer-Encoding")

# Values of Content-Encoding that leave a body unchanged. "none" is not a registered coding, but is
# widely used to keep intermediaries from compressing.
_NO_ENCODING: Final = ("", "identity", "none")


def check_status(status: int) -> None:
    """Refuse a status that is invalid, or whose response has no body.

    Spec: RFC 9110, 6.4.1: responses to 1xx, 204 and 304 have no content; 15.3.6: nor has 205.

    Raises:
      ValueError: an event stream cannot be sent with this status.
    """
    if not 200 <= status <= 599:
        raise ValueError(f"status must be from 200 to 599 for an event stream: {status}")
    if status in (204, 205, 304):
        remedy = ": return stop_reconnecting() instead" if status == 204 else ""
        raise ValueError(f"a response with status {status} has no body to stream{remedy}")


def check_headers(headers: Headers) -> None:
    """Refuse headers that are wrong for an event stream's body.

    Raises:
      ValueError: a header frames or encodes the body.
    """
    for name in _FRAMING:
        if name in headers:
            raise ValueError(f"an event stream must not have the header {name}: remove it")
    encoding = headers.get("Content-Encoding")
    if encoding is not None and encoding.strip().lower() not in _NO_ENCODING:
        raise ValueError(
            f"an event stream must not have the header Content-Encoding: {encoding}: nothing "
            "encodes it; remove the header, or encode in a middleware that also sets it"
        )


@final
class EventStreamBody(ResponseBody):
    """The body that Quart enters, iterates and leaves.

    It adds the stream to the server's group, if there is one, and logs how the stream ended.

    Args:
      stream: the stream whose chunks are the body.
      extensions: the request's ``scope["extensions"]``.
      logger: gets one line when the stream has ended.

    Attributes:
      headers: the response's headers, to be checked when the body is entered; None if they have
        been checked.
    """

    def __init__(self, stream: EventStream, extensions: Any, logger: logging.Logger) -> None:
        self.headers: Headers | None = None
        self._stream = stream
        self._direct_writer: DirectWriter | None = extensions.get(DIRECT_WRITER)
        self._group: StreamGroup | None = extensions.get(STREAM_GROUP)
        self._block = stream.open(self._direct_writer)
        self._logger = logger

    def set_sender(self, send: object) -> None:
        """Name the ASGI ``send`` that gets each chunk of this body, unchanged.

        Called by a connection that is about to send this very body, not a wrapper of it: see
        `penstock.stream.transport.DirectWriter.set_sender`.
        """
        if self._direct_writer is not None:
            self._direct_writer.set_sender(send)

    async def __aenter__(self) -> EventStream:
        if self.headers is not None:
            # Another class of connection sends it, without a check; the head is already sent.
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
            # ASYNC102: the block's own exit, which waits for the tasks that it has cancelled;
            # nothing to shield.
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
