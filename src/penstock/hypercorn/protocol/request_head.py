"""Checks on a request's head, chunk lines and trailer, and on how its body is framed.

Rule 1: the limits are the same on HTTP/1.1 and HTTP/2, whether the bytes come at once or one by
one.

Rule 2: a request that a proxy in front might read in another way is refused, and so is whatever
Hypercorn, wsproto or h2 would fail on. The exception `RequestRefused` has the status and a reason
for the log; the protocol answers it, and no application sees the request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import h11
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import H2Error
from hyperframe.exceptions import HyperframeError

__all__ = [
    "MAX_FIELDS",
    "RequestRefused",
    "body_length",
    "check_ascii",
    "check_chunk",
    "check_fields",
    "check_head",
    "check_upgrade",
    "is_websocket_handshake",
    "split_target",
    "validate_request",
]

# Maximum header fields of a request. Apache, Tomcat and Envoy allow 100, HAProxy 101; each takes
# some 200 bytes of memory beside its content, for as long as the request lives.
MAX_FIELDS: Final = 128

# Where h11 finds the end of a head.
_END: Final = re.compile(rb"\n\r?\n")

# What h11 has left of the previous chunk's end; and the line of the last chunk.
_CHUNK_END: Final = re.compile(rb"\r?\n?")
_LAST_CHUNK: Final = re.compile(rb"0+[^0-9A-Fa-f]")

# Spec: RFC 9112, 3.2.2: the absolute form. User information in it is an error (RFC 9110, 4.2.4).
_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/?#@\s]+)((?:[/?].*)?)", re.DOTALL)

# Spec: RFC 9110, 9.1 and 5.6.2: a method is a token. RFC 9112, 3.2: a target has no whitespace.
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VISIBLE: Final = re.compile(rb"[!-~]+")

# Header fields that Hypercorn and wsproto decode, as ASCII or as UTF-8.
_DECODED: Final = frozenset(
    {
        *(b":authority", b"host", b"connection"),
        *(b"sec-websocket-extensions", b"sec-websocket-protocol"),
    }
)


class RequestRefused(Exception):
    """A request that the protocol answers itself, and that reaches no application.

    Attributes:
      status: the status of the answer.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(f"sent a request that was answered {status}: {why}")
        self.status = status


def check_head(received: bytes, limit: int) -> None:
    """Check the size of an HTTP/1.1 head, complete or not; bytes after the head are ignored.

    Raises:
      RequestRefused: it has more bytes than the limit, or too many fields.
    """
    end = _END.search(received)
    size = len(received) if end is None else end.end()
    if size > limit:
        raise _too_long(limit)
    if received.count(b"\n", 0, size) > MAX_FIELDS + 2:  # plus the request line and the empty line
        raise _too_many()


def check_chunk(received: bytes, limit: int, *, trailer: bool) -> bool:
    """Check the line with a chunk's size, or the trailer after the last chunk.

    Args:
      received: the bytes that h11 has not parsed yet, complete or not.
      limit: maximum bytes of the line, and of the trailer.
      trailer: whether the trailer has begun.

    Returns:
      Whether the trailer has begun once h11 has parsed these bytes.

    Raises:
      RequestRefused: the line or the trailer exceeds the limit, or there are too many fields.
    """
    begin = 0
    if not trailer:
        if (before := _CHUNK_END.match(received)) is not None:
            begin = before.end()
        end = received.find(b"\r\n", begin)
        if end < 0:
            return False  # h11 limits incomplete lines
        if end - begin > limit:
            raise RequestRefused(431, f"the line of a chunk has more than {limit} bytes")
        if _LAST_CHUNK.match(received, begin) is None:
            return False
        begin = end + 2
    if not received.startswith((b"\r\n", b"\n"), begin):
        check_head(received[begin:], limit)
    return True


def check_fields(fields: Sequence[tuple[bytes, bytes]], limit: int) -> None:
    """Check the size of a decoded HTTP/2 head, counted as it would be on HTTP/1.1.

    Raises:
      RequestRefused: it has more bytes than the limit, or too many fields.
    """
    if sum(len(name) + len(value) + 4 for name, value in fields) > limit:
        raise _too_long(limit)
    if sum(not name.startswith(b":") for name, _ in fields) > MAX_FIELDS:
        raise _too_many()


