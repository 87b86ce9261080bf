"""The guarded worker: Hypercorn's parts, Penstock's connections, and an orderly stop.

Replaces `worker_serve` of Hypercorn 0.18.0, `hypercorn/trio/run.py`: the same lifespan, worker
context, sockets and TLS, in the same order.

The order of a stop:

1. No more connections are accepted. To a health check that means "not ready"; any other answer than
   200 would end a browser's EventSource permanently.
2. Streams end one after the other over the drain window, each with a ``retry:`` of its own.
3. Idle connections close at once, others when their request is over. Whatever is left at the
   window's end is reset.
4. The application's lifespan ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from copy import copy
from dataclasses import dataclass
from functools import partial
from random import randint
from typing import Any, Final, Literal, cast, final

import trio
from hypercorn.app_wrappers import ASGIWrapper, WSGIWrapper
from hypercorn.config import Config, Sockets
from hypercorn.trio.statsd import StatsdLogger
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState, Framework, LifespanState
from hypercorn.utils import wrap_app

from penstock.errors import InvalidSettings
from penstock.hypercorn.connection.connection import Connection
from penstock.hypercorn.server.application import HealthMiddleware, RefusalApp
from penstock.hypercorn.server.connection_registry import ConnectionRegistry
from penstock.hypercorn.server.lifespan import ApplicationLifespan
from penstock.hypercorn.server.listeners import open_listeners
from penstock.hypercorn.server.process import tuned_process
from penstock.hypercorn.server.stop_signals import StopSignals, first_of, stop_signals
from penstock.hypercorn.settings import Settings
from penstock.hypercorn.wire.pauses import detect_pauses
from penstock.one_task_requests import use_one_task_within
from penstock.stream.group import StreamGroup, StreamGroupStatistics

__all__ = ["Server", "ServerStatistics", "serve"]

Trigger = Callable[..., Awaitable[object]]

# The part of the drain window in which streams end; the rest is for their last bytes to arrive.
_STREAM_SHARE: Final = 0.9

# Seconds that applications have to finish after their connections have been reset.
_FINAL_GRACE: Final = 0.25


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """A server's statistics at one moment."""

    connections_open: int
    """Open connections, including those that are being refused."""
    connections_accepted: int
    """Connections accepted since the start."""
    connections_refused: int
    """Connections beyond a limit since the start; they are among the accepted ones."""
    requests_open: int
    """Requests whose application is running, including streams."""
    bytes_received: int
    """Bytes from clients, without TLS overhead."""
    bytes_sent: int
    """Bytes that the kernel took for clients, without TLS overhead."""
    tasks: int
    """Tasks of the whole Trio run."""
    streams: StreamGroupStatistics
    """The open event streams, and those that have ended, by close reason."""


