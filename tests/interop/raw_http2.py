"""An HTTP/2 client that sends whatever frames a test wants, on a plain port."""

from __future__ import annotations

from typing import Any

import hpack
import trio
from hyperframe.frame import (
    DataFrame,
    ExtensionFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

CALM = 11  # ENHANCE_YOUR_CALM


class RawHTTP2:
    """One connection; what it receives is kept by stream."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.frames: list[Frame] = []
        self.fields: dict[int, Any] = {}
        self.closed = False
        self._received = b""

    @classmethod
    async def connect(cls, port: int, settings: dict[int, int] | None = None) -> RawHTTP2:
        """Return a client that has said what it has to say at first."""
        self = cls(await trio.open_tcp_stream("127.0.0.1", port))
        await self.stream.send_all(PREFACE + SettingsFrame(0, settings=settings or {}).serialize())
        return self

    def headers(
        self, stream_id: int, path: str | bytes = "/", *, end: bool = True, **fields: str
    ) -> bytes:
        """Return a request, as bytes."""
        head: list[Any] = [(":method", fields.pop("method", "GET")), (":scheme", "http")]
        head += [(":authority", "x"), (":path", path)]
        if "protocol" in fields:
            head.append((":protocol", fields.pop("protocol")))
        head += [(name.replace("_", "-"), value) for name, value in fields.items()]
        frame = HeadersFrame(stream_id, self.encoder.encode(head))
        frame.flags.add("END_HEADERS")
        if end:
            frame.flags.add("END_STREAM")
        return frame.serialize()

    async def send(self, *parts: bytes | Frame) -> None:
        """Send all of it in one piece, if the server still takes it."""
        data = b"".join(part.serialize() if isinstance(part, Frame) else part for part in parts)
        try:
            await self.stream.send_all(data)
        except trio.BrokenResourceError:
            self.closed = True

    async def read(self) -> bool:
        """Read what comes next, and tell whether the connection is still open."""
        try:
            data = bytes(await self.stream.receive_some(65536))
        except trio.BrokenResourceError:
            data = b""
        if not data:
            self.closed = True
            return False
        self._received += data
        while len(self._received) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self._received[:9]))
            if len(self._received) < 9 + length:
                break
            frame.parse_body(memoryview(self._received[9 : 9 + length]))
            self._received = self._received[9 + length :]
            if isinstance(frame, HeadersFrame):
                self.fields[frame.stream_id] = dict(self.decoder.decode(frame.data))
            self.frames.append(frame)
        return True

    async def until(self, kind: type[Frame], stream_id: int = 0) -> Any:
        """Read until a frame of this kind has come for this stream, and return it."""
        while True:
            for frame in self.frames:
                if isinstance(frame, kind) and frame.stream_id == stream_id:
                    self.frames.remove(frame)
                    return frame
            assert await self.read(), f"closed before {kind.__name__}: {self.frames}"

    async def status(self, stream_id: int) -> str:
        """Return the status of the answer on a stream."""
        await self.until(HeadersFrame, stream_id)
        return str(self.fields[stream_id][":status"])

    async def until_data(self, stream_id: int, mark: bytes) -> bytes:
        """Read until a stream's body has this in it."""
        body = b""
        while mark not in body:
            body += (await self.until(DataFrame, stream_id)).data
        return body

    async def until_closed(self) -> list[Frame]:
        """Read until the server has closed, and return all frames that came."""
        while await self.read():
            pass
        return self.frames


def goodbyes(frames: list[Frame]) -> list[int]:
    """Return the error codes of the GOAWAY frames among these."""
    return [frame.error_code for frame in frames if isinstance(frame, GoAwayFrame)]


def reset(stream_id: int, code: int = 8) -> RstStreamFrame:
    """Return a RST_STREAM."""
    return RstStreamFrame(stream_id, error_code=code)


def unknown() -> ExtensionFrame:
    """Return a frame of a type that nobody knows."""
    return ExtensionFrame(0xFA, 0, flag_byte=0, body=b"")
