"""One response to the client: following redirects to it, checking it, reading its events.

Rule 1: everything has a limit: redirects, the time until a response, the excerpt of a refusal.

Rule 2: whatever is opened is closed, within a bounded time, even when its task is cancelled.
"""

from __future__ import annotations

import reprlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import Final, final

import httpx2
import trio

from penstock.client.request import StreamRequest, origin_of, redacted, redirect_request
from penstock.client.retries import (
    Unavailable,
    classify_failure,
    reason_of,
    retry_after,
    scheme_hint,
    status_of,
)
from penstock.decode import EventStreamDecoder
from penstock.errors import ConnectionFailed
from penstock.event import ServerSentEvent
from penstock.printable import printable

__all__ = [
    *("CLOSE_TIMEOUT", "MAX_REDIRECTS", "StreamResponse"),
    *("close", "open_response", "send_following"),
]

# As Chromium, Firefox and httpx2 allow.
MAX_REDIRECTS: Final = 20

# Temporary refusals below 500: Request Timeout, Too Early, Too Many Requests.
_TEMPORARY: Final = frozenset({408, 425, 429})

CLOSE_TIMEOUT: Final = 2.0  # seconds

# For the body of a refusal: bytes to keep, characters to show, and seconds to wait for them.
_EXCERPT: Final = 2048
_MAX_SHOWN: Final = 300
_EXCERPT_TIMEOUT: Final = 1.0

# Bytes to decode at a time, and seconds after which other tasks get a turn.
_SLICE: Final = 4096
_BUDGET: Final = 0.005


def _keep_alive() -> list[tuple[int, int, int]]:
    """Return this platform's socket options for detecting a vanished peer.

    The kernel then detects it after a minute (30 + 3 x 10 s), even if the server never sends a
    comment. macOS calls the first of these times TCP_KEEPALIVE.
    """
    wanted = [
        (("TCP_KEEPIDLE", "TCP_KEEPALIVE"), 30),
        (("TCP_KEEPINTVL",), 10),
        (("TCP_KEEPCNT",), 3),
    ]
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for names, value in wanted:
        option = next((getattr(socket, each) for each in names if hasattr(socket, each)), None)
        if option is not None:
            options.append((socket.IPPROTO_TCP, option, value))
    return options


async def open_response(
    client: httpx2.AsyncClient,
    wanted: StreamRequest,
    decoder: EventStreamDecoder,
    *,
    connect_timeout: float,
    answered_before: bool,
) -> StreamResponse | None:
    """Request an event stream; return it once its head has arrived, or None for "no more" (204).

    Up to 20 redirects are followed; `redirect_request` says what another origin gets.

    Args:
      client: sends the request.
      wanted: the request.
      decoder: decodes the events; it has the last event id.
      connect_timeout: seconds until the head of the response, redirects included.
      answered_before: whether the server has answered an earlier request.

    Raises:
      ConnectionFailed: a later attempt would fail, too.
      Unavailable: a later attempt may succeed.

    Cancellation:
      A checkpoint. When it is cancelled, nothing is left open.
    """
    answered: tuple[httpx2.Response, httpx2.URL] | None = None
    with trio.move_on_after(connect_timeout):
        answered = await _follow(client, wanted, decoder.last_event_id, answered_before)
    if answered is None:
        reason = f"no response within {connect_timeout:g} s"
        # A server of plain HTTP may take a TLS handshake for the beginning of a request.
        tls = wanted.url.scheme == "https" and not answered_before
        if tls and (hint := await scheme_hint(client, wanted.url)) is not None:
            raise ConnectionFailed(f"{redacted(wanted.url)}: {reason}; {hint}")
        raise Unavailable(reason)
    response, next_url = answered
    opened = None
    try:
        if response.status_code != HTTPStatus.NO_CONTENT:
            if (fault := _fault_of(response)) is not None:
                raise _refusal(response, fault, await _excerpt(response))
            _detect_vanished_peer(response)
            opened = StreamResponse(response, next_url, decoder)
    finally:
        if opened is None:
            await close(response)  # noqa: ASYNC102 - it shields itself, for a bounded time
    return opened


