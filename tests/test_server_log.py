"""The log of `penstock serve`: one record, one line; repetitions in one line; nobody waits."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from penstock.cli.repeated_log_records import RecordFilter, without_traceback
from penstock.cli.server_log import LogFormatter, StandardErrorHandler

HOSTILE = "a\r\n2026-01-01 00:00:00,000 INFO forged\x1b[2J\u2028\u202e"


def record(
    message: str = "said", error: BaseException | None = None, name: str = "penstock.x", **more: int
) -> logging.LogRecord:
    """Make a record as a logger does."""
    info = None if error is None else (type(error), error, error.__traceback__)
    level = more.get("level", logging.WARNING)
    return logging.LogRecord(name, level, "", 0, message, None, info)


def raised(say: str = "bad") -> ValueError:
    try:
        raise ValueError(say)
    except ValueError as error:
        return error


def test_a_message_is_one_line() -> None:
    """Whatever it was given."""
    shown = LogFormatter().format(record(HOSTILE))
    assert shown.isprintable()
    assert r"a\r\n2026-01-01 00:00:00,000 INFO forged\x1b[2J\u2028\u202e" in shown


def test_the_lines_of_a_traceback_are_no_records() -> None:
    """They stay lines, and are indented; their content is escaped."""
    each = record("failed", raised(HOSTILE))
    each.exc_text = "of another formatter"
    first, *rest = LogFormatter().format(each).split("\n")
    assert first.endswith(" WARNING failed")
    assert rest[0] == "  Traceback (most recent call last):"
    assert all(line.startswith("  ") and line.isprintable() for line in rest)
    assert rest[-1] == r"  2026-01-01 00:00:00,000 INFO forged\x1b[2J\u2028\u202e"
    assert each.exc_text == "of another formatter"


def test_the_same_traceback_is_logged_once() -> None:
    """Repetitions are counted, and summarised in one line with the last one's message."""
    seen = RecordFilter()
    assert seen.admit(record("GET /1", raised("1")), 0)
    for number in range(2, 6):
        assert not seen.admit(record(f"GET /{number}", raised(str(number))), 1)
    assert seen.due == 10
    assert seen.summaries(9.9) == []
    (summary,) = seen.summaries(10)
    assert summary.getMessage() == ("… repeated 4 times in the last 10 s: GET /5: ValueError: 5")
    assert summary.exc_info is None
    assert seen.due is None
    assert seen.admit(record("GET /6", raised("6")), 11)


def test_other_tracebacks_are_others() -> None:
    """By their place and their type, in whatever group they are."""

    def elsewhere() -> ValueError:
        try:
            raise ValueError
        except ValueError as error:
            return error

    seen = RecordFilter()
    assert seen.admit(record(error=raised()), 0)
    assert seen.admit(record(error=elsewhere()), 0)
    assert seen.admit(record(error=ExceptionGroup("", [raised()])), 0)
    assert not seen.admit(record(error=ExceptionGroup("", [raised()])), 0)
    assert seen.admit(record(error=raised(), name="other"), 0)
    assert (
        seen.summaries(3, ending=True)[0].getMessage().startswith("… repeated once in the last 3")
    )


def test_warnings_of_the_server_have_a_rate() -> None:
    """An application's records, and those below a warning, have no limit."""
    seen = RecordFilter()
    assert [seen.admit(record("x"), 0) for _ in range(25)] == [True] * 20 + [False] * 5
    assert all(seen.admit(record("x", level=logging.INFO), 0) for _ in range(50))
    assert all(seen.admit(record("x", name="shop"), 0) for _ in range(50))


def test_kinds_have_a_bound() -> None:
    """With more kinds of records, the oldest is summarised at once."""
    seen = RecordFilter()
    for number in range(300):
        for _ in range(21):
            seen.admit(record(f"{number}"), 0)
        seen.summaries(0)
    assert len(seen._kinds) <= 257


def within(module: str, function: str = "raises") -> Exception:
    """Return an error that a function of a module's has raised."""
    made = ModuleType(module)
    exec(f"def {function}(inner=None):\n    inner() if inner else int('x')\n", made.__dict__)
    call: Callable[..., None] = getattr(made, function)
    try:
        call()
    except ValueError as error:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        return error
    raise AssertionError(module)


def test_what_a_request_causes_before_the_application_is_one_line() -> None:
    """The line has the error and its place; other errors keep their traceback."""
    line = without_traceback(record("Error in ASGI Framework", within("werkzeug.routing")))
    assert line.exc_info is None
    assert line.getMessage().startswith("Error in ASGI Framework: ValueError: invalid literal")
    assert line.getMessage().endswith(":2)")
    group = ExceptionGroup("", [within("quart.asgi")])
    assert without_traceback(record("x", group)).exc_info is None
    for error in (
        within("shop"),
        within("penstock.hypercorn.connection.connection"),
        within("quart.app", "full_dispatch_request"),
        ExceptionGroup("", [within("quart.asgi"), within("shop")]),
    ):
        assert without_traceback(record("x", error)).exc_info is not None


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


def test_nothing_is_lost_at_the_end(pipe: tuple[int, int]) -> None:
    """Earlier records are written by then, and later ones at once."""
    handler = StandardErrorHandler(pipe[1])
    for number in range(100):
        handler.handle(record(f"number {number}", level=logging.INFO))
    handler.close()
    handler.handle(record("late"))
    lines = os.read(pipe[0], 65536).decode().splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == [*map(str, range(100)), "late"]


def test_a_pipe_that_nobody_reads_holds_nobody(pipe: tuple[int, int]) -> None:
    """A megabyte is queued, the number of dropped records is logged, and closing returns."""
    handler = StandardErrorHandler(pipe[1])
    for _ in range(3000):
        handler.handle(record("x" * 1000, level=logging.INFO))
    read = b""
    while b"log records dropped: standard error was not read" not in read:
        read += os.read(pipe[0], 65536)
    lines = read.decode().splitlines()
    dropped = int(lines[-1].split()[3])
    assert len(lines) - 1 + dropped == 3000
    assert dropped > 1000
    for _ in range(100):
        handler.handle(record("x" * 1000, level=logging.INFO))
    handler.close()  # although it is unread


def test_a_reader_that_has_gone(pipe: tuple[int, int]) -> None:
    """Nothing is written to it, and nothing fails."""
    read, write = os.pipe()
    os.close(read)
    handler = StandardErrorHandler(write)
    handler.handle(record())
    handler.close()
    os.close(write)


def test_a_fork_logs_by_itself() -> None:
    """It has no thread."""
    code = (
        "import logging, os, sys\n"
        "from penstock.cli.server_log import logging_to_standard_error\n"
        "with logging_to_standard_error():\n"
        "    if not os.fork():\n"
        "        logging.getLogger().info('child')\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
    )
    # Since Python 3.12 it warns of a fork beside threads; the child of this one takes no lock.
    command = (sys.executable, "-W", "ignore::DeprecationWarning", "-c", code)
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.stderr.endswith(" INFO child\n")
