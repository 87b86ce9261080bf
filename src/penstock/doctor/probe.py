"""Probe a stream: request it as a browser does, hold it, reconnect with an id, record it all.

Rule 1: everything has a bound: the wait for an answer, redirects, the time that a stream is held,
and what is kept of it.

Rule 2: the `Observation` is complete up to the present at any time, so that an interruption loses
nothing.

Rule 3: a request that may start work is made once. Only GET is asked again.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import suppress
from enum import Enum, auto
from typing import Any, Final, final

import httpx2
import trio

from penstock.client.connection import CLOSE_TIMEOUT, reason_of
from penstock.client.event_source import own_client
from penstock.client.request import address_of
from penstock.doctor.body import Examination
from penstock.doctor.decompression import Unpacker, can_unpack, codings_of
from penstock.doctor.observation import Answer, Observation, Redirect, Resumption, StreamEnd
from penstock.doctor.resume_checks import to_send
from penstock.errors import ConnectionFailed

__all__ = ["Asker", "NoAnswer", "Why", "client_like_a_browsers", "close", "observe"]

# As Chromium and Firefox allow.
_MAX_REDIRECTS: Final = 20


class Why(Enum):
    """Why there was no answer."""

    UNREACHABLE = auto()
    """There was nobody to ask, or no way to ask for it."""
    SILENT = auto()
    """Nothing came in time to what had been asked."""
    LOOP = auto()
    """There were redirects, and no end of them."""
    BROKEN = auto()
    """What came was no answer."""


class NoAnswer(Exception):
    """There was no answer; the message says why, for people."""

    def __init__(self, why: Why, said: str) -> None:
        super().__init__(said)
        self.why: Why = why


def client_like_a_browsers(cookies: httpx2.Cookies | None = None) -> httpx2.AsyncClient:
    """Return a client that offers HTTP/2 over TLS, and leaves deadlines to its caller.

    Raises:
      NoAnswer: the environment does not let it: SSL_CERT_FILE, or the address of a proxy, is wrong.
    """
    try:
        return own_client(http2=True, timeout=None, cookies=httpx2.Cookies(cookies))
    except ConnectionFailed as error:
        raise NoAnswer(Why.UNREACHABLE, str(error)) from error


@final
class Asker:
    """Requests of one URL.

    Args:
      client: sends them.
      url: of the first request; redirects lead to others.
      method: of the request.
      content: the request's body.

    Attributes:
      asked: whether the last request was sent; before that, nobody can be blamed for silence.
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
        self._sent_at = -math.inf
        self.asked: bool = False

    async def ask(
        self, headers: httpx2.Headers, limit: float, redirects: list[Redirect]
    ) -> tuple[httpx2.Response, Answer]:
        """Return the answer that redirects lead to; what sent elsewhere is added to them.

        Raises:
          NoAnswer: there was none within so many seconds.

        Cancellation:
          A checkpoint. When it is cancelled, nothing is left open.
        """
        request = self._client.build_request(
            self._method, self._url, headers=headers, content=self._content
        )
        try:
            with trio.move_on_after(limit):
                response = await self._send(request)
                while (following := response.next_request) is not None:
                    await close(response)
                    source, target = address_of(request.url), address_of(following.url)
                    kept = following.method == request.method
                    redirects.append(Redirect(response.status_code, source, target, kept))
                    if len(redirects) > _MAX_REDIRECTS:
                        said = f"no answer, but more than {_MAX_REDIRECTS} redirects"
                        raise NoAnswer(Why.LOOP, said)
                    own = request.headers.get("Cookie")
                    if own and "Cookie" not in following.headers and _alike(request, following):
                        following.headers["Cookie"] = own  # httpx2 takes it off at any redirect
                    request = following
                    response = await self._send(request)
                if response.has_redirect_location:
                    await close(response)
                    request.url.join(response.headers["Location"])  # which raises: it is no URL
                    said = f"no answer from {address_of(request.url)}: its Location is no URL"
                    raise NoAnswer(Why.BROKEN, said)
                return response, self._answer_of(response, request.method)
        except (httpx2.ConnectError, httpx2.ProxyError) as error:
            said = f"cannot connect to {address_of(request.url)}: {reason_of(error)}"
            raise NoAnswer(Why.UNREACHABLE, said) from error
        except (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol, UnicodeError) as error:
            said = f"{address_of(request.url)} cannot be asked for: {reason_of(error)}"
            raise NoAnswer(Why.UNREACHABLE, said) from error
        except (httpx2.TransportError, httpx2.InvalidURL, ValueError) as error:
            said = f"no answer from {address_of(request.url)}: {reason_of(error)}"
            raise NoAnswer(Why.BROKEN, said) from error
        if not self.asked:
            said = f"cannot connect to {address_of(request.url)} within {limit:g} s"
            raise NoAnswer(Why.UNREACHABLE, said)
        said = f"no answer from {address_of(request.url)} within {limit:g} s"
        raise NoAnswer(Why.SILENT, said)

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        """Ask, and follow no redirect: httpx2 would read its body, however long it is."""
        request.extensions["trace"] = self._trace
        self.asked = False
        return await self._client.send(request, stream=True, auth=None, follow_redirects=False)

    async def _trace(self, event: str, _: dict[str, Any]) -> None:
        if event.endswith(".send_request_headers.complete"):
            self.asked, self._sent_at = True, trio.current_time()

    def _answer_of(self, response: httpx2.Response, method: str) -> Answer:
        now = trio.current_time()
        return Answer(
            status=response.status_code,
            phrase=response.reason_phrase or httpx2.codes.get_reason_phrase(response.status_code),
            headers={name.lower(): value for name, value in response.headers.items()},
            version=response.http_version,
            tls=response.url.scheme == "https",
            address=address_of(response.url),
            waited=now - self._sent_at,
            opened_at=now,
            method=method,
        )


