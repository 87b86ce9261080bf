"""An application that is started up and shut down for a test, and asked what it has left."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import trio
import trio.testing
from quart_trio import QuartTrio

from penstock import CloseReason, Hub, ServerSentEvent, open_hub
from penstock.quart import EventSourceResponse, add_hub, last_event_id
from penstock.testing import no_leaks, open_app, open_client

Clock = trio.testing.MockClock


# Quart-Trio 0.13 ends `while_serving` first, 0.12 last.
SHUT_DOWN = {"stop", "served"}


class Shop:
    """An application with a hub, background tasks, and a note of what it did."""

    def __init__(self) -> None:
        self.app = QuartTrio("shop")
        self.hub: Hub = add_hub(self.app)
        self.did: list[str] = []
        self.left: list[Any] = []
        self.app.before_serving(self.start)
        self.app.while_serving(self.serve)
        self.app.after_serving(self.stop)
        self.app.add_url_rule("/prices", "prices", self.prices)
        self.app.add_url_rule("/work/<float:seconds>", "work", self.work)
        self.app.add_url_rule("/subscribe", "subscribe", self.subscribe)
        self.app.add_url_rule("/break", "break_", self.break_)

    async def start(self) -> None:
        self.app.nursery.start_soon(trio.sleep_forever)  # its own, for as long as it lives
        self.did.append("start")

    async def serve(self) -> AsyncGenerator[None, None]:
        self.did.append("serve")
        yield
        self.did.append("served")

    async def stop(self) -> None:
        self.did.append("stop")

    async def prices(self) -> EventSourceResponse:
        return EventSourceResponse(self.hub.subscription(["prices"], last_event_id=last_event_id()))

    async def work(self, seconds: float) -> str:
        self.app.nursery.start_soon(self.poll, seconds)
        return "working"

    async def poll(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def subscribe(self) -> str:
        self.left.append(self.hub.subscribe(["prices"]))
        await self.left[-1].__aenter__()
        return "subscribed"

    async def break_(self) -> str:
        self.app.nursery.start_soon(self.fail)
        return "breaking"

    async def fail(self) -> None:
        raise KeyError("on purpose")

    async def get(self, path: str) -> None:
        async with open_client(self.app, path) as client:
            await client.end()
            assert client.status == 200


async def test_an_application_lives_as_long_as_the_block(autojump_clock: Clock) -> None:
    """Its hooks run as under a server, its hub is open, and nothing is left of it."""
    shop = Shop()
    async with no_leaks():
        async with open_app(shop.app) as app:
            assert app is shop.app
            assert shop.did == ["start", "serve"]
            async with open_client(app, "/prices") as client:
                await shop.hub.publish(ServerSentEvent("3.10"), topics=["prices"])
                assert (await client.event()).data == "3.10"
            assert client.close_reason is CloseReason.DISCONNECTED
        assert shop.hub.closed
        assert shop.did[:2] == ["start", "serve"]
        assert set(shop.did[2:]) == SHUT_DOWN
    assert trio.current_time() == 5  # so long Quart gives its background tasks


async def test_a_client_comes_back_to_the_hub(autojump_clock: Clock) -> None:
    """Missed events come first."""
    shop = Shop()
    async with open_app(shop.app):
        async with open_client(shop.app, "/prices") as client:
            await shop.hub.publish(ServerSentEvent("1"), topics=["prices"])
            await client.event()
        for price in "23":
            await shop.hub.publish(ServerSentEvent(price), topics=["prices"])
        async with open_client(shop.app, "/prices", last_event_id=client.last_event_id) as client:
            assert [event.data for event in await client.events(2)] == ["2", "3"]


async def test_a_task_that_is_left_is_named(autojump_clock: Clock) -> None:
    """Those of the application's own that were there before the first request may stay."""
    shop = Shop()
    with pytest.raises(AssertionError) as raised:
        async with open_app(shop.app):
            await shop.get("/work/5.0")
    line = Shop.poll.__code__.co_firstlineno + 1
    assert str(raised.value) == (
        f"left behind by the application:\n  - task '{__name__}.Shop.poll', waiting at "
        f"{__file__}:{line} in poll()"
    )
    assert set(shop.did[2:]) == SHUT_DOWN  # nevertheless


async def test_what_lingers_or_is_allowed_may_be_left(autojump_clock: Clock) -> None:
    """A task that ends within a second, and one that is named, are no leaks."""
    shop = Shop()
    async with open_app(shop.app):
        await shop.get("/work/0.9")
    shop = Shop()
    async with open_app(shop.app, allow=["*.poll"]):
        await shop.get("/work/5000.0")
    shop = Shop()
    with pytest.raises(AssertionError, match="left behind by the application"):
        async with open_app(shop.app, allow=["poll"]):
            await shop.get("/work/5000.0")


