"""What the head of an HTTP/1.x request asks for: the checks that HTTP/2 has no need of."""

from __future__ import annotations

import h11
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import H2Error
from hyperframe.exceptions import HyperframeError

from penstock.hypercorn.protocol.head import RequestRefused, check_ascii, split_target

__all__ = ["asks_for_websocket", "body_length", "check_upgrade", "examined"]


def check_upgrade(request: h11.Request) -> None:
    """Check the settings of a client that asks for HTTP/2, which come before its answer.

    Raises:
      RequestRefused: they are not what h2 takes.
    """
    settings = b""
    for name, value in request.headers:
        if name == b"http2-settings":
            settings = value
    try:
        H2Connection(H2Configuration(client_side=False)).initiate_upgrade_connection(settings)
    except (ValueError, H2Error, HyperframeError) as error:
        raise RequestRefused(400, "its HTTP2-Settings are invalid") from error


def examined(request: h11.Request) -> h11.Request:
    """Return the request with a target that is a path, or refuse it.

    Raises:
      RequestRefused: nobody can say for certain where it ends, or what it asks for.
    """
    if request.method == b"PRI" and request.target == b"*" and request.http_version == b"2.0":
        return request  # HTTP/2, which `_check_protocol` knows what to do with
    if not request.http_version.startswith(b"1."):
        raise RequestRefused(505, "it is neither HTTP/1.1 nor HTTP/1.0")
    names = {name for name, _ in request.headers}
    if b"transfer-encoding" in names and (
        b"content-length" in names or request.http_version < b"1.1"
    ):
        # Spec: RFC 9112, 6.1: such a request may be smuggled past a proxy that reads it otherwise.
        raise RequestRefused(400, "its Transfer-Encoding contradicts its length or version")
    check_ascii(request.headers)
    host, path = split_target(request.method, request.target)
    if host is None:
        return request
    # Spec: RFC 9112, 3.2.2: the URL's host counts, whatever the field Host says.
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
    """Return the length of a request's body in bytes, or None if it is sent in chunks."""
    fields = dict(request.headers)
    return None if b"transfer-encoding" in fields else int(fields.get(b"content-length", b"0"))


def asks_for_websocket(request: h11.Request) -> bool:
    """Tell whether Hypercorn would take this request for a WebSocket's handshake."""
    upgrade = connection = b""
    for name, value in request.headers:
        if name == b"upgrade":
            upgrade = value
        elif name == b"connection":
            connection = value
    tokens = {token.strip() for token in connection.lower().split(b",")}
    return request.method == b"GET" and upgrade.lower() == b"websocket" and b"upgrade" in tokens
