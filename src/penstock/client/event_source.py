"""A client: the events of one URL, over as many connections as it takes.

Rule 1: it does what a browser's EventSource does. It reopens a stream that ends or breaks, after
the reconnection time, with the id of the last event; 204 ends it, and a response that no later
attempt will change is an error. A request that no browser's EventSource makes, such as a POST, is
made once.

Rule 2: nothing runs unless somebody iterates. A source has no task: a consumer that falls behind
is, to the server, a client that does not read.

Rule 3: everything has a limit: an event, the wait for a response, redirects, and every delay.

Spec: https://html.spec.whatwg.org/multipage/server-sent-events.html#sse-processing-model
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from enum import StrEnum
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Any, Final, Self, final

import httpx2
import trio

from penstock.client.request import HeadersLike, StreamRequest, redacted
from penstock.client.response import CLOSE_TIMEOUT, StreamResponse, open_response
from penstock.client.retries import Backoff, Unavailable, reason_of
from penstock.decode import EventStreamDecoder
from penstock.errors import ConnectionFailed, DecodeError
from penstock.event import ServerSentEvent
from penstock.printable import counted

__all__ = ["EventSource", "SourceState", "default_client"]

_logger = logging.getLogger("penstock.client")

# Milliseconds, as in Chromium. The specification wants "a few seconds".
DEFAULT_RETRY: Final = 3000

# Seconds, as in Firefox, whatever `retry:` asks for: without this, a server that sends `retry: 0`
# and closes would get hundreds of requests a second.
DEFAULT_MIN_DELAY: Final = 0.5

# Seconds; gRPC's back-off ends at 120, those of Google's and Amazon's clients at 20 to 64.
DEFAULT_MAX_DELAY: Final = 60.0

# Seconds. Most servers respond within one; one that sends its head with its first event needs more.
DEFAULT_CONNECT_TIMEOUT: Final = 30.0


class SourceState(StrEnum):
    """What an `EventSource` is doing."""

    CONNECTING = "connecting"
    """There is no connection: one is being opened, or will be when its delay is over or when the
    source is first iterated."""
    OPEN = "open"
    CLOSED = "closed"
    """There will be no more events."""


@final
class EventSource:
    """The events of a URL, as an async iterator that reconnects.

        async with EventSource("https://example.org/events") as source:
            async for event in source:
                print(event.id, event.event, event.data)

    It connects when it is first iterated. An event's ``id`` is the last event id in force.

    A stream that ends or breaks is requested again after the reconnection time (``retry``, or the
    ``retry:`` that the server sent, but at least ``min_delay``), with the header ``Last-Event-ID``.
    The delay doubles with each further failure in a row, up to ``max_delay``; up to half of it is
    added at random, so that the clients of one server do not reconnect all at once. A connection
    that delivered an event, or that was open for ``max_delay``, resets the delay.

    A stream that is the response to one request, such as a language model's, is read once:

        async with EventSource(url, json={"prompt": "…", "stream": True}) as source:
            async for event in source: ...

    With ``reconnect=False``, the default for any method but GET, the iteration ends with the
    stream, and a stream that breaks raises `ConnectionFailed`. With ``reconnect=True`` the same
    request, body included, is sent again with ``Last-Event-ID``: for servers that resume a POST.

    204 ends the iteration: it is how a server says that there is no more. Unlike in a browser, 408,
    425, 429 and 5xx are failed attempts and not the end: a browser has a user who reloads the page
    once the server is back, a program does not. Retry-After is respected, up to an hour. Any other
    status or content type is an error. Until there was a response, so is what points to a wrong
    URL: a host that does not exist, a certificate that is not trusted, a port that speaks TLS where
    the URL has ``http:``, or the other way round.

    Redirects are followed. Another origin (scheme, host and port) gets ``Accept``,
    ``Accept-Encoding``, ``Cache-Control`` and ``User-Agent``, and no other header: no credentials,
    and no ``Last-Event-ID``, so a stream behind such a redirect is not resumed. 307 and 308 keep
    the method and the body (with the headers that describe it), as in a browser.

    What no header can carry is left out of ``Last-Event-ID``: control characters, surrounding white
    space, and ids of more than 8000 bytes.

    Args:
      url: the URL to request.
      method: the request's method; None is POST if there is a body, else GET.
      headers: what to send besides ``Accept``, ``Accept-Encoding`` and ``Cache-Control``. Give
        cookies here (``Cookie``); without a ``client``, none that a server sets is kept.
      content: the request's body.
      json: the request's body, as JSON; with ``Content-Type: application/json`` unless ``headers``
        has another.
      reconnect: whether to request a stream again after it was open; None does so for GET.
      last_event_id: the id to resume after; ``""`` begins wherever the server does.
      retry: the reconnection time until the server sets one, in milliseconds, as on the wire.
      min_delay: the minimum delay in seconds, whatever the server asks for. Firefox has the same
        0.5; with 0, a server can cause hundreds of requests a second.
      max_delay: seconds to which the delay may grow; a longer one that the server asks for is
        respected, up to an hour.
      jitter: the fraction of a delay that is added to it at most, at random; 0 adds nothing.
      connect_timeout: seconds for an attempt, from resolving the host to the head of the response.
      max_silence: seconds without a byte after which a connection is considered dead, and
        reopened. Servers send comments to keep a stream alive, Penstock every 15 s; three times
        that is a good value. None waits until the kernel detects that the peer does not respond,
        after a minute, which a proxy may hide forever.
      max_attempts: how many requests to make in all, redirects not counted. The iteration ends
        with the last one's stream. None is no limit, or 1 if it does not reconnect.
      max_failures: how many attempts in a row may fail; None is no limit.
      max_event_size: the maximum size of an event in bytes, as in `penstock.EventStreamDecoder`.
      client: sends the requests, with its connections, cookies, authentication and proxies; it is
        not closed. Its timeouts and its setting for redirects are ignored.

    Raises:
      ValueError: an argument is out of its range.
      TypeError: ``json`` cannot be encoded as JSON.
      InvalidEvent: no event could have had that ``last_event_id``.

    Resource handling:
      One connection, closed with the block, and no task. Each connection that is lost is logged to
      ``penstock.client``, with the delay until the next attempt.
    """

    def __init__(
        self,
        url: str | httpx2.URL,
        *,
        method: str | None = None,
        headers: HeadersLike | None = None,
        content: bytes | str | None = None,
        json: Any = None,
        reconnect: bool | None = None,
        last_event_id: str = "",
        retry: int = DEFAULT_RETRY,
        min_delay: float = DEFAULT_MIN_DELAY,
        max_delay: float = DEFAULT_MAX_DELAY,
        jitter: float = 0.5,
        connect_timeout: float = DEFAULT_CONNECT_TIMEOUT,
        max_silence: float | None = None,
        max_attempts: int | None = None,
        max_failures: int | None = None,
        max_event_size: int = 2**20,
        client: httpx2.AsyncClient | None = None,
    ) -> None:
        silence = math.inf if max_silence is None else max_silence
        for option, seconds in (("connect_timeout", connect_timeout), ("max_silence", silence)):
            if not seconds > 0:
                raise ValueError(f"{option} must be more than 0 seconds: {seconds}")
        if max_attempts is not None and (type(max_attempts) is not int or max_attempts < 1):
            raise ValueError(f"max_attempts must be a whole number above 0: {max_attempts}")
        self._request = StreamRequest.of(
            url, method=method, headers=headers, content=content, json=json
        )
        self._reconnect = self._request.method == "GET" if reconnect is None else reconnect
        if max_attempts is None and not self._reconnect:
            max_attempts = 1
        self._attempts_left = math.inf if max_attempts is None else max_attempts
        self._answered_before = False
        self._backoff = Backoff(
            retry=retry,
            min_delay=min_delay,
            max_delay=max_delay,
            jitter=jitter,
            max_failures=max_failures,
        )
        self._connect_timeout = connect_timeout
        self._max_silence = silence
        self._max_event_size = max_event_size
        # Until there is a response, which has its own, it only knows the last event id.
        self._decoder = EventStreamDecoder(
            max_event_size=max_event_size, last_event_id=last_event_id
        )
        self._client = client
        self._own_client: httpx2.AsyncClient | None = None
        self._opened = False
        self._response: StreamResponse | None = None
        self._connect_at = -math.inf
        self._end: Exception | None = None
        self._receiving = trio.Lock()
        self._receive_scope: trio.CancelScope | None = None

    def __repr__(self) -> str:
        last = f", last event {self.last_event_id!r}" if self.last_event_id else ""
        return f"<EventSource {redacted(self._request.url)} {self.state}{last}>"

    @property
    def state(self) -> SourceState:
        """What the source is doing."""
        if self._end is not None:
            return SourceState.CLOSED
        return SourceState.CONNECTING if self._response is None else SourceState.OPEN

    @property
    def last_event_id(self) -> str:
        """The id to resume after when it reconnects; ``""`` if there is none."""
        return self._decoder.last_event_id

    @property
    def retry(self) -> int:
        """The reconnection time in force, in milliseconds."""
        return self._backoff.retry if self._decoder.retry is None else self._decoder.retry

    async def __aenter__(self) -> Self:
        """Open the source, which connects when it is iterated.

        Raises:
          ConnectionFailed: the environment names a proxy or certificates that cannot be used.
        """
        if self._opened or self._end is not None:
            raise RuntimeError("an EventSource can be opened only once")
        self._opened = True
        if self._client is None:
            self._client = self._own_client = default_client()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ServerSentEvent:
        """Return the next event, over as many connections as it takes.

        Raises:
          ConnectionFailed: a later attempt would fail, too, or no attempt is left.
          DecodeError: an event is larger than ``max_event_size``.
          trio.ClosedResourceError: the source was closed.
          trio.BusyResourceError: another task is waiting for an event.

        Cancellation:
          A checkpoint. Atomic: either an event is returned or nothing was taken. But cancelling it
          while it waits for the server closes the connection, and the next call opens another one
          after the reconnection time, or fails if the source does not reconnect. To wait for
          something else at the same time, use another task.
        """
        try:
            self._receiving.acquire_nowait()
        except trio.WouldBlock:
            raise trio.BusyResourceError("another task is waiting for an event") from None
        try:
            with trio.CancelScope() as self._receive_scope:
                await trio.lowlevel.checkpoint()
                return await self._next()
        finally:
            self._receive_scope = None
            self._receiving.release()
        raise trio.ClosedResourceError  # by `aclose` in another task, while this one waited

    async def aclose(self) -> None:
        """Close the source. A task that waits for an event raises `trio.ClosedResourceError`.

        Cancellation:
          A checkpoint; the source is closed even when it is cancelled.
        """
        self._end = self._end or trio.ClosedResourceError()
        if self._receive_scope is not None:
            self._receive_scope.cancel()
        with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
            async with self._receiving:
                await self._disconnect()
            if self._own_client is not None:
                await self._own_client.aclose()
        await trio.lowlevel.checkpoint()

    async def _next(self) -> ServerSentEvent:
        while self._end is None:
            try:
                if self._response is not None:
                    return await self._response.receive(self._max_silence)
                await trio.sleep_until(self._connect_at)
                await self._connect()
            except Unavailable as error:
                self._schedule_retry(error)
                await self._disconnect()
            except (ConnectionFailed, DecodeError) as error:
                self._end = error
                await self._disconnect()
        raise self._end.with_traceback(None)

    async def _connect(self) -> None:
        """Open a connection; or end if the server says that there is no more."""
        if self._client is None or not self._opened:
            raise RuntimeError("open the EventSource first: async with … as source")
        if not self._attempts_left:  # the last one was cancelled before there was a response
            raise Unavailable("the request was cancelled")
        decoder = EventStreamDecoder(
            max_event_size=self._max_event_size, last_event_id=self.last_event_id
        )
        # If it is cancelled before there is a response, the next call waits before it connects.
        self._connect_at = trio.current_time() + self._backoff.delay()
        self._attempts_left -= 1
        self._response = await open_response(
            self._client,
            self._request,
            decoder,
            connect_timeout=self._connect_timeout,
            answered_before=self._answered_before,
        )
        self._answered_before = True
        if self._response is None:
            self._end = StopAsyncIteration()
            return
        self._decoder = decoder
        self._request = replace(self._request, url=self._response.url)
        if not self._reconnect:
            self._attempts_left = 0

    def _schedule_retry(self, error: Unavailable) -> None:
        """Set when to connect again; or end."""
        lost, since = self._response, trio.current_time()
        if lost is None:
            self._answered_before = self._answered_before or error.status is not None
            self._backoff.record_attempt(delivered=False)
        else:
            since = lost.ended_at
            if lost.decoder.retry is not None:
                self._backoff.retry = lost.decoder.retry
            if not lost.interrupted:
                self._backoff.record_attempt(delivered=lost.delivered, held=since - lost.opened_at)
        where = redacted(self._request.url)
        if not self._attempts_left and error.ended:
            self._end = StopAsyncIteration()
            return
        if not self._attempts_left or self._backoff.exhausted:
            tries = self._backoff.failures
            gave_up = f"; gave up after {counted(tries, 'attempt')}" if tries else ""
            self._end = ConnectionFailed(f"{where}: {error}{gave_up}", status=error.status)
            return
        delay = self._backoff.delay(error.asked)
        self._connect_at = since + delay
        _logger.info("%s: %s; reconnecting in %.1f s", where, error, delay)

    async def _disconnect(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            await response.aclose()


def default_client(**options: Any) -> httpx2.AsyncClient:
    """Return an HTTP client with these options of httpx2's.

    Unless it is given ``cookies``, it keeps none: those that servers set would have no limit.

    Raises:
      ConnectionFailed: the environment names a proxy or certificates that cannot be used.
    """
    none = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    try:
        return httpx2.AsyncClient(**{"cookies": none, **options})
    except (ImportError, OSError, ValueError, httpx2.InvalidURL) as error:
        raise ConnectionFailed(
            f"the environment names a proxy or certificates that cannot be used: {reason_of(error)}"
        ) from error