def _alike(one: httpx2.Request, other: httpx2.Request) -> bool:
    """Tell whether both are for the same origin."""
    return (one.url.scheme, one.url.netloc) == (other.url.scheme, other.url.netloc)


async def close(response: httpx2.Response) -> None:
    """Close an answer, whatever of it was read.

    Cancellation:
      It cannot be cancelled, and takes 2 seconds at most.
    """
    with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
        await response.aclose()


_HEADERS: Final = {
    "Accept": "text/event-stream",
    "Accept-Encoding": "gzip, deflate, br, zstd",  # as browsers do
    "Cache-Control": "no-store",
    "User-Agent": "penstock-doctor",
}

# Seconds for the second connection. A history answers at once; a live stream may be slow.
_RESUME: Final = 10.0


async def observe(
    url: httpx2.URL, seen: Observation, *, headers: httpx2.Headers | None = None
) -> None:
    """Request a URL, and record in ``seen`` what happens.

    Args:
      url: what to request.
      seen: the record; its ``hold``, ``origin``, ``method`` and ``content`` say what to do.
      headers: additional headers, which replace the doctor's own.

    Cancellation:
      A checkpoint. What was seen so far is in ``seen``, and nothing is left open.
    """
    asked = httpx2.Headers(_HEADERS)
    if seen.origin is not None:
        asked["Origin"] = seen.origin
    asked.update(headers or {})
    seen.credentials = "cookie" in asked
    seen.stopped = True
    cookies = await _hold(url, asked, seen)
    if seen.is_get and seen.body is not None and (pair := to_send(seen.body)) is not None:
        # With a client of its own: over HTTP/2, the first one's connection would still carry the
        # first stream, which httpx2 does not reset.
        async with client_like_a_browsers(cookies) as client:
            asker = Asker(client, url, method=seen.method, content=seen.content)
            await _resume(asker, asked, seen, *pair)
    seen.stopped = False


async def _hold(
    url: httpx2.URL, headers: httpx2.Headers, seen: Observation
) -> httpx2.Cookies | None:
    """Ask, and hold the stream for as long as is wanted; return the cookies that were set."""
    asker = None
    try:
        async with client_like_a_browsers() as client:
            asker = Asker(client, url, method=seen.method, content=seen.content)
            response = await _open(asker, headers, seen)
            if response is not None and seen.answer is not None:
                await _watch(response, seen.answer, seen)
            return client.cookies
    except NoAnswer as error:
        seen.failure = str(error)
        seen.timed_out = error.why is Why.SILENT
        seen.too_many_redirects = error.why is Why.LOOP
        nobody = (asker is None or not asker.asked) and not seen.redirects
        seen.unreachable = nobody and error.why is Why.UNREACHABLE and seen.answer is None
        return None


