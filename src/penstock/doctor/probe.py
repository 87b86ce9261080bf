"""Probe a stream: request it as a browser does, hold it, reconnect with an id, record everything.

Rule 1: everything has a limit: the wait for a response, redirects, the time that a stream is held,
and what is kept of it.

Rule 2: the `Observation` is complete at any time, so that an interruption loses nothing.

Rule 3: a request that may start work is made once. Only a GET is repeated.
"""

from __future__ import annotations

import math
from enum import Enum, auto
from typing import Any, Final, final

import httpx2
import trio

from penstock.client.event_source import default_client
from penstock.client.request import redacted, redirect_request
from penstock.client.response import MAX_REDIRECTS, close, send_following
from penstock.client.retries import reason_of
from penstock.doctor.body import Examination, Unpacker, can_unpack, codings_of
from penstock.doctor.observation import (
    Answer,
    Observation,
    Redirect,
    Resumption,
    StreamEnd,
    resume_from,
)
from penstock.errors import ConnectionFailed

__all__ = ["NoResponse", "Requester", "Why", "browser_client", "observe"]


class Why(Enum):
    """Why there was no response."""

    UNREACHABLE = auto()
    """The request could not be sent."""
    SILENT = auto()
    """The server did not respond in time."""
    LOOP = auto()
    """There were too many redirects."""
    BROKEN = auto()
    """What arrived was not a response."""


class NoResponse(Exception):
    """There was no response; the message says why."""

    def __init__(self, why: Why, reason: str) -> None:
        super().__init__(reason)
        self.why: Why = why


def browser_client(cookies: httpx2.Cookies | None = None) -> httpx2.AsyncClient:
    """Return an HTTP client that offers HTTP/2 over TLS, and leaves deadlines to its caller.

    Raises:
      NoResponse: the environment names a proxy or certificates that cannot be used.
    """
    try:
        return default_client(http2=True, timeout=None, cookies=httpx2.Cookies(cookies))
    except ConnectionFailed as error:
        raise NoResponse(Why.UNREACHABLE, str(error)) from error


@final
class Requester:
    """Requests one URL.

    Args:
      client: sends the requests.
      url: the URL of the first request; redirects lead to others.
      method: the method.
      content: the body.

    Attributes:
      sent: whether the last request was sent; before that, no server can be blamed for silence.
    """

    def __init__(
        self,
        client: httpx2.AsyncClient,
        url: httpx2.URL,
        *,
        method: str = "GET",
        content: bytes | None = None,
    ) -> None:
        self._client = client
        self._url = url
        self._method = method
        self._content = content
        self._requested = redacted(url)
        self._sent_at = -math.inf
        self.sent: bool = False

    async def request(
        self, headers: httpx2.Headers, limit: float, redirects: list[Redirect]
    ) -> tuple[httpx2.Response, Answer]:
        """Return the final response, and its head; record the redirects that led to it.

        Raises:
          NoResponse: there was none within ``limit`` seconds.

        Cancellation:
          A checkpoint. When it is cancelled, nothing is left open.
        """
        request = self._client.build_request(
            self._method, self._url, headers=headers, content=self._content
        )

        def note(request: httpx2.Request, status: int, following: httpx2.Request) -> None:
            source, target = redacted(request.url), redacted(following.url)
            kept = following.method == request.method
            redirects.append(Redirect(status, source, target, kept))

        try:
            with trio.move_on_after(limit):
                response = await send_following(
                    request,
                    self._send,
                    lambda request, response: redirect_request(
                        request, response, self._client, headers, as_browser=True
                    ),
                    note,
                )
                return response, self._answer_of(response)
        except ConnectionFailed as error:
            why = Why.LOOP if len(redirects) > MAX_REDIRECTS else Why.BROKEN
            raise NoResponse(why, f"no response: {error}") from error
        except (httpx2.ConnectError, httpx2.ProxyError) as error:
            reason = f"cannot connect to {self._requested}: {reason_of(error)}"
            raise NoResponse(Why.UNREACHABLE, reason) from error
        except (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol, UnicodeError) as error:
            reason = f"{self._requested} cannot be requested: {reason_of(error)}"
            raise NoResponse(Why.UNREACHABLE, reason) from error
        except (httpx2.TransportError, httpx2.InvalidURL, ValueError) as error:
            reason = f"no response from {self._requested}: {reason_of(error)}"
            raise NoResponse(Why.BROKEN, reason) from error
        if not self.sent:
            reason = f"cannot connect to {self._requested} within {limit:g} s"
            raise NoResponse(Why.UNREACHABLE, reason)
        raise NoResponse(Why.SILENT, f"no response from {self._requested} within {limit:g} s")

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        request.extensions["trace"] = self._trace
        self._requested = redacted(request.url)
        self.sent = False
        return await self._client.send(request, stream=True, auth=None, follow_redirects=False)

    async def _trace(self, event: str, _: dict[str, Any]) -> None:
        if event.endswith(".send_request_headers.complete"):
            self.sent, self._sent_at = True, trio.current_time()

    def _answer_of(self, response: httpx2.Response) -> Answer:
        now = trio.current_time()
        return Answer(
            status=response.status_code,
            phrase=response.reason_phrase or httpx2.codes.get_reason_phrase(response.status_code),
            headers={name.lower(): value for name, value in response.headers.items()},
            version=response.http_version,
            tls=response.url.scheme == "https",
            address=redacted(response.url),
            waited=now - self._sent_at,
            opened_at=now,
            method=response.request.method,
        )


