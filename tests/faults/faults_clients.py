"""Clients as rude as need be: HTTP/1.1 and HTTP/2 on blocking sockets, with or without TLS."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

from faults_servers import Running
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

E = TypeVar("E", bound=Event)

# Seconds within which anything that is no subject of a row has to happen.
PATIENCE: Final = 30.0

WIDE_OPEN: Final = 2**31 - 1


class Connection:
    """A TCP connection, under TLS where the server speaks it."""

    def __init__(
        self,
        running: Running,
        *protocols: str,
        receive_buffer: int | None = None,
        tls: bool | None = None,
    ) -> None:
        self.socket = socket.socket()
        try:
            if receive_buffer is not None:  # the window follows from it, so before the connection
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            self.socket.settimeout(PATIENCE)
            self.socket.connect(running.address)
            if running.settings.tls if tls is None else tls:
                context = running.certificates.client_context(*protocols)
                self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1")
        except BaseException:
            self.socket.close()
            raise

    def half_close(self) -> None:
        """Send a FIN, and go on holding the connection."""
        socket.socket.shutdown(self.socket, socket.SHUT_WR)

    def close_notify(self) -> None:
        """End TLS as its specification asks for, without waiting for the server's answer."""
        self.socket.setblocking(False)
        with suppress(OSError, ValueError):  # it would wait, or something else is there to read
            cast(ssl.SSLSocket, self.socket).unwrap()
        self.socket.settimeout(PATIENCE)

    def close(self) -> None:
        """Close it as a process does that ends."""
        self.socket.close()

    def reset(self) -> None:
        """Close it with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def sip(self, size: int) -> bool:
        """Take bytes from the kernel, under any TLS; tell whether the server still sends."""
        self.socket.settimeout(0.001)
        try:
            return socket.socket.recv(self.socket, size) != b""
        except TimeoutError:
            return True
        except OSError:
            return False

    def ends(self, within: float) -> float | None:
        """Read until the server closes, and return the seconds it took, or None if it does not."""
        start = time.monotonic()
        while (left := start + within - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                if not self.socket.recv(65536):
                    return time.monotonic() - start
            except TimeoutError:
                break
            except OSError:
                return time.monotonic() - start
        return None


class Http1(Connection):
    """An HTTP/1.1 connection."""

    def __init__(
        self, running: Running, *, receive_buffer: int | None = None, tls: bool | None = None
    ) -> None:
        super().__init__(running, "http/1.1", receive_buffer=receive_buffer, tls=tls)
        self.received = b""

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(data)

    def get(self, path: str, *, version: str = "1.1", headers: str = "", more: bytes = b"") -> None:
        """Send a request, and in the same packet what comes behind it."""
        self.send(f"GET {path} HTTP/{version}\r\nHost: x\r\n{headers}\r\n".encode() + more)

    def read_until(self, marker: bytes, within: float = PATIENCE) -> bytes:
        """Read until a marker comes, and return all that was read since the last one."""
        deadline = time.monotonic() + within
        while marker not in self.received:
            self.socket.settimeout(max(0.001, deadline - time.monotonic()))
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError(f"ended before {marker!r}: {self.received[-200:]!r}")
            self.received += data
        received, self.received = self.received, b""
        return received

    def goes_on(self, seconds: float, patience: float = 0) -> bool:
        """Read for a time; tell whether events came to its end.

        With a ``patience``, the last may come so many seconds later.
        """
        end = time.monotonic() + seconds
        last = 0.0
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                if not self.socket.recv(65536):
                    return False
            except TimeoutError:
                break
            except OSError:
                return False
            last = time.monotonic()
        if patience:
            self.socket.settimeout(patience)
            try:
                return self.socket.recv(65536) != b""
            except OSError:
                return False
        return end - last < seconds / 2


class Http2(Connection):
    """An HTTP/2 connection that checks nothing of what it sends.

    Without a ``window`` it has the default one, of 65,535 bytes, and never opens it again. Its
    ``stream`` is the one it has opened last.
    """

    def __init__(
        self, running: Running, *, window: int | None = None, receive_buffer: int | None = None
    ) -> None:
        super().__init__(running, "h2", receive_buffer=receive_buffer)
        self.h2 = H2Connection(
            H2Configuration(
                header_encoding="utf-8",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        if window is not None:
            self.h2.local_settings = Settings(
                client=True, initial_values={cast(Any, SettingCodes.INITIAL_WINDOW_SIZE): window}
            )
        self.stream = 0
        self.h2.initiate_connection()
        if window is not None:
            self.h2.increment_flow_control_window(window - 65535)
        self.flush()
        self._events: list[Event] = []

    def flush(self) -> None:
        """Send what the state machine wants sent."""
        self.socket.settimeout(PATIENCE)
        self.socket.sendall(self.h2.data_to_send())

    def get(self, path: str, *, method: str = "GET", end_stream: bool = True) -> int:
        """Send a request, and return its stream."""
        self.stream = stream = self.h2.get_next_available_stream_id()
        headers = [(":method", method), (":scheme", "https"), (":authority", "x"), (":path", path)]
        self.h2.send_headers(stream, headers, end_stream=end_stream)
        self.flush()
        return stream

    def reset_stream(self) -> None:
        """Send a RST_STREAM for the last stream."""
        self.h2.reset_stream(self.stream)
        self.flush()

    def go_away(self) -> None:
        """Send a GOAWAY, which lets open streams go on, and close, which does not."""
        self.h2.close_connection()
        self.flush()
        self.close()

    def wait_for(self, kind: type[E], stream: int) -> E:
        """Read until an event of this kind has come for a stream."""
        deadline = time.monotonic() + PATIENCE
        while True:
            while self._events:
                event = self._events.pop(0)
                if isinstance(event, kind) and getattr(event, "stream_id", None) == stream:
                    return event
            self.socket.settimeout(max(0.001, deadline - time.monotonic()))
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError(f"ended before {kind.__name__}")
            self._events = self.h2.receive_data(data)

    def response(self, stream: int) -> dict[str, str]:
        """Return a response's headers."""
        event = self.wait_for(ResponseReceived, stream)
        return {str(name): str(value) for name, value in event.headers or []}

    def first_data(self, stream: int) -> None:
        """Wait for the first data on a stream."""
        self.wait_for(DataReceived, stream)

    def exhaust(self, stream: int) -> None:
        """Read until a stream's window is used up."""
        while self.h2.remote_flow_control_window(stream):
            self.first_data(stream)

    def ended(self, stream: int) -> None:
        """Wait for the end of a response."""
        self.wait_for(StreamEnded, stream)

    def goes_on(self, stream: int, seconds: float) -> bool:
        """Read for a time; tell whether data came to a stream at its end."""
        end = time.monotonic() + seconds
        last = 0.0
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(65536)
                if not data:
                    return False
                events = self.h2.receive_data(data)
            except TimeoutError:
                break
            except (OSError, ProtocolError):
                return False
            if any(isinstance(e, DataReceived) and e.stream_id == stream for e in events):
                last = time.monotonic()
        return end - last < seconds / 2
