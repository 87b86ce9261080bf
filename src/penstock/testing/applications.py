"""An application for a test: started up, shut down, and looked at for what it leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import trio

from penstock.testing.blocks import is_cancellation, raise_first
from penstock.testing.leaks import left_over, open_things, tell
from penstock.testing.lifespan import Lifespan

__all__ = ["open_app"]

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