@final
class Server:
    """One guarded worker, which can serve once.

    Args:
      app: an ASGI or WSGI application; Hypercorn may have wrapped it already.
      config: Hypercorn's configuration.
      settings: the guarded worker's settings; None takes those in ``config``.
      mode: "asgi" or "wsgi"; None detects it, as Hypercorn does.

    Raises:
      InvalidSettings: the settings in ``config`` are invalid, or it asks for HTTP/3.
    """

    def __init__(
        self,
        app: Framework | AppWrapper,
        config: Config,
        *,
        settings: Settings | None = None,
        mode: Literal["asgi", "wsgi"] | None = None,
    ) -> None:
        if config.quic_bind:
            raise InvalidSettings(
                "quic_bind: remove it; HTTP/3 is not supported, because the server would not "
                "notice that a client leaves or stops reading"
            )
        self.settings: Settings = Settings.from_config(config) if settings is None else settings
        self.streams: StreamGroup = StreamGroup()
        self._config = _with_keep_alive(config, self.settings)
        self._connections = ConnectionRegistry(self.settings)
        self._turn_lock = trio.Lock()  # for which busy connections queue; see `Turn`
        if not isinstance(app, ASGIWrapper | WSGIWrapper):
            app = wrap_app(cast(Framework, app), config.wsgi_max_body_size, mode)
        use_one_task_within(app)
        self._app = HealthMiddleware(app, self.streams, self.settings)

    def __repr__(self) -> str:
        return f"<Server {len(self._connections)} connections, {self.streams!r}>"

    def statistics(self) -> ServerStatistics:
        """Return the server's current statistics; call it in the server's Trio run."""
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
          shutdown_trigger: as in `serve`.
          sockets: sockets to listen on, instead of those that the configuration names.
          worker: whether this is a worker process of Hypercorn's master, which sends SIGTERM more
            than once.
          tune_process: whether the process serves nothing else. Then, while it serves, its file
            descriptor limit is raised to the hard limit, imported objects are frozen (`gc.freeze`),
            and the cyclic collector runs less often: with 10,000 streams it would take a third of
            the time while clients connect.
          task_status: as in `serve`.
        """
        config, state = self._config, LifespanState({})
        config.set_statsd_logger_class(StatsdLogger)
        log = config.log
        lifespan = ApplicationLifespan(self._app, config, state)
        with stop_signals(sole_trigger=shutdown_trigger is None, worker=worker) as signals:
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
            detect_pauses(self._connections.extend_deadlines),
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
                    signals.begin_stop()
                    nursery.cancel_scope.cancel()
                for listener in listeners:
                    listener.close()
                await self._drain(context)
                handlers.cancel_scope.cancel()

    async def _handle(
        self, context: WorkerContext, state: LifespanState, stream: Any, address: str | None
    ) -> None:
        """Serve one client, or refuse it. An error ends this connection and no other."""
        status = self._connections.refusal(address)
        app: AppWrapper = self._app
        if status is not None:
            if self._connections.drops_refused:
                await trio.aclose_forcefully(stream)
                return
            app = RefusalApp(status)
        connection = Connection(
            app,
            self._config,
            context,
            ConnectionState(state.copy()),
            stream,
            self.settings,
            self._turn_lock,
        )
        refused = status is not None
        self._connections.add(connection, address, refused=refused)
        try:
            await connection.run()
        except* Exception:
            await connection.log_exception("A connection failed")
        finally:
            self._connections.remove(connection, refused=refused)

    async def _drain(self, context: WorkerContext) -> None:
        """Wait for streams and requests to end; reset the connections that remain."""
        await context.terminated.set()
        window = self.settings.drain_window
        for connection in self._connections:
            connection.drain()
        started = trio.current_time()
        with trio.move_on_after(max(window, _FINAL_GRACE)):
            await self.streams.drain(
                seconds=window * _STREAM_SHARE, reconnect_spread=self.settings.reconnect_spread
            )
            await self._connections.wait_closed()
        for connection in self._connections:
            if connection.carries_stream:
                connection.abort()
        with trio.move_on_at(started + max(window, self._config.graceful_timeout)):
            await self._connections.wait_closed()
        for connection in self._connections:
            connection.abort()
        with trio.move_on_after(_FINAL_GRACE):
            await self._connections.wait_closed()


def _with_keep_alive(config: Config, settings: Settings) -> Config:
    """Return a copy of a configuration, with the settings' ``keep_alive_timeout``.

    The caller's configuration is unchanged, and may serve again with other settings.
    """
    config, name = copy(config), "keep_alive_timeout"
    config._log = None  # this server makes its own
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
    """Serve an application, as `hypercorn.trio.serve` does, on connections that release clients.

    Args:
      app: an ASGI or WSGI application.
      config: Hypercorn's configuration.
      shutdown_trigger: the server stops when it returns. Without it, SIGTERM, SIGINT and SIGHUP
        stop the server, unless something else handles them; a second signal ends the process at
        once.
      task_status: started with the addresses, such as ``["http://127.0.0.1:8080"]``, once they
        accept connections. If a bind has port 0, its address has the real port.
      mode: "asgi" or "wsgi"; None detects it, as Hypercorn does.
      settings: the guarded worker's settings; None takes ``config``'s attribute ``penstock``.

    Raises:
      InvalidSettings: the settings in ``config`` are invalid, or it asks for HTTP/3.
      OSError: an address cannot be bound. This and the following come in an exception group.
      hypercorn.utils.LifespanFailureError: the application failed to start or to stop, or its
        lifespan failed meanwhile, which stops the server.

    Cancellation:
      Checkpoints throughout. If cancelled, it resets every connection and cancels every request.
    """
    server = Server(app, config, settings=settings, mode=mode)
    await server.serve(shutdown_trigger=shutdown_trigger, task_status=task_status)
