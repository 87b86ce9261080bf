"""What the head of a request may be, the same for every protocol and however it arrives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

__all__ = [
    "MAX_FIELDS",
    "RequestRefused",
    "check_ascii",
    "check_chunk",
    "check_fields",
    "check_head",
    "split_target",
]

# Header fields of a request. Apache, Tomcat and Envoy allow 100, HAProxy 101; each takes some 200
# bytes of memory beside its content, for as long as the request lives.
MAX_FIELDS: Final = 128

# Where h11 finds the end of a head.
_END: Final = re.compile(rb"\n\r?\n")

# What ends the chunk before, as far as h11 has left it; and the line of the last chunk.
_CHUNK_END: Final = re.compile(rb"\r?\n?")
_LAST_CHUNK: Final = re.compile(rb"0+[^0-9A-Fa-f]")

# Spec: RFC 9112, 3.2.2: the absolute form. A user in it is an error (RFC 9110, 4.2.4).
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
    """A request that is answered here, and reaches no application.

    Attributes:
      status: of the answer.
      why: what was wrong with the request, as the log says it.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


def check_head(received: bytes, limit: int) -> None:
    """Check the size of a head of HTTP/1.1, complete or not, with the bytes behind it.

    Raises:
      RequestRefused: it has more bytes than the limit, or too many fields.
    """
    end = _END.search(received)
    size = len(received) if end is None else end.end()
    if size > limit:
        raise _too_long(limit)
    if received.count(b"\n", 0, size) > MAX_FIELDS + 2:  # the request line, and the empty one
        raise _too_many()


def check_chunk(received: bytes, limit: int, *, trailer: bool) -> bool:
    """Check what stands between two chunks: a line with a size, and behind the last, the trailer.

    Args:
      received: what h11 has not parsed yet, complete or not.
      limit: of the line's bytes, and of the trailer's.
      trailer: whether the trailer has begun.

    Returns:
      Whether the trailer has begun with what h11 parses next.

    Raises:
      RequestRefused: it has more bytes than the limit, or too many fields.
    """
    begin = 0
    if not trailer:
        if (before := _CHUNK_END.match(received)) is not None:
            begin = before.end()
        end = received.find(b"\r\n", begin)
        if end < 0:
            return False  # h11 limits what is incomplete
        if end - begin > limit:
            raise RequestRefused(431, f"the line of a chunk has more than {limit} bytes")
        if _LAST_CHUNK.match(received, begin) is None:
            return False
        begin = end + 2
    if not received.startswith((b"\r\n", b"\n"), begin):
        check_head(received[begin:], limit)
    return True


def check_fields(fields: Sequence[tuple[bytes, bytes]], limit: int) -> None:
    """Check the size of a decoded head of HTTP/2: what it would be on HTTP/1.1.

    Raises:
      RequestRefused: it has more bytes than the limit, or too many fields.
    """
    if sum(len(name) + len(value) + 4 for name, value in fields) > limit:
        raise _too_long(limit)
    if sum(not name.startswith(b":") for name, _ in fields) > MAX_FIELDS:
        raise _too_many()


def check_ascii(fields: Iterable[tuple[bytes, bytes]]) -> None:
    """Check the fields, with names in lower case, that will be decoded.

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
    """Split a request's target into the host it names, if it does, and its path and query.

    Spec: RFC 9112, 3.2: a target is a path, an absolute URL, or "*" for OPTIONS.

    Raises:
      RequestRefused: it is none of these, or the method is not a token.
    """
    if _TOKEN.fullmatch(method) is None:
        raise RequestRefused(400, "its method is not a token")
    if method == b"CONNECT":
        raise RequestRefused(501, "this is not a proxy that CONNECT could pass through")
    if _VISIBLE.fullmatch(target) is not None:
        if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
            return None, target
        if (absolute := _ABSOLUTE.fullmatch(target)) is not None:
            host, rest = absolute.groups()
            if not rest and method == b"OPTIONS":
                return host, b"*"
            return host, rest if rest.startswith(b"/") else b"/" + rest
    raise RequestRefused(400, "its target is neither a path nor a URL")
