"""A client: the events of one URL, over as many connections as it takes.

Rule 1: it does what a browser's EventSource does. A stream that ends or breaks is opened again,
after the reconnection time, with the id of the last event; 204 ends it, and an answer that no later
attempt will change is an error. What a browser's cannot ask for, such as a POST, is read once.

Rule 2: nothing runs while nobody iterates. There is no task behind a source: a consumer that falls
behind is, to the server, a client that does not read.

Rule 3: everything has a bound: an event, the wait for an answer, redirects, and every delay.

Spec: https://html.spec.whatwg.org/multipage/server-sent-events.html#sse-processing-model
"""

from __future__ import annotations

import logging
import math
from enum import StrEnum
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Any, Final, Self, final

import httpx2
import trio

from penstock.client.connection import CLOSE_TIMEOUT, Connection, open_connection
from penstock.client.failures import Unavailable, reason_of
from penstock.client.reconnection import Reconnection
from penstock.client.request import HeadersLike, StreamRequest, address_of
from penstock.decode import EventStreamDecoder
from penstock.errors import ConnectionFailed, DecodeError
from penstock.event import ServerSentEvent

__all__ = ["EventSource", "SourceState", "own_client"]

_logger = logging.getLogger("penstock.client")

# Milliseconds, as in Chromium. The specification wants "a few seconds".
DEFAULT_RETRY: Final = 3000

# Seconds, as in Firefox, whatever `retry:` asks for: without it, a server that sends `retry: 0` and
# closes is asked hundreds of times a second.
DEFAULT_MIN_DELAY: Final = 0.5

# Seconds; gRPC's back-off ends at 120, that of Google's and Amazon's clients at 20 to 64.
DEFAULT_MAX_DELAY: Final = 60.0

# Seconds. Most answer within one; a server whose head comes with its first event needs more.
DEFAULT_CONNECT_TIMEOUT: Final = 30.0


