"""A client that reads an event stream of an application in a test, while a block runs.

The application is called as a server calls it, with ASGI messages; no socket is involved.
"""

from __future__ import annotations

import json as jsonlib
import math
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, final
from urllib.parse import urlencode

import trio

from penstock.close_reason import CloseReason
from penstock.decode import EventStreamDecoder
from penstock.errors import DecodeError
from penstock.event import LINE_END, ServerSentEvent
from penstock.printable import counted
from penstock.stream import EventStream
from penstock.stream.group import STREAM_GROUP
from penstock.testing.fake_client import FakeClient
from penstock.testing.leaks import GRACE, describe, task_tree
from penstock.testing.waiting import (
    Changes,
    TimeLimit,
    is_cancellation,
    raise_first,
    unwrapped,
    wait_until,
)

__all__ = ["EventStreamClient", "open_client"]

# Bytes of a body that an error shows.
_EXCERPT: Final = 200


@final
class EventStreamClient(FakeClient):
    """A client that reads an event stream; `penstock.testing.open_client` makes it.

    Iterating it yields the events until the stream ends. ``status``, ``headers``, ``body``,
    ``ended`` and ``read()`` are those of `FakeClient`.

    Attributes:
      stream: the application's side, if the response is an event stream of Penstock's.
    """

    def __init__(
        self,
        app: Any,
        path: str,
        *,
        last_event_id: str | None,
        headers: Mapping[str, str],
        **options: Any,
    ) -> None:
        sent = {"Last-Event-ID": last_event_id, **headers} if last_event_id else headers
        offered = {STREAM_GROUP: _StreamRecorder(self)}
        super().__init__(app, path, headers=sent, extensions=offered, **options)
        self.stream: EventStream | None = None
        self._request_line = f"{self.scope['method']} {path}"
        self._decoder = EventStreamDecoder(last_event_id=last_event_id or "")
        self._decode_error: DecodeError | None = None
        self._events: deque[ServerSentEvent] = deque()
        self._received = 0
        self._error: Exception | None = None
        self._finished = False
        self._changes = Changes()
        self._task: trio.lowlevel.Task | None = None
        self._serving = trio.CancelScope()

    def __repr__(self) -> str:
        return f"<EventStreamClient {self._request_line}: {self._state()}>"

    @property
    def last_event_id(self) -> str:
        """The ``Last-Event-ID`` that an EventSource would send now; ``""`` if none."""
        return self._decoder.last_event_id

    @property
    def retry(self) -> int | None:
        """The last reconnection time that the stream set, in milliseconds, or None."""
        return self._decoder.retry

    @property
    def comments(self) -> list[str]:
        """The comments received so far, by line; Penstock's streams begin with ``""``."""
        *lines, _ = LINE_END.split(self.body.decode(errors="replace"))
        return [line[1:].removeprefix(" ") for line in lines if line.startswith(":")]

    @property
    def pending(self) -> tuple[ServerSentEvent, ...]:
        """The events that were received but not returned yet."""
        return tuple(self._events)

    @property
    def close_reason(self) -> CloseReason | None:
        """Why the application's side ended; None if it has not, or is not Penstock's stream."""
        return None if self.stream is None else self.stream.close_reason

    async def event(self) -> ServerSentEvent:
        """Return the next event, waiting for one if there is none.

        Its ``id`` is the last event id in force, as a browser's event has it.

        Raises:
          trio.EndOfChannel: the stream has ended.
          trio.TooSlowError: there was none in time.
          trio.ClosedResourceError: this client has disconnected.
          AssertionError: the response is not an event stream, or the application raised an error.
          DecodeError: the stream cannot be decoded.

        Cancellation:
          A checkpoint. Atomic: either an event is returned or nothing was taken.
        """
        (event,) = await self.events(1)
        return event

    async def events(self, count: int) -> list[ServerSentEvent]:
        """Return the next ``count`` events, waiting until there are as many.

        Raises:
          Exception: as `event`; events that were received stay `pending`.

        Cancellation:
          A checkpoint. Atomic, as `event`.
        """
        wanted = "an event" if count == 1 else f"{count} events"

        def decided() -> bool:
            return len(self._events) >= needed or self._over()

        def complaint(within: str) -> str:
            return f"{self._request_line}: did not get {wanted} {within}: {self._state()}"

        for needed in range(1, count + 1):  # noqa: B007 - used by `decided`
            await wait_until(decided, self._changes, complaint)
        if len(self._events) < count:
            self._raise_end(wanted)
        self._check_kind()
        return [self._events.popleft() for _ in range(count)]

    async def end(self) -> CloseReason | None:
        """Wait until the application has finished the request; return `close_reason`.

        Raises:
          trio.TooSlowError: it did not finish in time.
          AssertionError: the application raised an error.

        Cancellation:
          A checkpoint.
        """

        def complaint(within: str) -> str:
            return f"{self._request_line}: did not end {within}: {self._state()}"

        await wait_until(lambda: self._finished, self._changes, complaint)
        self._check_application()
        return self.close_reason

    def disconnect(self) -> None:
        """Disconnect. Synchronous; `end` waits until the application has noticed."""
        super().disconnect()
        self._changes.notify()

    def __aiter__(self) -> EventStreamClient:
        return self

    async def __anext__(self) -> ServerSentEvent:
        try:
            return await self.event()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    # For the block of `open_client`

    async def _serve(self) -> None:
        """Run the application for this request, and record what it raised."""
        self._task = trio.lowlevel.current_task()
        try:
            with self._serving:
                await self.run()
        except Exception as error:
            self._error = error
        finally:
            self._finished = True
            self._changes.notify()

    async def _answered(self) -> None:
        """Wait for the head of the response.

        Raises:
          trio.TooSlowError: there was none in time.
          AssertionError: the application raised an error, or returned without a response.
        """

        def decided() -> bool:
            return self.status is not None or self._finished

        def complaint(within: str) -> str:
            tasks = "" if self._task is None else f"; its tasks:\n{describe(task_tree(self._task))}"
            return f"{self._request_line}: the application does not respond {within}{tasks}"

        await wait_until(decided, self._changes, complaint)
        if self.status is None:
            self._check_application()
            raise AssertionError(
                f"{self._request_line}: the application returned without a response"
            )

    async def _leave(self, grace: float) -> AssertionError | None:
        """Disconnect; cancel the application if it does not finish the request in time.

        Returns:
          the complaint, if there is one.
        """
        self.disconnect()
        with TimeLimit(grace):
            while not self._finished:
                await self._changes.wait()
        try:
            if not self._finished and self._task is not None:
                raise AssertionError(
                    f"{self._request_line}: {grace:g} s after the client disconnected, the "
                    f"application has not finished the request:\n{describe(task_tree(self._task))}"
                )
            self._check_application()
        except AssertionError as error:
            return error
        finally:
            self._serving.cancel()
        return None

    async def _send(self, message: dict[str, Any]) -> None:
        if self._disconnected.is_set():  # a server drops what is sent then
            await trio.lowlevel.checkpoint()
            return
        had = len(self.body)
        await super()._send(message)
        if self._decode_error is None:
            try:
                for event in self._decoder.feed(self.body[had:]):
                    self._events.append(event)
                    self._received += 1
            except DecodeError as error:
                self._decode_error = error
        self._changes.notify()

    def _over(self) -> bool:
        """Return whether there is nothing more to wait for."""
        return (
            self.ended
            or self._finished
            or self._disconnected.is_set()
            or self._decode_error is not None
        )

    def _raise_end(self, wanted: str) -> None:
        """Raise why there are no more events."""
        self._check_application()
        if self._decode_error is not None:
            raise self._decode_error
        self._check_kind()
        said = f"{self._request_line}: expected {wanted}: {self._state()}"
        if self._disconnected.is_set():
            raise trio.ClosedResourceError(said)
        if self.close_reason is CloseReason.FAILED:
            said += "; the producer's error is in the log of penstock.stream.producer"
        raise trio.EndOfChannel(said)

    def _check_kind(self) -> None:
        """Raise if a browser would give up, even if the body looks like a stream."""
        kind = self.headers.get("content-type", "nothing").partition(";")[0].strip()
        if self.status != 200 or kind.lower() != "text/event-stream":
            raise AssertionError(
                f"{self._request_line}: the response is not an event stream, but {self.status} "
                f"{kind}: {self.body[:_EXCERPT]!r}"
            )

    def _check_application(self) -> None:
        if self._error is None:
            return
        error, self._error = self._error, None  # raised only once
        error = unwrapped(error)
        raise AssertionError(f"{self._request_line}: the application raised {error!r}") from error

    def _state(self) -> str:
        if self.status is None:
            return "no response yet"
        reason = f" ({self.close_reason})" if self.close_reason else ""
        state = "open"
        if self._disconnected.is_set():
            state = f"disconnected by this client{reason}"
        elif self.ended or self._finished:
            state = f"ended{reason}"
        elif not self.takes:
            state = "open, and this client is not reading"
        received = f"{counted(self._received, 'event')} received, {len(self._events)} not returned"
        return f"status {self.status}, {received}, {state}"


