"""One connection of a client: the request, what may answer it, and the events of its body."""

from __future__ import annotations

import reprlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import Final, final

import httpx2
import trio

from penstock.client.failures import Unavailable, failure_of, other_scheme, reason_of, status_of
from penstock.client.reconnection import retry_after
from penstock.client.request import StreamRequest, address_of, origin_of, redirected
from penstock.decode import EventStreamDecoder
from penstock.errors import ConnectionFailed
from penstock.event import ServerSentEvent
from penstock.printable import printable

__all__ = ["CLOSE_TIMEOUT", "Connection", "open_connection", "reason_of", "status_of"]

# As Chromium, Firefox and httpx2 allow.
_MAX_REDIRECTS: Final = 20

# What says "not now" below 500: Request Timeout, Too Early, Too Many Requests.
_PASSING: Final = frozenset({408, 425, 429})

# Seconds. Closing waits for nobody; should a transport do so, this ends it.
CLOSE_TIMEOUT: Final = 2.0

# Of the body of a refusal: bytes that are kept, characters that are shown, and seconds for them.
_EXCERPT: Final = 2048
_SHOWN: Final = 300
_EXCERPT_TIMEOUT: Final = 1.0

# Bytes that are decoded at a time, and seconds after which other tasks get their turn.
_SLICE: Final = 4096
_BUDGET: Final = 0.005


