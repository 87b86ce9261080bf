"""The hub: publishes, subscribes, runs producers on demand, and owns the log.

Rule: lifetime equals block. The committer, the dispatcher and the producers are tasks of `Hub.run`.
When it returns, everything published is committed and delivered, every subscription has ended, and
the log is closed.

Theory of operation: three things in a row. The committer appends publications to the log, the
delivery queue holds the committed entries, and the dispatcher delivers them to the subscriptions.
From a shared log, to which other hubs append too, a follower puts the entries into the same queue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, final

import trio

from penstock.close_reason import CloseReason
from penstock.errors import InvalidPublication, PublicationTooLarge
from penstock.event import ServerSentEvent
from penstock.hub.committer import Committer, DeliveryQueue
from penstock.hub.dispatcher import DEFAULT_BATCH_DELAY, Dispatcher
from penstock.hub.follower import Follower
from penstock.hub.producers_on_demand import (
    DEFAULT_KEEP_RUNNING_FOR,
    DEFAULT_RESTART_AFTER,
    ProducersOnDemand,
)
from penstock.hub.subscriber_queue import OverflowPolicy
from penstock.hub.subscription import DEFAULT_BUFFER, DEFAULT_BUFFER_SIZE, Subscription
from penstock.logs.log import Log, LogStatistics
from penstock.logs.memory import MemoryLog
from penstock.publication import Publication
from penstock.selection import Selection
from penstock.stream.producer import Producer

__all__ = [
    "DEFAULT_MAX_EVENT_SIZE",
    "MAX_BATCH",
    "MAX_BATCH_SIZE",
    "Hub",
    "HubStatistics",
    "open_hub",
]

# Bytes: the limit of Mercure hubs for one publication.
DEFAULT_MAX_EVENT_SIZE: Final = 2**20

# A batch is appended and committed in one step, which takes some 50 ms and this much memory.
MAX_BATCH: Final = 10_000
MAX_BATCH_SIZE: Final = 2**25  # bytes

# Publications to check and encode before other tasks may run, at some 5 µs each.
_CHECKS_PER_TURN: Final = 256


@dataclass(frozen=True, slots=True)
class HubStatistics:
    """A hub's statistics at one moment."""

    subscriptions_open: int
    """Subscriptions that receive live, or still read the log."""
    subscriptions_closed: Mapping[CloseReason, int]
    """Subscriptions that have ended, by reason; reasons that did not occur are not in it."""
    audiences: int
    """Different selections among the subscriptions that receive live."""
    published: int
    """Publications of this hub that the log has committed."""
    waiting: int
    """Publications that wait for the next commit."""
    delivered: int
    """Publications delivered live, counted for each subscription; replayed ones are not counted."""
    producers_running: int
    """Producers on demand that are running, or wait to be restarted."""
    log: LogStatistics
    """The log's statistics."""


