"""Who hears what: subscriptions with the same topics are one audience, matched once.

Rule: what a publication costs depends on the audiences that hear it, not on those that do not, nor
on how many subscriptions each has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, final

from penstock.publication import Publication

if TYPE_CHECKING:
    from penstock.hub.reception import Reception

__all__ = ["Audience", "Audiences"]


@final
class Audience:
    """The subscriptions to the same topics.

    Attributes:
      topics: which; None means every topic.
      members: the subscriptions, in the order of their joining.
    """

    __slots__ = ("members", "topics")

    def __init__(self, topics: frozenset[str] | None) -> None:
        self.topics: frozenset[str] | None = topics
        self.members: dict[Reception, None] = {}


@final
class Audiences:
    """All audiences of one hub."""

    def __init__(self) -> None:
        self._all: dict[frozenset[str] | None, Audience] = {}
        self._on_topic: dict[str, dict[Audience, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Reception]:
        """Iterate the subscriptions there are now; they may leave meanwhile."""
        return iter([member for audience in self._all.values() for member in audience.members])

    def join(self, subscription: Reception, topics: frozenset[str] | None) -> Audience:
        """Have a subscription hear these topics from now on; return its audience."""
        audience = self._all.get(topics)
        if audience is None:
            audience = self._all[topics] = Audience(topics)
            for topic in topics or ():
                self._on_topic.setdefault(topic, {})[audience] = None
        audience.members[subscription] = None
        return audience

    def leave(self, subscription: Reception, audience: Audience) -> None:
        """Have it hear no more."""
        del audience.members[subscription]
        if audience.members:
            return
        del self._all[audience.topics]
        for topic in audience.topics or ():
            on_topic = self._on_topic[topic]
            del on_topic[audience]
            if not on_topic:
                del self._on_topic[topic]

    def match(
        self, publications: Sequence[Publication]
    ) -> list[tuple[Audience, list[Publication]]]:
        """Return each audience that hears any of these publications, with those it hears."""
        everything = self._all.get(None)
        heard: dict[Audience, list[Publication]] = {}
        for publication in publications:
            for topic in publication.topics:
                for audience in self._on_topic.get(topic, ()):
                    for_it = heard.setdefault(audience, [])
                    if not for_it or for_it[-1] is not publication:
                        for_it.append(publication)
        matched = list(heard.items())
        if everything is not None:
            matched.append((everything, list(publications)))
        return matched

    def count(self, topic: str) -> int:
        """Return how many subscriptions hear a topic."""
        hearing = [*self._on_topic.get(topic, ())]
        if None in self._all:
            hearing.append(self._all[None])
        return sum(len(audience.members) for audience in hearing)
