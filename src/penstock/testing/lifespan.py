"""An application's start and end, as ASGI's lifespan protocol has a server tell it.

Spec: ASGI, "Lifespan Protocol": an application that raises an exception at the lifespan scope does
not speak the protocol, and is served without.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

import trio

from penstock.testing.leaks import below, tell
from penstock.testing.waiting import News, wait_until

__all__ = ["Lifespan"]


@final
class Lifespan:
    """The lifespan of one application, in a task of its own.

    Attributes:
      task: it, once it runs.
    """

    def __init__(self, app: Any) -> None:
        self.task: trio.lowlevel.Task | None = None
        self._app = app
        self._to_app, self._receive = trio.open_memory_channel[dict[str, Any]](2)
        self._said: dict[str, str] = {}
        self._error: Exception | None = None
        self._finished = False
        self._scope = trio.CancelScope()
        self._news = News()

    def tasks(self) -> Iterator[trio.lowlevel.Task]:
        """Iterate the application's own tasks, which belong to no request."""
        if self.task is not None and not self._finished:
            yield from below(self.task)

    async def live(self) -> None:
        """Run the application at the lifespan scope, until it returns."""
        self.task = trio.lowlevel.current_task()
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
        try:
            with self._scope:
                await self._app(scope, self._receive.receive, self._send)
        except Exception as error:
            self._error = error
        finally:
            self._finished = True
            self._news.tell()

    async def start(self) -> None:
        """Have it start up.

        Raises:
          AssertionError: it says that it did not.
          trio.TooSlowError: it says nothing.
        """
        await self._ask("startup")
        if self._finished and "startup.complete" not in self._said:
            self._error = None  # it does not speak the protocol

    async def stop(self) -> None:
        """Have it shut down, and wait until all its tasks have ended.

        Raises:
          AssertionError: it says that it did not, or a task of it raised an error.
          trio.TooSlowError: it says nothing, or does not end.
        """
        if not self._finished:
            await self._ask("shutdown")
            await wait_until(lambda: self._finished, self._news, self._complaint)
        if self._error is not None:
            error: Exception = self._error
            while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
            raise AssertionError(
                "a task of the application's own (in its `nursery`, say) raised "
                f"{error!r}, and with it ended all the others"
            ) from self._error

    def cancel(self) -> None:
        """Cancel what there is of it."""
        self._scope.cancel()

    async def _ask(self, what: str) -> None:
        self._to_app.send_nowait({"type": f"lifespan.{what}"})

        def answered() -> bool:
            return self._finished or any(said.startswith(what) for said in self._said)

        def complaint(within: str) -> str:
            tasks = tell(self.tasks())
            return f"the application does not answer lifespan.{what} {within}; its tasks:\n{tasks}"

        await wait_until(answered, self._news, complaint)
        failed = self._said.get(f"{what}.failed")
        if failed is not None:
            did = "start" if what == "startup" else "shut down"
            raise AssertionError(
                f"the application did not {did}: {failed or 'no reason given'} (a traceback may be "
                "in the log of the application)"
            )

    def _complaint(self, within: str) -> str:
        tasks = tell(self.tasks())
        return f"the application has shut down, but its tasks do not end {within}:\n{tasks}"

    async def _send(self, message: dict[str, Any]) -> None:
        self._said[message["type"].removeprefix("lifespan.")] = message.get("message", "")
        self._news.tell()
        await trio.lowlevel.checkpoint()
