"""A hub against a model of it: whatever is done in whatever order, each hears what it should.

A rule-based state machine of hypothesis drives a hub that runs in Trio's guest mode, in this very
thread and on a virtual clock: each rule is a command to a task there, and the host's loop is a
queue. Pages of the history are small, and the dispatcher yields after each member, so that the
seams are everywhere.

The model is a list of all that the history was given, and which of that its bounds have discarded.
What a subscriber has then follows from what it asked for, its selection, and its policy: no gap
that is not reported, no duplicate, no event and no id of another topic, no report without a loss,
and no more reports than losses. Histories are slow and fail, keep-alives and lifetimes expire while
they are read, and publishing goes on meanwhile.
"""

from __future__ import annotations

import json
import queue
from collections.abc import Awaitable, Callable, Sequence, Sized
from typing import Any

import outcome
import pytest
import trio
import trio.testing
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hub_fakes import Server, SlowHistory
from penstock import (
    EVERY_TOPIC,
    CloseReason,
    EventStream,
    Hub,
    LogError,
    OverflowPolicy,
    Publication,
    Selection,
    ServerSentEvent,
    open_hub,
)
from penstock.hub import cursor as cursor_module
from penstock.hub import dispatcher as dispatcher_module
from penstock.logs.log import Page, Position
from penstock.logs.memory import MemoryLog
from penstock.position_ids import PositionIds

TOPICS = "abc"
PAGE = 3

# Seconds of virtual time in which nothing but keep-alives happens: all is done then.
QUIET = 0.05


class ModelHistory(SlowHistory):
    """A history in memory, beside a plain list of all that it was given.

    Attributes:
      log: every publication, in order; the first one's position is 1.
      discarded: the positions of those that the bounds have discarded.
      known_losses: up to where a reader of a selection knows that something was discarded.
      calls: how many calls have begun and ended.
      failed_reads: how many calls of `read` have failed; and `failed_locates` of `locate`.
    """

    def __init__(
        self,
        takes: float | None,
        reads: float,
        *,
        count: int | None,
        per_topic: int | None,
        age: float | None,
    ) -> None:
        inner = MemoryLog(count=count, size=None, per_topic=per_topic, age=age)
        super().__init__(takes, reads=reads, inner=inner)
        self.log: list[Publication] = []
        self.discarded: set[int] = set()
        self.known_losses: dict[Selection, int] = {}
        self.calls = self.failed_reads = self.failed_locates = 0
        self._at: list[float] = []
        self._count, self._per_topic, self._age = count, per_topic, age

    def append_nowait(self, publications: Sequence[Publication]) -> Sequence[Position] | None:
        if self.takes is None:
            self._note(publications)
        return super().append_nowait(publications)

    async def append(self, publications: Sequence[Publication]) -> Sequence[Position]:
        assert self.takes is not None
        self.calls += 1
        await trio.sleep(self.takes)
        self.calls += 1
        self._fail("append")
        self._note(publications)
        return self.inner.append_nowait(publications)

    async def locate(self, id: str, selection: Selection) -> Position | None:  # noqa: A002 - as there
        self.calls += 1
        try:
            return await super().locate(id, selection)
        except LogError:
            self.failed_locates += 1
            raise
        finally:
            self.calls += 1

    async def read(
        self, after: Position, until: Position, selection: Selection, *, count: int, size: int
    ) -> Page:
        self.calls += 1
        try:
            page = await super().read(after, until, selection, count=count, size=size)
            known = max(self.known_losses.get(selection, 0), page.discarded_until)
            self.known_losses[selection] = known
            return page
        except LogError:
            self.failed_reads += 1
            raise
        finally:
            self.calls += 1

    def kept(self, topic: str | None = None) -> list[int]:
        """Return the positions that are left, on a topic."""
        return [
            position
            for position, publication in enumerate(self.log, start=1)
            if position not in self.discarded and (topic is None or topic in publication.topics)
        ]

    def grow_old(self) -> None:
        """Discard what is too old by now."""
        kept = self.kept()
        now = trio.current_time()
        while len(kept) > 1 and self._age is not None and self._at[kept[0] - 1] < now - self._age:
            self.discarded.add(kept.pop(0))

    def _note(self, publications: Sequence[Publication]) -> None:
        for publication in publications:
            self.log.append(publication)
            self._at.append(trio.current_time())
            for topic in publication.topics:
                on_topic = self.kept(topic)
                if self._per_topic is not None and len(on_topic) > self._per_topic:
                    self.discarded.add(on_topic[0])
        kept = self.kept()
        if self._count is not None and len(kept) > self._count:
            self.discarded.update(kept[: -self._count])
        self.grow_old()


