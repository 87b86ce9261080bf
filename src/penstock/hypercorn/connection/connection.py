"""One client's connection: replaces Hypercorn's `TCPServer`, and releases a client that leaves.

Rule 1: nothing is awaited between a change of the protocol's state and its bytes. What a protocol
sends is written to the kernel, or appended to the pending bytes, in one step that cannot be
cancelled. The application waits afterwards, and may be cancelled there: its bytes are still sent,
in order.

Rule 2: every wait for the client has a deadline. A writer task sends what the kernel did not take
at once. Each piece of 64 KiB has ``send_timeout`` seconds; then the connection is reset.

Rule 3: the reader always listens. It never waits for an application, a lock or a write, so it
notices a client that leaves. Where it must not read, it polls for the hang-up instead.

Rule 4: no client takes more than its share of the event loop: input is processed in time slices,
see `penstock.hypercorn.wire.turns`. No deadline runs against a client while the process is paused,
see `penstock.hypercorn.wire.pauses`.

Rule 5: an error in here is logged, ends this connection, and goes no further.

Theory of operation: the connection's own task is the reader. Each application runs in another task;
the writer task exists only while bytes are pending. ``Closed`` ends the reader's loop; it then
tells the protocol (and thereby the applications) at once, and only then waits for the last bytes.

Replaces `hypercorn/trio/tcp_server.py` of Hypercorn 0.18.0, with the same constructor.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from typing import Any, Final, final

import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H2CProtocolRequiredError, H2ProtocolAssumedError
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState
from hypercorn.utils import parse_socket_addr

from penstock.hypercorn.connection.request_tasks import RequestTasks
from penstock.hypercorn.protocol.http1 import HTTP1, HTTP2Disabled, ReadAheadGate
from penstock.hypercorn.protocol.http2 import HTTP2
from penstock.hypercorn.settings import Settings
from penstock.hypercorn.wire.incoming import MAX_AHEAD, IncomingBytes, PeerClosed
from penstock.hypercorn.wire.outgoing import LOST, OutgoingBytes, reset_on_close
from penstock.hypercorn.wire.pauses import extended_deadline
from penstock.hypercorn.wire.turns import Turn

__all__ = ["Connection"]

# Bytes of replies (to pings, say) that a client may leave unread while it sends more.
_MAX_UNREAD: Final = 2**18

_logger = logging.getLogger(__name__)


@final
class Connection:
    """One client's connection; awaiting it serves the client until either side closes.

    Args:
      app, config, context, state: as Hypercorn's `TCPServer` takes them.
      stream: the transport, which this closes.
      settings: the worker's settings.
      turn_lock: the lock for which all readers of one worker queue; see `Turn`.

    Cancellation:
      Checkpoints throughout. If cancelled, it resets the connection and cancels its applications.
    """

    __slots__ = (
        *("_app", "_client", "_closing", "_config", "_context", "_had_request", "_handshake"),
        *("_head_begun", "_idle", "_linger", "_server", "_settings", "_socket", "_ssl"),
        *("_state", "_stream", "_task", "_transport", "_turn", "_unread_replies"),
        *("carries_stream", "closed"),
        *("incoming", "outgoing", "protocol", "requests"),
    )

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        state: Any,
        stream: Any,
        settings: Settings | None = None,
        turn_lock: trio.Lock | None = None,
    ) -> None:
        settings = Settings(http2=True) if settings is None else settings
        self._ssl = hasattr(stream, "do_handshake")
        self._transport = stream.transport_stream if self._ssl else stream
        self._socket: Any = None
        if isinstance(self._transport, trio.SocketStream):
            self._socket = self._transport.socket
        direct = None if self._ssl else self._socket
        self.closed: bool = False
        self.carries_stream: bool = False  # whether a response is, or was, an event stream
        self.incoming: IncomingBytes = IncomingBytes(
            stream, self._socket, direct=direct is not None
        )
        self.outgoing: OutgoingBytes = OutgoingBytes(
            stream, direct, settings.send_timeout, self.abort
        )
        self.requests: RequestTasks = RequestTasks(self)
        self.protocol: HTTP1 | HTTP2 | None = None
        self._turn = Turn(turn_lock or trio.Lock(), self.incoming, self.requests)
        self._handshake: trio.CancelScope | None = None
        self._app = app
        self._config = config
        self._context = context
        self._settings = settings
        self._state = state
        self._stream = stream
        self._task: trio.lowlevel.Task | None = None
        self._unread_replies = 0  # bytes that the reader has added to the pending ones
        self._idle = True
        self._had_request = False
        self._head_begun = False  # whether an idle client has sent a part of a request's head
        self._closing = False
        self._linger = False

    def __await__(self) -> Generator[Any, None, None]:
        return self.run().__await__()

    async def run(self) -> None:
        """Serve the client."""
        self._task = trio.lowlevel.current_task()
        try:
            async with trio.open_nursery() as nursery:
                self.outgoing.nursery = self.requests.nursery = nursery
                if await self._begin():
                    try:
                        await self._read()
                    except Exception as error:
                        await self._fail(error)
                if self.protocol is not None:
                    if isinstance(self.protocol, HTTP2) and self._closing and not self.closed:
                        self.protocol.send_goaway()
                    await self.run_guarded(self.protocol.handle, Closed())
                    await self.requests.disconnect()
                    if self._closing and not self.closed:
                        await self.outgoing.finish(linger=self._linger)
                self.abort()
                self.requests.end()
        finally:
            self.abort()
            # Reference cycles would keep these alive until the cyclic collector runs.
            self.outgoing.close()
            self.requests.close()
            if isinstance(self.protocol, HTTP2):
                self.protocol.close()
            self.protocol = self._task = None
            if self._socket is None:
                await trio.aclose_forcefully(self._stream)

    def drain(self) -> None:
        """Accept no more requests, and close as soon as none is in progress."""
        if isinstance(self.protocol, HTTP2):
            self.protocol.drain()
        if self.protocol is None:
            self.abort()  # during its handshake
        elif self._idle:
            self._close()

    def extend_deadlines(self, pause: float) -> None:
        """Extend every deadline of the client after a pause of this many seconds."""

        def move(deadline: float) -> float:
            return extended_deadline(deadline, pause)

        if self._handshake is not None:
            self._handshake.deadline = move(self._handshake.deadline)
        self.incoming.extend_deadlines(move)
        self.outgoing.extend_deadlines(move)
        if isinstance(self.protocol, HTTP2):
            self.protocol.extend_deadlines(move)

    def abort(self) -> None:
        """Close now: discard pending bytes and cancel the applications. Idempotent.

        Cancellation:
          Synchronous, no checkpoint.
        """
        if self.closed:
            return
        self.closed = True
        if self._socket is not None:
            if not self.outgoing.eof_sent and (not self._idle or self.outgoing.pending):
                with suppress(OSError):  # already closed
                    reset_on_close(self._socket)
            self._socket.close()
        self.outgoing.discard()
        self.incoming.stop()

    # The reader

    async def _begin(self) -> bool:
        """Finish the handshake, then choose and start the protocol; False if the client is gone."""
        alpn = "http/1.1"
        try:
            socket = self._transport.socket
            self._client = parse_socket_addr(socket.family, socket.getpeername())
            self._server = parse_socket_addr(socket.family, socket.getsockname())
            if self._ssl:
                seconds = min(self._config.ssl_handshake_timeout, self._settings.head_timeout)
                with trio.fail_after(seconds) as self._handshake:
                    await self._stream.do_handshake()
                alpn = self._stream.selected_alpn_protocol()
        except (OSError, trio.TooSlowError, *LOST):
            return False
        finally:
            self._handshake = None
        self._set_idle(True)
        return await self.run_guarded(self._start, HTTP2 if alpn == "h2" else HTTP1)

    async def _start(self, protocol: type[HTTP1] | type[HTTP2], *initial: Any) -> None:
        self.protocol = new = protocol(
            self._app,
            self._config,
            self._context,
            self.requests,  # type: ignore[arg-type]  # takes the place of a TaskGroup
            ConnectionState(self._state),
            self._ssl,
            self._client,
            self._server,
            self.protocol_send,
        )
        new.turn = self._turn
        if isinstance(new, HTTP1):
            new.http2 = self._settings.http2
            new.can_read = ReadAheadGate(self.incoming)
        else:
            new.send_timeout = self._settings.send_timeout
            new.write = self.outgoing.write
            new.reader_task = self._task
            new.count_running = self.requests.count
        await new.initiate(*initial)
        if isinstance(new, HTTP2):
            self._set_idle(new.idle)

    async def run_guarded(self, function: Callable[..., Awaitable[None]], *args: Any) -> bool:
        """Run a step of this connection, and return whether it succeeded.

        Error handling:
          An exception is logged, ends this connection, and goes no further.
        """
        try:
            await function(*args)
        except Exception as error:
            await self._fail(error)
            return False
        return True

    async def _fail(self, error: Exception) -> None:
        """End the connection after a step raised this error, which is being handled."""
        if isinstance(error, HTTP2Disabled):
            self._close()
        elif not isinstance(error, PeerClosed):
            await self.log_exception("The connection of %s failed", self._client)
            self.abort()

    async def log_exception(self, message: str, *args: Any) -> None:
        """Log the exception being handled; a logger that fails does not end the connection."""
        try:
            await self._config.log.exception(message, *args)
        except Exception:
            _logger.exception(message, *args)

    async def _read(self) -> None:
        while not self.incoming.stopped:
            slow = self.requests.unconsumed > MAX_AHEAD  # the application is, not the client
            if isinstance(self.protocol, HTTP1) and not self._idle:
                seconds = math.inf
                if self.protocol.in_body and not slow:
                    read_timeout = self._config.read_timeout or math.inf
                    seconds = min(self._settings.body_timeout, read_timeout)
                self.incoming.deadline = trio.current_time() + seconds
            if slow:
                await self.incoming.watch()
            elif data := await self.incoming.receive():
                self._turn.begin()
                try:
                    await self._handle(data)
                finally:
                    self._turn.end()
                self._start_head_timeout()
        self._closing = True  # we are closing, or the client was silent for too long

    def _start_head_timeout(self) -> None:
        """Start the timeout for a request's head once an idle client has begun to send it."""
        if (
            self._idle
            and not self._head_begun
            and isinstance(self.protocol, HTTP1)
            and self.protocol.head_begun
        ):
            self._head_begun = True
            self.incoming.deadline = trio.current_time() + self._head_timeout

    async def _handle(self, data: bytes) -> None:
        """Pass bytes to the protocol; they may show that the client speaks HTTP/2."""
        assert self.protocol is not None
        try:
            await self.protocol.handle(RawData(data=data))
        except H2ProtocolAssumedError as error:
            await self._start(HTTP2)
            await self._handle(error.data)
        except H2CProtocolRequiredError as error:
            await self._start(HTTP2, error.headers, error.settings)
            if error.data:
                await self._handle(error.data)

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Let the client send more, after an application has received this many bytes."""
        if isinstance(self.protocol, HTTP2):
            self.protocol.acknowledge(stream_id, size)
        elif self.requests.unconsumed <= MAX_AHEAD:
            self.incoming.resume()

    # Events of the protocol

    async def protocol_send(self, event: Event) -> None:
        """Carry out an event of the protocol: write, close, or record whether it is idle.

        Cancellation:
          A checkpoint after bytes are written by a task other than the reader; otherwise not a
          checkpoint.
        """
        if isinstance(event, RawData):
            if event.data and not self.closed:
                self.outgoing.write(event.data)
            if trio.lowlevel.current_task() is self._task:
                pending = self.outgoing.pending
                self._unread_replies = self._unread_replies + len(event.data) if pending else 0
                if self._unread_replies > _MAX_UNREAD:
                    self.outgoing.give_up()
            else:
                await trio.lowlevel.checkpoint()
                await self.outgoing.flush()
        elif isinstance(event, Closed):
            self._linger = not self._idle
            self._close()
        elif isinstance(event, Updated):
            self._set_idle(event.idle)

    def _close(self) -> None:
        self._closing = True
        self.incoming.stop()

    def _set_idle(self, idle: bool) -> None:
        self._idle = idle
        self._head_begun = False
        self._had_request = self._had_request or not idle
        self.incoming.deadline = math.inf
        if idle:
            seconds = self._config.keep_alive_timeout if self._had_request else self._head_timeout
            self.incoming.deadline = trio.current_time() + seconds
            if self._context.terminated.is_set():
                self._close()

    @property
    def _head_timeout(self) -> float:
        """Seconds that a client has for a request's head."""
        return min(self._settings.head_timeout, self._config.keep_alive_timeout)
