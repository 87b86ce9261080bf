"""Event streams as responses of a Quart-Trio application.

A view returns an `EventSourceResponse`; everything that belongs to the stream is opened when the
server starts to send the body and closed when it stops, in the task that sends. So a response that
is never sent (because an `after_request` function failed, say) has acquired nothing.

Quart pulls: it iterates the body and sends each chunk, and is thereby the stream's writer.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, final
from urllib.parse import quote

import trio
from quart import (
    Request,
    Response,
    after_this_request,
    current_app,
    has_request_context,
    request,
)
from quart.wrappers.response import DataBody, ResponseBody
from quart_trio.wrappers import TrioResponse
from werkzeug.datastructures import Headers, MIMEAccept
from werkzeug.exceptions import BadRequest, InternalServerError, NotAcceptable
from werkzeug.http import parse_accept_header

from penstock.errors import StreamingUnsupported
from penstock.stream.event_stream import DEFAULT_BUFFER, DEFAULT_KEEP_ALIVE, EventStream
from penstock.stream.feed import Source
from penstock.stream.group import STREAM_GROUP, StreamGroup
from penstock.stream.producer import Producer
from penstock.stream.transport import WRITE_THROUGH

__all__ = [
    "EventSourceResponse",
    "last_event_id",
    "stop_reconnecting",
]

_CONTENT_TYPE: Final = "text/event-stream"


@final
class EventSourceResponse(TrioResponse):
    """A response whose body is an event stream; return it from a view.

        @app.get("/time")
        async def time() -> EventSourceResponse:
            return EventSourceResponse(tell_the_time)

    A HEAD request gets the headers and runs no producer. When the stream ends, one line goes to the
    application's logger, at level INFO: path, client, reason, seconds, events sent, and how the
    producer ended.

    Args:
      source: a producer: see `penstock.stream.EventStream`. It runs outside the request's context:
        take what it needs from ``request`` in the view. Or a hub's subscription: then the header
        ``Last-Event-ID`` of the response is the id after which the stream goes on.
      keep_alive: seconds of silence after which a comment is sent, or None.
      buffer: how many events a producer may be ahead of the client.
      max_lifetime: seconds after which the stream ends, or None. Clients then reconnect.
      headers: more headers, or other values than the default ``Cache-Control: no-cache`` and
        ``X-Accel-Buffering: no``. Streams for pages of other origins need
        ``Access-Control-Allow-Origin`` here.
      status: the HTTP status. A browser's EventSource takes no other than 200.

    Attributes:
      stream: the `penstock.stream.EventStream`, which can be ended from outside, and tells its
        statistics.

    Raises:
      werkzeug.exceptions.NotAcceptable: the request's ``Accept`` excludes ``text/event-stream``;
        left alone, Quart answers 406.
      werkzeug.exceptions.InternalServerError: the application does not run on Trio; left alone,
        Quart answers 500 with a text that says so.
      ValueError: an argument is out of its range, or ``headers`` has a content type.
      RuntimeError: there is no request to answer.

    Cancellation:
      A disconnect cancels the producer, and the response is over when the producer is.

    Spec: #sse-processing-model: a client accepts status 200 and ``text/event-stream``, in UTF-8.
    """

    def __init__(
        self,
        source: Producer | Source,
        *,
        keep_alive: float | None = DEFAULT_KEEP_ALIVE,
        buffer: int = DEFAULT_BUFFER,
        max_lifetime: float | None = None,
        headers: Mapping[str, str] | Headers | None = None,
        status: int = 200,
    ) -> None:
        """Make the response to the current request; see the class for all there is to say."""
        if not has_request_context():
            raise RuntimeError("an EventSourceResponse answers a request: make it in a view")
        if not _on_trio():
            raise InternalServerError(str(StreamingUnsupported()))
        if not _accepted():
            raise NotAcceptable(f"This is an event stream: accept {_CONTENT_TYPE} to read it.")
        stream = EventStream(
            source,
            keep_alive=keep_alive,
            buffer=buffer,
            max_lifetime=max_lifetime,
            name=f"{quote(request.path)} {_client_of(request)}",
        )
        body = DataBody(b"") if request.method == "HEAD" else _EventStreamBody(stream)
        super().__init__(body, status, _headers(headers), content_type=_CONTENT_TYPE)
        self.stream = stream
        # Quart would cut the stream after RESPONSE_TIMEOUT, a minute by default.
        self.timeout: Any = None
        if isinstance(source, Source):
            self._locate = source.locate
            after_this_request(self._tell_where)  # the first that may wait

    async def _tell_where(self, response: Any) -> Any:
        """Set the header that tells the client after which event the stream goes on."""
        here = await self._locate()
        if here is not None:
            self.headers["Last-Event-ID"] = here
        return response

    async def iter_encode(self) -> AsyncGenerator[bytes, None]:
        """Refuse to be read: an ETag, a cache or a compression would wait for the stream's end.

        Raises:
          RuntimeError: always; so do ``get_data``, ``add_etag``, ``freeze``, ``make_sequence``.
        """
        raise RuntimeError("an event stream has no whole body to read: it can only be sent")
        yield b""


def last_event_id() -> str | None:
    """Return the id of the last event that the reconnecting client saw, or None.

    Raises:
      werkzeug.exceptions.BadRequest: the header is not UTF-8; left alone, Quart answers 400.

    Spec: #the-last-event-id-header: the header's value is encoded as UTF-8, and it is not sent when
    it would be empty.
    """
    value = request.headers.get("Last-Event-ID")
    try:
        # ASGI gives bytes, and Quart reads them as Latin-1.
        return value.encode("latin-1").decode() if value else None
    except UnicodeError:
        raise BadRequest("The Last-Event-ID header is not UTF-8.") from None


def stop_reconnecting(*, headers: Mapping[str, str] | Headers | None = None) -> Response:
    """Return the response that tells an EventSource to stop, for good: 204 No Content.

    Args:
      headers: as in `EventSourceResponse`. A page of another origin needs
        ``Access-Control-Allow-Origin`` for this response, too.

    Spec: #sse-intro: "Clients will reconnect if the connection is closed; a client can be told to
    stop reconnecting using the HTTP 204 No Content response code."
    """
    response = TrioResponse(b"", HTTPStatus.NO_CONTENT, _headers(headers))
    # RFC 9110, 8.6: a server must not send Content-Length in a 204 response.
    response.headers.pop("Content-Length")
    response.headers.pop("Content-Type")
    return response


def _accepted() -> bool:
    """Tell whether the request's Accept, if there is one, allows event streams.

    Spec: RFC 9110, 12.5.1: the most specific media range decides. Parameters other than the quality
    say nothing about an event stream.
    """
    qualities: dict[str, float] = {}
    lines = ",".join(request.headers.getlist("Accept"))  # RFC 9110, 5.3: several are one list
    for media_range, quality in parse_accept_header(lines, MIMEAccept):
        name = media_range.partition(";")[0].strip().lower()
        if not name:  # an empty element, which older releases of Werkzeug return
            continue
        qualities[name] = max(quality, qualities.get(name, 0))
    for media_range in (_CONTENT_TYPE, "text/*", "*/*"):
        if media_range in qualities:
            return qualities[media_range] > 0
    return not qualities


def _on_trio() -> bool:
    """Tell whether this is a task of Trio's, or a thread in which Quart-Trio runs a plain view."""
    if trio.lowlevel.in_trio_task():
        return True
    try:
        trio.from_thread.check_cancelled()
    except RuntimeError:
        return False
    return True


