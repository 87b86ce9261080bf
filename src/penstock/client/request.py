"""The request for an event stream: its URL, its headers, and the request after a redirect.

Rule 1: what cannot be sent is refused at construction. Rule 2: no message shows what may be secret:
credentials, a query, a header's value. Rule 3: another origin gets no credentials and no cookies.
"""

from __future__ import annotations

import json as jsonlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    "header_value",
    "origin_of",
    "parse_method",
    "parse_url",
    "redacted",
    "redirect_request",
]

Origin = tuple[str, bytes, int]

_PORTS = {"http": 80, "https": 443}


def parse_url(given: str | httpx2.URL) -> httpx2.URL:
    """Return a URL that can be requested.

    Raises:
      ValueError: it cannot; the message says why.
    """
    try:
        url = httpx2.URL(given)
        # Name resolution refuses a label that is empty or longer than 63 characters with an error
        # that is not an OSError.
        url.raw_host.decode("ascii").encode("idna")
    except (httpx2.InvalidURL, ValueError) as error:  # of which UnicodeError is one
        reason = printable(str(error), limit=200)
        raise ValueError(f"{_shown(given)} is not a URL: {reason}") from error
    if url.scheme not in _PORTS or not url.raw_host:
        raise ValueError(f"{_shown(given)} is not a URL such as https://example.org/events")
    if url.port is not None and not 0 < url.port < 65536:
        raise ValueError(f"{_shown(given)} is not a URL: the port must be from 1 to 65535")
    return url


def parse_method(given: str) -> str:
    """Return a method that can be answered with a stream.

    Raises:
      ValueError: it is not one: responses to HEAD and CONNECT have no body.
    """
    if not HEADER_NAME.fullmatch(given) or given.upper() in ("HEAD", "CONNECT"):
        raise ValueError(f"{given!r} is not a method that can be answered with a stream")
    return given.upper()


def redacted(url: httpx2.URL) -> str:
    """Return a URL to show, without what may be secret: user, password and query."""
    path, _, _ = url.raw_path.partition(b"?")
    return f"{url.scheme}://{(url.netloc + path).decode('ascii')}"


def origin_of(url: httpx2.URL) -> Origin:
    """Return a URL's scheme, host and port: URLs of one origin share its secrets."""
    port = _PORTS[url.scheme] if url.port is None else url.port
    return url.scheme, url.raw_host, port


def _shown(given: str | httpx2.URL) -> str:
    text = str(given)
    return ascii(text if len(text) <= 200 else f"{text[:200]}…")


HeadersLike = Mapping[str, str] | Sequence[tuple[str, str]]

_logger = logging.getLogger("penstock.client")

# Spec: RFC 9110, 5.1 and 9.1: the name of a field is a token, and so is a method.
HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

# Spec: RFC 9110, 5.5: a field value has visible characters, spaces, tabs and bytes from 0x80 on
# (obs-text). h11 refuses some control characters, other servers answer any of them with 400.
_CONTROLS: Final = bytes([*range(0x09), *range(0x0A, 0x20), 0x7F])

# Bytes of a Last-Event-ID: nginx and Apache refuse longer header fields.
_MAX_ID: Final = 8000

_DEFAULTS: Final = {
    "Accept": "text/event-stream",
    "Accept-Encoding": "identity",  # a compressor holds events back
    "Cache-Control": "no-store",
}

# The only headers of a request that another origin gets after a redirect.
_SAFE: Final = frozenset({b"accept", b"accept-encoding", b"cache-control", b"user-agent"})

# Headers that authenticate, and Host, which names the origin.
_SECRET: Final = frozenset({b"authorization", b"proxy-authorization", b"cookie", b"host"})

# Headers that describe a body, and are sent wherever it is.
_OF_BODY: Final = frozenset({b"content-type", b"content-encoding", b"content-language"})
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})


