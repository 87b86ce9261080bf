"""Following a log of this process: read what there is, then wait until it has grown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

import trio

from penstock.logs.log import Entry, Log, Position
from penstock.selection import EVERY_TOPIC

__all__ = ["Growth"]

# Entries and bytes that are read at once.
_PAGE: Final = 256
_PAGE_SIZE: Final = 2**16


@final
class Growth:
    """Tells those who follow a log that something was appended; it costs nothing without them."""

    def __init__(self) -> None:
        self._grown: trio.Event | None = None  # while anybody waits

    def note(self) -> None:
        """Wake those who wait. Synchronous."""
        if self._grown is not None:
            self._grown.set()
            self._grown = None

    async def follow(self, log: Log, after: Position) -> Sequence[Entry]:
        """Return what was appended to a log; see `Log.follow`."""
        while True:
            while log.newest.position <= after:
                if self._grown is None:
                    self._grown = trio.Event()
                await self._grown.wait()
            until = log.newest.position
            page = await log.read(after, until, EVERY_TOPIC, count=_PAGE, size=_PAGE_SIZE)
            if page.entries:
                return page.entries
            after = page.until