async def send_following(
    request: httpx2.Request,
    send: Callable[[httpx2.Request], Awaitable[httpx2.Response]],
    redirect: Callable[[httpx2.Request, httpx2.Response], httpx2.Request | None],
    note: Callable[[httpx2.Request, int, httpx2.Request], None],
) -> httpx2.Response:
    """Send a request and follow up to 20 redirects; return the final response, its body unread.

    httpx2 would read the body of a redirect, however long it is; here it is never read.

    Args:
      request: the first request.
      send: sends a request, without following redirects.
      redirect: returns the request that a response redirects to, or None if it is no redirect.
      note: called for each redirect, with the request, its response's status, the next request.

    Raises:
      ConnectionFailed: there are too many redirects, or ``redirect`` raised it.

    Cancellation:
      A checkpoint. When it is cancelled, nothing is left open.
    """
    first = request
    for _ in range(MAX_REDIRECTS + 1):
        response = await send(request)
        try:
            following = redirect(request, response)
        except ConnectionFailed:
            await close(response)  # noqa: ASYNC120 - it shields itself, for a bounded time
            raise
        if following is None:
            return response
        await close(response)
        note(request, response.status_code, following)
        request = following
    raise ConnectionFailed(
        f"{redacted(first.url)}: more than {MAX_REDIRECTS} redirects", status=response.status_code
    )


async def _follow(
    client: httpx2.AsyncClient, wanted: StreamRequest, last_event_id: str, answered_before: bool
) -> tuple[httpx2.Response, httpx2.URL]:
    """Return the final response, and the URL to request next time."""
    first = wanted.build(client, last_event_id)
    next_url = wanted.url

    def note(request: httpx2.Request, status: int, following: httpx2.Request) -> None:
        nonlocal next_url
        # Another origin must not get next time, directly, what it does not get now.
        permanent = status in (301, 308) and request.url == next_url
        same_origin = origin_of(following.url) == origin_of(next_url)
        if permanent and same_origin and following.method == request.method:
            next_url = following.url

    response = await send_following(
        first,
        lambda request: _send(client, request, answered_before, first=request is first),
        lambda request, response: redirect_request(request, response, client, wanted.headers),
        note,
    )
    return response, next_url


async def _send(
    client: httpx2.AsyncClient, request: httpx2.Request, answered_before: bool, *, first: bool
) -> httpx2.Response:
    # A redirect's request has its credentials, where it may have any: no client adds them again.
    auth = httpx2.USE_CLIENT_DEFAULT if first else None
    try:
        return await client.send(request, stream=True, auth=auth, follow_redirects=False)
    except httpx2.TransportError as error:
        raise await classify_failure(
            error, client, request.url, answered_before=answered_before
        ) from error
    except (httpx2.InvalidURL, ValueError) as error:
        # Of the URL, or of a redirect's target, which httpx2 looks at though it does not follow it.
        raise ConnectionFailed(
            f"{redacted(request.url)}: cannot be requested, or redirects to an invalid URL: "
            f"{reason_of(error)}"
        ) from error


def _fault_of(response: httpx2.Response) -> str | None:
    """Return why a response is not an event stream; None if it is one."""
    if response.status_code != HTTPStatus.OK:
        return f"answered {status_of(response)}"
    given = response.headers.get("content-type", "")
    if given.partition(";")[0].strip().lower() != "text/event-stream":
        kind = reprlib.repr(given) if given else "no content type"
        return f"answered with {kind} instead of text/event-stream"
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        # A few bytes can hold megabytes.
        return f"answered with the encoding {reprlib.repr(coding)}, though none was accepted"
    return None


def _refusal(response: httpx2.Response, fault: str, body: bytes) -> ConnectionFailed | Unavailable:
    status = response.status_code
    words = " ".join(body.decode(errors="replace").split())
    excerpt = f": {printable(words, limit=_MAX_SHOWN)}" if words else ""
    if status >= 500 or status in _TEMPORARY:
        asked = retry_after(response.headers.get("retry-after", ""))
        return Unavailable(f"{fault}{excerpt}", asked=asked, status=status)
    expected = "" if status == HTTPStatus.OK else ", not 200"
    return ConnectionFailed(
        f"{redacted(response.url)}: {fault}{expected}{excerpt}", status=status, body=body
    )


