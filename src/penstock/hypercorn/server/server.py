"""The guarded worker: Hypercorn's own parts, our connections, and a stop that lets clients go.

Replaces `worker_serve` of Hypercorn 0.18.0, `hypercorn/trio/run.py`: the same lifespan, worker
context, sockets and TLS, in the same order.

The order of a stop: no more connections are accepted, and that is what "not ready" looks like (any
answer but 200 would end a browser's EventSource for good); streams end one after the other over the
drain window, each with a ``retry:`` of its own; connections without a request close, others when
theirs is over; what is left at the window's end is reset; then the application's lifespan ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from copy import copy
from dataclasses import dataclass
from functools import partial
from random import randint
from typing import Any, Final, Literal, final

import trio
from hypercorn.config import Config, Sockets
from hypercorn.trio.statsd import StatsdLogger
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState, Framework, LifespanState
from hypercorn.utils import wrap_app

from penstock.applications import use_one_task_within
from penstock.errors import InvalidSettings
from penstock.hypercorn.connection.connection import Connection
from penstock.hypercorn.server.lifespan import ApplicationLifespan
from penstock.hypercorn.server.listeners import open_listeners
from penstock.hypercorn.server.middleware import HealthMiddleware, Refusal
from penstock.hypercorn.server.registry import Connections
from penstock.hypercorn.server.signals import StopSignals, first_of, stop_signals
from penstock.hypercorn.settings import Settings
from penstock.hypercorn.wire.pauses import moving_deadlines
from penstock.hypercorn.wire.sockets import tuned_process
from penstock.stream.group import StreamGroup, StreamGroupStatistics

__all__ = ["Server", "ServerStatistics", "serve"]

Trigger = Callable[..., Awaitable[object]]

# Of the drain window, for the ends of streams; the rest is for their last bytes to arrive.
_PACED: Final = 0.9

# Seconds in which applications may finish when their connections have been reset.
_LAST_GRACE: Final = 0.25


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """A server's figures at one moment."""

    connections_open: int
    """Connections whose block is running, those that are being refused included."""
    connections_accepted: int
    """Connections since the start."""
    connections_refused: int
    """Of those, how many were beyond a limit."""
    requests_open: int
    """Requests whose application is running; streams are among them."""
    bytes_received: int
    """Bytes from clients, without TLS's own."""
    bytes_sent: int
    """Bytes that the kernel took for clients, without TLS's own."""
    tasks: int
    """Tasks of the whole Trio run."""
    streams: StreamGroupStatistics
    """The event streams, by reason of their end."""


