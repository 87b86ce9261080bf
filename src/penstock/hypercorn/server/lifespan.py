"""The application's lifespan: started, watched while it is served, and stopped, or said why not.

Replaces `hypercorn/trio/lifespan.py` of Hypercorn 0.18.0. There, an application that fails to stop,
or whose lifespan fails while it is served, is a log record at most, and the process ends with
status 0; one that a framework cuts short is nothing at all.
"""

from __future__ import annotations

import signal
from typing import Any, Final, final

import trio
from hypercorn.config import Config
from hypercorn.typing import AppWrapper, LifespanState
from hypercorn.utils import LifespanFailureError

from penstock.hypercorn.server.signals import first_of, is_free
from penstock.printable import printable

__all__ = ["ApplicationLifespan", "LifespanFailed"]

_CUT: Final = (
    "it ended without saying that it had stopped (Quart cuts shutdown functions after "
    "BACKGROUND_TASK_SHUTDOWN_TIMEOUT, 5 s by default)"
)

_MEANING: Final = {
    "startup": "did not start",
    "serving": "failed while it was served",
    "shutdown": "did not stop properly",
}


@final
class LifespanFailed(LifespanFailureError):
    """The application did not start or stop, or failed between.

    Attributes:
      stage: "startup", "serving" or "shutdown".
      reason: why, in one line.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(stage, reason)
        self.stage: str = stage
        self.reason: str = printable(" ".join(reason.split()))

    def __str__(self) -> str:
        return self.described("the application")

    def described(self, name: str) -> str:
        """Return what has happened, in one line about the application of this name."""
        return f"{name} {_MEANING[self.stage]}: {self.reason}"


@final
class ApplicationLifespan:
    """One application's lifespan; `run` runs it, beside what calls the others.

    Attributes:
      failure: what has gone wrong, first.
    """

    def __init__(self, app: AppWrapper, config: Config, state: LifespanState) -> None:
        self.failure: LifespanFailed | None = None
        self._app = app
        self._config = config
        self._state = state
        self._stage = "startup"
        self._over = trio.Event()
        self._failed = trio.Event()
        self._started = trio.Event()
        self._stopped = trio.Event()
        self._to_app, self._from_server = trio.open_memory_channel[Any](2)

    async def run(self) -> None:
        """Run the application with the scope of a lifespan, until it returns or is cancelled.

        Error handling:
          An application that raises an `Exception` before it has started has no lifespan, and is
          served without. What it raises later, and `SystemExit` and its like, are its `failure`.
        """
        scope: Any = {
            "type": "lifespan",
            "asgi": {"spec_version": "2.0", "version": "3.0"},
            "state": self._state,
        }
        run_sync, run_async = trio.to_thread.run_sync, trio.from_thread.run
        try:
            await self._app(scope, self._from_server.receive, self._send, run_sync, run_async)
        except* _not_the_applications():
            raise
        except* Exception as errors:
            log = self._config.log
            if self._stage == "startup":
                await log.warning("The application has no lifespan, or it failed: %r", errors)
            else:
                if not self._stopped.is_set():
                    self._fail(self._stage, repr(_first(errors)))
                await log.exception("The application's lifespan failed")
        except* BaseException as errors:  # noqa: ASYNC103 - SystemExit, mostly; no cancellation
            self._fail(self._stage, repr(_first(errors)))
        finally:
            self._over.set()

    async def start(self) -> None:
        """Wait until the application has started; `failure` says if it has not."""
        self._to_app.send_nowait({"type": "lifespan.startup"})
        seconds = self._config.startup_timeout
        with trio.move_on_after(seconds) as patience:
            await first_of(self._started.wait, self._over.wait, self.wait_failed)
        if patience.cancelled_caught:
            self._fail("startup", f"it took longer than {seconds:g} s (startup_timeout)")
        self._stage = "serving"

    async def wait_failed(self) -> None:
        """Wait until something goes wrong."""
        await self._failed.wait()

    async def stop(self) -> None:
        """Have the application stop, and wait for it; `failure` says what went wrong."""
        if self._over.is_set():
            return
        self._stage = "shutdown"
        self._to_app.send_nowait({"type": "lifespan.shutdown"})
        seconds = self._config.shutdown_timeout
        with trio.move_on_after(seconds) as patience:
            await first_of(self._stopped.wait, self._over.wait, self.wait_failed)
        if patience.cancelled_caught:
            self._fail("shutdown", f"it took longer than {seconds:g} s (shutdown_timeout)")
        elif not self._stopped.is_set():
            self._fail("shutdown", _CUT)

    def _fail(self, stage: str, reason: str) -> None:
        if self.failure is None:
            self.failure = LifespanFailed(stage, reason or "it does not say why")
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
            raise ValueError(f"{kind!r} is no message of a lifespan")


def _not_the_applications() -> tuple[type[BaseException], ...]:
    """Return what an application's lifespan may end with that is no failure of the application."""
    # Trio raises KeyboardInterrupt in whatever runs when Ctrl-C is pressed, if nobody takes SIGINT.
    ctrl_c = (KeyboardInterrupt,) if is_free(signal.SIGINT) else ()
    return (trio.Cancelled, GeneratorExit, *ctrl_c)


def _first(errors: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
