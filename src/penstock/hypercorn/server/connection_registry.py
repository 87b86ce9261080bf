"""The open connections of one server: counted, limited, and closed together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final, final

import trio

from penstock.hypercorn.connection.connection import Connection
from penstock.hypercorn.server.process import file_descriptor_limit
from penstock.hypercorn.settings import Settings

__all__ = ["ConnectionRegistry"]

# File descriptors that connections leave for the application's files and sockets, and for refused
# clients while they are answered.
_RESERVED: Final = 256

# Maximum number of refused clients that are answered at a time; more are closed unanswered.
MAX_REFUSALS: Final = 128


@final
class ConnectionRegistry:
    """The connections that a server has open, with their counters."""

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
        """Maximum number of connections."""
        if self._limit is None:
            descriptors = file_descriptor_limit()
            self._limit = max(descriptors - _RESERVED, descriptors // 2)
        return self._limit

    @property
    def bytes_received(self) -> int:
        """Bytes from clients, without TLS overhead."""
        return self._bytes_received + sum(each.incoming.received for each in self._open)

    @property
    def bytes_sent(self) -> int:
        """Bytes that the kernel took for clients, without TLS overhead."""
        return self._bytes_sent + sum(each.outgoing.sent for each in self._open)

    @property
    def requests_open(self) -> int:
        """Requests whose application is running."""
        return sum(each.requests.count() for each in self._open)

    def extend_deadlines(self, pause: float) -> None:
        """Extend the deadlines of all clients after a pause of the process, in seconds."""
        for connection in self._open:
            connection.extend_deadlines(pause)

    def refusal(self, address: str | None) -> HTTPStatus | None:
        """Return the status that refuses a client from this address, or None to accept it."""
        if len(self._open) - self._refusals >= self.limit:
            return HTTPStatus.SERVICE_UNAVAILABLE
        most = self._settings.max_connections_per_address
        if most is not None and address is not None and self._by_address[address] >= most:
            return HTTPStatus.TOO_MANY_REQUESTS
        return None

    def add(self, connection: Connection, address: str | None, *, refused: bool) -> None:
        """Count a connection as open until it is removed."""
        self.accepted += 1
        self._open[connection] = None if refused else address
        if refused:
            self.refused += 1
            self._refusals += 1
        elif address is not None:
            self._by_address[address] += 1

    def remove(self, connection: Connection, *, refused: bool) -> None:
        """Count a connection as closed."""
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
    def drops_refused(self) -> bool:
        """Whether refused clients get no answer, because so many are being answered."""
        return self._refusals >= MAX_REFUSALS

    async def wait_closed(self) -> None:
        """Wait until no connection is open."""
        while self._open:
            self._empty = trio.Event()
            await self._empty.wait()