@final
class _StreamRecorder:
    """Replaces a server's group of streams, to give the client its stream."""

    def __init__(self, client: EventStreamClient) -> None:
        self._client = client

    def add(self, stream: EventStream) -> None:
        self._client.stream = stream

    def remove(self, stream: EventStream) -> None:
        """Do nothing: the test may look at the stream afterwards."""


# What a browser's EventSource sends with its GET; what fetch, curl and httpx send.
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
    """Make a request to an application, and read its event stream while the block runs.

        async with open_client(app, "/prices") as client:
            event = await client.event()
            assert event.data == "3.10"
        assert client.close_reason is CloseReason.DISCONNECTED

    The block begins when the application has responded: ``client.status`` and ``client.headers``
    (names in lower case) are set. At its end the client disconnects, and the application has to
    finish the request. Every wait is limited to 10 seconds of a real clock, or two days of a
    `trio.testing.MockClock`, over which an autojump clock jumps.

    Args:
      app: an ASGI application that runs on Trio. If it does something at its startup, such as
        opening a hub, use this within `open_app`.
      path: the path to request, with a query after a ``?``, as in a URL.
      method: the method.
      headers: headers in addition to Accept and, for a GET, the Cache-Control of a browser's
        EventSource; those given here replace them.
      accept: the header Accept, for an application that negotiates: ``"application/json"`` is what
        the clients of OpenAI and Anthropic send, also for streams; None sends none. The default is
        that of a browser's EventSource, ``"text/event-stream"``, for GET, and that of fetch, curl
        and httpx, ``"*/*"``, for other methods.
      last_event_id: the id to resume after: ``first.last_event_id`` of an earlier client.
      json: a value to send as JSON.
      data: a body to send; a mapping is sent as a form.
      takes: how many messages of the body the client reads before it stalls, until
        ``client.read()`` is called. With 0 it reads only the head; Penstock's streams begin with
        one message before the first event.
      grace: seconds that the application has to finish the request after the disconnect.

    Raises:
      trio.TooSlowError: the application did not respond; the message says where it waits.
      AssertionError: the application raised an error, returned without a response, or did not
        finish the request in time: the message names its tasks, which are then cancelled. If the
        block raised an error, this is added to it as a note.

    Cancellation:
      Entering and leaving are checkpoints. The application is cancelled with the block.

    Resource handling:
      No task of the request outlives the block. The block cannot be left while a task shields
      itself from cancellation.
    """
    content, implied = _content(json, data)
    usual = dict(_EVENT_SOURCE if method == "GET" else _PROGRAM)
    if accept is None:
        del usual["accept"]
    elif accept:
        usual["accept"] = accept
    client = EventStreamClient(
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
            nursery.start_soon(client._serve, name=f"application for {method} {path}")
            try:
                await client._answered()
                yield client
            except BaseException as error:  # noqa: ASYNC103 - raised again below, out of the
                raised = error  # nursery, which would wrap it in a group
            complaint = await client._leave(grace)
    except BaseException as error:  # noqa: ASYNC103 - raised again, or the block's own is
        if raised is None or not is_cancellation(error):
            raise
    raise_first(raised, complaint)


def _merged(*several: Mapping[str, str]) -> dict[str, str]:
    """Return headers with names in lower case; later ones replace earlier ones."""
    return {name.lower(): value for headers in several for name, value in headers.items()}


def _content(
    json: Any, data: str | bytes | Mapping[str, str] | None
) -> tuple[bytes, dict[str, str]]:
    """Return the body of a request, and the headers that describe it.

    Raises:
      ValueError: two bodies were given.
    """
    if json is not None and data is not None:
        raise ValueError("give json or data, not both")
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