_HEADERS: Final = {
    "Accept": "text/event-stream",
    "Accept-Encoding": "gzip, deflate, br, zstd",  # as browsers do
    "Cache-Control": "no-store",
    "User-Agent": "penstock-doctor",
}

# Seconds for the second connection. A history is sent at once; a live stream may be slow.
_RESUME_LIMIT: Final = 10.0


async def observe(
    url: httpx2.URL, seen: Observation, *, headers: httpx2.Headers | None = None
) -> None:
    """Request a URL, and record in ``seen`` what happens.

    Args:
      url: the URL.
      seen: the record; its ``hold``, ``origin``, ``method`` and ``content`` say what to do.
      headers: additional headers, which replace the doctor's own.

    Cancellation:
      A checkpoint. When it is cancelled, ``seen`` has what was observed so far, and nothing is left
      open.
    """
    sent = httpx2.Headers(_HEADERS)
    if seen.origin is not None:
        sent["Origin"] = seen.origin
    sent.update(headers or {})
    seen.credentials = "cookie" in sent
    seen.stopped = True
    cookies = await _hold(url, sent, seen)
    if seen.is_get and seen.body is not None and (pair := resume_from(seen.body)) is not None:
        # It needs another client: over HTTP/2, the first one's connection would still carry the
        # first stream, which httpx2 does not reset.
        async with browser_client(cookies) as client:
            requester = Requester(client, url, method=seen.method, content=seen.content)
            await _resume(requester, sent, seen, *pair)
    seen.stopped = False


async def _hold(
    url: httpx2.URL, headers: httpx2.Headers, seen: Observation
) -> httpx2.Cookies | None:
    """Request the stream and hold it for the given time; return the cookies that were set."""
    requester = None
    try:
        async with browser_client() as client:
            requester = Requester(client, url, method=seen.method, content=seen.content)
            response = await _open(requester, headers, seen)
            if response is not None and seen.answer is not None:
                await _watch(response, seen.answer, seen)
            return client.cookies
    except NoResponse as error:
        seen.failure = str(error)
        seen.timed_out = error.why is Why.SILENT
        seen.too_many_redirects = error.why is Why.LOOP
        nothing_sent = (requester is None or not requester.sent) and not seen.redirects
        seen.unreachable = nothing_sent and error.why is Why.UNREACHABLE and seen.answer is None
        return None