@final
class Hub:
    """A hub; created and run by `open_hub`, or by `penstock.quart.add_hub` for an application.

    After it is closed, it may run again.

    Args:
      log: the log, from which reconnecting clients resume; the hub owns it, and opens and closes
        it. The default is a `penstock.logs.MemoryLog`, which is lost when the process ends.
      max_event_size: the most bytes of an event, as it goes over the wire.
      batch_delay: the most seconds for which a busy hub batches publications before it delivers
        them, so that one write to each client has several events. A hub is busy if delivery takes
        more than a fifth of the time. 0 always delivers immediately.

    Raises:
      ValueError: ``max_event_size`` is below 1, or ``batch_delay`` below 0.

    Attributes:
      log: the log.
      dispatcher: the dispatcher; for the subscriptions.
    """

    def __init__(
        self,
        *,
        log: Log | None = None,
        max_event_size: int = DEFAULT_MAX_EVENT_SIZE,
        batch_delay: float = DEFAULT_BATCH_DELAY,
    ) -> None:
        if not batch_delay >= 0:
            raise ValueError(f"batch_delay must be a number of seconds from 0: {batch_delay}")
        if max_event_size < 1:
            raise ValueError(f"max_event_size must be at least 1 byte, not {max_event_size}")
        self.log: Log = MemoryLog() if log is None else log
        self._batch_delay = batch_delay
        self._max_event_size = max_event_size
        self._on_demand = ProducersOnDemand(self.publish)
        self._subscriptions: dict[Subscription, None] = {}
        self._subscriptions_closed: Counter[CloseReason] = Counter()
        self._state = "new"
        self._run_ended = trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None  # of the Trio run, while it is in `run`
        self._queue: DeliveryQueue
        self._committer: Committer
        self.dispatcher: Dispatcher
        self._reset_pipeline()

    def __repr__(self) -> str:
        return f"<Hub {self._state}, {len(self._subscriptions)} subscriptions>"

    @property
    def closed(self) -> bool:
        """Whether the hub was closed."""
        return self._state == "closed"

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """The open subscriptions, in the order in which they were opened."""
        return tuple(self._subscriptions)

    async def publish(self, event: ServerSentEvent, topics: Iterable[str]) -> str:
        """Publish an event, and return its id once the log has it.

        It is delivered once to every subscriber to any of the topics; a slow subscriber does not
        make a publisher wait.

        Args:
          event: the event; if it has no id, it gets one.
          topics: its topics; the first is the canonical one, the others are alternates.

        Raises:
          InvalidPublication: the event cannot be published on these topics; nothing was published.
          LogError: the log failed, and nothing was published. A later call may succeed.
          trio.ClosedResourceError: the hub is not open, or no longer open.
          RuntimeError: the hub is open in another Trio run, or this is no Trio task. From a thread,
            call ``trio.from_thread.run(hub.publish, event, topics, trio_token=token)``.

        Cancellation:
          A checkpoint. If cancelled while it waits for the log, the event is published anyway.
        """
        self.check_open()
        publication = self._publication(event, topics)
        await self._committer.publish([publication])
        return publication.id

    async def publish_batch(
        self, batch: Iterable[tuple[ServerSentEvent, Iterable[str]]]
    ) -> list[str]:
        """Publish events, all of them or none, in their order; return their ids.

        Args:
          batch: each event with its topics; at most 10,000 events, and 32 MiB in total
            (`Publication.size`).

        Raises:
          InvalidPublication: an event cannot be published, and ``index`` is its place; or there are
            too many. Nothing was published.
          LogError: as in `publish`.
          trio.ClosedResourceError: as in `publish`.
          RuntimeError: as in `publish`.

        Cancellation:
          As in `publish`; if cancelled while a large batch is checked, nothing is published.
        """
        self.check_open()
        publications: list[Publication] = []
        size = work = 0
        for index, (event, topics) in enumerate(batch):
            if index == MAX_BATCH:
                raise PublicationTooLarge(
                    f"a batch must not have more than {MAX_BATCH:,} events: publish it in parts",
                    index=index,
                )
            try:
                publication = self._publication(event, topics)
            except InvalidPublication as error:
                error.index = index
                raise
            size += publication.size
            if publications and size > MAX_BATCH_SIZE:
                raise PublicationTooLarge(
                    f"a batch must not be larger than {MAX_BATCH_SIZE:,} bytes, its topics "
                    "included: publish it in parts",
                    index=index,
                )
            publications.append(publication)
            work += 1 + len(publication.topics)
            if work >= _CHECKS_PER_TURN:
                work = 0
                await trio.lowlevel.checkpoint()
        if publications:
            await self._committer.publish(publications)
        return [publication.id for publication in publications]

    def _publication(self, event: ServerSentEvent, topics: Iterable[str]) -> Publication:
        publication = Publication(event, topics)
        if (size := len(publication.wire)) > self._max_event_size:
            raise PublicationTooLarge(
                f"an event must not be larger than {self._max_event_size:,} bytes: "
                f"this one has {size:,}"
            )
        return publication

    def subscription(
        self,
        topics: Iterable[str] | Selection,
        *,
        last_event_id: str | None = None,
        overflow: OverflowPolicy | str = OverflowPolicy.DISCONNECT,
        buffer: int = DEFAULT_BUFFER,
        buffer_size: int = DEFAULT_BUFFER_SIZE,
        retry: int | None = None,
    ) -> Subscription:
        """Return a subscription, which begins when it is opened, or its stream is.

            return EventSourceResponse(hub.subscription(["prices"], last_event_id=last_event_id()))

        For the arguments and the errors, see `Subscription`.
        """
        return Subscription(
            self,
            topics,
            last_event_id=last_event_id,
            overflow=OverflowPolicy(overflow),
            buffer=buffer,
            buffer_size=buffer_size,
            retry=retry,
        )

    def subscribe(
        self, topics: Iterable[str] | Selection, **options: Any
    ) -> AbstractAsyncContextManager[Subscription]:
        """Subscribe while a block runs, and iterate the events in it.

            async with hub.subscribe(["prices"]) as prices:
                async for event in prices:
                    ...

        Args:
          topics: as in `subscription`.
          options: as in `subscription`, which also raises its errors.

        Raises:
          trio.ClosedResourceError: the hub is not open, or no longer open.
        """
        return self.subscription(topics, **options).open()

    def add_producer(
        self,
        topic: str,
        producer: Producer,
        *,
        keep_running_for: float = DEFAULT_KEEP_RUNNING_FOR,
        restart_after: float | None = DEFAULT_RESTART_AFTER,
    ) -> None:
        """Add a producer for a topic, which runs while there are subscribers to the topic.

        See `penstock.hub.producers_on_demand.ProducersOnDemand.add`.
        """
        self.check_trio_run()
        subscribers = sum(each.selection.matches((topic,)) for each in self._subscriptions)
        self._on_demand.add(topic, producer, keep_running_for, restart_after, subscribers)

    def statistics(self) -> HubStatistics:
        """Return the hub's statistics as they are now."""
        return HubStatistics(
            subscriptions_open=len(self._subscriptions),
            subscriptions_closed=dict(self._subscriptions_closed),
            audiences=self.dispatcher.audiences,
            published=self._committer.committed,
            waiting=self._committer.waiting,
            delivered=self.dispatcher.delivered,
            producers_running=self._on_demand.running,
            log=self.log.statistics(),
        )

    def close(self) -> None:
        """Accept no more publications; `run` returns once those that wait are delivered.

        Every subscription then receives the events that wait for it, and ends. Producers are
        cancelled.

        Raises:
          RuntimeError: the hub is open in another Trio run, or this is a thread: call
            ``trio.from_thread.run_sync(hub.close, trio_token=token)``.

        Cancellation:
          Synchronous, no checkpoint; may be called again.
        """
        self.check_trio_run()
        self._on_demand.stop()
        self.dispatcher.stop_batching()
        self._committer.close()

    async def wait_closed(self) -> None:
        """Wait until `run` has ended.

        Raises:
          RuntimeError: the hub is running in another Trio run.

        Cancellation:
          A checkpoint.
        """
        self.check_trio_run()
        await self._run_ended.wait()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the hub until it is closed; `open_hub` calls this, in its own nursery.

        Raises:
          LogError: the log cannot be opened.
          RuntimeError: the hub is running, or this is no Trio task.

        Cancellation:
          Checkpoints throughout. If cancelled, it drops publications that are not committed yet,
          and their publishers get `trio.ClosedResourceError`.
        """
        if self._token is not None:
            raise RuntimeError("the hub is already running: make another hub")
        check_trio("a hub runs")
        self._token = trio.lowlevel.current_trio_token()
        self._state = "opening"
        if self._run_ended.is_set():  # if not, a task may be waiting for it
            self._run_ended = trio.Event()
        self._reset_pipeline()
        try:
            await self.log.open()
            self.dispatcher.head = self.log.newest.position
            async with trio.open_nursery() as nursery:
                self._on_demand.start(nursery)
                self._state = "open"
                task_status.started()
                await self._deliver()
                self._state = "closed"
                nursery.cancel_scope.cancel()
        finally:
            self._state = "closed"
            self._on_demand.stop()
            for subscription in list(self._subscriptions):  # waiting events are still delivered
                subscription.end(CloseReason.FINISHED)
            with trio.CancelScope(shield=True):
                await self.log.aclose()
            self._token = None
            self._run_ended.set()

    def _reset_pipeline(self) -> None:
        """Create the committer, the queue and the dispatcher."""
        self._queue = DeliveryQueue()
        self._committer = Committer(self.log, self._queue)
        self.dispatcher = Dispatcher(self._queue, self._batch_delay)

    async def _deliver(self) -> None:
        """Commit and deliver publications until the hub is closed."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.dispatcher.run, name="dispatcher")
            if self.log.shared:
                follower = Follower(self.log, self._queue, self.dispatcher.head)
                nursery.start_soon(follower.run, name="follower")
                await self._committer.run()
                follower.stop_at(self._committer.newest)
            else:
                await self._committer.run()
                self._queue.close()

    # For the subscriptions

    def check_open(self) -> None:
        """Raise an error unless the hub is open in this Trio run.

        Raises:
          trio.ClosedResourceError: the hub is not open.
          RuntimeError: the hub is open in another Trio run.
        """
        self.check_trio_run()
        if self._state != "open":
            raise trio.ClosedResourceError(
                "the hub is closed" if self.closed else "the hub is not open yet"
            )

    def check_trio_run(self) -> None:
        """Raise an error if the hub runs in another Trio run, or this is a thread.

        Raises:
          RuntimeError: it does.
        """
        if self._token is not None and self._token is not _current_token():
            raise RuntimeError(
                "the hub is open in another Trio run: from a thread, call trio.from_thread.run("
                "hub.publish, event, topics, trio_token=token), with the token that "
                "trio.lowlevel.current_trio_token() returned where the hub is open"
            )

    def subscriber_added(self, subscription: Subscription) -> None:
        """Count a subscription as open; if the hub is closed, end it. Synchronous."""
        self._subscriptions[subscription] = None
        self._on_demand.subscriber_added(subscription.selection)
        if self.closed:
            subscription.end(CloseReason.FINISHED)

    def subscriber_removed(self, subscription: Subscription, reason: CloseReason) -> None:
        """Count a subscription as ended. Synchronous."""
        self._subscriptions.pop(subscription, None)
        self._subscriptions_closed[reason] += 1
        self._on_demand.subscriber_removed(subscription.selection)


