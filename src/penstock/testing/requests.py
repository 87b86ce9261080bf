"""A request to an application, for the length of a block.

The application is called as a server calls it, with ASGI's messages; no socket is involved.
"""

from __future__ import annotations

import json as jsonlib
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlencode

import trio

from penstock.testing.blocks import is_cancellation, raise_first
from penstock.testing.event_stream_client import EventStreamClient
from penstock.testing.leaks import GRACE

__all__ = ["open_client"]

# What a browser's EventSource sends, which has no method but GET; what fetch, curl, httpx send.
_EVENT_SOURCE: Final = {"accept": "text/event-stream", "cache-control": "no-cache"}
_PROGRAM: Final = {"accept": "*/*"}


@asynccontextmanager
async def open_client(
    app: Any,
    path: str = "/",
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    accept: str | None = "",
    last_event_id: str | None = None,
    json: Any = None,
    data: str | bytes | Mapping[str, str] | None = None,
    takes: float = math.inf,
    grace: float = GRACE,
) -> AsyncIterator[EventStreamClient]:
    """Make a request of an application, and read its event stream while the block runs.

        async with open_client(app, "/prices") as client:
            event = await client.event()
            assert event.data == "3.10"
        assert client.close_reason is CloseReason.DISCONNECTED

    The block begins when the application has answered: ``client.status`` and ``client.headers``
    (names in lower case) are there. When it is left, the client leaves, and the application has to
    be done with the request. Whatever is waited for is given up after 10 seconds of a real clock,
    or two days of a `trio.testing.MockClock`, over which an autojump clock jumps.

    Args:
      app: any application on ASGI that runs on Trio. What it does at its start-up, such as opening
        a hub, needs `open_app` round this.
      path: what to ask for, with its query behind a ``?``, as in a URL.
      method: of the request.
      headers: of the request, in addition to Accept and, for a GET, the Cache-Control of a
        browser's EventSource; those given here replace them.
      accept: the header Accept, which decides what an application that negotiates answers:
        ``"application/json"`` is what the clients of OpenAI and Anthropic send, also for streams;
        None sends none. The default depends on the method: for GET it is that of a browser's
        EventSource, ``"text/event-stream"``; for others, which no EventSource has, it is that of
        fetch, curl and httpx, ``"*/*"``.
      last_event_id: where a client that comes back goes on: ``first.last_event_id``.
      json: a value to send as JSON.
      data: a body to send; a mapping goes as a form.
      takes: how many messages of the body the client reads before it stalls, until
        ``client.read()`` is called. 0 reads the head only; a stream of Penstock's begins with one
        message before its first event.
      grace: seconds that the application has, when the client left, to be done with the request.

    Raises:
      trio.TooSlowError: the application did not answer; the message tells what it waits for.
      AssertionError: the application raised an error, returned without an answer, or was not done
        with the request in time: the message names its tasks, which are cancelled then. When the
        block raised an error, this is a note to that error.

    Cancellation:
      Entering and leaving are checkpoints. The application is cancelled with the block.

    Resource handling:
      No task of the request outlives the block. One that shields itself from being cancelled, for
      ever, keeps it from being left.
    """
    content, implied = _content(json, data)
    usual = dict(_EVENT_SOURCE if method == "GET" else _PROGRAM)
    if accept is None:
        del usual["accept"]
    elif accept:
        usual["accept"] = accept
    asking = EventStreamClient(
        app,
        path,
        method=method,
        headers=_merged(usual, implied, headers or {}),
        last_event_id=last_event_id,
        takes=takes,
        content=content,
    )
    raised: BaseException | None = None
    complaint: AssertionError | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asking._ask, name=f"application for {method} {path}")
            try:
                await asking._answered()
                yield asking
            except BaseException as error:  # noqa: ASYNC103 - raised again below, out of the
                raised = error  # nursery, which would wrap it in a group
            complaint = await asking._leave(grace)
    except BaseException as error:  # noqa: ASYNC103 - raised again, or the block's own is
        if raised is None or not is_cancellation(error):
            raise
    raise_first(raised, complaint)


def _merged(*several: Mapping[str, str]) -> dict[str, str]:
    """Return headers in lower case; of those that are given twice, the later."""
    return {name.lower(): value for headers in several for name, value in headers.items()}


def _content(
    json: Any, data: str | bytes | Mapping[str, str] | None
) -> tuple[bytes, dict[str, str]]:
    """Return a request's body, and the headers that it has for that.

    Raises:
      ValueError: there are two bodies.
    """
    if json is not None and data is not None:
        raise ValueError("a request has one body: give json or data")
    if json is not None:
        content, kind = jsonlib.dumps(json).encode(), "application/json"
    elif isinstance(data, Mapping):
        content, kind = urlencode(data).encode(), "application/x-www-form-urlencoded"
    elif isinstance(data, str):
        content, kind = data.encode(), "text/plain; charset=utf-8"
    elif data is not None:
        content, kind = data, "application/octet-stream"
    else:
        return b"", {}
    return content, {"content-type": kind}