def _headers(given: Mapping[str, str] | Headers | None) -> Headers:
    headers = Headers(given)
    if "Content-Type" in headers:
        raise ValueError(f"the content type of an event stream is {_CONTENT_TYPE}: do not give one")
    headers.setdefault("Cache-Control", "no-cache")
    headers.setdefault("X-Accel-Buffering", "no")  # nginx: pass each event on as it comes
    if request.http_version in ("1.0", "1.1"):
        # RFC 9113, 8.2.2: with it, a response of HTTP/2 would be malformed.
        headers.setdefault("Connection", "keep-alive")
    return headers


@final
class _EventStreamBody(ResponseBody):
    """A body that Quart enters, iterates and leaves, all in the task that sends the response.

    It holds the stream in the server's group, if there is one, and logs what became of it.
    """

    def __init__(self, stream: EventStream) -> None:
        offered: Mapping[str, Any] = request.scope.get("extensions") or {}
        self._stream = stream
        self._group: StreamGroup | None = offered.get(STREAM_GROUP)
        self._block = stream.open(offered.get(WRITE_THROUGH))
        self._logger = current_app.logger

    async def __aenter__(self) -> EventStream:
        if self._group is not None:
            self._group.add(self._stream)
        return await self._block.__aenter__()  # which is no checkpoint, and raises nothing

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


def _client_of(asked: Request) -> str:
    client = asked.scope.get("client")
    if not client:
        return "local"  # a Unix socket has no address
    host, port = client[0], client[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
