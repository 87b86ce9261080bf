"""One connection of a client: the request, what may answer it, and the events of its body."""

from __future__ import annotations

import errno
import os
import reprlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import Final, final

import httpx2
import trio

from penstock.client.reconnection import retry_after
from penstock.client.url import address_of
from penstock.decode import EventStreamDecoder
from penstock.errors import ConnectionFailed
from penstock.event import ServerSentEvent

__all__ = [
    "CLOSE_TIMEOUT",
    "Connection",
    "Unavailable",
    "open_connection",
    "reason_of",
    "status_of",
]

# As Chromium, Firefox and httpx2 allow.
_MAX_REDIRECTS: Final = 20

# What says "not now" below 500: Request Timeout, Too Early, Too Many Requests.
_PASSING: Final = frozenset({408, 425, 429})

# Seconds. Closing waits for nobody; should a transport do so, this ends it.
CLOSE_TIMEOUT: Final = 2.0

# A peer that vanished without a packet is noticed after a minute (30 + 3 x 10 s), by the kernel,
# even if the server never sends a comment.
_KEEP_ALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)


class Unavailable(Exception):
    """There are no events now, and there may be later.

    Attributes:
      asked: seconds that the server asked to wait before the next attempt.
      status: the HTTP status that says so, if one does.
    """

    def __init__(self, reason: str, *, asked: float = 0.0, status: int | None = None) -> None:
        super().__init__(reason)
        self.asked: float = asked
        self.status: int | None = status


async def open_connection(
    client: httpx2.AsyncClient,
    url: httpx2.URL,
    headers: httpx2.Headers,
    decoder: EventStreamDecoder,
) -> Connection | None:
    """Ask for an event stream; return it when its head has come, or None for "no more" (204).

    Redirects are followed, up to 20. What a redirect to another origin must not get, such as
    Authorization, is taken off by httpx2.

    Raises:
      ConnectionFailed: a later attempt would fail, too.
      Unavailable: a later attempt may succeed.

    Cancellation:
      A checkpoint. When it is cancelled, nothing is left open.
    """
    try:
        response, lasting = await _follow(client, url, headers)
    except (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol) as error:
        raise ConnectionFailed(f"{address_of(url)}: cannot be asked for: {error}") from error
    except httpx2.TransportError as error:
        raise Unavailable(reason_of(error)) from error
    opened = None
    try:
        if (refusal := _refusal_of(response)) is not None:
            raise refusal
        if response.status_code != HTTPStatus.NO_CONTENT:
            _notice_a_vanished_peer(response)
            opened = Connection(response, lasting, decoder)
    finally:
        if opened is None:
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await response.aclose()
    return opened


async def _follow(
    client: httpx2.AsyncClient, url: httpx2.URL, headers: httpx2.Headers
) -> tuple[httpx2.Response, httpx2.URL]:
    """Return what answers in the end, and the URL to ask next time.

    httpx2 would read the body of a redirect, however long it is; here it is never read.
    """
    lasting = url
    # Deadlines are the caller's scopes.
    request = client.build_request("GET", url, headers=headers, timeout=None)
    response = await client.send(request, stream=True, follow_redirects=False)
    redirects = 0
    while (following := response.next_request) is not None:
        await _close(response)
        status = response.status_code
        redirects += 1
        if redirects > _MAX_REDIRECTS:
            raise ConnectionFailed(
                f"{address_of(url)}: more than {_MAX_REDIRECTS} redirects", status=status
            )
        # Another origin must not get next time, asked directly, what httpx2 does not send it now.
        permanent = status in (301, 308) and request.url == lasting
        if permanent and _origin(following.url) == _origin(lasting):
            lasting = following.url
        request = following
        # Its headers have what authenticates it, where this may be: no client adds it again.
        response = await client.send(request, stream=True, auth=None, follow_redirects=False)
    return response, lasting


def _refusal_of(response: httpx2.Response) -> ConnectionFailed | Unavailable | None:
    """Return why an answer is neither an event stream nor the end of one; None if it is one."""
    status, where = response.status_code, address_of(response.url)
    if status == HTTPStatus.NO_CONTENT:
        return None
    if status != HTTPStatus.OK:
        said = f"answered {status_of(response)}"
        if status >= 500 or status in _PASSING:
            asked = retry_after(response.headers.get("retry-after", ""))
            return Unavailable(said, asked=asked, status=status)
        return ConnectionFailed(f"{where}: {said}, not 200", status=status)
    given = response.headers.get("content-type", "")
    if given.partition(";")[0].strip().lower() != "text/event-stream":
        kind = reprlib.repr(given) if given else "no content type"
        return ConnectionFailed(
            f"{where}: answered with {kind}, not with text/event-stream", status=status
        )
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        # A few bytes may hold megabytes: to decode what was not asked for has no bound.
        return ConnectionFailed(
            f"{where}: answered in the encoding {reprlib.repr(coding)}, and asked for none",
            status=status,
        )
    return None


