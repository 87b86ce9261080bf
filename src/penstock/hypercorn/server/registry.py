"""The connections of one server: counted, limited, and closed together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final, final

import trio

from penstock.hypercorn.connection.connection import Connection
from penstock.hypercorn.settings import Settings
from penstock.hypercorn.wire.sockets import file_descriptor_limit

__all__ = ["Connections"]

# File descriptors that connections leave for the application: its files, its own sockets, and for
# those clients that are being told that there are too many.
_RESERVED: Final = 256

# Clients that are being refused at one time, with an answer; more are closed without one.
MAX_REFUSALS: Final = 128


@final
class Connections:
    """The connections that a server has open."""

    def __init__(self, settings: Settings) -> None:
        self.accepted: int = 0
        self.refused: int = 0
        self._settings = settings
        self._limit: int | None = settings.max_connections
        self._open: dict[Connection, str | None] = {}
        self._by_address: Counter[str] = Counter()
        self._refusals = 0
        self._bytes_received = 0
        self._bytes_sent = 0
        self._empty = trio.Event()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._open))

    @property
    def limit(self) -> int:
        """How many connections there may be."""
        if self._limit is None:
            descriptors = file_descriptor_limit()
            self._limit = max(descriptors - _RESERVED, descriptors // 2)
        return self._limit

    @property
    def bytes_received(self) -> int:
        """Bytes that came from clients, those of TLS itself not counted."""
        return self._bytes_received + sum(each.incoming.received for each in self._open)

    @property
    def bytes_sent(self) -> int:
        """Bytes that the kernel took for clients, those of TLS itself not counted."""
        return self._bytes_sent + sum(each.outgoing.sent for each in self._open)

    @property
    def requests_open(self) -> int:
        """Requests whose application is running."""
        return sum(each.requests.count() for each in self._open)

    def postpone(self, pause: float) -> None:
        """Move the deadlines of all clients by a pause of the process, in seconds."""
        for connection in self._open:
            connection.postpone(pause)

    def refusal(self, address: str | None) -> HTTPStatus | None:
        """Return the status with which a client from this address is refused, or None."""
        if len(self._open) - self._refusals >= self.limit:
            return HTTPStatus.SERVICE_UNAVAILABLE
        most = self._settings.max_connections_per_address
        if most is not None and address is not None and self._by_address[address] >= most:
            return HTTPStatus.TOO_MANY_REQUESTS
        return None

    def add(self, connection: Connection, address: str | None, *, refused: bool) -> None:
        """Count a connection as open, until it is removed."""
        self.accepted += 1
        self._open[connection] = None if refused else address
        if refused:
            self.refused += 1
            self._refusals += 1
        elif address is not None:
            self._by_address[address] += 1

    def remove(self, connection: Connection, *, refused: bool) -> None:
        """Count a connection that is over."""
        address = self._open.pop(connection)
        if refused:
            self._refusals -= 1
        elif address is not None:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]
        self._bytes_received += connection.incoming.received
        self._bytes_sent += connection.outgoing.sent
        if not self._open:
            self._empty.set()

    @property
    def refuses_silently(self) -> bool:
        """Whether so many are being refused that the next one gets no answer."""
        return self._refusals >= MAX_REFUSALS

    async def wait_closed(self) -> None:
        """Wait until no connection is open."""
        while self._open:
            self._empty = trio.Event()
            await self._empty.wait()
