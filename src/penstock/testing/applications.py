"""An application for a test: started up, shut down, and looked at for what it leaves.

Its start and end are told to it by ASGI's lifespan protocol, as a server does.

Spec: ASGI, "Lifespan Protocol": an application that raises an exception at the lifespan scope does
not speak the protocol, and is served without.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from typing import Any, TypeVar, final

import trio

from penstock.testing.blocks import is_cancellation, raise_first
from penstock.testing.leaks import below, left_over, open_things, tell
from penstock.testing.waiting import News, wait_until

__all__ = ["Lifespan", "open_app"]


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


App = TypeVar("App", bound=Any)


@asynccontextmanager
async def open_app(app: App, *, allow: Collection[str] = ()) -> AsyncIterator[App]:
    """Start an application up, shut it down when the block is left, and see that nothing is left.

        async with open_app(app):
            async with open_client(app, "/prices") as client:
                await hub.publish(ServerSentEvent("3.10"), topics=["prices"])
                assert (await client.event()).data == "3.10"

    What `penstock.quart.add_hub` adds, and Quart's ``before_serving``, ``while_serving`` and
    ``after_serving``, run as under a server. At the end of the block, before the shutdown, there
    may be no open stream, no subscription, and no task in the application's own nursery that was
    not there after the start-up. What lingers has a second to go.

    Args:
      app: any application on ASGI that runs on Trio; the block is given it.
      allow: names of background tasks that a request may start and leave to the shutdown; patterns,
        as in `fnmatch`, such as ``"*.poll"``.

    Raises:
      AssertionError: the application did not start or stop, a task of its own raised an error, or
        something is left: the message names it. When the block raised an error, this is a note to
        that error.
      trio.TooSlowError: the start-up or the shutdown took longer than 10 seconds of a real clock,
        or two days of a `trio.testing.MockClock`; the message names the application's tasks.

    Cancellation:
      Entering and leaving are checkpoints. The application is cancelled with the block, and its
      shutdown does not run then.

    Resource handling:
      No task of the application outlives the block: those that do not end are cancelled.
    """
    lifespan = Lifespan(app)
    raised: BaseException | None = None
    complaint: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lifespan.live, name="lifespan of the application")
            try:
                await lifespan.start()
                before = _there(lifespan, ())
                try:
                    yield app
                except BaseException as error:  # noqa: ASYNC103 - raised again below, as it was:
                    raised = error  # the nursery would wrap it in a group
                if raised is None:
                    left = await left_over(lambda: _there(lifespan, allow) - before)
                    if left:
                        complaint = AssertionError(f"the application has left:\n{tell(left)}")
                await lifespan.stop()
            except (AssertionError, trio.TooSlowError) as error:
                if complaint is None:
                    complaint = error
                else:
                    complaint.add_note(str(error))
            finally:
                lifespan.cancel()
    except BaseException as error:  # noqa: ASYNC103 - raised again, or the block's own is
        if raised is None or not is_cancellation(error):
            raise
    raise_first(raised, complaint)


def _there(lifespan: Lifespan, allow: Collection[str]) -> set[object]:
    """Return what is open, and the tasks that are the application's own."""
    tasks = {
        task
        for task in lifespan.tasks()
        if not any(fnmatchcase(task.name, pattern) for pattern in allow)
    }
    return {*open_things(), *tasks}
