"""What a view opened for its response is closed once, whatever becomes of the response."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from quart import Response, request
from quart_trio import QuartTrio

from penstock import ServerSentEvent
from penstock.quart import EventSourceResponse, use_one_task
from penstock.stream.transport import DISCONNECT_SCOPE
from penstock.testing import FakeClient
from quart_fakes import Events

Clock = trio.testing.MockClock


class Upstream:
    """Something that a view opens: it takes a while to close, and counts how often it was."""

    def __init__(self, takes: float = 0.1) -> None:
        self.takes = takes
        self.called = 0
        self.closed = 0
        self.closed_at = 0.0

    async def aclose(self) -> None:
        self.called += 1
        await trio.sleep(self.takes)
        self.closed += 1
        self.closed_at = trio.current_time()


class App(QuartTrio):
    """Opens an upstream in the view, and answers with what a test says."""

    def __init__(self, **options: Any) -> None:
        super().__init__("owns_test")
        use_one_task(self)
        self.upstreams: list[Upstream] = []
        self.started = 0
        self.finished = 0
        self.options = options
        self.testing = False

        @self.route("/", methods=["GET", "POST"])
        async def view() -> Any:
            return EventSourceResponse(self.produce, owns=self.open(), **self.options)

        @self.get("/dropped")
        async def dropped() -> Any:
            EventSourceResponse(self.produce, owns=self.open())
            return "another"

        @self.get("/raises")
        async def raises() -> Any:
            EventSourceResponse(self.produce, owns=self.open())
            raise ValueError

    def open(self) -> Upstream:
        self.upstreams.append(Upstream())
        return self.upstreams[-1]

    async def produce(self, events: Events) -> None:
        self.started += 1
        try:
            await events.send(ServerSentEvent("a"))
            await trio.sleep(5)
        finally:
            self.finished += 1

    @property
    def closed(self) -> list[int]:
        return [upstream.closed for upstream in self.upstreams]


class Client(FakeClient):
    """A client of a server that offers a scope, as Penstock's does, or none, as others."""

    def __init__(self, *args: Any, offers: bool, **options: Any) -> None:
        super().__init__(*args, **options)
        self.scopes: list[trio.CancelScope] = []
        if offers:
            self.scope["extensions"][DISCONNECT_SCOPE] = self._offer

    def _offer(self) -> trio.CancelScope:
        self.scopes.append(trio.CancelScope())
        return self.scopes[-1]

    def disconnect(self) -> None:
        super().disconnect()
        for scope in self.scopes:
            scope.cancel()


@pytest.fixture(params=[True, False], ids=["with a disconnect scope", "without"])
def offers(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_it_is_closed_after_the_stream(
    method: str, offers: bool, autojump_clock: Clock
) -> None:
    """While the producer runs it is open; when the stream has finished it is closed."""
    app = App()
    client = Client(app, method=method, offers=offers)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        await trio.sleep(4)
        assert app.closed == [0]
    assert app.closed == [1]
    assert client.body == b":\ndata: a\n\n"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_it_is_closed_when_the_client_leaves(
    method: str, offers: bool, autojump_clock: Clock
) -> None:
    """Its close may wait, though the request is cancelled: a shield gives it time."""
    app = App()
    for leaves_after in (0.0, 1.0):
        client = Client(app, method=method, offers=offers)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run)
            await trio.sleep(leaves_after)
            client.disconnect()
    assert app.started == app.finished
    assert all(upstream.called == upstream.closed == 1 for upstream in app.upstreams)


async def test_one_that_does_not_close_is_cancelled(offers: bool, autojump_clock: Clock) -> None:
    """The shield ends after two seconds."""
    app = App()
    client = Client(app, offers=offers)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        await trio.sleep(1)
        app.upstreams[0].takes = 60
        left = trio.current_time()
        client.disconnect()
    assert trio.current_time() == left + 2
    assert (app.upstreams[0].called, app.closed) == (1, [0])


async def test_it_has_time_to_close_when_the_response_has_none_left(
    offers: bool, autojump_clock: Clock
) -> None:
    """A response's own time-out ends the stream; the two seconds for closing begin then."""
    app = App()

    @app.get("/timed")
    async def timed() -> EventSourceResponse:
        response = EventSourceResponse(app.produce, owns=app.open())
        app.upstreams[0].takes = 1.5
        response.timeout = 1
        return response

    began = trio.current_time()
    await Client(app, "/timed", offers=offers).run()
    assert (app.closed, app.upstreams[0].closed_at) == ([1], began + 2.5)


async def test_it_is_closed_when_the_client_leaves_a_plain_view(offers: bool) -> None:
    """Such a view goes on in its thread; what it takes over then is closed as any other."""
    app = App()
    opening, left = trio.Event(), threading.Event()

    @app.get("/plain")
    def plain() -> EventSourceResponse:
        trio.from_thread.run_sync(opening.set)
        assert left.wait(60)
        return EventSourceResponse(app.produce, owns=app.open())

    client = Client(app, "/plain", offers=offers)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run)
            await opening.wait()
            client.disconnect()
            await trio.testing.wait_all_tasks_blocked()
            left.set()
    assert (app.closed, app.started) == ([1], 0)


@pytest.mark.parametrize("path", ["/dropped", "/raises"])
async def test_it_is_closed_when_the_response_is_not_returned(
    path: str, offers: bool, autojump_clock: Clock
) -> None:
    """It belongs to the request: another answer closes it, too."""
    app = App()
    client = Client(app, path, offers=offers)
    await client.run()
    assert client.status == (200 if path == "/dropped" else 500)
    assert app.closed == [1]
    assert not app.started


