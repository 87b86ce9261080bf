"""The request for an event stream: its URL, its headers, and what a redirect makes of it."""

from __future__ import annotations

import json as jsonlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final, Self, final

import httpx2

from penstock.errors import ConnectionFailed
from penstock.printable import printable

__all__ = [
    "HEADER_NAME",
    "HeadersLike",
    "Origin",
    "StreamRequest",
    "address_of",
    "header_value",
    "origin_of",
    "redirected",
    "url_of",
]

Origin = tuple[str, bytes, int]

_PORTS = {"http": 80, "https": 443}


def url_of(given: str | httpx2.URL) -> httpx2.URL:
    """Return a URL that can be asked for.

    Raises:
      ValueError: it is not one; the message says why.
    """
    try:
        url = httpx2.URL(given)
        # Name resolution refuses a label that is empty or longer than 63 characters, with an
        # error that is not an OSError.
        url.raw_host.decode("ascii").encode("idna")
    except (httpx2.InvalidURL, ValueError) as error:  # of which UnicodeError is one
        reason = printable(str(error), limit=200)
        raise ValueError(f"{_shown(given)} is not a URL: {reason}") from error
    if url.scheme not in _PORTS or not url.raw_host:
        raise ValueError(f"{_shown(given)} is not a URL such as https://example.org/events")
    if url.port is not None and not 0 < url.port < 65536:
        raise ValueError(f"{_shown(given)} is not a URL: the port must be from 1 to 65535")
    return url


def address_of(url: httpx2.URL) -> str:
    """Return a URL for the log, without what may be secret: user, password and query."""
    path, _, _ = url.raw_path.partition(b"?")
    return f"{url.scheme}://{(url.netloc + path).decode('ascii')}"


def origin_of(url: httpx2.URL) -> Origin:
    """Return a URL's scheme, host and port: what shares an origin shares its secrets."""
    port = _PORTS[url.scheme] if url.port is None else url.port
    return url.scheme, url.raw_host, port


def _shown(given: str | httpx2.URL) -> str:
    text = str(given)
    return ascii(text if len(text) <= 200 else f"{text[:200]}…")


HeadersLike = Mapping[str, str] | Sequence[tuple[str, str]]

_logger = logging.getLogger("penstock.client")

# Spec: RFC 9110, 5.1 and 9.1: the name of a field, and a method, is a token.
HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

# Spec: RFC 9110, 5.5: a field value has visible characters, spaces, tabs and bytes from 0x80 on
# (obs-text). h11 refuses some control characters, other servers answer 400 to any of them.
_CONTROLS: Final = bytes([*range(0x09), *range(0x0A, 0x20), 0x7F])

# Bytes of a Last-Event-ID that are sent: nginx and Apache refuse longer header fields.
_MAX_ID: Final = 8000

_DEFAULTS: Final = {
    "Accept": "text/event-stream",
    "Accept-Encoding": "identity",  # a compressor holds events back
    "Cache-Control": "no-store",
}

# All that another origin gets of a request's headers after a redirect.
_SAFE: Final = frozenset({b"accept", b"accept-encoding", b"cache-control", b"user-agent"})

# What describes a body, and goes where the body goes.
_OF_BODY: Final = frozenset({b"content-type", b"content-encoding", b"content-language"})
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})


@final
@dataclass(frozen=True, slots=True)
class StreamRequest:
    """What an `EventSource` asks for, each time it connects."""

    method: str
    url: httpx2.URL
    headers: httpx2.Headers
    content: bytes | None

    @classmethod
    def of(
        cls,
        url: str | httpx2.URL,
        *,
        method: str | None,
        headers: HeadersLike | None,
        content: bytes | str | None,
        json: Any,
    ) -> Self:
        """Return the request that these arguments of `EventSource` describe.

        Raises:
          ValueError: an argument is not valid.
          TypeError: ``json`` has no JSON form.
        """
        asked = httpx2.Headers(_DEFAULTS)
        asked.update(_checked(headers))
        if json is not None:
            if content is not None:
                raise ValueError("give content or json, not both")
            content = jsonlib.dumps(json, ensure_ascii=False, allow_nan=False)
            asked.setdefault("Content-Type", "application/json")
        if method is None:
            method = "GET" if content is None else "POST"
        if not HEADER_NAME.fullmatch(method) or method.upper() in ("HEAD", "CONNECT"):
            raise ValueError(f"{method!r} is not a method that an event stream can answer")
        body = content.encode() if isinstance(content, str) else content
        return cls(method.upper(), url_of(url), asked, body)

    def at(self, url: httpx2.URL) -> StreamRequest:
        """Return the same request for another URL."""
        return replace(self, url=url)

    def build(self, client: httpx2.AsyncClient, last_event_id: str) -> httpx2.Request:
        """Return the request to send with a client; its deadlines are the caller's scopes."""
        headers = httpx2.Headers(self.headers)
        # Spec: #the-last-event-id-header: in UTF-8, and only "if the last event ID string is not
        # the empty string".
        if value := header_value(last_event_id):
            headers.update([(b"Last-Event-ID", value)])
        return client.build_request(
            self.method, self.url, headers=headers, content=self.content, timeout=None
        )


