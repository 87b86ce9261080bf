"""Run an application in a test: start it up, shut it down, and check that it leaves nothing behind.

It is started and stopped with ASGI's lifespan protocol, as by a server.

Spec: ASGI, "Lifespan Protocol": an application that raises an exception at the lifespan scope does
not support the protocol, and is served without it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from typing import Any, TypeVar, final

import trio

from penstock.one_task_requests import use_one_task_within
from penstock.testing.leaks import describe, leftovers, open_objects, task_tree
from penstock.testing.waiting import Changes, is_cancellation, raise_first, unwrapped, wait_until

__all__ = ["Lifespan", "open_app"]


@final
class Lifespan:
    """The lifespan of one application, in its own task.

    Attributes:
      task: the task, once it runs.
    """

    def __init__(self, app: Any) -> None:
        self.task: trio.lowlevel.Task | None = None
        self._app = app
        self._to_app, self._receive = trio.open_memory_channel[dict[str, Any]](2)
        self._answers: dict[str, str] = {}
        self._error: Exception | None = None
        self._finished = False
        self._scope = trio.CancelScope()
        self._changes = Changes()

    def tasks(self) -> Iterator[trio.lowlevel.Task]:
        """Iterate the application's own tasks, which do not belong to a request."""
        if self.task is not None and not self._finished:
            yield from task_tree(self.task)

    async def run(self) -> None:
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
            self._changes.notify()

    async def start(self) -> None:
        """Start the application up.

        Raises:
          AssertionError: it reports that its startup failed.
          trio.TooSlowError: it does not answer in time.
        """
        await self._ask("startup")
        if self._finished and "startup.complete" not in self._answers:
            self._error = None  # it does not support the protocol

    async def stop(self) -> None:
        """Shut the application down, and wait until all its tasks have ended.

        Raises:
          AssertionError: it reports that its shutdown failed, or one of its tasks raised an error.
          trio.TooSlowError: it does not answer, or its tasks do not end in time.
        """
        if not self._finished:
            await self._ask("shutdown")
            await wait_until(lambda: self._finished, self._changes, self._complaint)
        if self._error is not None:
            raise AssertionError(
                "a task of the application itself (perhaps in its `nursery`) raised "
                f"{unwrapped(self._error)!r}, which ended all the others"
            ) from self._error

    def cancel(self) -> None:
        """Cancel the application's tasks."""
        self._scope.cancel()

    async def _ask(self, what: str) -> None:
        self._to_app.send_nowait({"type": f"lifespan.{what}"})

        def answered() -> bool:
            return self._finished or any(answer.startswith(what) for answer in self._answers)

        def complaint(within: str) -> str:
            tasks = describe(self.tasks())
            return f"the application does not answer lifespan.{what} {within}; its tasks:\n{tasks}"

        await wait_until(answered, self._changes, complaint)
        failed = self._answers.get(f"{what}.failed")
        if failed is not None:
            did = "start" if what == "startup" else "shut down"
            raise AssertionError(
                f"the application did not {did}: {failed or 'no reason given'} (the log of the "
                "application may have a traceback)"
            )

    def _complaint(self, within: str) -> str:
        tasks = describe(self.tasks())
        return f"the application has shut down, but its tasks do not end {within}:\n{tasks}"

    async def _send(self, message: dict[str, Any]) -> None:
        self._answers[message["type"].removeprefix("lifespan.")] = message.get("message", "")
        self._changes.notify()
        await trio.lowlevel.checkpoint()


App = TypeVar("App", bound=Any)


@asynccontextmanager
async def open_app(app: App, *, allow: Collection[str] = ()) -> AsyncIterator[App]:
    """Start an application up; at the end of the block, shut it down and check for leaks.

        async with open_app(app):
            async with open_client(app, "/prices") as client:
                await hub.publish(ServerSentEvent("3.10"), topics=["prices"])
                assert (await client.event()).data == "3.10"

    Each request runs in one task, as under Penstock's server, so a response may own a resource.
    `penstock.quart.add_hub`, and Quart's ``before_serving``, ``while_serving`` and
    ``after_serving``, work as under a server. At the end of the block, before the shutdown, there
    must be no open stream, no subscription, and no task in the application's nursery that was not
    there after the startup. They have a second to end.

    Args:
      app: an ASGI application that runs on Trio; the block is given it.
      allow: names of background tasks that a request may start and leave to the shutdown; patterns
        as in `fnmatch`, such as ``"*.poll"``.

    Raises:
      AssertionError: the application did not start or stop, one of its own tasks raised an error,
        or something is left: the message names it. If the block raised an error, this is added to
        it as a note.
      trio.TooSlowError: the startup or the shutdown took longer than 10 seconds of a real clock, or
        two days of a `trio.testing.MockClock`; the message names the application's tasks.

    Cancellation:
      Entering and leaving are checkpoints. The application is cancelled with the block, without its
      shutdown.

    Resource handling:
      No task of the application outlives the block: those that do not end are cancelled.
    """
    use_one_task_within(app)
    lifespan = Lifespan(app)
    raised: BaseException | None = None
    complaint: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            # ASYNC113: what it has to have done before the block runs, `start` waits for.
            nursery.start_soon(lifespan.run, name="lifespan of the application")  # noqa: ASYNC113
            try:
                await lifespan.start()
                before = _present(lifespan, ())
                try:
                    yield app
                except BaseException as error:  # noqa: ASYNC103 - raised again below, as it was:
                    raised = error  # the nursery would wrap it in a group
                if raised is None:
                    left = await leftovers(lambda: _present(lifespan, allow) - before)
                    if left:
                        complaint = AssertionError(
                            f"left behind by the application:\n{describe(left)}"
                        )
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


def _present(lifespan: Lifespan, allow: Collection[str]) -> set[object]:
    """Return what is open, and the application's own tasks."""
    tasks = {
        task
        for task in lifespan.tasks()
        if not any(fnmatchcase(task.name, pattern) for pattern in allow)
    }
    return {*open_objects(), *tasks}
