"""Event streams as responses of a Quart-Trio application.

A view returns an `EventSourceResponse`. Quart then enters the response's body, iterates it, sends
each chunk, and leaves it, all in one task: the stream's writer. The stream's tasks and subscription
live in that block. So a response that is never sent (because an `after_request` function failed,
say) has acquired nothing. What the view itself acquired for the stream, such as an open upstream,
it passes as ``owns``; that belongs to the request, and is closed with it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, final
from urllib.parse import parse_qsl, quote

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
from werkzeug.exceptions import BadRequest, InternalServerError
from werkzeug.http import parse_accept_header

from penstock.errors import PenstockError, StreamingUnsupported
from penstock.stream.event_stream import DEFAULT_KEEP_ALIVE, EventStream
from penstock.stream.group import STREAM_GROUP, StreamGroup
from penstock.stream.producer import Producer
from penstock.stream.source import Source, is_source
from penstock.stream.transport import DIRECT_WRITER, DirectWriter

__all__ = [
    "EventSourceResponse",
    "EventStreamBody",
    "accepts_event_stream",
    "check_headers",
    "last_event_id",
    "stop_reconnecting",
    "text_response",
]

_CONTENT_TYPE: Final = "text/event-stream"

_LAST_EVENT_ID_IN_QUERY: Final = {"lastEventId", "last_event_id", "lastEventID", "Last-Event-ID"}

# The length of a stream is unknown, and its framing is the server's business.
_FRAMING: Final = ("Content-Length", "Transfer-Encoding")

# Values of Content-Encoding that leave a body unchanged. "none" is not a registered coding, but is
# widely used to keep intermediaries from compressing.
_NO_ENCODING: Final = ("", "identity", "none")


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


def last_event_id() -> str | None:
    """Return the id of the last event that the reconnecting client saw, or None.

    The header ``Last-Event-ID`` is read first, then the query parameter of clients that cannot set
    headers: ``lastEventId`` (event-source-polyfill), ``last_event_id``, ``lastEventID`` or
    ``Last-Event-ID`` (Mercure). If there are several parameters, the last is used.

    Raises:
      werkzeug.exceptions.BadRequest: the header is not UTF-8. If it is not caught, Quart answers
        400. In the query, invalid UTF-8 becomes U+FFFD, as in ``request.args``.

    Spec: #the-last-event-id-header: the header's value is encoded as UTF-8, and it is not sent when
    it would be empty.
    """
    value = request.headers.get("Last-Event-ID")
    try:
        if value:
            # ASGI passes bytes, and Quart decodes them as Latin-1.
            return value.encode("latin-1").decode()
    except UnicodeError:
        raise BadRequest("The Last-Event-ID header is not UTF-8.") from None
    return _last_event_id_of_query()


def _last_event_id_of_query() -> str | None:
    if not request.query_string:
        return None
    query = request.query_string.decode(errors="replace")
    # A reconnecting client appends the newest id to a URL that may already have one.
    values = [value for name, value in parse_qsl(query) if name in _LAST_EVENT_ID_IN_QUERY]
    return values[-1] if values else None


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


def accepts_event_stream() -> bool:
    """Return whether the request's ``Accept`` allows ``text/event-stream``.

    For a view that also has another representation, or refuses with 406: an `EventSourceResponse`
    does not check. Many clients that read event streams do not name the type: the official clients
    of OpenAI and Anthropic send ``Accept: application/json``.

    Spec: RFC 9110, 12.5.1: the most specific media range decides. Parameters other than the quality
    say nothing about an event stream.
    """
    qualities: dict[str, float] = {}
    lines = ",".join(request.headers.getlist("Accept"))  # RFC 9110, 5.3: they are one list
    for media_range, quality in parse_accept_header(lines, MIMEAccept):
        name = media_range.partition(";")[0].strip().lower()
        if not name:  # an empty element, which older versions of Werkzeug return
            continue
        qualities[name] = max(quality, qualities.get(name, 0))
    for media_range in (_CONTENT_TYPE, "text/*", "*/*"):
        if media_range in qualities:
            return qualities[media_range] > 0
    return not qualities


def _on_trio() -> bool:
    """Tell whether this is a Trio task, or a thread in which Quart-Trio runs a synchronous view."""
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