class SourceState(StrEnum):
    """What an `EventSource` is doing."""

    CONNECTING = "connecting"
    """There is no connection: one is being opened or waited for, or nobody has iterated yet."""
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

    A stream that ends or breaks is asked for again after the reconnection time (``retry``, or what
    the server sent as ``retry:``, but ``min_delay`` at least), with the header ``Last-Event-ID``.
    That time doubles with each attempt that fails after the first, up to ``max_delay``; at random,
    up to half of it is added, so that the clients of one server do not come back at once. A
    connection that delivered an event, or that held for ``max_delay``, resets it.

    A stream that is the answer to one request, such as a language model's, is read once:

        async with EventSource(url, json={"prompt": "…", "stream": True}) as source:
            async for event in source: ...

    With ``reconnect=False``, the default for any method but GET, the iteration ends with the
    stream, and a stream that breaks raises `ConnectionFailed`. With ``reconnect=True`` the same
    request, body included, is sent again with ``Last-Event-ID``: for servers that resume a POST.

    204 ends the iteration: it is how a server says that there is no more. Unlike in a browser,
    408, 425, 429 and 5xx are a failed attempt and not the end: a browser has a person who reloads
    the page once the server is back, a program does not. What Retry-After asks for is waited for,
    up to an hour. Any other status, and any other content type, are errors. So is, until there was
    an answer, what points to a wrong URL: a host that does not exist, a certificate that is not
    trusted, a port that speaks TLS where ``http:`` was asked for, or the other way round.

    Redirects are followed. Another origin (scheme, host and port) gets ``Accept``,
    ``Accept-Encoding``, ``Cache-Control`` and ``User-Agent`` and none of the other headers, neither
    what authenticates nor ``Last-Event-ID``: a stream behind such a redirect is not resumed. 307
    and 308 take the method and the body along (with the headers that describe it), as in a browser.

    Of an id, what no header can carry is left out of ``Last-Event-ID``: control characters, white
    space around it, and ids of more than 8000 bytes altogether.

    Args:
      url: what to ask for.
      method: the request's method; None is POST where there is a body, else GET.
      headers: what to send besides ``Accept``, ``Accept-Encoding`` and ``Cache-Control``. Cookies
        are sent if they are here (``Cookie``); without a ``client`` none is kept.
      content: the request's body.
      json: the request's body, as JSON; with ``Content-Type: application/json`` unless ``headers``
        has another.
      reconnect: whether to ask again for a stream that was open; None does so for GET.
      last_event_id: where to go on from; ``""`` is wherever the server begins.
      retry: the reconnection time until the server names one, in milliseconds, as on the wire.
      min_delay: seconds that each delay has at least, whatever the server asks for. Firefox has the
        same 0.5; with 0, a server can have itself asked hundreds of times a second.
      max_delay: seconds to which the reconnection time may grow; a longer one that the server asks
        for counts all the same, up to an hour.
      jitter: how much of a delay is added to it at the most, at random; 0 adds nothing.
      connect_timeout: seconds for an attempt, from looking up the host to the head of the answer.
      max_silence: seconds without a byte after which a connection is taken for dead and opened
        again. Servers send a comment now and then to show that they are there, Penstock every 15
        s: three times that is good. None waits until the kernel finds that the peer does not
        answer, a minute, which a proxy may hide for ever.
      max_attempts: how many requests are made in all, redirects not counted. When the last one's
        stream ends, so does the iteration. None is no limit, or 1 where it does not reconnect.
      max_failures: how many attempts in a row may fail; None is no limit.
      max_event_size: the most bytes an event may have, as in `penstock.EventStreamDecoder`.
      client: what asks, with its connections, cookies, authentication and proxies; it is not
        closed. Its own timeouts and its way with redirects do not count.

    Raises:
      ValueError: an argument is out of its range.
      TypeError: ``json`` has no JSON form.
      InvalidEvent: no event could have had that ``last_event_id``.

    Resource handling:
      One connection, closed with the block, and no task. Each that is lost is logged to the logger
      ``penstock.client``, with when the next is opened.
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
                raise ValueError(f"{option} must be a number of seconds above 0: {seconds}")
        if max_attempts is not None and (type(max_attempts) is not int or max_attempts < 1):
            raise ValueError(f"max_attempts must be a whole number above 0: {max_attempts}")
        self._request = StreamRequest.of(
            url, method=method, headers=headers, content=content, json=json
        )
        self._reconnect = self._request.method == "GET" if reconnect is None else reconnect
        if max_attempts is None and not self._reconnect:
            max_attempts = 1
        self._attempts_left = math.inf if max_attempts is None else max_attempts
        self._answered = False
        self._reconnection = Reconnection(
            retry=retry,
            min_delay=min_delay,
            max_delay=max_delay,
            jitter=jitter,
            max_failures=max_failures,
        )
        self._connect_timeout = connect_timeout
        self._max_silence = silence
        self._max_event_size = max_event_size
        # Until there is a connection, which has one of its own, it only knows the last event id.
        self._decoder = EventStreamDecoder(
            max_event_size=max_event_size, last_event_id=last_event_id
        )
        self._client = client
        self._own_client: httpx2.AsyncClient | None = None
        self._opened = False
        self._connection: Connection | None = None
        self._due = -math.inf
        self._end: Exception | None = None
        self._turn = trio.Lock()
        self._waiting: trio.CancelScope | None = None

    def __repr__(self) -> str:
        last = f", last event {self.last_event_id!r}" if self.last_event_id else ""
        return f"<EventSource {address_of(self._request.url)} {self.state}{last}>"

    @property
    def state(self) -> SourceState:
        """What it is doing."""
        if self._end is not None:
            return SourceState.CLOSED
        return SourceState.CONNECTING if self._connection is None else SourceState.OPEN

    @property
    def last_event_id(self) -> str:
        """The id it goes on from when it connects again; ``""`` if there is none."""
        return self._decoder.last_event_id

    @property
    def retry(self) -> int:
        """The reconnection time in force, in milliseconds."""
        return self._reconnection.retry if self._decoder.retry is None else self._decoder.retry

    async def __aenter__(self) -> Self:
        """Open the source; it connects when it is iterated.

        Raises:
          ConnectionFailed: the environment names a proxy or certificates that cannot be used.
        """
        if self._opened or self._end is not None:
            raise RuntimeError("an EventSource is opened once")
        self._opened = True
        if self._client is None:
            self._client = self._own_client = own_client()
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
          ConnectionFailed: an answer that no later attempt will change, or no attempt is left.
          DecodeError: an event is larger than ``max_event_size``.
          trio.ClosedResourceError: the source was closed.
          trio.BusyResourceError: another task is waiting for an event.

        Cancellation:
          A checkpoint. Atomic: either an event is returned or nothing was taken. But cancelled
          while it waits for the server, it costs the connection, and the next call opens another
          after the reconnection time, or fails where it does not reconnect: to wait for something
          else at the same time, use another task.
        """
        try:
            self._turn.acquire_nowait()
        except trio.WouldBlock:
            raise trio.BusyResourceError("another task is waiting for an event") from None
        try:
            with trio.CancelScope() as self._waiting:
                await trio.lowlevel.checkpoint()
                return await self._next()
        finally:
            self._waiting = None
            self._turn.release()
        raise trio.ClosedResourceError  # by `aclose` in another task, while this one waited

    async def aclose(self) -> None:
        """Close the source. A task that waits for an event gets `trio.ClosedResourceError`.

        Cancellation:
          A checkpoint; the source is closed even when it is cancelled.
        """
        self._end = self._end or trio.ClosedResourceError()
        if self._waiting is not None:
            self._waiting.cancel()
        with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
            async with self._turn:
                await self._disconnect()
            if self._own_client is not None:
                await self._own_client.aclose()
        await trio.lowlevel.checkpoint()

    async def _next(self) -> ServerSentEvent:
        while self._end is None:
            try:
                if self._connection is not None:
                    return await self._connection.receive(self._max_silence)
                await trio.sleep_until(self._due)
                await self._connect()
            except Unavailable as error:
                self._retreat(error)
                await self._disconnect()
            except (ConnectionFailed, DecodeError) as error:
                self._end = error
                await self._disconnect()
        raise self._end.with_traceback(None)

    async def _connect(self) -> None:
        """Open a connection; or, where the server says that there is no more, end."""
        if self._client is None or not self._opened:
            raise RuntimeError("an EventSource is open in its block: async with … as source")
        if not self._attempts_left:  # the last one was cancelled before there was an answer
            raise Unavailable("the request was cancelled")
        decoder = EventStreamDecoder(
            max_event_size=self._max_event_size, last_event_id=self.last_event_id
        )
        # Cancelled before there is an answer, the next call waits before it connects.
        self._due = trio.current_time() + self._reconnection.delay()
        self._attempts_left -= 1
        self._connection = await open_connection(
            self._client,
            self._request,
            decoder,
            connect_timeout=self._connect_timeout,
            known=self._answered,
        )
        self._answered = True
        if self._connection is None:
            self._end = StopAsyncIteration()
            return
        self._decoder = decoder
        self._request = self._request.at(self._connection.url)
        if not self._reconnect:
            self._attempts_left = 0

    def _retreat(self, error: Unavailable) -> None:
        """Set when to connect again; or end."""
        lost, since = self._connection, trio.current_time()
        if lost is None:
            self._answered = self._answered or error.status is not None
            self._reconnection.note(delivered=False)
        else:
            since = lost.ended_at
            if lost.decoder.retry is not None:
                self._reconnection.retry = lost.decoder.retry
            if not lost.interrupted:
                self._reconnection.note(delivered=lost.delivered, held=since - lost.opened_at)
        where = address_of(self._request.url)
        if not self._attempts_left and error.ended:
            self._end = StopAsyncIteration()
            return
        if not self._attempts_left or self._reconnection.exhausted:
            tries = self._reconnection.failures
            gave_up = f"; gave up after {tries} attempt{'' if tries == 1 else 's'}" if tries else ""
            self._end = ConnectionFailed(f"{where}: {error}{gave_up}", status=error.status)
            return
        delay = self._reconnection.delay(error.asked)
        self._due = since + delay
        _logger.info("%s: %s; connecting again in %.1f s", where, error, delay)

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()


def own_client(**options: Any) -> httpx2.AsyncClient:
    """Return a client, with these of httpx2's options.

    It keeps no cookie unless it is given ``cookies``: what a server sets would have no bound.

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