async def test_a_subscription_that_is_left_is_named(autojump_clock: Clock) -> None:
    """A view that does not close what it opened is found before the hub closes it."""
    shop = Shop()
    with pytest.raises(AssertionError, match=r"<Subscription to \['prices'\], open, 0 waiting>"):
        async with open_app(shop.app):
            await shop.get("/subscribe")


async def test_an_application_is_opened_again(autojump_clock: Clock) -> None:
    """One of a module's, in test after test; Quart starts a `while_serving` once only."""
    app = QuartTrio("again")
    hub = add_hub(app)
    for _ in range(2):
        async with open_app(app):
            assert not hub.closed
    shop = Shop()
    async with open_app(shop.app):
        pass
    with pytest.raises(AssertionError, match=r"did not start: .*the log of the application"):
        async with open_app(shop.app):
            pass


async def test_an_application_that_does_not_start(autojump_clock: Clock) -> None:
    """The block is never entered, and the error has the reason."""
    shop = Shop()

    @shop.app.before_serving
    async def fail() -> None:
        raise OSError("no such disk")

    with pytest.raises(AssertionError, match=r"did not start: .*no such disk"):
        async with open_app(shop.app):
            pytest.fail("it did not start")


async def test_an_application_that_does_not_stop(autojump_clock: Clock) -> None:
    """One that fails to, and one that takes for ever, whose tasks are named."""
    shop = Shop()

    @shop.app.after_serving
    async def fail() -> None:
        raise OSError("no such disk")

    with pytest.raises(AssertionError, match=r"did not shut down: .*no such disk"):
        async with open_app(shop.app):
            pass
    shop = Shop()

    @shop.app.after_serving
    async def hang() -> None:
        with trio.CancelScope(shield=True) as scope:
            scope.deadline = trio.current_time() + 200_000
            await trio.sleep_forever()

    with pytest.raises(trio.TooSlowError) as raised:
        async with open_app(shop.app):
            pass
    assert "does not answer lifespan.shutdown within 172800 s; its tasks:\n" in str(raised.value)
    assert re.search(rf"waiting at {re.escape(__file__)}:\d+ in hang\(\)", str(raised.value))


async def test_a_task_of_the_application_raises(autojump_clock: Clock) -> None:
    """It ends all the others, as under a server: the test fails with the cause."""
    shop = Shop()
    with pytest.raises(AssertionError, match=r"raised KeyError\('on purpose'\)") as raised:
        async with open_app(shop.app):
            await shop.get("/break")
    assert raised.value.__cause__ is not None
    shop = Shop()
    with pytest.raises(trio.EndOfChannel) as own:  # noqa: PT012 - what the block waits for
        async with open_app(shop.app), open_client(shop.app, "/prices") as client:
            await shop.get("/break")
            await client.event()
    assert ["KeyError('on purpose')" in note for note in own.value.__notes__] == [True]


async def test_what_the_block_raises_comes_out_as_it_was(autojump_clock: Clock) -> None:
    """No group is round it, nothing else is complained of, and the application is shut down."""
    shop = Shop()
    error = KeyError("the test's own")
    with pytest.raises(KeyError) as raised:  # noqa: PT012 - it is the block that raises
        async with open_app(shop.app):
            await shop.get("/work/5000.0")
            raise error
    assert raised.value is error
    assert not hasattr(error, "__notes__")
    assert set(shop.did[2:]) == SHUT_DOWN


async def test_the_block_is_cancelled(autojump_clock: Clock) -> None:
    """So is the application; nothing is left of it."""
    shop = Shop()
    async with no_leaks():
        with trio.move_on_after(3) as scope:
            async with open_app(shop.app):
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert shop.hub.closed


async def test_an_application_without_a_lifespan() -> None:
    """An application without support for that protocol is served nevertheless."""

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async with open_app(bare):
        async with open_client(bare) as client:
            assert client.status == 204


async def test_what_belongs_to_others_is_none_of_its_business(autojump_clock: Clock) -> None:
    """A hub and tasks of the test's own may be there before, and be left."""
    shop = Shop()
    async with open_hub() as hub, trio.open_nursery() as nursery:
        async with hub.subscribe(["a"]):
            async with open_app(shop.app):
                nursery.start_soon(trio.sleep_forever)
        nursery.cancel_scope.cancel()


async def test_a_response_may_own_a_resource(autojump_clock: Clock) -> None:
    """Requests run in one task, as under Penstock's server; what the response owns is closed."""
    app = QuartTrio("owning")
    closed = trio.Event()

    class Upstream:
        async def aclose(self) -> None:
            closed.set()

    async def produce(events: trio.abc.SendChannel[ServerSentEvent]) -> None:
        await events.send(ServerSentEvent("first"))
        await trio.sleep_forever()

    @app.get("/")
    async def view() -> EventSourceResponse:
        return EventSourceResponse(produce, owns=Upstream())

    async with open_app(app), open_client(app, "/") as client:
        assert (await client.event()).data == "first"
    assert closed.is_set()
