"""Producers that work for a topic while anybody subscribes to it.

Rule: a producer runs if and only if somebody subscribes, or did so less than ``keep_running_for``
seconds ago; it has returned; or it has raised and waits to be started again.

Theory of operation: what waits for the last subscriber's successor is no task, but the deadline of
the producer's own cancel scope, which is moved out and in as subscribers come and go.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, final

import trio

from penstock.event import ServerSentEvent
from penstock.selection import Selection, check_topics
from penstock.stream.producer import Producer, check_producer, log_failure, start_producer

__all__ = ["DEFAULT_KEEP_RUNNING_FOR", "DEFAULT_RESTART_AFTER", "ProducersOnDemand"]

# Seconds: more than a browser takes to reconnect or to reload a page (3 s at most by default).
DEFAULT_KEEP_RUNNING_FOR: Final = 5.0

DEFAULT_RESTART_AFTER: Final = 1.0

# Seconds: the longest time between two starts of a producer that raises each time.
_LONGEST_RESTART: Final = 60.0


@final
class ProducersOnDemand:
    """A hub's producers, by topic.

    Args:
      publish: what their events are published with.
    """

    def __init__(self, publish: Callable[[ServerSentEvent, Iterable[str]], Awaitable[str]]) -> None:
        self._publish = publish
        self._producers: dict[str, _OnDemand] = {}
        self._nursery: trio.Nursery | None = None

    @property
    def running(self) -> int:
        """How many of them run, or wait to be started again."""
        return sum(each.running for each in self._producers.values())

    def add(
        self,
        topic: str,
        producer: Producer,
        keep_running_for: float,
        restart_after: float | None,
        subscribers: int,
    ) -> None:
        """Have a topic's events made by a producer that runs while anybody subscribes to it.

        Args:
          topic: which.
          producer: see `penstock.stream.EventStream`.
          keep_running_for: seconds after the last subscriber has gone until it is cancelled; who
            comes back meanwhile finds it running.
          restart_after: seconds until one that raised is started again, twice as many each time
            that it raises again within a minute, up to a minute; None does not start it until a
            subscriber comes when there is none.
          subscribers: how many there are now.

        Raises:
          InvalidPublication: the topic cannot be.
          ValueError: it has a producer already, or a time is below 0.
          TypeError: the producer cannot be one.

        Error handling:
          What it raises is logged, with its traceback, to the logger ``penstock.stream.producer``.
        """
        (topic,) = check_topics([topic])
        check_producer(producer)
        if topic in self._producers:
            raise ValueError(f"the topic {topic!r} has a producer already")
        if not keep_running_for >= 0 or (restart_after is not None and not restart_after >= 0):
            raise ValueError("keep_running_for and restart_after must be numbers of seconds from 0")
        each = _OnDemand(topic, producer, keep_running_for, restart_after, self._publish)
        self._producers[topic] = each
        each.subscribers = subscribers
        if subscribers:
            self._start(each)

    def start(self, nursery: trio.Nursery) -> None:
        """Run them in this nursery, as they are needed."""
        self._nursery = nursery
        for each in self._producers.values():
            each.stopped = False
            if each.subscribers:
                self._start(each)

    def stop(self) -> None:
        """Cancel them, and start none until `start` is called again."""
        self._nursery = None
        for each in self._producers.values():
            each.stopped = True
            each.scope.cancel()

    def subscriber_added(self, selection: Selection) -> None:
        """Note that there is a subscription more with this selection."""
        for each in self._of(selection):
            each.subscribers += 1
            each.scope.deadline = math.inf
            if each.subscribers == 1:
                self._start(each)

    def subscriber_removed(self, selection: Selection) -> None:
        """Note that there is one less."""
        for each in self._of(selection):
            each.subscribers -= 1
            if not each.subscribers:
                each.scope.deadline = trio.current_time() + each.keep_running_for

    def _of(self, selection: Selection) -> list[_OnDemand]:
        if not self._producers:
            return []
        if selection.topics is None:
            return list(self._producers.values())
        return [self._producers[topic] for topic in selection.topics if topic in self._producers]

    def _start(self, each: _OnDemand) -> None:
        if self._nursery is not None and not each.running:
            each.running = True
            self._nursery.start_soon(each.run, name=f"producer of {each.topic}")


@final
class _OnDemand(trio.abc.SendChannel[ServerSentEvent]):
    """One topic's producer, and the channel that it is given: what it sends is published."""

    def __init__(
        self,
        topic: str,
        producer: Producer,
        keep_running_for: float,
        restart_after: float | None,
        publish: Callable[[ServerSentEvent, Iterable[str]], Awaitable[str]],
    ) -> None:
        self.topic = topic
        self.keep_running_for = keep_running_for
        self.subscribers = 0
        self.running = False
        self.stopped = False
        self.scope = trio.CancelScope()
        self._producer = producer
        self._restart_after = restart_after
        self._publish = publish
        self._closed = False

    async def run(self) -> None:
        """Run the producer until it returns, or nobody needs it.

        Cancellation:
          The producer is cancelled with it.
        """
        try:
            again = True
            while again and self.subscribers and not self.stopped:
                with trio.CancelScope() as self.scope:
                    await self._run_while_needed()
                again = self.scope.cancel_called  # if not, it has returned
        finally:
            self.running = False

    async def _run_while_needed(self) -> None:
        """Run the producer to its end; again and again if it raises."""
        pause = self._restart_after
        began = trio.current_time()
        while await self._fails() and pause is not None:
            if trio.current_time() - began > _LONGEST_RESTART:
                pause = self._restart_after or 0.0
            await trio.sleep(pause)
            pause = min(2 * pause, _LONGEST_RESTART)
            began = trio.current_time()

    async def _fails(self) -> bool:
        failed = self._closed = False
        try:
            await start_producer(self._producer, self)
        except* Exception as errors:
            failed = True
            log_failure(f"topic {self.topic}", errors)
        return failed

    # The producer's end of the channel

    async def send(self, value: ServerSentEvent) -> None:
        """Publish an event; see `penstock.hub.Hub.publish`.

        Raises:
          trio.ClosedResourceError: the channel was closed, or the hub.
        """
        if self._closed:
            raise trio.ClosedResourceError
        await self._publish(value, [self.topic])

    async def aclose(self) -> None:
        """Send nothing more.

        Cancellation:
          A checkpoint; the channel is closed even when it is cancelled.
        """
        self._closed = True
        await trio.lowlevel.checkpoint()
