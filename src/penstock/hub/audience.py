"""Audiences: subscriptions with equal selections, which are matched once.

Rule: what a publication costs depends on the audiences that receive it, not on those that do not,
nor on how many subscriptions each has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, final

from penstock.publication import Publication
from penstock.selection import EVERY_TOPIC, Selection
from penstock.stream.feed import Tally
from penstock.stream.transport import WriteThrough

__all__ = ["Audience", "Audiences", "Member"]


class Member(Protocol):
    """What the dispatcher delivers to: the cursor of one subscription."""

    direct: WriteThrough | None
    """The client's direct writer, while it has taken everything before."""
    written: Tally
    """What was written directly is counted here."""
    silent_since: float
    """When something was last written directly."""

    def put(self, publications: Iterable[Publication]) -> bool:
        """Queue publications; False if the member has left meanwhile."""
        ...

    def admit(self) -> None:
        """Join: the head has come to the position that the member awaits, or has passed it."""
        ...

    def fail(self, error: Exception) -> None:
        """End, for an error that delivery to this member raised."""
        ...


@final
class Audience:
    """The subscriptions with one selection.

    Attributes:
      selection: which publications they receive.
      members: the subscriptions, in the order of their joining.
    """

    __slots__ = ("members", "selection")

    def __init__(self, selection: Selection) -> None:
        self.selection: Selection = selection
        self.members: dict[Member, None] = {}


@final
class Audiences:
    """All audiences of one hub."""

    def __init__(self) -> None:
        self._all: dict[Selection, Audience] = {}
        self._on_topic: dict[str, dict[Audience, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def join(self, member: Member, selection: Selection) -> Audience:
        """Add a member to the audience of its selection, and return that."""
        audience = self._all.get(selection)
        if audience is None:
            audience = self._all[selection] = Audience(selection)
            for topic in selection.topics or ():
                self._on_topic.setdefault(topic, {})[audience] = None
        audience.members[member] = None
        return audience

    def leave(self, member: Member, audience: Audience) -> None:
        """Remove a member from its audience."""
        del audience.members[member]
        if audience.members:
            return
        del self._all[audience.selection]
        for topic in audience.selection.topics or ():
            on_topic = self._on_topic[topic]
            del on_topic[audience]
            if not on_topic:
                del self._on_topic[topic]

    def match(
        self, publications: Sequence[Publication]
    ) -> list[tuple[Audience, list[Publication]]]:
        """Return each audience that receives any of these publications, with those."""
        matched: dict[Audience, list[Publication]] = {}
        for publication in publications:
            for topic in publication.topics:
                for audience in self._on_topic.get(topic, ()):
                    received = matched.setdefault(audience, [])
                    if not received or received[-1] is not publication:
                        received.append(publication)
        all_matched = list(matched.items())
        if (everything := self._all.get(EVERY_TOPIC)) is not None:
            all_matched.append((everything, list(publications)))
        return all_matched
