"""Running rows: which server each is measured on, what runs at the same time, and what is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Final

from faults_clients import PATIENCE
from faults_servers import (
    Certificates,
    DidNotStartError,
    Running,
    Settings,
    Way,
    launched,
    wait_until_it_listens,
)
from faults_table import Outcome, Row, Site, Skipped
from h2.exceptions import ProtocolError

# Rows that are measured at the same time: they wait for whole seconds, most of the time.
JOBS: Final = 4


@dataclass(frozen=True)
class Task:
    """One row on one server."""

    row: Row
    way: Way

    def __str__(self) -> str:
        return f"{self.row} on {self.way}"


Results = dict[Task, Outcome | Skipped]
Ignore = Callable[[str], object]


@dataclass(frozen=True)
class Inventory:
    """What a server has open."""

    tasks: int
    sockets: int

    def __str__(self) -> str:
        return f"{self.tasks} tasks, {self.sockets} sockets"


@dataclass(frozen=True)
class LeftOver:
    """What a shared server had open before the first row, and has after the last."""

    running: Running
    before: Inventory
    after: Inventory | None
    """None: the server does not answer any more."""

    @property
    def kept(self) -> bool:
        """Tell whether nothing was left, exactly."""
        return self.before == self.after

    def __str__(self) -> str:
        protocol = "TLS" if self.running.settings.tls else "plain"
        after = self.after or "no answer"
        return f"{self.running.way}, {protocol}: {self.before} before all rows, {after} after them"


class Run:
    """The servers of a run: one for each row of stock, which rows break; shared ones of Penstock.

    That Penstock's are shared is a part of the test: what one row did, the next must not notice.
    With a ``patience``, Penstock has so many seconds for what it promised: see `Site`.
    """

    def __init__(self, certificates: Certificates, patience: float = 0) -> None:
        self._certificates = certificates
        self._patience = patience
        self._shared: dict[tuple[Way, Settings], tuple[Running, Inventory]] = {}
        self.results: Results = {}
        self.left_over: list[LeftOver] = []

    def measure(self, tasks: Sequence[Task], said: Ignore) -> None:
        """Measure what waits, some at the same time; then what is quick, one by one."""

        def one(task: Task) -> None:
            start = time.monotonic()
            outcome = self._outcome(task)
            again = task.row.quick and task.way is not Way.STOCK
            if again and isinstance(outcome, Outcome) and outcome.late:
                # Something else may have had the processor; the table tells of it.
                said(f"{task}: {outcome.text}, once more")
                outcome = _second(self._outcome(task), outcome)
            self.results[task] = outcome
            text = outcome.text if isinstance(outcome, Outcome) else f"skipped: {outcome}"
            said(f"{task}: {text} [{time.monotonic() - start:.1f} s]")

        stock = [task for task in tasks if task.way is Way.STOCK]
        guarded = [task for task in tasks if task.way is not Way.STOCK]
        with ExitStack() as servers, ThreadPoolExecutor(JOBS) as pool:
            list(pool.map(one, stock))
            self._share(guarded, servers)
            # Nobody has to be quick who may take as long as it takes.
            quick = [task for task in guarded if task.row.quick and not self._patience]
            list(pool.map(one, (task for task in guarded if task not in quick)))
            for task in quick:
                one(task)
            for running, before in self._shared.values():
                self.left_over.append(_left_over(running, before))
                said(str(self.left_over[-1]))

    def _share(self, tasks: Sequence[Task], servers: ExitStack) -> None:
        """Start the servers that rows have in common; one that does not start is each row's own."""
        keys = {(task.way, task.row.settings): None for task in tasks if not task.row.alone}
        for way, settings in keys:
            running = servers.enter_context(launched(way, settings, self._certificates))
            try:
                wait_until_it_listens(running)
                self._shared[way, settings] = running, _settled(running)
            except (DidNotStartError, OSError):
                continue

    def _outcome(self, task: Task) -> Outcome | Skipped:
        try:
            with self._site(task) as site:
                return task.row.measure(site)
        except Skipped as reason:
            return reason
        except DidNotStartError as error:
            return Outcome(False, str(error))
        except (OSError, ProtocolError, AssertionError) as error:
            return Outcome(False, f"{type(error).__name__}: {error}")

    @contextmanager
    def _site(self, task: Task) -> Iterator[Site]:
        """Give a row the server it needs, and close its clients when it is through."""
        row = task.row
        # Stock is not waited for: what it is known not to do does not come.
        patience = 0 if task.way is Way.STOCK else self._patience
        shared = None if row.alone else self._shared.get((task.way, row.settings))
        if shared is not None and shared[0].alive():
            with Site(shared[0], patience) as site:
                yield site
            return
        with row.around(row.settings) as settings:
            with launched(task.way, settings, self._certificates) as running:
                if row.starts:
                    wait_until_it_listens(running)
                with Site(running, patience) as site:
                    yield site


def _second(outcome: Outcome | Skipped, first: Outcome) -> Outcome | Skipped:
    """Return what came of a second try, with the figure of the first."""
    if isinstance(outcome, Skipped):
        return outcome
    return replace(outcome, text=f"{outcome.text} (before that {first.text})")


def inventory(running: Running) -> Inventory:
    """Count a server's tasks, by asking it, and its sockets, from outside."""
    with Site(running) as site:
        client = site.http1()
        client.get("/tasks", headers="Connection: close\r\n")
        received = client.read_until(b"\r\n\r\n")
        body = received.partition(b"\r\n\r\n")[2] or client.socket.recv(100)
        sockets = running.sockets()
    return Inventory(int(body), sockets)


def _settled(running: Running) -> Inventory:
    """Count until two counts agree: the first request has things imported, and threads started."""
    last = inventory(running)
    while last != (last := inventory(running)):
        time.sleep(0.05)
    return last


def _left_over(running: Running, before: Inventory) -> LeftOver:
    """Wait for idle connections to be reaped, and count again."""
    deadline = time.monotonic() + running.keep_alive_timeout + PATIENCE
    while True:
        try:
            left = LeftOver(running, before, inventory(running))
        except (OSError, ValueError):
            return LeftOver(running, before, None)
        if left.kept or time.monotonic() > deadline:
            return left
        time.sleep(0.25)