@final
class Server:
    """One guarded worker; it serves once.

    Args:
      app: the application, an ASGI or (with ``mode`` or if it is one) a WSGI application.
      config: Hypercorn's configuration.
      settings: what the guarded worker adds; None takes those that ``config`` carries.
      mode: "asgi" or "wsgi"; None finds out, as Hypercorn does.

    Raises:
      InvalidSettings: the settings cannot be, or the configuration asks for HTTP/3.
    """

    def __init__(
        self,
        app: Framework,
        config: Config,
        *,
        settings: Settings | None = None,
        mode: Literal["asgi", "wsgi"] | None = None,
    ) -> None:
        wrapped = wrap_app(app, config.wsgi_max_body_size, mode)
        self._prepare(wrapped, config, settings)

    @classmethod
    def of_wrapped(cls, app: AppWrapper, config: Config) -> Server:
        """Return a server for an application that Hypercorn has wrapped already."""
        server = cls.__new__(cls)
        server._prepare(app, config, None)
        return server

    def _prepare(self, app: AppWrapper, config: Config, settings: Settings | None) -> None:
        if config.quic_bind:
            raise InvalidSettings(
                "quic_bind: HTTP/3 is not served, because a client that leaves or stops reading "
                "would not be noticed there; remove it"
            )
        self.settings: Settings = Settings.of(config) if settings is None else settings
        self.streams: StreamGroup = StreamGroup()
        self._config = _with_keep_alive(config, self.settings)
        self._connections = Connections(self.settings)
        self._line = trio.Lock()  # where connections that want much of the loop take turns
        use_one_task_within(app)
        self._app = HealthMiddleware(app, self.streams, self.settings)

    def __repr__(self) -> str:
        return f"<Server {len(self._connections)} connections, {self.streams!r}>"

    def statistics(self) -> ServerStatistics:
        """Return the server's figures as they are now; called in its Trio run."""
        return ServerStatistics(
            connections_open=len(self._connections),
            connections_accepted=self._connections.accepted,
            connections_refused=self._connections.refused,
            requests_open=self._connections.requests_open,
            bytes_received=self._connections.bytes_received,
            bytes_sent=self._connections.bytes_sent,
            tasks=trio.lowlevel.current_statistics().tasks_living,
            streams=self.streams.statistics(),
        )

    async def serve(  # noqa: ASYNC128 - `_serve` calls started
        self,
        *,
        shutdown_trigger: Callable[..., Awaitable[object]] | None = None,
        sockets: Sockets | None = None,
        worker: bool = False,
        tune_process: bool = False,
        task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until told to stop; see the function `serve`.

        Args:
          shutdown_trigger: as there.
          sockets: to listen on, instead of those that the configuration names.
          worker: whether this is a process of Hypercorn's master, which sends SIGTERM more than
            once.
          tune_process: whether the process is this server's alone. Then its limit of file
            descriptors is raised to the hard one, what was imported is frozen (`gc.freeze`), and
            the cyclic collector runs less often, while it serves: with 10,000 streams it would take
            a third of the time while clients connect.
          task_status: as there.
        """
        config, state = self._config, LifespanState({})
        config.set_statsd_logger_class(StatsdLogger)
        log = config.log
        lifespan = ApplicationLifespan(self._app, config, state)
        with stop_signals(instead=shutdown_trigger is None, worker=worker) as signals:
            async with trio.open_nursery() as lifespan_nursery:
                lifespan_nursery.start_soon(lifespan.run, name="lifespan")
                await lifespan.start()
                if lifespan.failure is None:
                    with tuned_process() if tune_process else nullcontext():
                        triggers: list[Trigger] = [signals.wait, lifespan.wait_failed]
                        if shutdown_trigger is not None:
                            triggers.append(shutdown_trigger)
                        await self._serve(state, sockets, triggers, signals, task_status)
                    await lifespan.stop()
                lifespan_nursery.cancel_scope.cancel()
        if isinstance(log, StatsdLogger):
            log.socket.close()
        if lifespan.failure is not None:
            raise lifespan.failure

    async def _serve(  # noqa: ASYNC114 - it is only awaited
        self,
        state: LifespanState,
        sockets: Sockets | None,
        triggers: list[Trigger],
        signals: StopSignals,
        task_status: trio.TaskStatus[list[str]],
    ) -> None:
        """Accept connections until told to stop, then drain them."""
        config = self._config
        most = config.max_requests
        if most is not None:
            most += randint(0, config.max_requests_jitter)
        context = WorkerContext(most)
        with (
            moving_deadlines(self._connections.postpone),
            open_listeners(config, self.settings, sockets) as listeners,
        ):
            async with trio.open_nursery() as handlers:
                handle = partial(self._handle, context, state)
                async with trio.open_nursery() as nursery:
                    for listener in listeners:
                        nursery.start_soon(listener.accept, handlers, handle, name="listener")
                        await config.log.info(f"Running on {listener.url} (CTRL + C to quit)")
                    task_status.started([listener.url for listener in listeners])
                    await first_of(context.terminate.wait, *triggers)
                    signals.stopping()
                    nursery.cancel_scope.cancel()
                for listener in listeners:
                    listener.close()
                await self._drain(context)
                handlers.cancel_scope.cancel()

    async def _handle(
        self, context: WorkerContext, state: LifespanState, stream: Any, address: str | None
    ) -> None:
        """Serve one client, or refuse it; whatever goes wrong is this connection's alone."""
        status = self._connections.refusal(address)
        app: AppWrapper = self._app
        if status is not None:
            if self._connections.refuses_silently:
                await trio.aclose_forcefully(stream)
                return
            app = Refusal(status)
        connection = Connection(
            app,
            self._config,
            context,
            ConnectionState(state.copy()),
            stream,
            self.settings,
            self._line,
        )
        refused = status is not None
        self._connections.add(connection, address, refused=refused)
        try:
            await connection.run()
        except* Exception:
            await connection.report("A connection failed")
        finally:
            self._connections.remove(connection, refused=refused)

    async def _drain(self, context: WorkerContext) -> None:
        """Let everything end in its time, and end what has not."""
        await context.terminated.set()
        window = self.settings.drain_window
        for connection in self._connections:
            connection.drain()
        started = trio.current_time()
        with trio.move_on_after(max(window, _LAST_GRACE)):
            await self.streams.drain(
                seconds=window * _PACED, reconnect_spread=self.settings.reconnect_spread
            )
            await self._connections.wait_closed()
        for connection in self._connections:
            if connection.carries_stream:
                connection.abort()
        with trio.move_on_at(started + max(window, self._config.graceful_timeout)):
            await self._connections.wait_closed()
        for connection in self._connections:
            connection.abort()
        with trio.move_on_after(_LAST_GRACE):
            await self._connections.wait_closed()


def _with_keep_alive(config: Config, settings: Settings) -> Config:
    """Return a configuration in which idle connections are kept as long as the settings say.

    It is a copy: the caller's stays as it is, and may serve again, with other settings.
    """
    config, name = copy(config), "keep_alive_timeout"
    config._log = None  # this server's own
    if name not in vars(config) and config.keep_alive_timeout == Config.keep_alive_timeout:
        config.keep_alive_timeout = settings.keep_alive_timeout
    return config


async def serve(  # noqa: ASYNC128 - `Server.serve` calls started
    app: Framework,
    config: Config,
    *,
    shutdown_trigger: Callable[..., Awaitable[object]] | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
    mode: Literal["asgi", "wsgi"] | None = None,
    settings: Settings | None = None,
) -> None:
    """Serve an application: `hypercorn.trio.serve`, whose connections let go.

    Args:
      app: an ASGI application, or a WSGI one.
      config: Hypercorn's configuration.
      shutdown_trigger: when it returns, the server stops. Without one, SIGTERM, SIGINT and SIGHUP
        stop it where nobody else handles them; a second one then ends the process at once.
      task_status: started with the addresses, as ``["http://127.0.0.1:8080"]``, when they accept
        connections. A bind to port 0 is told with its real port.
      mode: "asgi" or "wsgi"; None finds out, as Hypercorn does.
      settings: what the guarded worker adds to ``config``; None takes its attribute ``penstock``.

    Raises:
      InvalidSettings: the settings cannot be, or the configuration asks for HTTP/3.
      OSError: an address cannot be bound; in an exception group, as all that follows.
      hypercorn.utils.LifespanFailureError: the application failed to start or to stop, or its
        lifespan failed between, which stops the server.

    Cancellation:
      Checkpoints throughout. Cancelling it resets every connection and cancels every request.
    """
    server = Server(app, config, settings=settings, mode=mode)
    await server.serve(shutdown_trigger=shutdown_trigger, task_status=task_status)
