"""Ask for a stream as a browser does, hold it, come back with an id: what is seen on the way.

Rule 1: everything has a bound: the wait for an answer, redirects, the time that a stream is held,
and what is kept of it.

Rule 2: what was seen is in the `Observation` at any time, so that who is interrupted has it.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import suppress
from enum import Enum, auto
from typing import Any, Final, final

import httpx  # noqa: ASYNC127 - the release that the project depends on
import trio

from penstock.client.connection import CLOSE_TIMEOUT, reason_of
from penstock.client.url import address_of
from penstock.doctor.examination import Examination
from penstock.doctor.observation import Answer, Observation, Redirect, Resumption, StreamEnd
from penstock.doctor.resuming import to_send
from penstock.doctor.unpacking import Unpacker, can_unpack

__all__ = ["observe"]

_HEADERS: Final = {
    "Accept": "text/event-stream",
    "Accept-Encoding": "gzip, deflate, br, zstd",  # as browsers do
    "Cache-Control": "no-store",
    "User-Agent": "penstock-doctor",
}

# As Chromium and Firefox allow.
_MAX_REDIRECTS: Final = 20

# Seconds for the second connection. A history answers at once; a live stream may be slow.
_RESUME: Final = 10.0


async def observe(
    url: httpx.URL, seen: Observation, *, headers: httpx.Headers | None = None
) -> None:
    """Ask for a URL, and note in ``seen`` what comes of it.

    Args:
      url: what to ask for.
      seen: where it is noted; its ``hold`` and ``origin`` say what to do.
      headers: what to send besides.

    Cancellation:
      A checkpoint. What was seen so far is in ``seen``, and nothing is left open.
    """
    asked = httpx.Headers(_HEADERS)
    if seen.origin is not None:
        asked["Origin"] = seen.origin
    asked.update(headers or {})
    seen.credentials = "cookie" in asked
    seen.stopped = True
    try:
        client = httpx.AsyncClient(http2=True, timeout=None)
    except (ImportError, OSError, ValueError) as error:
        # Of SSL_CERT_FILE, or the address of a proxy.
        seen.failure = f"the environment is not as it should be: {reason_of(error)}"
        seen.unreachable, seen.stopped = True, False
        return
    async with client:
        observer = _Observer(client, url, asked, seen)
        try:
            await observer.hold()
        except _NoAnswer as error:
            seen.failure = str(error)
            seen.timed_out = error.why is _Why.SILENT
            nobody = not observer.asked and not seen.redirects
            seen.unreachable = nobody and error.why is _Why.UNREACHABLE
        if seen.body is not None and (pair := to_send(seen.body)) is not None:
            await observer.resume(*pair)
    seen.stopped = False


class _Why(Enum):
    """Why there was no answer."""

    UNREACHABLE = auto()
    SILENT = auto()
    BROKEN = auto()


class _NoAnswer(Exception):
    """There was no answer; the message says why, for people."""

    def __init__(self, why: _Why, said: str) -> None:
        super().__init__(said)
        self.why: _Why = why


@final
class _Observer:
    """The connections, one after the other."""

    def __init__(
        self, client: httpx.AsyncClient, url: httpx.URL, headers: httpx.Headers, seen: Observation
    ) -> None:
        self._client = client
        self._url = url
        self._headers = headers
        self._seen = seen
        self._sent_at = -math.inf
        self.asked = False

    async def hold(self) -> None:
        """Ask, and hold the stream for as long as is wanted.

        Raises:
          _NoAnswer: there was none.
        """
        seen = self._seen
        response = await self._ask(self._headers, seen.redirects, seen.hold)
        seen.answer = self._answer_of(response)
        seen.coding = seen.answer.header("content-encoding").strip().lower()
        if not seen.answer.is_stream:
            await _close(response)
            return
        if not can_unpack(seen.coding):
            # What a browser gets is known; what is in it is looked at uncompressed.
            await _close(response)
            plain = httpx.Headers(self._headers)
            plain["Accept-Encoding"] = "identity"
            response = await self._ask(plain, [], seen.hold)
            seen.answer = self._answer_of(response)
            coding = seen.answer.header("content-encoding").strip().lower()
            seen.readable = can_unpack(coding)
            if not seen.answer.is_stream:
                await _close(response)
                return
        seen.body = Examination(seen.answer.opened_at)
        try:
            await self._read(response, seen.body, seen.hold)
            seen.end = StreamEnd.HELD
        except _Ended as end:
            seen.end, seen.end_said = end.how, str(end)
        finally:
            seen.ended_at = trio.current_time()
            if seen.end is None:
                seen.end = StreamEnd.STOPPED

    async def resume(self, last: str, expected: str | None) -> None:
        """Ask again, with the id of an event, and see which one comes first."""
        tried = self._seen.resumption = Resumption(last, expected)
        headers = httpx.Headers(self._headers)
        if last_bytes := last.encode().strip(b" \t"):
            headers.update([(b"Last-Event-ID", last_bytes)])
        headers["Accept-Encoding"] = "identity"
        began = trio.current_time()
        body = Examination(began)
        try:
            limit = min(self._seen.hold, _RESUME)
            response = await self._ask(headers, [], limit)
            answer = self._answer_of(response)
            tried.status = answer.status
            if answer.is_stream and can_unpack(answer.header("content-encoding").lower()):
                await self._read(response, body, limit, first_id=True)
            else:
                await _close(response)
        except _NoAnswer as error:
            tried.failure = str(error)
        except _Ended:
            pass
        finally:
            tried.ids = tuple(body.ids)
            tried.waited = trio.current_time() - began
        tried.done = True

    async def _ask(
        self, headers: httpx.Headers, redirects: list[Redirect], limit: float
    ) -> httpx.Response:
        """Return the answer that redirects lead to.

        Raises:
          _NoAnswer: there was none.
        """
        request = self._client.build_request("GET", self._url, headers=headers)
        try:
            with trio.move_on_after(limit):
                response = await self._send(request)
                while (following := response.next_request) is not None:
                    await _close(response)
                    source, target = address_of(request.url), address_of(following.url)
                    redirects.append(Redirect(response.status_code, source, target))
                    if len(redirects) > _MAX_REDIRECTS:
                        self._seen.too_many_redirects = True
                        said = f"no answer, but more than {_MAX_REDIRECTS} redirects"
                        raise _NoAnswer(_Why.BROKEN, said)
                    request = following
                    response = await self._send(request)
                return response
        except (httpx.ConnectError, httpx.ProxyError) as error:
            said = f"cannot connect to {address_of(request.url)}: {reason_of(error)}"
            raise _NoAnswer(_Why.UNREACHABLE, said) from error
        except (httpx.LocalProtocolError, httpx.UnsupportedProtocol, UnicodeError) as error:
            said = f"{address_of(request.url)} cannot be asked for: {reason_of(error)}"
            raise _NoAnswer(_Why.UNREACHABLE, said) from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            said = f"no answer from {address_of(request.url)}: {reason_of(error)}"
            raise _NoAnswer(_Why.BROKEN, said) from error
        if not self.asked:
            said = f"cannot connect to {address_of(request.url)} within {limit:g} s"
            raise _NoAnswer(_Why.UNREACHABLE, said)
        said = f"no answer from {address_of(request.url)} within {limit:g} s"
        raise _NoAnswer(_Why.SILENT, said)

    async def _send(self, request: httpx.Request) -> httpx.Response:
        """Ask, and follow no redirect: httpx would read its body, however long it is."""
        request.extensions["trace"] = self._trace
        self.asked = False
        return await self._client.send(request, stream=True, auth=None, follow_redirects=False)

    async def _trace(self, event: str, _: dict[str, Any]) -> None:
        if event.endswith(".send_request_headers.complete"):
            self.asked, self._sent_at = True, trio.current_time()

    def _answer_of(self, response: httpx.Response) -> Answer:
        now = trio.current_time()
        return Answer(
            status=response.status_code,
            phrase=response.reason_phrase or httpx.codes.get_reason_phrase(response.status_code),
            headers={name.lower(): value for name, value in response.headers.items()},
            version=response.http_version,
            tls=response.url.scheme == "https",
            address=address_of(response.url),
            waited=now - self._sent_at,
            opened_at=now,
        )

    async def _read(
        self,
        response: httpx.Response,
        body: Examination,
        limit: float,
        *,
        first_id: bool = False,
    ) -> None:
        """Examine what comes until time is up, or until an event brings an id.

        Raises:
          _Ended: it ended before.
        """
        unpacker = Unpacker(response.headers.get("content-encoding", "").strip().lower())
        chunks = response.aiter_raw()
        try:
            with trio.move_on_after(limit):
                async for chunk in chunks:
                    at, size = trio.current_time(), len(chunk)
                    body.feed(b"", at, size=size)
                    for piece in unpacker.unpack(chunk):
                        body.feed(piece, at, size=0)
                        await trio.lowlevel.checkpoint()  # httpx has none where more is there
                    if first_id and body.ids:
                        return
                raise _Ended(_how(response))
        except httpx.TransportError as error:
            raise _Ended(StreamEnd.TORN, reason_of(error)) from error
        except ValueError as error:
            raise _Ended(StreamEnd.TORN, f"what came is not compressed: {error}") from error
        finally:
            with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
                await _close(response, chunks)


class _Ended(Exception):
    """A body ended; the message is what was said of it."""

    def __init__(self, how: StreamEnd, said: str = "") -> None:
        super().__init__(said)
        self.how: StreamEnd = how


def _how(response: httpx.Response) -> StreamEnd:
    """Tell how a body ended that ended without an error."""
    framed = {"transfer-encoding", "content-length"} & {name.lower() for name in response.headers}
    whole = framed or not response.http_version.startswith("HTTP/1")
    return StreamEnd.ENDED if whole else StreamEnd.CLOSED


async def _close(response: httpx.Response, chunks: AsyncIterator[bytes] | None = None) -> None:
    with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
        await response.aclose()
    if chunks is None:
        return
    with trio.CancelScope(shield=True) as scope:
        # httpx reads in async generators, one in the other. Cancelled where the innermost waits,
        # each ends; only dropped, they would be left to the garbage collector.
        scope.cancel()
        with suppress(httpx.TransportError, httpx.StreamError):
            async for _ in chunks:
                pass