@final
class Connection:
    """The body of one answer, read as events.

    Attributes:
      url: what to ask for next time: a permanent redirect within the origin is remembered.
      decoder: what decodes it; it has the last event id.
      opened_at: when the head of the answer had come.
      ended_at: when it last came back from reading.
      delivered: whether an event has come.
      interrupted: whether it was cancelled while it read.
    """

    __slots__ = (
        *("_chunks", "_events", "_response"),
        *("decoder", "delivered", "ended_at", "interrupted", "opened_at", "url"),
    )

    def __init__(
        self, response: httpx2.Response, url: httpx2.URL, decoder: EventStreamDecoder
    ) -> None:
        self._response = response
        self._chunks: AsyncIterator[bytes] = response.aiter_raw()
        self._events: Iterator[ServerSentEvent] = iter(())
        self.url: httpx2.URL = url
        self.decoder: EventStreamDecoder = decoder
        self.opened_at: float = trio.current_time()
        self.ended_at: float = self.opened_at
        self.delivered: bool = False
        self.interrupted: bool = False

    async def receive(self, max_silence: float) -> ServerSentEvent:
        """Return the next event.

        Raises:
          Unavailable: there will be none: the stream ended, broke, or was silent for so long; or a
            call before this one was cancelled.
          DecodeError: the stream cannot be read further.

        Cancellation:
          A checkpoint where it waits. An event is returned or nothing was taken; but httpx2 closes
          a connection whose reading is cancelled, so that there is nothing more to receive.
        """
        while True:
            for event in self._events:
                self.delivered = True
                return event
            if self.interrupted:
                raise Unavailable("the reading was cancelled")
            self.interrupted = True
            try:
                with trio.move_on_after(max_silence) as silence:
                    chunk = await anext(self._chunks, None)
            except httpx2.TransportError as error:
                self.interrupted = False
                raise Unavailable(reason_of(error)) from error
            finally:
                self.ended_at = trio.current_time()
            self.interrupted = False
            if silence.cancelled_caught:
                raise Unavailable(f"nothing came for {max_silence:g} s")
            if chunk is None:
                raise Unavailable("the stream ended")
            self._events = self.decoder.feed(chunk)

    async def aclose(self) -> None:
        """Close the connection.

        Cancellation:
          A checkpoint; the connection is closed even when it is cancelled.
        """
        await _close(self._response)
        with trio.CancelScope(shield=True) as scope:
            # httpx2 reads in async generators, one in the other. Cancelled where the innermost
            # waits, each ends; only dropped, they would be left to the garbage collector.
            scope.cancel()
            with suppress(httpx2.TransportError, httpx2.StreamError):
                async for _ in self._chunks:
                    pass


async def _close(response: httpx2.Response) -> None:
    with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
        await response.aclose()


def status_of(response: httpx2.Response) -> str:
    """Return an answer's status with its name, which many servers leave out."""
    status = response.status_code
    phrase = response.reason_phrase or httpx2.codes.get_reason_phrase(status)
    return f"{status} {phrase}".rstrip()


def reason_of(error: BaseException) -> str:
    """Return what went wrong in one line: the operating system's words where there are some."""
    words, cause = str(error), _cause_of(error)
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            number = 0 if isinstance(cause, ssl.SSLError) else cause.errno or 0
            words = os.strerror(number) if number in errno.errorcode else cause.strerror
        cause = _cause_of(cause)
    return " ".join(words.split()).rstrip(".") or type(error).__name__


def _cause_of(error: BaseException) -> BaseException | None:
    if isinstance(error, BaseExceptionGroup):
        return error.exceptions[-1]
    return error.__cause__ or error.__context__  # httpcore raises `from None`


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _notice_a_vanished_peer(response: httpx2.Response) -> None:
    network = response.extensions.get("network_stream")
    if network is None:  # a transport without a network
        return
    connected = network.get_extra_info("socket")
    with suppress(OSError):  # a socket of another kind than TCP
        for option in _KEEP_ALIVE if connected is not None else ():
            connected.setsockopt(*option)