class Subscriber:
    """One subscription, what its client has had of it, and what the model says about that."""

    def __init__(
        self,
        hub: Hub,
        history: ModelHistory,
        topics: str,
        overflow: OverflowPolicy,
        buffer: int,
        requested: str | None,
        way: str,
        keep_alive: float | None,
        max_lifetime: float | None,
    ) -> None:
        self.log = history
        self.topics = topics
        self.overflow = overflow
        self.buffer = buffer
        self.requested = requested or None
        self.subscription = hub.subscription(
            EVERY_TOPIC if topics == "*" else list(topics),
            overflow=overflow,
            buffer=buffer,
            last_event_id=requested,
        )
        self.server = None if way == "iterated" else Server()
        self.stream = None
        if self.server is not None:
            self.stream = EventStream(
                self.subscription, keep_alive=keep_alive, max_lifetime=max_lifetime
            )
        self.through = self.server if way == "written through" else None
        self.stalled = way == "iterated"
        self.scope = trio.CancelScope()
        self.slow = self.expired = False
        self.last_id = requested
        # The model:
        self.last = 0  # the position of what it has had last, or begins behind
        self.told = 0  # up to which position something may be missing: it was told
        self.losses: set[int] = set()  # positions that it has missed, or may have
        self.gaps = 0
        self.failed_before = history.failed_reads
        self.unread = False  # a read has failed: what comes before the next event may be missing
        self.excused: set[int] = set()  # what was gone before it asked for all there is
        self.heard = 0  # how many events were checked
        self.skipped = self.dropped = 0  # how many it has not had, and how many of them untold
        self.live = False  # whether all that comes waits in its backlog, which is then this one:
        self.backlog: list[int] = []
        self.absorbed = 0

    async def run(
        self, first: Callable[[], Awaitable[None]] | None, task_status: trio.TaskStatus[None]
    ) -> None:
        """Do something first, and be connected until the scope is cancelled."""
        if first is not None:
            await first()
        self.log.grow_old()
        if self.requested is None:
            self.last = len(self.log.log)
        elif self.requested != "earliest":
            self.last = self.position_of(self.requested)
        self.began = self.last
        with self.scope:
            if self.stream is not None and self.server is not None:
                self.scope.shield = False
                task_status.started()
                await self.stream.run(self.server.send, self.through)
            else:
                task_status.started()
                async with self.subscription.open():
                    await trio.sleep_forever()

    @property
    def open(self) -> bool:
        return not self.slow and not self.expired and not self.scope.cancel_called

    def position_of(self, id_: str) -> int:
        """Return the position of an id, or 0."""
        position = PositionIds(self.log.key).decode(id_)
        if position is not None:
            return position
        for position, publication in enumerate(self.log.log, start=1):
            if publication.id == id_:
                return position
        return 0

    def expected(self, after: int) -> list[int]:
        """Return the positions behind this one that it should hear of."""
        return [
            position
            for position, publication in enumerate(self.log.log[after:], start=after + 1)
            if self.selects(publication)
        ]

    def selects(self, publication: Publication) -> bool:
        return self.topics == "*" or bool(set(self.topics) & set(publication.topics))

    def check_id(self, id_: str | None) -> None:
        """Check that an id which the client was given is of its own, or a position's."""
        if id_ is None or id_ == self.requested:
            return
        if PositionIds(self.log.key).decode(id_) is None:
            assert self.selects(self.log.log[self.position_of(id_) - 1]), f"{id_} is not its"

    def absorb(self) -> None:
        """Have the model's backlog take what was published."""
        if not self.live:
            return
        for position in self.expected(self.absorbed):
            self.absorbed = position
            if self.overflow is OverflowPolicy.LATEST:
                newer = [*self.backlog, position]
                self.backlog = [
                    each
                    for index, each in enumerate(self.backlog)
                    if any(
                        all(topic not in self.log.log[n - 1].topics for n in newer[index + 1 :])
                        for topic in self.log.log[each - 1].topics
                    )
                ]
            if len(self.backlog) == self.buffer:
                if self.overflow is OverflowPolicy.DISCONNECT:
                    self.slow = True
                    self.backlog = []
                    return
                del self.backlog[0]
            self.backlog.append(position)

    def hear_all(self, events: list[ServerSentEvent]) -> None:
        """Check the next events that the client has."""
        if self.requested == "earliest" and not self.heard:
            self.excused = set(self.log.discarded)
        for event in events:
            self.hear(event)

    def hear(self, event: ServerSentEvent) -> None:
        """Check the next event that the client has."""
        self.heard += 1
        self.check_id(event.id)
        if self.heard == 1 and self.requested not in (None, "earliest"):
            position = self.position_of(self.requested or "")
            known = PositionIds(self.log.key).decode(self.requested or "") is not None or (
                position and self.selects(self.log.log[position - 1])
            )
            assert known or event.event == "gap", f"{self.requested} is not its"
        if event.id is not None:
            self.last_id = event.id
        if event.event == "gap":
            self.hear_gap(event)
            return
        position = self.position_of(event.id or "")
        assert position, f"{event} was never published"
        assert event == self.log.log[position - 1].event
        assert position in self.expected(self.last), f"{event} comes twice, late, or is not for it"
        self.skip([each for each in self.expected(self.last) if each < position])
        self.last, self.unread = position, False

    def hear_gap(self, gap: ServerSentEvent) -> None:
        told = json.loads(gap.data or "")["last_event_id"]
        if gap.id is not None and self.begins_anew(told):
            self.last = self.began = self.position_of(gap.id)
            if self.position_of(told) in self.log.discarded:  # or it says what was lost since
                self.told = self.log.known_losses.get(self.subscription.selection, 0)
            return
        if self.requested == "earliest" and self.heard == 1 and told != "earliest":
            # Nothing was kept of what it asked for, so it began behind all that there was.
            self.last = self.began = self.position_of(told)
            assert set(self.expected(0)) - set(self.expected(self.last)) <= self.log.discarded
        assert self.position_of(told) == self.last or told == "earliest"
        self.gaps += 1
        self.losses.update(set(self.expected(self.last)) & self.log.discarded)
        lost = self.gaps <= len(self.losses)
        self.unread = self.log.failed_reads > self.failed_before
        self.failed_before += self.unread and not lost
        assert lost or self.unread, "there are more gaps than losses"
        self.told = self.log.known_losses.get(self.subscription.selection, 0)
        if gap.id is not None:  # nothing of what follows was kept, up to this position
            goes_on = self.position_of(gap.id)
            assert goes_on > self.last
            self.skip([each for each in self.expected(self.last) if each <= goes_on])
            self.last = goes_on

    def begins_anew(self, told: str) -> bool:
        """Tell whether a gap with an id says that the one it asked for is not known."""
        if self.heard > 1 or told != self.requested:
            return False
        if PositionIds(self.log.key).decode(told) is not None:
            return False
        position = self.position_of(told)
        known = position and self.selects(self.log.log[position - 1])
        return not known or position in self.log.discarded or bool(self.log.failed_locates)

    def skip(self, positions: list[int]) -> None:
        """Note that it will never have these."""
        for position in positions:
            told = self.unread or (position <= self.told and position in self.log.discarded)
            self.skipped += 1
            if not told and position not in self.excused:
                self.dropped += 1
                assert self.overflow is not OverflowPolicy.DISCONNECT, (
                    f"{position} is missing, untold"
                )

    def is_quiet(self) -> None:
        """Check that it has had all there is to have."""
        rest = self.expected(self.last)
        if self.overflow is not OverflowPolicy.DISCONNECT and rest and not self.unread:
            assert rest[-1] in self.log.discarded, "the newest is not dropped"
        self.skip(rest)
        assert self.dropped <= self.subscription.dropped <= self.skipped, vars(self)
        self.last = max([self.last, *rest])