@asynccontextmanager
async def open_hub(
    *,
    log: Log | None = None,
    max_event_size: int = DEFAULT_MAX_EVENT_SIZE,
    batch_delay: float = DEFAULT_BATCH_DELAY,
) -> AsyncIterator[Hub]:
    """Run a hub while the block runs.

    Args:
      log: as in `Hub`.
      max_event_size: as in `Hub`.
      batch_delay: as in `Hub`.

    Raises:
      LogError: the log cannot be opened; in an exception group, as every error of the block.
      RuntimeError: this is no Trio task.

    Cancellation:
      Entering is a checkpoint. Leaving waits until everything published is committed and delivered,
      unless the block is cancelled.

    Resource handling:
      When the block has been left, no task and no subscription of the hub is left, and the log is
      closed.
    """
    check_trio("a hub runs")
    hub = Hub(log=log, max_event_size=max_event_size, batch_delay=batch_delay)
    async with trio.open_nursery() as nursery:
        await nursery.start(hub.run)
        try:
            yield hub
        finally:
            hub.close()


def check_trio(what: str) -> None:
    """Raise an error unless the current task is a Trio task.

    Args:
      what: the beginning of the message, such as "a hub runs".

    Raises:
      RuntimeError: it is not.
    """
    if _current_token() is None:
        raise RuntimeError(
            f"{what} on Trio, but this is no Trio task: start the program with trio.run(main), and "
            "serve applications with `penstock serve` or `hypercorn -k trio`"
        )


def _current_token() -> trio.lowlevel.TrioToken | None:
    try:
        return trio.lowlevel.current_trio_token()
    except RuntimeError:
        return None