async def _open(asker: Asker, headers: httpx2.Headers, seen: Observation) -> httpx2.Response | None:
    """Return an answer that is a stream, whose bytes can be read if there is a way.

    Raises:
      NoAnswer: there was none.
    """
    response, seen.answer = await asker.ask(headers, seen.hold, seen.redirects)
    seen.coding = _coding(seen.answer)
    seen.readable = can_unpack(seen.coding)
    if seen.answer.is_stream and not seen.readable and seen.is_get:
        # What a browser gets is known; the content is examined uncompressed.
        await close(response)
        plain = httpx2.Headers(headers)
        plain["Accept-Encoding"] = "identity"
        response, seen.answer = await asker.ask(plain, seen.hold, [])
        seen.readable = can_unpack(_coding(seen.answer))
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
        seen.end, seen.end_said = end.how, str(end)
    finally:
        seen.ended_at = trio.current_time()
        if seen.end is None:
            seen.end = StreamEnd.STOPPED


async def _resume(
    asker: Asker, headers: httpx2.Headers, seen: Observation, last: str, expected: str | None
) -> None:
    """Reconnect with the id of an event, and record which event arrives first."""
    tried = seen.resumption = Resumption(last, expected)
    again = httpx2.Headers(headers)
    if last_bytes := last.encode().strip(b" \t"):
        again.update([(b"Last-Event-ID", last_bytes)])
    again["Accept-Encoding"] = "identity"
    limit = min(seen.hold, _RESUME)
    began = trio.current_time()
    body = Examination(began)
    try:
        response, answer = await asker.ask(again, limit, [])
        tried.answer = answer
        if answer.is_stream and can_unpack(_coding(answer)):
            await _read(response, body, limit, first_id=True)
        else:
            await close(response)
    except NoAnswer as error:
        tried.failure = str(error)
    except _Ended:
        pass
    finally:
        tried.first = body.first_id
        tried.waited = trio.current_time() - began
    tried.done = True


class _Ended(Exception):
    """A body ended; the message is what was said of it."""

    def __init__(self, how: StreamEnd, said: str = "") -> None:
        super().__init__(said)
        self.how: StreamEnd = how


async def _read(
    response: httpx2.Response, body: Examination, limit: float, *, first_id: bool = False
) -> None:
    """Examine what comes until time is up, or until an event brings an id.

    Raises:
      _Ended: it ended before.
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
                    await trio.lowlevel.checkpoint()  # httpx2 has none where more is there
                if first_id and body.first_id is not None:
                    return
            raise _Ended(_how(response))
    except httpx2.TransportError as error:
        raise _Ended(StreamEnd.TORN, reason_of(error)) from error
    except ValueError as error:
        raise _Ended(StreamEnd.TORN, f"what came is not compressed: {error}") from error
    finally:
        with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
            await close(response)
            await _finish(chunks)


async def _finish(chunks: AsyncIterator[bytes]) -> None:
    """End what httpx2 reads with: async generators, one in the other.

    Cancelled where the innermost waits, each ends; only dropped, they would be left to the garbage
    collector.
    """
    with trio.CancelScope(shield=True) as scope:
        scope.cancel()
        with suppress(httpx2.TransportError, httpx2.StreamError):
            async for _ in chunks:
                pass


def _how(response: httpx2.Response) -> StreamEnd:
    """Tell how a body ended that ended without an error."""
    framed = {"transfer-encoding", "content-length"} & {name.lower() for name in response.headers}
    whole = framed or not response.http_version.startswith("HTTP/1")
    return StreamEnd.ENDED if whole else StreamEnd.CLOSED


def _coding(answer: Answer) -> str:
    return codings_of(answer.header("content-encoding"))
