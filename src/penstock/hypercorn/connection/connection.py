"""One client's connection: Hypercorn's `TCPServer`, made so that it lets go.

Rule 1: nothing is awaited between a protocol's state and the connection's bytes. What a protocol
sends is written to the kernel, or joins what waits for it, in one step that cannot be cancelled; an
application waits afterwards, and may be cancelled there, for the bytes stay in their order.

Rule 2: who waits for the client has a deadline. Bytes that the kernel does not take are written by
a task of the connection's own, which gives a piece of 64 KiB ``send_timeout`` seconds; then the
connection is reset.

Rule 3: the reader always listens. It never waits for an application, a lock or a write, so a client
that leaves is seen; where it must not read more, it watches for the hang-up instead.

Rule 4: no client buys more of the event loop than its share: what was read is worked off in slices
of time, see `penstock.hypercorn.wire.turns`; and no deadline counts against a client while nobody
looked at it, see `penstock.hypercorn.wire.pauses`.

Rule 5: an error in here ends this connection, is logged, and goes no further.

Theory of operation: the reader is the connection's own task; every application is another, and the
writer is one only while bytes wait. ``Closed`` ends the reader's loop, which tells the protocol
(and thereby the applications) at once, and only then waits for the last bytes.

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
from penstock.hypercorn.protocol.http1 import HTTP1, HTTP2NotSpoken, ReadAheadGate
from penstock.hypercorn.protocol.http2 import HTTP2
from penstock.hypercorn.settings import Settings
from penstock.hypercorn.wire.incoming import MAX_AHEAD, Incoming, PeerClosed
from penstock.hypercorn.wire.outgoing import LOST, Outgoing
from penstock.hypercorn.wire.pauses import postponed
from penstock.hypercorn.wire.sockets import reset_on_close
from penstock.hypercorn.wire.turns import Turn

__all__ = ["Connection"]

# Bytes of answers (to pings, say) that a client may leave unread while it asks for more.
_MAX_UNREAD: Final = 2**18

_logger = logging.getLogger(__name__)


@final
class Connection:
    """One client's connection; awaiting it serves the client until one of both closes.

    Args:
      app, config, context, state: as Hypercorn's `TCPServer` takes them.
      stream: the connection; this closes it.
      settings: the worker's settings.
      line: where the readers of one worker wait for their turn.

    Cancellation:
      Checkpoints throughout. Cancelled, it resets the connection and cancels its applications.
    """

    __slots__ = (
        *("_answers", "_app", "_begins", "_client", "_closing", "_config", "_context"),
        *("_handshake", "_idle", "_linger", "_served", "_server", "_settings", "_socket", "_ssl"),
        *("_state", "_stream", "_task", "_transport", "_turn", "carries_stream", "gone"),
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
        line: trio.Lock | None = None,
    ) -> None:
        settings = Settings(http2=True) if settings is None else settings
        self._ssl = hasattr(stream, "do_handshake")
        self._transport = stream.transport_stream if self._ssl else stream
        self._socket: Any = None
        if isinstance(self._transport, trio.SocketStream):
            self._socket = self._transport.socket
        direct = None if self._ssl else self._socket
        self.gone: bool = False
        self.carries_stream: bool = False  # whether a response is, or was, an event stream
        self.incoming: Incoming = Incoming(stream, self._socket, direct=direct is not None)
        self.outgoing: Outgoing = Outgoing(stream, direct, settings.send_timeout, self.abort)
        self.requests: RequestTasks = RequestTasks(self)
        self.protocol: HTTP1 | HTTP2 | None = None
        self._turn = Turn(line or trio.Lock(), self.incoming, self.requests)
        self._handshake: trio.CancelScope | None = None
        self._app = app
        self._config = config
        self._context = context
        self._settings = settings
        self._state = state
        self._stream = stream
        self._task: trio.lowlevel.Task | None = None
        self._answers = 0  # bytes that the reader has added to what waits
        self._idle = True
        self._served = False  # whether a request has come
        self._begins = False  # whether an idle client has begun to send a request
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
                        await self._end_by(error)
                if self.protocol is not None:
                    if isinstance(self.protocol, HTTP2) and self._closing and not self.gone:
                        self.protocol.say_goodbye()
                    await self.guarded(self.protocol.handle, Closed())
                    await self.requests.disconnect()
                    if self._closing and not self.gone:
                        await self.outgoing.finish(linger=self._linger)
                self.abort()
                self.requests.end()
        finally:
            self.abort()
            # What refers to each other here would wait for the cyclic collector.
            self.outgoing.close()
            self.requests.close()
            if isinstance(self.protocol, HTTP2):
                self.protocol.close()
            self.protocol = self._task = None
            if self._socket is None:
                await trio.aclose_forcefully(self._stream)

    def drain(self) -> None:
        """Take no more requests: close as soon as nothing is under way."""
        if isinstance(self.protocol, HTTP2):
            self.protocol.retire()
        if self.protocol is None:
            self.abort()  # in its handshake
        elif self._idle:
            self._close()

    def postpone(self, pause: float) -> None:
        """Move each deadline of the client's: for so many seconds nobody has looked at it."""

        def move(deadline: float) -> float:
            return postponed(deadline, pause)

        if self._handshake is not None:
            self._handshake.deadline = move(self._handshake.deadline)
        self.incoming.postpone(move)
        self.outgoing.postpone(move)
        if isinstance(self.protocol, HTTP2):
            self.protocol.postpone(move)

    def abort(self) -> None:
        """Close now: what waits is thrown away, and the applications are told.

        Cancellation:
          Synchronous, no checkpoint.
        """
        if self.gone:
            return
        self.gone = True
        if self._socket is not None:
            if not self.outgoing.told and (not self._idle or self.outgoing.waiting):
                with suppress(OSError):  # it is closed already
                    reset_on_close(self._socket)
            self._socket.close()
        self.outgoing.discard()
        self.incoming.stop()

    # What the reader does

    async def _begin(self) -> bool:
        """Finish the handshake, choose the protocol and start it; False if there is no client."""
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
        return await self.guarded(self._start, HTTP2 if alpn == "h2" else HTTP1)

    async def _start(self, protocol: type[HTTP1] | type[HTTP2], *initial: Any) -> None:
        self.protocol = new = protocol(
            self._app,
            self._config,
            self._context,
            self.requests,  # type: ignore[arg-type]  # in the place of a TaskGroup
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
            new.wire = self.outgoing.write
            new.reader = self._task
            new.running = self.requests.count
        await new.initiate(*initial)
        if isinstance(new, HTTP2):
            self._set_idle(new.idle)

    async def guarded(self, function: Callable[..., Awaitable[None]], *args: Any) -> bool:
        """Run a step of this connection, and tell whether it went well.

        Error handling:
          An exception is logged and ends the connection, and nothing else.
        """
        try:
            await function(*args)
        except Exception as error:
            await self._end_by(error)
            return False
        return True

    async def _end_by(self, error: Exception) -> None:
        """End the connection, since a step of it raised this error, which is being handled."""
        if isinstance(error, HTTP2NotSpoken):
            self._close()
        elif not isinstance(error, PeerClosed):
            await self.report("The connection of %s failed", self._client)
            self.abort()

    async def report(self, message: str, *args: Any) -> None:
        """Log the exception that is being handled; a log that fails is no reason to end."""
        try:
            await self._config.log.exception(message, *args)
        except Exception:
            _logger.exception(message, *args)

    async def _read(self) -> None:
        while not self.incoming.stopped:
            slow = self.requests.untaken > MAX_AHEAD  # the application, not the client
            if isinstance(self.protocol, HTTP1) and not self._idle:
                seconds = math.inf
                if self.protocol.receives_body and not slow:
                    patience = self._config.read_timeout or math.inf
                    seconds = min(self._settings.body_timeout, patience)
                self.incoming.deadline = trio.current_time() + seconds
            if slow:
                await self.incoming.watch()
            elif data := await self.incoming.receive():
                self._turn.begin()
                try:
                    await self._handle(data)
                finally:
                    self._turn.end()
                self._note_beginning()
        self._closing = True  # told to, or the client was silent for too long

    def _note_beginning(self) -> None:
        """Give an idle client that has begun to send a request the time for the rest of it."""
        if (
            self._idle
            and not self._begins
            and isinstance(self.protocol, HTTP1)
            and self.protocol.begins_request
        ):
            self._begins = True
            self.incoming.deadline = trio.current_time() + self._head_timeout

    async def _handle(self, data: bytes) -> None:
        """Give bytes to the protocol, which may turn out to be HTTP/2."""
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

    def taken(self, stream_id: int, size: int) -> None:
        """Let the client send more: an application has taken this many bytes."""
        if isinstance(self.protocol, HTTP2):
            self.protocol.acknowledge(stream_id, size)
        elif self.requests.untaken <= MAX_AHEAD:
            self.incoming.resume()

    # What the protocol asks for

    async def protocol_send(self, event: Event) -> None:
        """Do what the protocol asks for: write, close, or note whether it is idle.

        Cancellation:
          A checkpoint where something is written, after it was. Otherwise not a checkpoint.
        """
        if isinstance(event, RawData):
            if event.data and not self.gone:
                self.outgoing.write(event.data)
            if trio.lowlevel.current_task() is self._task:
                self._answers = self._answers + len(event.data) if self.outgoing.waiting else 0
                if self._answers > _MAX_UNREAD:
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
        self._begins = False
        self._served = self._served or not idle
        self.incoming.deadline = math.inf
        if idle:
            seconds = self._config.keep_alive_timeout if self._served else self._head_timeout
            self.incoming.deadline = trio.current_time() + seconds
            if self._context.terminated.is_set():
                self._close()

    @property
    def _head_timeout(self) -> float:
        """Seconds for a request's head."""
        return min(self._settings.head_timeout, self._config.keep_alive_timeout)