async def _excerpt(response: httpx2.Response) -> bytes:
    """Return the beginning of a refusal's body, if it is text."""
    kind = response.headers.get("content-type", "text/plain").partition(";")[0].strip().lower()
    coded = response.headers.get("content-encoding", "identity").strip().lower() != "identity"
    textual = kind.startswith("text/") or kind.endswith(("json", "xml"))
    if coded or not textual:
        return b""
    body = b""
    chunks = response.aiter_raw()
    with trio.move_on_after(_EXCERPT_TIMEOUT), suppress(httpx2.TransportError):
        async for chunk in chunks:
            body += chunk[: _EXCERPT - len(body)]
            if len(body) >= _EXCERPT:
                break
    await close(response, chunks)
    return body


@final
class StreamResponse:
    """The body of one response, read as events.

    Attributes:
      url: what to request next time: a permanent redirect within the origin is remembered.
      decoder: decodes the body; it has the last event id.
      opened_at: when the head of the response arrived.
      ended_at: when the last read returned.
      delivered: whether an event has arrived.
      interrupted: whether a read was cancelled.
    """

    __slots__ = (
        *("_chunks", "_events", "_rest", "_response", "_yielded"),
        *("decoder", "delivered", "ended_at", "interrupted", "opened_at", "url"),
    )

    def __init__(
        self, response: httpx2.Response, url: httpx2.URL, decoder: EventStreamDecoder
    ) -> None:
        self._response = response
        self._chunks: AsyncIterator[bytes] = response.aiter_raw()
        self._events: Iterator[ServerSentEvent] = iter(())
        self._rest = b""  # received, but not decoded yet
        self._yielded = trio.current_time()
        self.url: httpx2.URL = url
        self.decoder: EventStreamDecoder = decoder
        self.opened_at: float = trio.current_time()
        self.ended_at: float = self.opened_at
        self.delivered: bool = False
        self.interrupted: bool = False

    async def receive(self, max_silence: float) -> ServerSentEvent:
        """Return the next event.

        Raises:
          Unavailable: there will be none: the stream ended, broke, or was silent for too long; or
            an earlier call was cancelled.
          DecodeError: the stream cannot be decoded further.

        Cancellation:
          A checkpoint if it waits. Atomic: either an event is returned or nothing was taken. But
          httpx2 closes a connection when a read from it is cancelled: no more events follow.
        """
        while True:
            for event in self._events:
                self.delivered = True
                return event
            # A stream without events, or in tiny pieces, must not hold up other tasks.
            if trio.current_time() - self._yielded > _BUDGET:
                await trio.lowlevel.checkpoint()
                self._yielded = trio.current_time()
            if self._rest:
                part, self._rest = self._rest[:_SLICE], self._rest[_SLICE:]
                self._events = self.decoder.feed(part)
                continue
            await self._read(max_silence)

    async def _read(self, max_silence: float) -> None:
        if self.interrupted:
            raise Unavailable("reading was cancelled")
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
            raise Unavailable(f"no data for {max_silence:g} s")
        if chunk is None:
            raise Unavailable("the stream ended", ended=True)
        self._rest = chunk

    async def aclose(self) -> None:
        """Close the connection.

        Cancellation:
          A checkpoint; the connection is closed even when it is cancelled.
        """
        await close(self._response, self._chunks)


async def close(
    resource: httpx2.Response | httpx2.AsyncClient, chunks: AsyncIterator[bytes] | None = None
) -> None:
    """Close a response, however much of it was read, or a client.

    Args:
      resource: the response or client.
      chunks: what reads the response's body, if anything did. httpx2 reads in nested async
        generators. Cancelled where the innermost waits, each ends; only dropped, they would be left
        to the garbage collector.

    Cancellation:
      Shielded. Closing should not wait for the network; if it does, it ends after 2 s.
    """
    with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
        await resource.aclose()
    if chunks is not None:
        with trio.CancelScope(shield=True) as scope:
            scope.cancel()
            with suppress(httpx2.TransportError, httpx2.StreamError):
                async for _ in chunks:
                    pass


def _detect_vanished_peer(response: httpx2.Response) -> None:
    network = response.extensions.get("network_stream")
    if network is None:  # a transport without a network
        return
    connected = network.get_extra_info("socket")
    with suppress(OSError):  # a socket of another kind than TCP
        for option in _keep_alive() if connected is not None else ():
            connected.setsockopt(*option)
