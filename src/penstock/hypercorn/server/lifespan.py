"""The application's lifespan: its start, its stop, and any failure meanwhile.

Replaces `hypercorn/trio/lifespan.py` of Hypercorn 0.18.0. There, if an application fails to stop,
or if its lifespan fails while the server runs, that is at most logged, and the process exits with
status 0. If a framework cuts the shutdown short, not even that.
"""

from __future__ import annotations

import signal
from typing import Any, Final, final

import trio
from hypercorn.config import Config
from hypercorn.typing import AppWrapper, LifespanState
from hypercorn.utils import LifespanFailureError

from penstock.hypercorn.server.stop_signals import first_of, has_default_handler
from penstock.printable import printable

__all__ = ["ApplicationLifespan", "LifespanFailed"]

_NO_MESSAGE: Final = (
    "it ended without a shutdown message (Quart cancels shutdown functions after "
    "BACKGROUND_TASK_SHUTDOWN_TIMEOUT, 5 s by default)"
)

_FAILURES: Final = {
    "startup": "did not start",
    "serving": "failed while serving",
    "shutdown": "did not stop properly",
}


@final
class LifespanFailed(LifespanFailureError):
    """The application did not start or stop, or its lifespan failed meanwhile.

    Attributes:
      stage: "startup", "serving" or "shutdown".
      reason: why, in one line.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(stage, reason)
        self.stage: str = stage
        self.reason: str = printable(" ".join(reason.split()))

    def __str__(self) -> str:
        return self.describe("the application")

    def describe(self, name: str) -> str:
        """Return one line about the failure of the application with this name."""
        return f"{name} {_FAILURES[self.stage]}: {self.reason}"


@final
class ApplicationLifespan:
    """One application's lifespan. `run` runs it, in a task beside that of the other methods.

    Attributes:
      failure: the first thing that went wrong, or None.
    """

    def __init__(self, app: AppWrapper, config: Config, state: LifespanState) -> None:
        self.failure: LifespanFailed | None = None
        self._app = app
        self._config = config
        self._state = state
        self._stage = "startup"
        self._ended = trio.Event()
        self._failed = trio.Event()
        self._started = trio.Event()
        self._stopped = trio.Event()
        self._to_app, self._from_server = trio.open_memory_channel[Any](2)

    async def run(self) -> None:
        """Run the application with a lifespan scope, until it returns or is cancelled.

        Error handling:
          If the application raises an `Exception` before it has started, it has no lifespan, and is
          served without it. Whatever it raises later, and `SystemExit` at any time, is its
          `failure`.
        """
        scope: Any = {
            "type": "lifespan",
            "asgi": {"spec_version": "2.0", "version": "3.0"},
            "state": self._state,
        }
        run_sync, run_async = trio.to_thread.run_sync, trio.from_thread.run
        try:
            await self._app(scope, self._from_server.receive, self._send, run_sync, run_async)
        except* _not_failures():
            raise
        except* Exception as errors:
            log = self._config.log
            if self._stage == "startup":
                await log.warning("The application has no lifespan, or it failed: %r", errors)
            else:
                if not self._stopped.is_set():
                    self._fail(self._stage, repr(_first(errors)))
                await log.exception("The application's lifespan failed")
        except* BaseException as errors:  # noqa: ASYNC103 - usually SystemExit, never Cancelled
            self._fail(self._stage, repr(_first(errors)))
        finally:
            self._ended.set()

    async def start(self) -> None:
        """Start the application, and wait until it has started or failed; see `failure`."""
        self._to_app.send_nowait({"type": "lifespan.startup"})
        seconds = self._config.startup_timeout
        with trio.move_on_after(seconds) as timeout:
            await first_of(self._started.wait, self._ended.wait, self.wait_failed)
        if timeout.cancelled_caught:
            self._fail("startup", f"it took longer than {seconds:g} s (startup_timeout)")
        self._stage = "serving"

    async def wait_failed(self) -> None:
        """Wait for a failure."""
        await self._failed.wait()

    async def stop(self) -> None:
        """Stop the application, and wait until it has stopped or failed; see `failure`."""
        if self._ended.is_set():
            return
        self._stage = "shutdown"
        self._to_app.send_nowait({"type": "lifespan.shutdown"})
        seconds = self._config.shutdown_timeout
        with trio.move_on_after(seconds) as timeout:
            await first_of(self._stopped.wait, self._ended.wait, self.wait_failed)
        if timeout.cancelled_caught:
            self._fail("shutdown", f"it took longer than {seconds:g} s (shutdown_timeout)")
        elif not self._stopped.is_set():
            self._fail("shutdown", _NO_MESSAGE)

    def _fail(self, stage: str, reason: str) -> None:
        if self.failure is None:
            self.failure = LifespanFailed(stage, reason or "it gives no reason")
            self._failed.set()

    async def _send(self, message: Any) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete":
            self._started.set()
        elif kind == "lifespan.shutdown.complete":
            self._stopped.set()
        elif kind in ("lifespan.startup.failed", "lifespan.shutdown.failed"):
            self._fail(kind.split(".")[1], str(message.get("message", "")))
        else:
            raise ValueError(f"{kind!r} is not a lifespan message")


def _not_failures() -> tuple[type[BaseException], ...]:
    """Return the exceptions that may end a lifespan although the application has not failed."""
    # On Ctrl-C, Trio raises KeyboardInterrupt in any running task, unless SIGINT has a handler.
    ctrl_c = (KeyboardInterrupt,) if has_default_handler(signal.SIGINT) else ()
    return (trio.Cancelled, GeneratorExit, *ctrl_c)


def _first(errors: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
