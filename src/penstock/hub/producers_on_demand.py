"""Producers on demand: each runs while its topic has subscribers.

Rule: a producer runs if and only if its topic has a subscriber, or had one less than
``keep_running_for`` seconds ago. The exceptions: it has returned; or it has raised, and waits to be
restarted, or is not to be restarted.

Theory of operation: no task waits for the next subscriber. The deadline of the producer's cancel
scope does: it is set when the last subscriber is removed, and cleared when a subscriber is added.
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

# Seconds: the longest delay before a producer that keeps raising is restarted.
_MAX_RESTART_DELAY: Final = 60.0


@final
class ProducersOnDemand:
    """A hub's producers, by topic.

    Args:
      publish: publishes their events.
    """

    def __init__(self, publish: Callable[[ServerSentEvent, Iterable[str]], Awaitable[str]]) -> None:
        self._publish = publish
        self._producers: dict[str, _OnDemandProducer] = {}
        self._nursery: trio.Nursery | None = None

    @property
    def running(self) -> int:
        """The number of producers that run, or wait to be restarted."""
        return sum(each.running for each in self._producers.values())

    def add(
        self,
        topic: str,
        producer: Producer,
        keep_running_for: float,
        restart_after: float | None,
        subscribers: int,
    ) -> None:
        """Add a producer for a topic, which runs while there are subscribers to the topic.

        Args:
          topic: the topic.
          producer: see `penstock.stream.EventStream`.
          keep_running_for: seconds from the removal of the last subscriber until the producer is
            cancelled; a client that reconnects meanwhile finds it running.
          restart_after: seconds until a producer that raised is restarted; the delay doubles each
            time that it raises again within a minute, up to a minute. None does not restart it
            until all subscribers are removed and a new one is added.
          subscribers: the number of subscribers now.

        Raises:
          InvalidPublication: the topic is not valid.
          ValueError: it has a producer already, or a time is below 0.
          TypeError: the producer cannot be called, or it yields.

        Error handling:
          Its exceptions are logged, with traceback, to the logger ``penstock.stream.producer``.
        """
        (topic,) = check_topics([topic])
        check_producer(producer)
        if topic in self._producers:
            raise ValueError(f"the topic {topic!r} already has a producer")
        if not keep_running_for >= 0 or (restart_after is not None and not restart_after >= 0):
            raise ValueError("keep_running_for and restart_after must be numbers of seconds from 0")
        each = _OnDemandProducer(topic, producer, keep_running_for, restart_after, self._publish)
        self._producers[topic] = each
        each.subscribers = subscribers
        if subscribers:
            self._start(each)

    def start(self, nursery: trio.Nursery) -> None:
        """Run the producers in this nursery, on demand."""
        self._nursery = nursery
        for each in self._producers.values():
            each.stopped = False
            if each.subscribers:
                self._start(each)

    def stop(self) -> None:
        """Cancel the producers; start none until `start` is called again."""
        self._nursery = None
        for each in self._producers.values():
            each.stopped = True
            each.scope.cancel()

    def subscriber_added(self, selection: Selection) -> None:
        """Count one more subscriber with this selection."""
        for each in self._selected(selection):
            each.subscribers += 1
            each.scope.deadline = math.inf
            if each.subscribers == 1:
                self._start(each)

    def subscriber_removed(self, selection: Selection) -> None:
        """Count one fewer subscriber with this selection."""
        for each in self._selected(selection):
            each.subscribers -= 1
            if not each.subscribers:
                each.scope.deadline = trio.current_time() + each.keep_running_for

    def _selected(self, selection: Selection) -> list[_OnDemandProducer]:
        if not self._producers:
            return []
        if selection.topics is None:
            return list(self._producers.values())
        return [self._producers[topic] for topic in selection.topics if topic in self._producers]

    def _start(self, each: _OnDemandProducer) -> None:
        if self._nursery is not None and not each.running:
            each.running = True
            self._nursery.start_soon(each.run, name=f"producer of {each.topic}")


@final
class _OnDemandProducer(trio.abc.SendChannel[ServerSentEvent]):
    """One topic's producer, and its send channel, which publishes the events."""

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
        """Run the producer until it returns, or its topic has no subscriber.

        Cancellation:
          The producer is cancelled with it.
        """
        try:
            again = True
            while again and self.subscribers and not self.stopped:
                with trio.CancelScope() as self.scope:
                    await self._run_while_needed()
                again = self.scope.cancel_called  # if not, the producer has returned
        finally:
            self.running = False

    async def _run_while_needed(self) -> None:
        """Run the producer until it returns; restart it if it raises."""
        pause = self._restart_after
        began = trio.current_time()
        while await self._run_once() and pause is not None:
            if trio.current_time() - began > _MAX_RESTART_DELAY:
                pause = self._restart_after or 0.0
            await trio.sleep(pause)
            pause = min(2 * pause, _MAX_RESTART_DELAY)
            began = trio.current_time()

    async def _run_once(self) -> bool:
        """Run the producer once, and return whether it raised."""
        failed = self._closed = False
        try:
            await start_producer(self._producer, self)
        except* Exception as errors:
            failed = True
            log_failure(f"topic {self.topic}", errors)
        return failed

    # As the producer's send channel

    async def send(self, value: ServerSentEvent) -> None:
        """Publish an event; see `penstock.hub.Hub.publish`.

        Raises:
          trio.ClosedResourceError: the channel or the hub was closed.
        """
        if self._closed:
            raise trio.ClosedResourceError
        await self._publish(value, [self.topic])

    async def aclose(self) -> None:
        """Close the channel.

        Cancellation:
          A checkpoint; the channel is closed even if cancelled.
        """
        self._closed = True
        await trio.lowlevel.checkpoint()
