"""A client: the events of one URL, over as many connections as it takes.

Rule 1: it does what a browser's EventSource does. A stream that ends or breaks is opened again,
after the reconnection time, with the id of the last event; 204 ends it, and an answer that no later
attempt will change is an error.

Rule 2: nothing runs while nobody iterates. There is no task behind a source: a consumer that falls
behind is, to the server, a client that does not read.

Rule 3: everything has a bound: an event, the wait for an answer, redirects, and every delay.

Spec: https://html.spec.whatwg.org/multipage/server-sent-events.html#sse-processing-model
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import TracebackType
from typing import Final, Self, final

import httpx2
import trio

from penstock.client.connection import CLOSE_TIMEOUT, Connection, Unavailable, open_connection
from penstock.client.reconnection import Reconnection
from penstock.client.url import address_of, url_of
from penstock.decode import EventStreamDecoder
from penstock.errors import ConnectionFailed, DecodeError
from penstock.event import ServerSentEvent

__all__ = ["EventSource", "SourceState"]

_logger = logging.getLogger("penstock.client")

_HEADERS: Final = {
    "Accept": "text/event-stream",
    "Accept-Encoding": "identity",  # what compresses a stream holds events back
    "Cache-Control": "no-store",
}

# Milliseconds, as in Chromium. The specification wants "a few seconds".
DEFAULT_RETRY: Final = 3000

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
    the server sent as ``retry:``), with the header ``Last-Event-ID``. That time doubles with each
    attempt that fails after the first, up to ``max_delay``; at random, up to half of it is added,
    so that the clients of one server do not come back at once. A connection that delivered an
    event, or that held for ``max_delay``, resets it.

    204 ends the iteration: it is how a server says that there is no more. Other than in a browser,
    408, 425, 429 and 5xx are a failed attempt and not the end: a browser has a person who reloads
    the page once the server is back, a program has nobody. What Retry-After asks for is waited
    for, up to an hour. Any other status, and any other content type, are errors.

    Args:
      url: what to ask for.
      headers: what to send besides ``Accept``, ``Accept-Encoding`` and ``Cache-Control``.
      last_event_id: where to go on from; ``""`` is wherever the server begins.
      retry: the reconnection time until the server names one, in milliseconds, as on the wire.
      max_delay: seconds to which the reconnection time may grow; a longer one that the server asks
        for counts all the same, up to an hour.
      jitter: how much of a delay is added to it at the most, at random; 0 adds nothing.
      connect_timeout: seconds for an attempt, from looking up the host to the head of the answer.
      max_silence: seconds without a byte after which a connection is taken for dead and opened
        again. Servers send a comment now and then to show that they are there, Penstock every 15
        s: three times that is good. None waits until the kernel finds that the peer does not
        answer, a minute, which a proxy may hide for ever.
      max_attempts: how many attempts in a row may fail; None is no limit.
      max_event_size: the most bytes an event may have, as in `penstock.EventStreamDecoder`.
      client: what asks, with its connections, cookies, authentication and proxies; it is not
        closed. Its own timeouts and its way with redirects do not count.

    Raises:
      ValueError: an argument is out of its range.
      InvalidEvent: no event could have had that ``last_event_id``.

    Resource handling:
      One connection, closed with the block, and no task. Each that is lost is logged to the logger
      ``penstock.client``, with when the next is opened.
    """

    def __init__(
        self,
        url: str | httpx2.URL,
        *,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
        last_event_id: str = "",
        retry: int = DEFAULT_RETRY,
        max_delay: float = DEFAULT_MAX_DELAY,
        jitter: float = 0.5,
        connect_timeout: float = DEFAULT_CONNECT_TIMEOUT,
        max_silence: float | None = None,
        max_attempts: int | None = None,
        max_event_size: int = 2**20,
        client: httpx2.AsyncClient | None = None,
    ) -> None:
        silence = math.inf if max_silence is None else max_silence
        for option, seconds in (("connect_timeout", connect_timeout), ("max_silence", silence)):
            if not seconds > 0:
                raise ValueError(f"{option} must be a number of seconds above 0: {seconds}")
        self._url = url_of(url)
        self._headers = httpx2.Headers(headers)
        self._reconnection = Reconnection(
            retry=retry, max_delay=max_delay, jitter=jitter, max_attempts=max_attempts
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
        return f"<EventSource {address_of(self._url)} {self.state}{last}>"

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
        if self._opened or self._end is not None:
            raise RuntimeError("an EventSource is opened once")
        self._opened = True
        if self._client is None:
            self._client = self._own_client = httpx2.AsyncClient()
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
          ConnectionFailed: an answer that no later attempt will change, or too many failures.
          DecodeError: an event is larger than ``max_event_size``.
          trio.ClosedResourceError: the source was closed.
          trio.BusyResourceError: another task is waiting for an event.

        Cancellation:
          A checkpoint. Atomic: either an event is returned or nothing was taken. But cancelled
          while it waits for the server, it costs the connection, and the next call opens another
          after the reconnection time: who waits for something else, too, does so in another task.
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
        decoder = EventStreamDecoder(
            max_event_size=self._max_event_size, last_event_id=self.last_event_id
        )
        headers = httpx2.Headers(_HEADERS)
        headers.update(self._headers)
        # Spec: #the-last-event-id-header: in UTF-8, and only "if the last event ID string is not
        # the empty string". White space around a header's value is not part of it.
        if last := self.last_event_id.encode().strip(b" \t"):
            headers.update([(b"Last-Event-ID", last)])
        # Cancelled before there is an answer, the next call waits before it connects.
        self._due = trio.current_time() + self._reconnection.delay()
        with trio.move_on_after(self._connect_timeout) as limit:
            self._connection = await open_connection(self._client, self._url, headers, decoder)
        if limit.cancelled_caught:
            raise Unavailable(f"no answer within {self._connect_timeout:g} s")
        if self._connection is None:
            self._end = StopAsyncIteration()
        else:
            self._decoder, self._url = decoder, self._connection.url

    def _retreat(self, error: Unavailable) -> None:
        """Set when to connect again; or give up."""
        lost, since = self._connection, trio.current_time()
        if lost is None:
            self._reconnection.note(delivered=False)
        else:
            since = lost.ended_at
            if lost.decoder.retry is not None:
                self._reconnection.retry = lost.decoder.retry
            if not lost.interrupted:
                self._reconnection.note(delivered=lost.delivered, held=since - lost.opened_at)
        where = address_of(self._url)
        if self._reconnection.exhausted:
            tries = self._reconnection.failures
            self._end = ConnectionFailed(
                f"{where}: {error}; gave up after {tries} attempt{'' if tries == 1 else 's'}",
                status=error.status,
            )
            return
        delay = self._reconnection.delay(error.asked)
        self._due = since + delay
        _logger.info("%s: %s; connecting again in %.1f s", where, error, delay)

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()