def check_ascii(fields: Iterable[tuple[bytes, bytes]]) -> None:
    """Check the fields that will be decoded as ASCII; their names are in lower case.

    Raises:
      RequestRefused: one of them is not ASCII.
    """
    for name, value in fields:
        if not value.isascii() and name in _DECODED:
            raise RequestRefused(400, f"its field {name.decode()} is not ASCII")


def _too_long(limit: int) -> RequestRefused:
    return RequestRefused(431, f"its head has more than {limit} bytes")


def _too_many() -> RequestRefused:
    return RequestRefused(431, f"its head has more than {MAX_FIELDS} fields")


def split_target(method: bytes, target: bytes) -> tuple[bytes | None, bytes]:
    """Split a request's target into its host, if it names one, and its path and query.

    Spec: RFC 9112, 3.2: a target is a path, an absolute URL, or "*" for OPTIONS.

    Raises:
      RequestRefused: it is none of these, or the method is not a token.
    """
    if _TOKEN.fullmatch(method) is None:
        raise RequestRefused(400, "its method is not a token")
    if method == b"CONNECT":
        raise RequestRefused(501, "CONNECT is not supported: this server is not a proxy")
    if _VISIBLE.fullmatch(target) is not None:
        if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
            return None, target
        if (absolute := _ABSOLUTE.fullmatch(target)) is not None:
            host, rest = absolute.groups()
            if not rest and method == b"OPTIONS":
                return host, b"*"
            return host, rest if rest.startswith(b"/") else b"/" + rest
    raise RequestRefused(400, "its target is neither a path nor a URL")


# Checks for HTTP/1.x only


def check_upgrade(request: h11.Request) -> None:
    """Check the settings in a request to upgrade to HTTP/2, before the upgrade is answered.

    Raises:
      RequestRefused: h2 rejects them.
    """
    settings = b""
    for name, value in request.headers:
        if name == b"http2-settings":
            settings = value
    try:
        H2Connection(H2Configuration(client_side=False)).initiate_upgrade_connection(settings)
    except (ValueError, H2Error, HyperframeError) as error:
        raise RequestRefused(400, "its HTTP2-Settings are invalid") from error


def validate_request(request: h11.Request) -> h11.Request:
    """Validate a request, and return it with a target in origin form: a path.

    Raises:
      RequestRefused: its length, version or target is ambiguous or invalid.
    """
    if request.method == b"PRI" and request.target == b"*" and request.http_version == b"2.0":
        return request  # HTTP/2: `_check_protocol` handles it
    if not request.http_version.startswith(b"1."):
        raise RequestRefused(505, "it is neither HTTP/1.1 nor HTTP/1.0")
    names = {name for name, _ in request.headers}
    if b"transfer-encoding" in names and (
        b"content-length" in names or request.http_version < b"1.1"
    ):
        # Spec: RFC 9112, 6.1: such a request could be smuggled past a proxy that reads it
        # differently.
        raise RequestRefused(400, "its Transfer-Encoding contradicts its length or version")
    check_ascii(request.headers)
    host, path = split_target(request.method, request.target)
    if host is None:
        return request
    # Spec: RFC 9112, 3.2.2: the target's host overrides the field Host.
    fields = [
        (name, value) for name, value in request.headers.raw_items() if name.lower() != b"host"
    ]
    return h11.Request(
        method=request.method,
        target=path,
        headers=[(b"Host", host), *fields],
        http_version=request.http_version,
    )


def body_length(request: h11.Request) -> int | None:
    """Return the length of a request's body in bytes, or None if it is chunked."""
    fields = dict(request.headers)
    return None if b"transfer-encoding" in fields else int(fields.get(b"content-length", b"0"))


def is_websocket_handshake(request: h11.Request) -> bool:
    """Return whether Hypercorn would take this request for a WebSocket handshake."""
    upgrade = connection = b""
    for name, value in request.headers:
        if name == b"upgrade":
            upgrade = value
        elif name == b"connection":
            connection = value
    tokens = {token.strip() for token in connection.lower().split(b",")}
    return request.method == b"GET" and upgrade.lower() == b"websocket" and b"upgrade" in tokens
