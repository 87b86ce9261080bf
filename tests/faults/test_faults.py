"""The table of faults as tests: Penstock keeps each promise; a few rows show that they bite.

`nox -s faults` measures all of it, stock as well, and prints the figures.
"""

from __future__ import annotations

from typing import Final

import pytest
from faults_rows import ROWS
from faults_run import Run, Task
from faults_servers import Certificates, Way
from faults_table import Outcome, Stock
from forked import forks

pytestmark = pytest.mark.interop

# Quick ones, of each kind: where these bite, the harness does.
BITING: Final = {
    ("1d", "SIGTERM, window closed"),
    ("2", "non-ASCII :path"),
    ("3", "HTTP/1.0"),
    ("5", "window closed, the server's memory"),
    ("6", "a stream reset while its headers wait"),
    ("11", "-w 0, SIGTERM, one stream"),
}

TASKS: Final = [
    *(
        Task(row, row.ways[0])
        for row in ROWS
        # The cable of rows 8 takes privileges; `nox -s faults` has them, or says what it skips.
        if not row.long
    ),
    *(
        Task(row, Way.STOCK)
        for row in ROWS
        if row.stock is Stock.FAILS and (row.number, row.what) in BITING
    ),
]


@pytest.fixture(scope="session")
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Measure all rows that were selected; those that wait, at the same time."""
    names = {item.name for item in request.session.items}
    selected = [task for task in TASKS if f"{test_row.__name__}[{task}]" in names]
    # Not a measurement: what is promised within milliseconds may come late on a busy machine.
    run = Run(Certificates(tmp_path_factory.mktemp("faults")), patience=60)
    with forks():
        run.measure(selected, print)
    return run


@pytest.mark.parametrize("task", TASKS, ids=str)
def test_row(run: Run, task: Task) -> None:
    """Penstock keeps the promise; stock, in the rows that are quickly shown, breaks it."""
    outcome = run.results[task]
    if not isinstance(outcome, Outcome):
        pytest.skip(str(outcome))
    print(f"{outcome.text}; promised: {task.row.promised}")
    assert outcome.kept is (task.way is not Way.STOCK), f"{task}: {outcome.text}"


def test_nothing_is_left(run: Run) -> None:
    """After all rows on it, a server has the tasks and sockets that it had before, exactly."""
    assert [str(left) for left in run.left_over if not left.kept] == []