def _keep_alive() -> list[tuple[int, int, int]]:
    """Return the socket options of this platform by which a vanished peer is noticed.

    The kernel notices it after a minute (30 + 3 x 10 s), even if the server never sends a comment.
    macOS names the first of these times TCP_KEEPALIVE.
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


async def open_connection(
    client: httpx2.AsyncClient,
    wanted: StreamRequest,
    decoder: EventStreamDecoder,
    *,
    connect_timeout: float,
    known: bool,
) -> Connection | None:
    """Ask for an event stream; return it when its head has come, or None for "no more" (204).

    Redirects are followed, up to 20; `redirected` says what another origin gets.

    Args:
      client: what sends the request.
      wanted: what to ask for.
      decoder: decodes the events; it has the last event id.
      connect_timeout: seconds until the head of the answer, redirects included.
      known: whether there was an answer before.

    Raises:
      ConnectionFailed: a later attempt would fail, too.
      Unavailable: a later attempt may succeed.

    Cancellation:
      A checkpoint. When it is cancelled, nothing is left open.
    """
    answered: tuple[httpx2.Response, httpx2.URL] | None = None
    with trio.move_on_after(connect_timeout):
        answered = await _follow(client, wanted, decoder.last_event_id, known)
    if answered is None:
        reason = f"no answer within {connect_timeout:g} s"
        # A server of plain HTTP may wait for the rest of what is a TLS handshake.
        tls = wanted.url.scheme == "https" and not known
        if tls and (hint := await other_scheme(client, wanted.url)) is not None:
            raise ConnectionFailed(f"{address_of(wanted.url)}: {reason}; {hint}")
        raise Unavailable(reason)
    response, lasting = answered
    opened = None
    try:
        if response.status_code != HTTPStatus.NO_CONTENT:
            if (fault := _fault_of(response)) is not None:
                raise _refusal(response, fault, await _excerpt(response))
            _notice_a_vanished_peer(response)
            opened = Connection(response, lasting, decoder)
    finally:
        if opened is None:
            await _close(response)  # noqa: ASYNC102 - it shields itself, for a bounded time
    return opened


async def _follow(
    client: httpx2.AsyncClient, wanted: StreamRequest, last_event_id: str, known: bool
) -> tuple[httpx2.Response, httpx2.URL]:
    """Return what answers in the end, and the URL to ask next time.

    httpx2 would read the body of a redirect, however long it is; here it is never read.
    """
    lasting = wanted.url
    request = wanted.build(client, last_event_id)
    response = await _send(client, request, known, first=True)
    redirects = 0
    while True:
        try:
            following = redirected(request, response, client, wanted.headers)
        except ConnectionFailed:
            await _close(response)  # noqa: ASYNC120 - it shields itself, for a bounded time
            raise
        if following is None:
            return response, lasting
        await _close(response)
        status = response.status_code
        redirects += 1
        if redirects > _MAX_REDIRECTS:
            raise ConnectionFailed(
                f"{address_of(wanted.url)}: more than {_MAX_REDIRECTS} redirects", status=status
            )
        # Another origin must not get next time, asked directly, what it does not get now.
        permanent = status in (301, 308) and request.url == lasting
        same = origin_of(following.url) == origin_of(lasting)
        if permanent and same and following.method == request.method:
            lasting = following.url
        request = following
        response = await _send(client, request, known, first=False)


async def _send(
    client: httpx2.AsyncClient, request: httpx2.Request, known: bool, *, first: bool
) -> httpx2.Response:
    # A redirect's request has what authenticates it, where this may be: no client adds it again.
    auth = httpx2.USE_CLIENT_DEFAULT if first else None
    try:
        return await client.send(request, stream=True, auth=auth, follow_redirects=False)
    except httpx2.TransportError as error:
        raise await failure_of(error, client, request.url, known=known) from error
    except (httpx2.InvalidURL, ValueError) as error:
        # Of the URL, or of the target of a redirect, at which httpx2 looks though it does not
        # follow it.
        raise ConnectionFailed(
            f"{address_of(request.url)}: cannot be asked for, or redirects to what cannot: "
            f"{reason_of(error)}"
        ) from error


def _fault_of(response: httpx2.Response) -> str | None:
    """Return why an answer is no event stream; None if it is one."""
    if response.status_code != HTTPStatus.OK:
        return f"answered {status_of(response)}"
    given = response.headers.get("content-type", "")
    if given.partition(";")[0].strip().lower() != "text/event-stream":
        kind = reprlib.repr(given) if given else "no content type"
        return f"answered with {kind}, not with text/event-stream"
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        # A few bytes may hold megabytes: to decode what was not asked for has no bound.
        return f"answered in the encoding {reprlib.repr(coding)}, and asked for none"
    return None


def _refusal(response: httpx2.Response, fault: str, body: bytes) -> ConnectionFailed | Unavailable:
    status = response.status_code
    words = " ".join(body.decode(errors="replace").split())
    excerpt = f": {printable(words, limit=_SHOWN)}" if words else ""
    if status >= 500 or status in _PASSING:
        asked = retry_after(response.headers.get("retry-after", ""))
        return Unavailable(f"{fault}{excerpt}", asked=asked, status=status)
    expected = "" if status == HTTPStatus.OK else ", not 200"
    return ConnectionFailed(
        f"{address_of(response.url)}: {fault}{expected}{excerpt}", status=status, body=body
    )


async def _excerpt(response: httpx2.Response) -> bytes:
    """Return how the body of a refusal begins, if it is text."""
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
    await _close(response)
    await _end(chunks)
    return body


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
        *("_chunks", "_events", "_rest", "_response", "_yielded"),
        *("decoder", "delivered", "ended_at", "interrupted", "opened_at", "url"),
    )

    def __init__(
        self, response: httpx2.Response, url: httpx2.URL, decoder: EventStreamDecoder
    ) -> None:
        self._response = response
        self._chunks: AsyncIterator[bytes] = response.aiter_raw()
        self._events: Iterator[ServerSentEvent] = iter(())
        self._rest = b""  # what was received and is not decoded yet
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
            # A stream without events, or in the smallest pieces, is not to hold up other tasks.
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
            raise Unavailable("the stream ended", ended=True)
        self._rest = chunk

    async def aclose(self) -> None:
        """Close the connection.

        Cancellation:
          A checkpoint; the connection is closed even when it is cancelled.
        """
        await _close(self._response)
        await _end(self._chunks)


async def _end(chunks: AsyncIterator[bytes]) -> None:
    with trio.CancelScope(shield=True) as scope:
        # httpx2 reads in async generators, one in the other. Cancelled where the innermost waits,
        # each ends; only dropped, they would be left to the garbage collector.
        scope.cancel()
        with suppress(httpx2.TransportError, httpx2.StreamError):
            async for _ in chunks:
                pass


async def _close(response: httpx2.Response) -> None:
    with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
        await response.aclose()


def _notice_a_vanished_peer(response: httpx2.Response) -> None:
    network = response.extensions.get("network_stream")
    if network is None:  # a transport without a network
        return
    connected = network.get_extra_info("socket")
    with suppress(OSError):  # a socket of another kind than TCP
        for option in _keep_alive() if connected is not None else ():
            connected.setsockopt(*option)