@final
@dataclass(frozen=True, slots=True)
class StreamRequest:
    """The request that an `EventSource` makes each time it connects."""

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
        """Return the request for these arguments of `EventSource`.

        Raises:
          ValueError: an argument is not valid.
          TypeError: ``json`` has no JSON form.
        """
        own = httpx2.Headers(_DEFAULTS)
        own.update(_checked(headers))
        if json is not None:
            if content is not None:
                raise ValueError("give content or json, not both")
            content = jsonlib.dumps(json, ensure_ascii=False, allow_nan=False)
            own.setdefault("Content-Type", "application/json")
        if method is None:
            method = "GET" if content is None else "POST"
        body = content.encode() if isinstance(content, str) else content
        return cls(parse_method(method), parse_url(url), own, body)

    def build(self, client: httpx2.AsyncClient, last_event_id: str) -> httpx2.Request:
        """Return the request to send; its deadlines are the caller's cancel scopes."""
        headers = httpx2.Headers(self.headers)
        # Spec: #the-last-event-id-header: in UTF-8, and only "if the last event ID string is not
        # the empty string".
        if value := header_value(last_event_id):
            headers.update([(b"Last-Event-ID", value)])
        return client.build_request(
            self.method, self.url, headers=headers, content=self.content, timeout=None
        )


def header_value(last_event_id: str) -> bytes:
    """Return an id as a header can carry it.

    Control characters and surrounding white space are left out. The result may be an id that the
    server never sent, which it treats as any unknown id. An id that is too long for any server's
    limit on a header is left out altogether.
    """
    encoded = last_event_id.encode()
    value = encoded.translate(None, _CONTROLS).strip(b" \t")
    if len(value) > _MAX_ID:
        _logger.warning("the last event id has %d bytes: too long to be sent", len(encoded))
        return b""
    return value


def redirect_request(
    request: httpx2.Request,
    response: httpx2.Response,
    client: httpx2.AsyncClient,
    own: httpx2.Headers,
    *,
    as_browser: bool = False,
) -> httpx2.Request | None:
    """Return the request that a response redirects to; None if it is no redirect.

    httpx2's own would repair some targets, leave others as errors that it does not document, and
    send every header but Authorization to another origin.

    Args:
      request: the request that was answered.
      response: the response to it.
      client: whose cookies the next request has, within the origin.
      own: the headers that the caller gave.
      as_browser: whether another origin gets, as from a browser, all headers but those that
        authenticate; otherwise it gets a few that are safe.

    Raises:
      ConnectionFailed: the target cannot be requested.

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
    kept = {name.lower() for name, _ in request.headers.raw} - dropped
    cookies = None
    if origin_of(target) == origin_of(request.url):
        if "cookie" not in own:  # cookies of a jar go by path, so the jar is asked again
            cookies = client.cookies
            kept.discard(b"cookie")
    elif as_browser:
        cookies = client.cookies
        kept -= _SECRET
    else:
        kept &= _SAFE if content is None else _SAFE | _OF_BODY
        if "last-event-id" in request.headers:
            _logger.warning(
                "%s: redirected to another origin, %s, which does not get Last-Event-ID",
                redacted(request.url),
                redacted(target),
            )
    return httpx2.Request(
        method,
        target,
        headers=[(name, value) for name, value in request.headers.raw if name.lower() in kept],
        content=content,
        cookies=cookies,
        extensions=dict(request.extensions),
    )


def _target_of(source: httpx2.URL, response: httpx2.Response) -> httpx2.URL:
    where, location = redacted(source), response.headers["location"]
    shown = f"{where}: redirected to '{printable(location, limit=200)}'"
    status = response.status_code
    try:
        given = httpx2.URL(location)
        if given.userinfo:
            # Spec: RFC 9110, 4.2.4: an error in a URL from elsewhere, since it disguises the host.
            raise ConnectionFailed(f"{shown}, with a user name or password", status=status)
        target = source.join(given)
        if target.scheme not in ("http", "https"):
            raise ConnectionFailed(f"{shown}, which is not http or https", status=status)
        if given.scheme and not given.raw_host:  # `join` would take the host from the source
            raise ConnectionFailed(f"{shown}, which has no host", status=status)
        return parse_url(target)
    except (httpx2.InvalidURL, ValueError) as error:
        raise ConnectionFailed(
            f"{shown}, which is not a URL: {printable(' '.join(str(error).split()), limit=200)}",
            status=status,
        ) from error


def _checked(given: HeadersLike | None) -> httpx2.Headers:
    headers = httpx2.Headers(given)
    for raw_name, value in headers.raw:
        name = raw_name.decode("ascii", errors="backslashreplace")
        if not HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a header name")
        if value.translate(None, _CONTROLS).strip(b" \t") != value:
            # Without the value, which may be secret.
            raise ValueError(
                f"the value of the header {name} has surrounding white space or control characters"
            )
    return headers
