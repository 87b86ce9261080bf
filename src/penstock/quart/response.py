"""Event streams as responses of a Quart-Trio application.

A view returns an `EventSourceResponse`; everything that belongs to the stream is opened when the
server starts to send the body and closed when it stops, in the task that sends. So a response that
is never sent (because an `after_request` function failed, say) has acquired nothing. What the view
acquired for it before, such as an open upstream, it is given as ``owns``; that belongs to the
request, and is closed with it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from http import HTTPStatus
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
from quart.wrappers.response import DataBody
from quart_trio.wrappers import TrioResponse
from werkzeug.datastructures import Headers, MIMEAccept
from werkzeug.exceptions import BadRequest, InternalServerError
from werkzeug.http import parse_accept_header

from penstock.errors import PenstockError, StreamingUnsupported
from penstock.quart.body import EventStreamBody, check_headers, check_status
from penstock.stream.event_stream import DEFAULT_KEEP_ALIVE, EventStream
from penstock.stream.producer import Producer
from penstock.stream.source import Source, is_source

__all__ = [
    "EventSourceResponse",
    "accepts_event_stream",
    "last_event_id",
    "stop_reconnecting",
]

_CONTENT_TYPE: Final = "text/event-stream"

_LAST_EVENT_ID_IN_QUERY: Final = {"lastEventId", "last_event_id", "lastEventID", "Last-Event-ID"}


@final
class EventSourceResponse(TrioResponse):
    """A response whose body is an event stream; return it from a view.

        @app.get("/time")
        async def time() -> EventSourceResponse:
            return EventSourceResponse(tell_the_time)

    A HEAD request gets the headers and runs no producer. The request's ``Accept`` is not looked at:
    a view that returns a stream has decided; see `accepts_event_stream`. When the stream ends, one
    line goes to the application's logger, at level INFO: path, client, reason, seconds, events
    sent, and how the producer ended.

    Args:
      source: a producer: see `penstock.stream.EventStream`. It runs outside the request's context:
        take what it needs from ``request`` in the view. Or a hub's subscription: then the header
        ``Last-Event-ID`` of the response is the id after which the stream goes on.
      keep_alive: seconds of silence after which a comment is sent, or None.
      buffer: how many events a producer may be ahead of the client; None means 16. A subscription
        has a bound of its own, and takes no other.
      max_lifetime: seconds after which the stream ends, or None. Clients then reconnect. 0 or less,
        such as what is left of a token that has expired, ends the stream after its first bytes,
        and does not start the producer.
      owns: what the view has opened for this stream, such as an upstream's response, and must not
        stay open without it: an object with ``aclose()``, such as an `contextlib.AsyncExitStack`,
        or an async context manager that was entered. It is closed exactly once, when the request
        is over: after the stream, or instead of it, when the request is a HEAD, the client has
        left, this constructor or an ``after_request`` function raises, or the response is not
        returned at all.
      headers: more headers, or other values than the default ``Cache-Control: no-cache`` and
        ``X-Accel-Buffering: no``. Streams for pages of other origins need
        ``Access-Control-Allow-Origin`` here.
      status: the HTTP status, of a response that has a body. A browser's EventSource takes no other
        than 200.

    Attributes:
      stream: the `penstock.stream.EventStream`, which can be ended from outside, and tells its
        statistics.

    Raises:
      werkzeug.exceptions.InternalServerError: the application does not run on Trio; left alone,
        Quart answers 500 with a text that says so.
      ValueError: an argument is out of its range, ``buffer`` was given with a subscription, the
        status has no body, or ``headers`` has a type, length or encoding of the content.
      TypeError: ``owns`` cannot be closed, or the producer cannot be one.
      RuntimeError: there is no request to answer; or ``owns`` was given, and nothing would close
        it: neither is this Penstock's server, nor was `use_one_task` called.

    Cancellation:
      A disconnect cancels the producer, and the response is over when the producer is. What it owns
      is closed then, shielded for at most 2 s: whatever is not closed by then is cancelled.

    Error handling:
      When a subscription's hub is not open, or its history fails, the answer is status 503 with a
      line that says so, which is logged, too. An error from closing what the response owns is
      logged, and goes no further.

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
        """Make the response to the current request; see the class for all there is to say."""
        if not has_request_context():
            raise RuntimeError("an EventSourceResponse answers a request: make it in a view")
        if not _on_trio():
            raise InternalServerError(str(StreamingUnsupported()))
        if owns is not None:
            _own(owns)  # first of all: whatever is wrong with the rest, it is closed
        stream = EventStream(
            source,
            keep_alive=keep_alive,
            buffer=buffer,
            max_lifetime=max_lifetime,
            name=f"{quote(request.path)} {_client_of(request)}",
        )
        body: DataBody | EventStreamBody = DataBody(b"")
        if request.method != "HEAD":
            offered = request.scope.get("extensions") or {}
            body = EventStreamBody(stream, offered, current_app.logger)
        super().__init__(body, status, _headers(headers), content_type=_CONTENT_TYPE)
        if isinstance(body, EventStreamBody):
            body.headers = self.headers
        self.stream = stream
        # Quart would cut the stream after RESPONSE_TIMEOUT, a minute by default.
        self.timeout: Any = None
        if is_source(source):
            self._locate = source.locate
            after_this_request(self._set_last_event_id)  # the first that may wait

    @property
    def status(self) -> str:
        """The status, as in `werkzeug.wrappers.Response`; one with a body."""
        return self._status

    @status.setter
    def status(self, value: str | int | HTTPStatus) -> None:
        status, code = self._clean_status(value)
        check_status(code)
        self._status, self._status_code = status, code

    async def _set_last_event_id(self, response: Any) -> Any:
        """Set the header that names the id after which the stream goes on, or answer why not."""
        if response is not self:
            return response  # it was made, and another one is sent
        try:
            last_event_id = await self._locate()
        except (trio.ClosedResourceError, PenstockError) as error:
            reason = str(error) or "it is closed"
            current_app.logger.error("%s cannot begin: %s", self.stream.name, reason)
            return _text(HTTPStatus.SERVICE_UNAVAILABLE, f"This stream cannot begin: {reason}")
        if last_event_id is not None:
            self.headers["Last-Event-ID"] = last_event_id
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

    It is the header ``Last-Event-ID``. Without one, it is the parameter of the query by which
    clients that cannot set headers send it: ``lastEventId`` (event-source-polyfill),
    ``last_event_id``, ``lastEventID`` or ``Last-Event-ID`` (Mercure). Of several the last counts.

    Raises:
      werkzeug.exceptions.BadRequest: the header is not UTF-8; left alone, Quart answers 400. In the
        query, what is not UTF-8 is U+FFFD, as in ``request.args``.

    Spec: #the-last-event-id-header: the header's value is encoded as UTF-8, and it is not sent when
    it would be empty.
    """
    value = request.headers.get("Last-Event-ID")
    try:
        if value:
            # ASGI gives bytes, and Quart reads them as Latin-1.
            return value.encode("latin-1").decode()
    except UnicodeError:
        raise BadRequest("The Last-Event-ID header is not UTF-8.") from None
    return _last_event_id_of_query()


def _last_event_id_of_query() -> str | None:
    if not request.query_string:
        return None
    query = request.query_string.decode(errors="replace")
    # Whoever reconnects by itself appends the newest one to a URL that may have had one.
    values = [value for name, value in parse_qsl(query) if name in _LAST_EVENT_ID_IN_QUERY]
    return values[-1] if values else None


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


def accepts_event_stream() -> bool:
    """Return whether the request's ``Accept`` allows ``text/event-stream``.

    For a view that also answers with something else, or wants to refuse with 406: an
    `EventSourceResponse` does not ask. Many clients that read event streams do not say so: the
    official clients of OpenAI and Anthropic send ``Accept: application/json``.

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
    except trio.Cancelled:  # noqa: ASYNC103 - of a thread, in which nobody can be cancelled
        pass  # the client has left; the request ends, and closes what it owns
    return True


def _headers(given: Mapping[str, str] | Headers | None) -> Headers:
    headers = Headers(given)
    if "Content-Type" in headers:
        raise ValueError(f"the content type of an event stream is {_CONTENT_TYPE}: do not give one")
    check_headers(headers)
    headers.setdefault("Cache-Control", "no-cache")
    headers.setdefault("X-Accel-Buffering", "no")  # nginx: pass each event on as it comes
    if request.http_version in ("1.0", "1.1"):
        # RFC 9113, 8.2.2: with it, a response of HTTP/2 would be malformed.
        headers.setdefault("Connection", "keep-alive")
    return headers


def _own(resource: Any) -> None:
    """Have a resource closed when the request is over.

    Raises:
      TypeError: there is no way to close it.
      RuntimeError: there is nobody who would.
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
            "without it, nothing would close what a response owns that is never sent"
        )
    own(resource)


def _text(status: HTTPStatus, line: str) -> Response:
    return TrioResponse(f"{line}\n", status, content_type="text/plain; charset=utf-8")


def _client_of(asked: Request) -> str:
    client = asked.scope.get("client")
    if not client:
        return "local"  # a Unix socket has no address
    host, port = client[0], client[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