async def _open(
    requester: Requester, headers: httpx2.Headers, seen: Observation
) -> httpx2.Response | None:
    """Return the response if it is a stream, in an encoding that can be read if possible.

    Raises:
      NoResponse: there was none.
    """
    response, seen.answer = await requester.request(headers, seen.hold, seen.redirects)
    seen.coding = seen.answer.coding
    seen.readable = can_unpack(seen.coding)
    if seen.answer.is_stream and not seen.readable and seen.is_get:
        # What a browser gets is known now; to examine the content, request it uncompressed.
        await close(response)
        plain = httpx2.Headers(headers)
        plain["Accept-Encoding"] = "identity"
        response, seen.answer = await requester.request(plain, seen.hold, [])
        seen.readable = can_unpack(seen.answer.coding)
    if seen.answer.is_stream:
        return response
    await close(response)
    return None


async def _watch(response: httpx2.Response, answer: Answer, seen: Observation) -> None:
    seen.body = Examination(answer.opened_at)
    try:
        await _read(response, seen.body, seen.hold)
        seen.end = StreamEnd.HELD
    except _Ended as end:
        seen.end, seen.end_reason = end.how, str(end)
    finally:
        seen.ended_at = trio.current_time()
        if seen.end is None:
            seen.end = StreamEnd.STOPPED


async def _resume(
    requester: Requester,
    headers: httpx2.Headers,
    seen: Observation,
    last: str,
    expected: str | None,
) -> None:
    """Reconnect with the id of an event, and record the first event that arrives."""
    tried = seen.resumption = Resumption(last, expected)
    again = httpx2.Headers(headers)
    if last_bytes := last.encode().strip(b" \t"):
        again.update([(b"Last-Event-ID", last_bytes)])
    again["Accept-Encoding"] = "identity"
    limit = min(seen.hold, _RESUME_LIMIT)
    began = trio.current_time()
    body = Examination(began)
    try:
        response, answer = await requester.request(again, limit, [])
        tried.answer = answer
        if answer.is_stream and can_unpack(answer.coding):
            await _read(response, body, limit, first_id=True)
        else:
            await close(response)
    except NoResponse as error:
        tried.failure = str(error)
    except _Ended:
        pass
    finally:
        tried.first = body.first_id
        tried.waited = trio.current_time() - began
    tried.done = True


class _Ended(Exception):
    """A body ended; the message is the error, if there was one."""

    def __init__(self, how: StreamEnd, reason: str = "") -> None:
        super().__init__(reason)
        self.how: StreamEnd = how


async def _read(
    response: httpx2.Response, body: Examination, limit: float, *, first_id: bool = False
) -> None:
    """Examine the body until the time is up, or until an event has an id.

    Raises:
      _Ended: the body ended before.
    """
    unpacker = Unpacker(codings_of(response.headers.get("content-encoding", "")))
    chunks = response.aiter_raw()
    try:
        with trio.move_on_after(limit):
            async for chunk in chunks:
                at, size = trio.current_time(), len(chunk)
                body.feed(b"", at, size=size)
                for piece in unpacker.unpack(chunk):
                    body.feed(piece, at, size=0)
                    await trio.lowlevel.checkpoint()  # httpx2 has none while there is more
                if first_id and body.first_id is not None:
                    return
            raise _Ended(_kind_of_end(response))
    except httpx2.TransportError as error:
        raise _Ended(StreamEnd.BROKEN, reason_of(error)) from error
    except ValueError as error:
        raise _Ended(StreamEnd.BROKEN, f"the data is not compressed: {error}") from error
    finally:
        # ASYNC102: it shields itself, for a bounded time.
        await close(response, chunks)  # noqa: ASYNC102


def _kind_of_end(response: httpx2.Response) -> StreamEnd:
    """Return how a body ended that ended without an error."""
    framed = {"transfer-encoding", "content-length"} & {name.lower() for name in response.headers}
    whole = framed or not response.http_version.startswith("HTTP/1")
    return StreamEnd.ENDED if whole else StreamEnd.CLOSED
