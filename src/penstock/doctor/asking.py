"""Requests as a browser makes them: redirects, deadlines, and why there was no answer."""

from __future__ import annotations

import math
from enum import Enum, auto
from typing import Any, Final, final

import httpx2
import trio

from penstock.client.connection import CLOSE_TIMEOUT, reason_of
from penstock.client.event_source import own_client
from penstock.client.url import address_of
from penstock.doctor.observation import Answer, Redirect
from penstock.errors import ConnectionFailed

__all__ = ["Asker", "NoAnswer", "Why", "client_like_a_browsers", "close"]

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