async def test_it_is_closed_after_a_head_request(offers: bool, autojump_clock: Clock) -> None:
    """Five of them leave nothing open."""
    app = App()
    for _ in range(5):
        await Client(app, method="HEAD", offers=offers).run()
    assert app.closed == [1] * 5
    assert not app.started


async def test_it_is_closed_when_an_after_request_function_fails(
    offers: bool, autojump_clock: Clock
) -> None:
    """The answer is 500, and no producer was started."""
    app = App()

    @app.after_request
    async def fail(response: Response) -> Response:
        raise ValueError

    client = Client(app, offers=offers)
    await client.run()
    assert client.status == 500
    assert app.closed == [1]
    assert not app.started


@pytest.mark.parametrize(
    "options", [{"status": 204}, {"keep_alive": 0}, {"headers": {"Content-Length": "1"}}]
)
async def test_it_is_closed_when_the_constructor_fails(
    options: dict[str, Any], offers: bool, autojump_clock: Clock
) -> None:
    """It is taken over first of all."""
    app = App(**options)
    client = Client(app, offers=offers)
    await client.run()
    assert client.status == 500
    assert app.closed == [1]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_can_be_owned(method: str, autojump_clock: Clock) -> None:
    """An exit stack with a nursery in it, an entered manager; one that is given twice is one."""
    app = QuartTrio("owns_test")
    use_one_task(app)
    left: list[str] = []

    @asynccontextmanager
    async def manager(name: str) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                yield
            finally:
                left.append(name)
                nursery.cancel_scope.cancel()

    async def produce(events: Events) -> None:
        await trio.sleep_forever()

    @app.route("/", methods=["GET", "POST"])
    async def view() -> EventSourceResponse:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(manager("stack"))
            kept = stack.pop_all()
        entered = manager("manager")
        await entered.__aenter__()
        EventSourceResponse(produce, owns=kept)
        EventSourceResponse(produce, owns=kept)
        return EventSourceResponse(produce, owns=entered)

    for _ in range(2):
        client = Client(app, method=method, offers=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run)
            await client.received(b":\n")
            client.disconnect()
    assert sorted(left) == ["manager", "manager", "stack", "stack"]


async def test_an_error_on_closing_is_logged(
    offers: bool, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes no further, and the others are closed."""
    app = App()

    class Broken:
        async def aclose(self) -> None:
            raise ValueError("broken")

    @app.get("/two")
    async def two() -> EventSourceResponse:
        EventSourceResponse(app.produce, owns=Broken())
        return EventSourceResponse(app.produce, owns=app.open())

    client = Client(app, "/two", offers=offers)
    await client.run()
    assert client.ended
    assert app.closed == [1]
    (record,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert "closing a resource of its response failed" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)


async def test_what_cannot_be_owned(autojump_clock: Clock) -> None:
    """What has no end, and an application where nobody would close it, are errors that say so."""
    errors: list[str] = []
    for app, owned in ((App(), object()), (QuartTrio("owns_test"), Upstream())):

        @app.get("/own")
        async def own(owned: object = owned) -> str:
            with pytest.raises((TypeError, RuntimeError)) as raised:
                EventSourceResponse(Upstream, owns=owned)  # type: ignore[arg-type]
            errors.append(f"{raised.type.__name__}: {raised.value}")
            return ""

        await FakeClient(app, "/own").run()
    assert errors[0].startswith("TypeError: owns takes an object with aclose()")
    assert errors[1].startswith("RuntimeError: owns needs Penstock's server, or use_one_task(app)")


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_stream_keeps_no_request(method: str, autojump_clock: Clock) -> None:
    """While it is sent, neither the request nor its body and headers are held by anybody."""
    app = QuartTrio("owns_test")
    use_one_task(app)
    seen: list[weakref.ref[Any]] = []

    @app.before_request
    async def note() -> None:
        seen.append(weakref.ref(request._get_current_object()))  # type: ignore[attr-defined]

    async def produce(events: Events) -> None:
        await trio.sleep_forever()

    @app.route("/", methods=["GET", "POST"])
    async def view() -> EventSourceResponse:
        return EventSourceResponse(produce)

    client = Client(app, method=method, content=b"x" * 10_000, offers=True)
    gc.disable()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run)
            await client.received(b":\n")
            assert [each() for each in seen] == [None]
            client.disconnect()
    finally:
        gc.enable()


async def test_a_body_that_nobody_holds_is_thrown_away(autojump_clock: Clock) -> None:
    """What the client sends on behind its stream's beginning is read, and not kept."""
    app = QuartTrio("owns_test")
    use_one_task(app)
    kept: list[bytes] = []

    @app.post("/keeps")
    async def keeps() -> EventSourceResponse:
        body = request.body

        async def produce(events: Events) -> None:
            kept.extend([part async for part in body])

        return EventSourceResponse(produce)

    async def wait(events: Events) -> None:
        await trio.sleep_forever()

    @app.post("/")
    async def view() -> EventSourceResponse:
        return EventSourceResponse(wait)

    for path in ("/", "/keeps"):
        client = Client(app, path, method="POST", offers=True)
        to_app, from_client = trio.open_memory_channel[dict[str, Any]](0)
        client._receive = from_client.receive  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run)
            await client.received(b":\n")
            for part in (b"a", b"b", b""):
                await to_app.send({"type": "http.request", "body": part, "more_body": bool(part)})
            await trio.testing.wait_all_tasks_blocked()
            client.disconnect()
    assert b"".join(kept) == b"ab"
