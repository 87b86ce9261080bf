"""A request to an application, for the length of a block, and what its client has of the answer.

The application is called as a server calls it, with ASGI's messages; no socket is involved.
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
from penstock.stream import EventStream
from penstock.stream.group import STREAM_GROUP
from penstock.testing.blocks import is_cancellation, raise_first
from penstock.testing.clients import FakeClient
from penstock.testing.leaks import GRACE, below, tell
from penstock.testing.waiting import News, Patience, wait_until

__all__ = ["EventStreamClient", "open_client"]

# Bytes of a body that a message shows.
_EXCERPT: Final = 200


@final
class EventStreamClient(FakeClient):
    """A client that reads an event stream; made by `penstock.testing.open_client`: see there.

    It may be iterated: the events until the stream ends. The response's ``status``, ``headers``,
    ``body`` and ``ended``, and ``read()``, are those of `FakeClient`.

    Attributes:
      stream: the application's side of it, once it answered with an event stream of Penstock's.
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
        offered = {STREAM_GROUP: _Noted(self)}
        super().__init__(app, path, headers=sent, extensions=offered, **options)
        self.stream: EventStream | None = None
        self._asked_for = f"{self.scope['method']} {path}"
        self._decoder = EventStreamDecoder(last_event_id=last_event_id or "")
        self._decode_error: DecodeError | None = None
        self._events: deque[ServerSentEvent] = deque()
        self._received = 0
        self._gone = False
        self._error: Exception | None = None
        self._finished = False
        self._news = News()
        self._task: trio.lowlevel.Task | None = None
        self._serving = trio.CancelScope()

    def __repr__(self) -> str:
        return f"<EventStreamClient {self._asked_for}: {self._state()}>"

    @property
    def last_event_id(self) -> str:
        """What an EventSource would send as ``Last-Event-ID`` now; ``""`` if nothing."""
        return self._decoder.last_event_id

    @property
    def retry(self) -> int | None:
        """The reconnection time that the stream asked for last, in milliseconds, or None."""
        return self._decoder.retry

    @property
    def comments(self) -> list[str]:
        """The comments that came, line by line; every stream of Penstock's begins with ``""``."""
        *lines, _ = LINE_END.split(self.body.decode(errors="replace"))
        return [line[1:].removeprefix(" ") for line in lines if line.startswith(":")]

    @property
    def pending(self) -> tuple[ServerSentEvent, ...]:
        """The events that came and were not taken yet."""
        return tuple(self._events)

    @property
    def close_reason(self) -> CloseReason | None:
        """Why the application's side ended; None before, or if it is no stream of Penstock's."""
        return None if self.stream is None else self.stream.close_reason

    async def event(self) -> ServerSentEvent:
        """Return the next event, waiting for one if there is none.

        Its ``id`` is the last event id in force, as a browser's event has it.

        Raises:
          trio.EndOfChannel: the stream has ended.
          trio.TooSlowError: none came.
          trio.ClosedResourceError: this client has disconnected.
          AssertionError: the answer is no event stream, or the application raised an error.
          DecodeError: what came cannot be decoded.

        Cancellation:
          A checkpoint. Atomic: either an event is returned or nothing was taken.
        """
        (event,) = await self.events(1)
        return event

    async def events(self, count: int) -> list[ServerSentEvent]:
        """Return the next events, so many, waiting until there are as many.

        Raises:
          Exception: what `event` raises; what came before stays `pending`.

        Cancellation:
          A checkpoint. Atomic, as `event`.
        """
        wanted = "an event" if count == 1 else f"{count} events"

        def decided() -> bool:
            return len(self._events) >= needed or self._over()

        def complaint(within: str) -> str:
            return f"{self._asked_for}: not {wanted} {within}: {self._state()}"

        for needed in range(1, count + 1):  # noqa: B007 - `decided` looks at it
            await wait_until(decided, self._news, complaint)
        if len(self._events) < count:
            self._refuse(wanted)
        self._check_kind()
        return [self._events.popleft() for _ in range(count)]

    async def end(self) -> CloseReason | None:
        """Wait until the application is done with the request; return why, as `close_reason` does.

        Raises:
          trio.TooSlowError: it did not end.
          AssertionError: the application raised an error.

        Cancellation:
          A checkpoint.
        """

        def complaint(within: str) -> str:
            return f"{self._asked_for}: no end {within}: {self._state()}"

        await wait_until(lambda: self._finished, self._news, complaint)
        self._check_application()
        return self.close_reason

    def disconnect(self) -> None:
        """Go away. Synchronous: `end` waits until the application has noticed."""
        self._gone = True
        super().disconnect()
        self._news.tell()

    def __aiter__(self) -> EventStreamClient:
        return self

    async def __anext__(self) -> ServerSentEvent:
        try:
            return await self.event()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    # For the block of `open_client`

    async def _ask(self) -> None:
        """Run the application for this request, and note what it raised."""
        self._task = trio.lowlevel.current_task()
        try:
            with self._serving:
                await self.run()
        except Exception as error:
            self._error = error
        finally:
            self._finished = True
            self._news.tell()

    async def _answered(self) -> None:
        """Wait for the response's head.

        Raises:
          trio.TooSlowError: there was none.
          AssertionError: the application raised an error, or returned without an answer.
        """

        def decided() -> bool:
            return self.status is not None or self._finished

        def complaint(within: str) -> str:
            tasks = "" if self._task is None else f"; its tasks:\n{tell(below(self._task))}"
            return f"{self._asked_for}: the application does not answer {within}{tasks}"

        await wait_until(decided, self._news, complaint)
        if self.status is None:
            self._check_application()
            raise AssertionError(f"{self._asked_for}: the application returned without an answer")

    async def _leave(self, grace: float) -> AssertionError | None:
        """Disconnect; when the application is not done with the request in time, cancel it.

        Returns:
          what there is to complain of.
        """
        self.disconnect()
        with Patience(grace):
            while not self._finished:
                await self._news.wait()
        try:
            if not self._finished and self._task is not None:
                raise AssertionError(
                    f"{self._asked_for}: {grace:g} s after its client left, the application is not "
                    f"done with the request:\n{tell(below(self._task))}"
                )
            self._check_application()
        except AssertionError as error:
            return error
        finally:
            self._serving.cancel()
        return None

    async def _send(self, message: dict[str, Any]) -> None:
        if self._gone:  # a server drops what is sent then
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
        self._news.tell()

    def _over(self) -> bool:
        """Tell whether there is nothing more to wait for."""
        return self.ended or self._finished or self._gone or self._decode_error is not None

    def _refuse(self, wanted: str) -> None:
        """Say why there are no more events."""
        self._check_application()
        if self._decode_error is not None:
            raise self._decode_error
        self._check_kind()
        said = f"{self._asked_for}: there was to be {wanted}: {self._state()}"
        if self._gone:
            raise trio.ClosedResourceError(said)
        if self.close_reason is CloseReason.FAILED:
            said += "; what the producer raised is in the log of penstock.stream.producer"
        raise trio.EndOfChannel(said)

    def _check_kind(self) -> None:
        """Raise where a browser would give up, also when the body looks like a stream."""
        kind = self.headers.get("content-type", "nothing").partition(";")[0].strip()
        if self.status != 200 or kind.lower() != "text/event-stream":
            raise AssertionError(
                f"{self._asked_for}: the answer is no event stream, but {self.status} {kind}: "
                f"{self.body[:_EXCERPT]!r}"
            )

    def _check_application(self) -> None:
        if self._error is None:
            return
        error, self._error = self._error, None  # told once
        while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise AssertionError(f"{self._asked_for}: the application raised {error!r}") from error

    def _state(self) -> str:
        if self.status is None:
            return "no answer yet"
        reason = f" ({self.close_reason})" if self.close_reason else ""
        state = "open"
        if self._gone:
            state = f"left by this client{reason}"
        elif self.ended or self._finished:
            state = f"ended{reason}"
        elif not self.takes:
            state = "open, and this client does not read"
        events = f"{self._received} event{'' if self._received == 1 else 's'} came"
        return f"status {self.status}, {events}, {len(self._events)} not taken, {state}"


@final
class _Noted:
    """Takes the place of a server's group of streams; tells a client which stream is its."""

    def __init__(self, client: EventStreamClient) -> None:
        self._client = client

    def add(self, stream: EventStream) -> None:
        self._client.stream = stream

    def remove(self, stream: EventStream) -> None:
        """Leave it with the client: what became of it is to be looked at."""


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