def header_value(last_event_id: str) -> bytes:
    """Return what of an id a header can carry.

    Control characters, and white space around it, are left out. The result may be an id that the
    server never sent, which it then answers as any id it does not know. An id that is too long for
    the header of any server is left out as a whole.
    """
    encoded = last_event_id.encode()
    value = encoded.translate(None, _CONTROLS).strip(b" \t")
    if len(value) > _MAX_ID:
        _logger.warning("the last event id has %d bytes: it is too long to be sent", len(encoded))
        return b""
    return value


def redirected(
    request: httpx2.Request,
    response: httpx2.Response,
    client: httpx2.AsyncClient,
    own: httpx2.Headers,
) -> httpx2.Request | None:
    """Return the request that a redirect asks for; None if the answer is no redirect.

    httpx2's own would repair some targets, leave others as errors that it does not document, and
    send every header but Authorization to another origin.

    Args:
      request: the request that was answered.
      response: the answer.
      client: whose cookies the next request has, within the origin.
      own: the headers that the caller gave.

    Raises:
      ConnectionFailed: the redirect leads to where nothing can be asked for.

    Spec: https://fetch.spec.whatwg.org/#http-redirect-fetch: 303 makes a GET of any method, 301
      and 302 of a POST; 307 and 308 keep the method and the body.
    """
    status = response.status_code
    if status not in (301, 302, 303, 307, 308) or "location" not in response.headers:
        return None
    target = _target_of(request.url, response)
    method, content = request.method, request.content or None
    dropped: frozenset[bytes] = frozenset()
    if (status == HTTPStatus.SEE_OTHER and method != "GET") or (
        status in (301, 302) and method == "POST"
    ):
        method, content = "GET", None
        dropped = _OF_BODY | _FRAMING
    sent = request.headers.raw
    if origin_of(target) == origin_of(request.url):
        # Cookies of a jar go by path, so the jar is asked again; the caller's own header stays.
        cookies = client.cookies if "cookie" not in own else None
        if cookies is not None:
            dropped |= {b"cookie"}
        sent = [(name, value) for name, value in sent if name.lower() not in dropped]
    else:
        cookies = None
        kept = _SAFE if content is None else _SAFE | _OF_BODY
        if "last-event-id" in request.headers:
            _logger.warning(
                "%s: redirected to another origin, %s, which does not get Last-Event-ID",
                address_of(request.url),
                address_of(target),
            )
        sent = [(name, value) for name, value in sent if name.lower() in kept]
    return httpx2.Request(
        method,
        target,
        headers=sent,
        content=content,
        cookies=cookies,
        extensions=dict(request.extensions),
    )


def _target_of(source: httpx2.URL, response: httpx2.Response) -> httpx2.URL:
    where, location = address_of(source), response.headers["location"]
    shown = f"{where}: redirected to '{printable(location, limit=200)}'"
    status = response.status_code
    try:
        given = httpx2.URL(location)
        if given.userinfo:
            # Spec: RFC 9110, 4.2.4: in a reference from elsewhere, this is an error: it disguises
            # the host.
            raise ConnectionFailed(f"{shown}, with a user name or password", status=status)
        target = source.join(given)
        if target.scheme not in ("http", "https"):
            raise ConnectionFailed(f"{shown}, which is not http or https", status=status)
        if given.scheme and not given.raw_host:  # joining would take the host from the source
            raise ConnectionFailed(f"{shown}, which has no host", status=status)
        return url_of(target)
    except (httpx2.InvalidURL, ValueError) as error:
        raise ConnectionFailed(
            f"{shown}, which is not a URL: {_reason(error)}", status=status
        ) from error


def _reason(error: Exception) -> str:
    return printable(" ".join(str(error).split()), limit=200)


def _checked(given: HeadersLike | None) -> httpx2.Headers:
    headers = httpx2.Headers(given)
    for raw_name, value in headers.raw:
        name = raw_name.decode("ascii", errors="backslashreplace")
        if not HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a header")
        if value.translate(None, _CONTROLS).strip(b" \t") != value:
            # Without the value, which may be secret.
            raise ValueError(f"the value of {name} has white space around it or control characters")
    return headers
