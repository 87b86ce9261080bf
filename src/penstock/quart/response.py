"""Event streams as responses of a Quart-Trio application.

A view returns an `EventSourceResponse`. Quart then enters the response's body, iterates it, sends
each chunk, and leaves it, all in one task: the stream's writer. The stream's tasks and subscription
live in that block. So a response that is never sent (because an `after_request` function failed,
say) has acquired nothing. What the view itself acquired for the stream, such as an open upstream,
it passes as ``owns``; that belongs to the request, and is closed with it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from http import HTTPStatus
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
from quart.wrappers.response import DataBody
from quart_trio.wrappers import TrioResponse
from werkzeug.datastructures import Headers
from werkzeug.exceptions import InternalServerError

from penstock.errors import PenstockError, StreamingUnsupported
from penstock.quart.body import EventStreamBody, check_headers, check_status
from penstock.stream.event_stream import DEFAULT_KEEP_ALIVE, EventStream
from penstock.stream.producer import Producer
from penstock.stream.source import Source, is_source

__all__ = [
    "EventSourceResponse",
    "stop_reconnecting",
    "text_response",
]

_CONTENT_TYPE: Final = "text/event-stream"


@final
class EventSourceResponse(TrioResponse):
    """A response whose body is an event stream; return it from a view.

        @app.get("/time")
        async def time() -> EventSourceResponse:
            return EventSourceResponse(tell_the_time)

    A HEAD request gets the headers and runs no producer. The request's ``Accept`` is ignored: a
    view that returns a stream has decided; see `accepts_event_stream`. When the stream ends, one
    line goes to the application's logger, at level INFO: path, client, reason, seconds, events
    sent, and how the producer ended.

    Args:
      source: a producer (see `penstock.stream.EventStream`), or a hub's subscription. A producer
        runs outside the request's context: read what it needs from ``request`` in the view. With a
        subscription, the response's header ``Last-Event-ID`` is the id after which the stream
        resumes.
      keep_alive: seconds of silence after which a comment is sent, or None.
      buffer: how many events a producer may be ahead of the client; None means 16. A subscription
        has its own bound, and accepts no other.
      max_lifetime: seconds after which the stream ends and the client reconnects, or None. If it is
        0 or less, such as the remaining time of an expired token, the stream ends after its first
        bytes, and the producer does not start.
      owns: what the view has opened for this stream only, such as an upstream's response: an object
        with ``aclose()``, such as an `contextlib.AsyncExitStack`, or an async context manager that
        was entered. It is closed exactly once, when the request is over. That is after the stream,
        or instead of it if the request is a HEAD, if the client has left, if this constructor or an
        ``after_request`` function raises, or if the response is not returned.
      headers: additional headers, or other values for the defaults ``Cache-Control: no-cache`` and
        ``X-Accel-Buffering: no``. Streams for pages of other origins need
        ``Access-Control-Allow-Origin`` here.
      status: the HTTP status, which must allow a body. A browser's EventSource accepts only 200.

    Attributes:
      stream: the `penstock.stream.EventStream`; use it to end the stream from outside, and for its
        statistics.

    Raises:
      werkzeug.exceptions.InternalServerError: the application does not run on Trio. If it is not
        caught, Quart answers 500 with the reason.
      ValueError: an argument is out of its range, ``buffer`` was given with a subscription, the
        status does not allow a body, or ``headers`` has a content type, length or encoding.
      TypeError: ``owns`` cannot be closed, or ``source`` is not a producer.
      RuntimeError: there is no request to answer; or ``owns`` was given, and nothing would close
        it, because this is not Penstock's server and `use_one_task` was not called.

    Cancellation:
      A disconnect cancels the producer; the response ends once the producer has ended. Then
      ``owns`` is closed, shielded for at most 2 s, after which its closing is cancelled.

    Error handling:
      If a subscription's hub is not open, or its log fails, the answer is status 503 with one line
      that says why, which is also logged. An error while ``owns`` is closed is logged, and goes no
      further.

    Spec: #sse-processing-model: a client accepts status 200 and ``text/event-stream``, in UTF-8.
    """

    def __init__(
        self,
        source: Producer | Source,
        *,
        keep_alive: float | None = DEFAULT_KEEP_ALIVE,
        buffer: int | None = None,
        max_lifetime: float | None = None,
        owns: Any = None,
        headers: Mapping[str, str] | Headers | None = None,
        status: int = 200,
    ) -> None:
        """Make the response to the current request; the class documents the arguments."""
        if not has_request_context():
            raise RuntimeError("an EventSourceResponse answers a request: create it in a view")
        if not _on_trio():
            raise InternalServerError(str(StreamingUnsupported()))
        if owns is not None:
            _own(owns)  # first, so that it is closed even if another argument is invalid
        stream = EventStream(
            source,
            keep_alive=keep_alive,
            buffer=buffer,
            max_lifetime=max_lifetime,
            name=f"{quote(request.path)} {_client_address(request)}",
        )
        body: DataBody | EventStreamBody = DataBody(b"")
        if request.method != "HEAD":
            extensions = request.scope.get("extensions") or {}
            body = EventStreamBody(stream, extensions, current_app.logger)
        super().__init__(body, status, _headers(headers), content_type=_CONTENT_TYPE)
        if isinstance(body, EventStreamBody):
            body.headers = self.headers
        self.stream = stream
        # Quart would end the stream after RESPONSE_TIMEOUT, a minute by default.
        self.timeout: Any = None
        if is_source(source):
            self._locate = source.locate
            after_this_request(self._set_last_event_id)  # here a coroutine can be awaited

    @property
    def status(self) -> str:
        """The status, as in `werkzeug.wrappers.Response`; it must allow a body."""
        return self._status

    @status.setter
    def status(self, value: str | int | HTTPStatus) -> None:
        status, code = self._clean_status(value)
        check_status(code)
        self._status, self._status_code = status, code

    async def _set_last_event_id(self, response: Any) -> Any:
        """Set the header with the id after which the stream resumes, or return an error."""
        if response is not self:
            return response  # the view made this response, but another is sent
        try:
            last_event_id = await self._locate()
        except (trio.ClosedResourceError, PenstockError) as error:
            reason = str(error) or "it is closed"
            current_app.logger.error("%s cannot begin: %s", self.stream.name, reason)
            return text_response(503, f"This stream cannot begin: {reason}")
        if last_event_id is not None:
            self.headers["Last-Event-ID"] = last_event_id
        return response

    async def iter_encode(self) -> AsyncGenerator[bytes, None]:
        """Refuse to be read: an ETag, a cache or compression would wait for the stream's end.

        Raises:
          RuntimeError: always; so do ``get_data``, ``add_etag``, ``freeze``, ``make_sequence``.
        """
        raise RuntimeError("an event stream has no whole body to read: it can only be sent")
        yield b""


def stop_reconnecting(*, headers: Mapping[str, str] | Headers | None = None) -> Response:
    """Return the response that tells an EventSource to stop permanently: 204 No Content.

    Args:
      headers: as in `EventSourceResponse`. A page of another origin needs
        ``Access-Control-Allow-Origin`` for this response, too.

    Spec: #sse-intro: clients reconnect if the connection is closed; the status 204 No Content makes
    them stop.
    """
    response = TrioResponse(b"", HTTPStatus.NO_CONTENT, _headers(headers))
    # RFC 9110, 8.6: a server must not send Content-Length in a 204 response.
    response.headers.pop("Content-Length")
    response.headers.pop("Content-Type")
    return response


def _on_trio() -> bool:
    """Return whether this is a Trio task, or a thread of a synchronous view of Quart-Trio."""
    if trio.lowlevel.in_trio_task():
        return True
    try:
        trio.from_thread.check_cancelled()
    except RuntimeError:
        return False
    except trio.Cancelled:  # noqa: ASYNC103 - a thread cannot be cancelled
        pass  # the client has left; the request ends, and closes what it owns
    return True


def _headers(given: Mapping[str, str] | Headers | None) -> Headers:
    headers = Headers(given)
    if "Content-Type" in headers:
        raise ValueError(f"the content type of an event stream is {_CONTENT_TYPE}: do not set it")
    check_headers(headers)
    headers.setdefault("Cache-Control", "no-cache")
    headers.setdefault("X-Accel-Buffering", "no")  # nginx: pass each event on as it comes
    if request.http_version in ("1.0", "1.1"):
        # RFC 9113, 8.2.2: with this header, an HTTP/2 response would be malformed.
        headers.setdefault("Connection", "keep-alive")
    return headers


def _own(resource: Any) -> None:
    """Close a resource when the request is over.

    Raises:
      TypeError: the resource has no way to be closed.
      RuntimeError: nothing would close it.
    """
    if not (hasattr(resource, "aclose") or hasattr(type(resource), "__aexit__")):
        raise TypeError(
            "owns takes an object with aclose(), such as an AsyncExitStack, or an async context "
            f"manager that was entered, not {type(resource).__name__}"
        )
    own = getattr(request, "own_resource", None)
    if own is None:
        raise RuntimeError(
            "owns needs Penstock's server, or use_one_task(app) where the application is made: "
            "otherwise nothing would close what an unsent response owns"
        )
    own(resource)


def text_response(status: int, line: str) -> Response:
    """Return a response with one line of text."""
    return TrioResponse(f"{line}\n", status, content_type="text/plain; charset=utf-8")


def _client_address(current: Request) -> str:
    client = current.scope.get("client")
    if not client:
        return "local"  # a Unix socket has no address
    host, port = client[0], client[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