class Machine(RuleBasedStateMachine):
    """Publishers, subscribers and time, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        seconds = iter(range(10**9))
        self.patch.setattr(dispatcher_module, "perf_counter", lambda: float(next(seconds)))
        self.patch.setattr(dispatcher_module, "_LOOK", 1)
        self.patch.setattr(cursor_module, "_PAGE", PAGE)
        self.subscribers: list[Subscriber] = []
        self.published = self.refused = self.publishing = 0
        self.acknowledged: list[str] = []
        self.clock = trio.testing.MockClock()
        self.loop: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self.ended: outcome.Outcome[None] | None = None
        self.hub: Hub
        self.log: ModelHistory
        self.nursery: trio.Nursery

    # The host's loop

    def start(self) -> None:
        self.to_task, self.commands = trio.open_memory_channel[Callable[[], Awaitable[None]]](1)
        trio.lowlevel.start_guest_run(
            self.main,
            run_sync_soon_threadsafe=self.loop.put,
            done_callback=self.note_ended,
            clock=self.clock,
        )
        self.token: trio.lowlevel.TrioToken | None = None
        self.result: outcome.Outcome[None] | None = None
        while self.token is None and self.ended is None:
            self.loop.get(timeout=10)()

    def note_ended(self, result: outcome.Outcome[None]) -> None:
        self.ended = result

    async def main(self) -> None:
        async with open_hub(log=self.log, batch_delay=0) as self.hub:
            async with trio.open_nursery() as self.nursery:
                self.token = trio.lowlevel.current_trio_token()
                async for command in self.commands:
                    self.result = await outcome.acapture(command)
                self.nursery.cancel_scope.cancel()
            self.clock.autojump_threshold = 0  # for what the hub has still to do
        figures = self.hub.statistics()
        assert (figures.subscriptions_open, figures.audiences, figures.waiting) == (0, 0, 0)
        assert sum(figures.subscriptions_closed.values()) == len(self.subscribers)

    def do(self, command: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Have a task of the hub's world do something; return when it is done."""
        assert self.token is not None
        self.result = None
        self.token.run_sync_soon(self.to_task.send_nowait, lambda: command(*args))
        turns = 0
        while self.result is None and self.ended is None:
            self.loop.get(timeout=10)()
            turns += 1
            assert turns < 100_000, "this does not end"
        if self.result is not None:
            self.result.unwrap()

    async def pass_time(self, heard: Sized = ()) -> None:
        """Let time pass until nothing happens but keep-alives."""
        progress, since = (-1, -1, -1), trio.current_time()
        while True:
            await trio.testing.wait_all_tasks_blocked()
            pause = trio.lowlevel.current_statistics().seconds_to_next_deadline
            done = self.log.calls, len(self.log.log), len(heard)
            if done != progress:
                progress, since = done, trio.current_time()
            quiet = trio.current_time() - since > QUIET and not self.publishing
            if pause == float("inf") or quiet:
                return
            self.clock.jump(max(pause, 0))

    async def settle(self) -> None:
        """Let everybody do what they can, and time pass where they wait for it."""
        await self.pass_time()
        self.log.grow_old()
        for each in self.subscribers:
            if each.server is not None:
                each.hear_all(each.server.events[each.heard :])
                for line in each.server.wire.decode().splitlines():
                    if line.startswith("id: "):
                        each.check_id(line.removeprefix("id: "))
                if each.open and each.subscription.close_reason is CloseReason.EXPIRED:
                    each.expired = True
                if each.open and each.subscription.close_reason is CloseReason.SLOW:
                    each.slow = True
                    assert each.overflow is OverflowPolicy.DISCONNECT
                elif each.open and not each.stalled:
                    each.is_quiet()
            elif each.open:
                # Who needs nothing of the history hears from the beginning.
                if each.requested is None and not each.live:
                    each.live, each.absorbed = True, each.last
                each.absorb()
                if each.live:
                    slow = each.subscription.close_reason is CloseReason.SLOW
                    assert slow is each.slow
                    assert each.subscription.waiting == len(each.backlog)

    # What can be done

    @initialize(
        takes=st.sampled_from([None, None, 0.01]),
        reads=st.sampled_from([0, 0.01, 0.01, 0.01]),
        count=st.sampled_from([None, 1, 5, 20]),
        per_topic=st.sampled_from([None, None, 1, 4, 12]),
        age=st.sampled_from([None, None, 5]),
    )
    def open(
        self,
        takes: float | None,
        reads: float,
        count: int | None,
        per_topic: int | None,
        age: float | None,
    ) -> None:
        self.log = ModelHistory(takes, reads, count=count, per_topic=per_topic, age=age)
        self.start()

    @rule(
        topics=st.lists(st.lists(st.sampled_from(TOPICS), min_size=1, max_size=3), max_size=8),
        batch=st.booleans(),
        turns=st.none() | st.integers(0, 5),
        after=st.sampled_from([0, 0, 0.005, 0.01, 0.02]),
    )
    def publish(
        self, topics: list[list[str]], batch: bool, turns: int | None, after: float
    ) -> None:
        """Publish events one by one or at once, and let all be done, or some turns pass."""

        async def command() -> None:
            self.start_publisher(topics, batch, after)
            if turns is None:
                await self.settle()
            else:
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()

        self.do(command)

    async def publish_now(self, topics: list[list[str]], batch: bool) -> None:
        events = []
        for each in topics:
            self.published += 1
            events.append((ServerSentEvent("x", id=f"{self.published}"), each))
        for some in [events] if batch else [[one] for one in events]:
            try:
                self.acknowledged += await self.hub.publish_batch(some)
            except LogError:
                self.refused += len(some)

    def start_publisher(self, topics: list[list[str]], batch: bool, after: float) -> None:
        """Start a task that publishes on these topics, so many seconds from now."""

        async def publisher() -> None:
            await trio.sleep(after)
            await self.publish_now(topics, batch)
            self.publishing -= 1

        self.publishing += 1
        self.nursery.start_soon(publisher)

    @rule(
        topics=st.sampled_from(["a", "ab", "*"]),
        way=st.sampled_from(["written through", "pulled"]),
        back=st.none() | st.integers(0, 12),
        just_before=st.lists(st.sampled_from([["a"], ["b"]]), max_size=5),
        meanwhile=st.lists(
            st.tuples(
                st.sampled_from([0, 0.005, 0.01, 0.015, 0.02, 0.03]),
                st.lists(st.sampled_from([["a"], ["b"], ["a", "c"]]), min_size=1, max_size=5),
            ),
            min_size=1,
            max_size=5,
        ),
        keep_alive=st.sampled_from([None, 0.005, 0.01, 0.02]),
        max_lifetime=st.sampled_from([None, 0.005, 0.01, 0.02, 0.04]),
    )
    def resume_meanwhile(
        self,
        topics: str,
        way: str,
        back: int | None,
        just_before: list[list[str]],
        meanwhile: list[tuple[float, list[list[str]]]],
        keep_alive: float | None,
        max_lifetime: float | None,
    ) -> None:
        """Subscribe, or resume some way back, while the head moves and lags behind the history."""

        async def publish() -> None:
            for after, each in meanwhile:
                self.start_publisher(each, True, after)
            if self.log.takes is None:  # else it would wait for time to pass
                await self.publish_now(just_before, True)

        log = self.log.log
        requested = "earliest" if back is not None else None
        if log and back is not None:
            requested = log[-1 - back % len(log)].id
        self.connect(
            topics,
            OverflowPolicy.DISCONNECT,
            1000,
            requested,
            way,
            True,
            keep_alive,
            max_lifetime,
            publish,
        )

    @rule(
        topics=st.sampled_from(["a", "b", "ab", "bc", "abc", "*"]),
        overflow=st.sampled_from([OverflowPolicy.DISCONNECT, *OverflowPolicy]),
        buffer=st.sampled_from([1, 2, 5, 1000]),
        way=st.sampled_from(["iterated", "written through", "pulled"]),
        begins=st.sampled_from(["now", "earliest", "somewhere", "unknown"]),
        where=st.integers(0, 30),
        settles=st.booleans(),
        keep_alive=st.sampled_from([None, None, 0.005, 0.01, 0.02]),
        max_lifetime=st.sampled_from([None, None, 0.005, 0.01, 0.02, 0.04]),
    )
    def subscribe(
        self,
        topics: str,
        overflow: OverflowPolicy,
        buffer: int,
        way: str,
        begins: str,
        where: int,
        settles: bool,
        keep_alive: float | None,
        max_lifetime: float | None,
    ) -> None:
        """Subscribe, from now on, or from anywhere in the past."""
        requested = {"now": None, "earliest": "earliest", "unknown": "who knows"}.get(begins)
        if begins == "somewhere" and self.log.log:
            requested = self.log.log[-1 - where % len(self.log.log)].id
        self.connect(topics, overflow, buffer, requested, way, settles, keep_alive, max_lifetime)

    def connect(
        self,
        topics: str,
        overflow: OverflowPolicy,
        buffer: int,
        requested: str | None,
        way: str,
        settles: bool,
        keep_alive: float | None = None,
        max_lifetime: float | None = None,
        first: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        async def command() -> None:
            subscriber = Subscriber(
                self.hub,
                self.log,
                topics,
                overflow,
                buffer,
                requested,
                way,
                keep_alive,
                max_lifetime,
            )
            self.subscribers.append(subscriber)
            await self.nursery.start(subscriber.run, first)
            if settles:
                await self.settle()

        self.do(command)

    @precondition(lambda self: any(each.open for each in self.subscribers))
    @rule(which=st.integers(0, 99), many=st.sampled_from([1, 2, 5, 1000]))
    def read(self, which: int, many: int) -> None:
        """Have a subscriber take some events, or all there are; who stalls reads on."""
        subscriber = self.one(which)
        if subscriber.server is not None:
            self.do(self.read_on, subscriber)
        else:
            self.do(self.iterate, subscriber, many)

    async def read_on(self, subscriber: Subscriber) -> None:
        assert subscriber.server is not None
        subscriber.server.read_on()
        subscriber.stalled = False
        await self.settle()

    async def iterate(self, subscriber: Subscriber, many: int) -> None:
        await self.settle()
        events: list[ServerSentEvent] = []
        broken = False

        async def reader() -> None:
            nonlocal broken
            try:
                while len(events) < many:
                    events.append(await anext(subscriber.subscription))
            except trio.BrokenResourceError:
                broken = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader)
            await self.pass_time(events)
            nursery.cancel_scope.cancel()
        self.log.grow_old()
        if subscriber.live:
            take = subscriber.backlog[:many]
            del subscriber.backlog[:many]
            assert [event.id for event in events] == [self.log.log[each - 1].id for each in take]
            assert broken is (subscriber.slow and len(take) < many)
            subscriber.last = max([subscriber.last, *take])
            subscriber.last_id = subscriber.subscription.last_event_id or subscriber.last_id
            return
        subscriber.hear_all(events)
        if broken:
            assert subscriber.overflow is OverflowPolicy.DISCONNECT
            assert len(subscriber.expected(subscriber.last)) > subscriber.buffer
            subscriber.slow = True
        elif len(events) < many:
            subscriber.is_quiet()
            subscriber.live, subscriber.absorbed = True, len(self.log.log)

    @precondition(lambda self: any(each.open and each.server for each in self.subscribers))
    @rule(which=st.integers(0, 99))
    def stall(self, which: int) -> None:
        """Have a client stop reading."""
        subscriber = self.one(which)
        if subscriber.server is not None:
            subscriber.server.stop_reading()
            subscriber.stalled = True

    @precondition(lambda self: any(each.open for each in self.subscribers))
    @rule(which=st.integers(0, 99), comes_back=st.booleans(), turns=st.none() | st.integers(0, 5))
    def disconnect(self, which: int, comes_back: bool, turns: int | None) -> None:
        """Have a client go away, and come back with the last id that it has seen."""
        subscriber = self.one(which)

        async def command() -> None:
            subscriber.scope.cancel()
            if turns is None:
                await self.settle()
            else:
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()

        self.do(command)
        if comes_back:
            self.resume(subscriber, turns is None)

    @precondition(lambda self: any(each.slow or each.expired for each in self.subscribers))
    @rule(which=st.integers(0, 99))
    def come_back(self, which: int) -> None:
        """Have a client that was too slow, or whose stream has expired, come back."""
        slow = [
            each
            for each in self.subscribers
            if (each.slow or each.expired) and not each.scope.cancel_called
        ]
        if slow:
            subscriber = slow[which % len(slow)]
            subscriber.scope.cancel()
            self.resume(subscriber, True)

    def resume(self, subscriber: Subscriber, settles: bool) -> None:
        way = "iterated" if subscriber.server is None else "pulled"
        if subscriber.through is not None:
            way = "written through"
        if subscriber.server is not None:
            ids = [line for line in subscriber.server.wire.split(b"\n") if line.startswith(b"id: ")]
            if ids:
                subscriber.last_id = ids[-1].removeprefix(b"id: ").decode()
        self.connect(
            subscriber.topics,
            subscriber.overflow,
            subscriber.buffer,
            subscriber.last_id,
            way,
            settles,
        )

    @rule(failing=st.sampled_from([None, "append", "locate", "read"]))
    def fail(self, failing: str | None) -> None:
        """Have a method of the history fail from now on, or none."""
        self.log.failing = failing

    @rule(seconds=st.sampled_from([1, 3, 6]))
    def wait(self, seconds: float) -> None:
        """Let time pass: what the history has grows old."""

        async def command() -> None:
            await self.settle()
            self.clock.jump(seconds)
            await self.settle()

        self.do(command)

    @invariant()
    def settled(self) -> None:
        if not self.published % 3:
            self.do(self.settle)

    def one(self, which: int) -> Subscriber:
        open_ones = [each for each in self.subscribers if each.open]
        return open_ones[which % len(open_ones)]

    def teardown(self) -> None:
        try:
            if self.ended is None and hasattr(self, "history"):
                self.do(self.finish)
        finally:
            if hasattr(self, "token") and self.token is not None:
                self.token.run_sync_soon(self.to_task.close)
                while self.ended is None:
                    self.loop.get(timeout=10)()
            self.patch.undo()
        if self.ended is not None:
            self.ended.unwrap()

    async def finish(self) -> None:
        """Have everybody read all there is, and look at the figures."""
        self.log.failing = None
        await self.settle()
        for subscriber in [each for each in self.subscribers if each.open]:
            if subscriber.server is None:
                await self.iterate(subscriber, 10**6)
            else:
                await self.read_on(subscriber)
        assert len(self.acknowledged) == len(self.log.log) == self.published - self.refused
        assert sorted(self.acknowledged) == sorted(each.id for each in self.log.log)
        await self.log.inner.locate("", EVERY_TOPIC)  # which discards what is too old
        figures = self.hub.statistics()
        assert figures.published == len(self.log.log)
        assert figures.waiting == 0
        assert figures.subscriptions_open == sum(each.open for each in self.subscribers)
        assert figures.log.publications == len(self.log.kept())
        assert figures.log.newest.position == len(self.log.log)


TestModel = Machine.TestCase
TestModel.settings = settings(derandomize=True, stateful_step_count=30)
