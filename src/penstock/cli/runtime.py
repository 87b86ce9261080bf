"""How a command runs: signals, standard input and standard output under Trio.

Rule: a signal ends whatever waits for standard input or output. A thread could not be cancelled,
and a non-blocking descriptor would be non-blocking for the shell, too. So each read and write first
waits until it would not block.
"""

from __future__ import annotations

import math
import os
import select
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TextIO, final

import click
import trio

from penstock.process_signals import end_at_next, exiting_at, stopping_signals

__all__ = ["Input", "LineReader", "LineTooLong", "Output", "Unread", "run"]

_STDERR: Final = 2

# Seconds between two updates of the progress on a terminal.
_PROGRESS_INTERVAL: Final = 0.1

_CHUNK: Final = 65536  # bytes; what a pipe holds

# Lines in a batch, which is stored and answered at once; more would not be faster.
_BATCH_LINES: Final = 500

# Bytes after which a batch is complete, and bytes that a line may have. The hub accepts events of
# up to 1 MiB and bodies of up to 16, in which a byte of data may have to be escaped to six.
_BATCH_BYTES: Final = 2**20
_MAX_LINE: Final = 2**21

# Seconds: less than a person notices, more than a program needs between two lines that it writes.
_BATCH_DELAY: Final = 0.05


class Unread(Exception):
    """Nobody reads standard output any more."""


class LineTooLong(Exception):
    """A line of the input is longer than a line may be."""


def run(
    work: Callable[[], Awaitable[None]],
    *,
    output: Output | None = None,
    progress: Callable[[], str] | None = None,
) -> int:
    """Run a command's work; return the exit status.

    It is 0 when the work is done. SIGINT (Ctrl-C), SIGTERM and SIGHUP cancel the work, and the
    status is then 130, 143 or 129; a second signal ends the process at once.

    Args:
      work: the work.
      output: a pipe that ends the work when nobody reads it any more; the status is then 0.
      progress: returns a line that is shown while the work runs, if standard error is a terminal.

    Raises:
      click.ClickException: the work raised it.
    """
    # Before the work begins, and when it is over, a signal has nothing to cancel.
    with exiting_at(stopping_signals()):
        return trio.run(_run, work, output, progress)


async def _run(
    work: Callable[[], Awaitable[None]],
    output: Output | None,
    progress: Callable[[], str] | None,
) -> int:
    status, failure, numbers = 0, None, stopping_signals()

    async def end_at_signal(signals: AsyncIterator[int]) -> None:
        nonlocal status
        number = await anext(signals)
        end_at_next(numbers)
        status = 128 + number
        nursery.cancel_scope.cancel()

    async def end_when_unread(output: Output) -> None:
        await output.wait_unread()
        nursery.cancel_scope.cancel()

    with trio.open_signal_receiver(*numbers) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_at_signal, signals)
            if output is not None:
                nursery.start_soon(end_when_unread, output)
            if progress is not None and os.isatty(_STDERR):
                nursery.start_soon(_show, progress)
            try:
                await work()
            except click.ClickException as error:
                failure = error  # raised below, where no nursery puts it into a group
            except Unread:
                pass
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return status


async def _show(progress: Callable[[], str]) -> None:
    """Keep a line of the terminal up to date; clear it in the end."""
    try:
        while True:
            await trio.sleep(_PROGRESS_INTERVAL)
            click.echo(f"\r{progress()}\x1b[K", err=True, nl=False)
    finally:
        click.echo("\r\x1b[K", err=True, nl=False)


@final
class Output:
    """Standard output.

    Raises:
      click.ClickException: it is closed.
    """

    def __init__(self) -> None:
        self._fd = _descriptor(sys.stdout, "output")
        self._waits = _can_wait(self._fd)
        self._writable = select.poll()
        self._writable.register(self._fd, select.POLLOUT)

    @property
    def is_terminal(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._fd)

    async def write(self, data: bytes) -> None:
        """Write all data at once, without a buffer.

        Raises:
          Unread: nobody reads it any more.
          click.ClickException: it cannot be written.

        Cancellation:
          A checkpoint, which yields to other tasks only if it has to wait. When it is cancelled, a
          part may have been written.
        """
        # A writable pipe takes this many bytes without blocking.
        size = select.PIPE_BUF if self._waits else len(data)
        rest = memoryview(data)
        while rest:
            if self._waits and not self._writable.poll(0):
                await trio.lowlevel.wait_writable(self._fd)
            else:  # other tasks run while the data is waited for
                await trio.lowlevel.checkpoint_if_cancelled()
            try:
                rest = rest[os.write(self._fd, rest[:size]) :]
            except BlockingIOError:  # another process made it non-blocking, and was faster
                continue
            except (BrokenPipeError, ConnectionResetError):
                raise Unread from None
            except OSError as error:
                raise click.ClickException(
                    f"cannot write to standard output: {error.strerror}"
                ) from error

    async def wait_unread(self) -> None:
        """Return when nobody reads the pipe any more, even if nothing is written to it.

        Cancellation:
          A checkpoint.
        """
        if stat.S_ISFIFO(os.fstat(self._fd).st_mode):
            await trio.lowlevel.wait_readable(self._fd)  # an error counts as readable
            poll = select.poll()
            poll.register(self._fd, 0)
            if poll.poll(0):
                return
        await trio.sleep_forever()  # no pipe, or one that this process can read itself


@final
class Input:
    """Standard input.

    Raises:
      click.ClickException: it is closed.
    """

    def __init__(self) -> None:
        self._fd = _descriptor(sys.stdin, "input")
        self._waits = _can_wait(self._fd)

    @property
    def is_terminal(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._fd)

    async def receive_some(self) -> bytes:
        """Return some bytes as soon as there are any; none at the end.

        Raises:
          click.ClickException: it cannot be read.

        Cancellation:
          A checkpoint. Atomic: when it is cancelled, nothing was read.
        """
        while True:
            if self._waits:
                await trio.lowlevel.wait_readable(self._fd)
            else:
                await trio.lowlevel.checkpoint()
            try:
                return os.read(self._fd, _CHUNK)
            except BlockingIOError:  # another process made it non-blocking, and was faster
                continue
            except OSError as error:
                raise click.ClickException(
                    f"cannot read from standard input: {error.strerror}"
                ) from error


@final
class LineReader:
    """The lines of an input, without their ends (LF or CRLF), in batches.

    Args:
      receive: returns some bytes as soon as there are any, and none at the end.
    """

    def __init__(self, receive: Callable[[], Awaitable[bytes]]) -> None:
        self._receive = receive
        self._buffer = bytearray()
        self._scanned = 0  # this many bytes of the buffer are known to hold no line end
        self._ended = False
        self._too_long = False

    async def batch(self) -> list[bytes]:
        """Return the lines that arrive within 50 ms of the first; none at the end.

        Raises:
          LineTooLong: the line after those returned before is too long.

        Cancellation:
          A checkpoint. When it is cancelled, the lines of the unfinished batch are lost.
        """
        lines: list[bytes] = []
        size, deadline = 0, math.inf
        while True:
            while (line := self._next_line()) is not None:
                if not lines:
                    deadline = trio.current_time() + _BATCH_DELAY
                lines.append(line)
                size += len(line)
                if len(lines) == _BATCH_LINES or size >= _BATCH_BYTES:
                    return lines
            if self._too_long and not lines:
                raise LineTooLong(f"longer than {_MAX_LINE} bytes")
            if self._too_long or self._ended:
                return lines
            with trio.move_on_at(deadline) as limit:
                received = await self._receive()
                self._buffer += received
                self._ended = not received
            if limit.cancelled_caught:
                return lines

    def _next_line(self) -> bytes | None:
        end = self._buffer.find(b"\n", self._scanned)
        size = len(self._buffer) if end < 0 else end
        self._too_long = size > _MAX_LINE
        if self._too_long or (end < 0 and not (self._ended and self._buffer)):
            self._scanned = size
            return None
        line = bytes(self._buffer[:size])
        del self._buffer[: len(line) + 1]
        self._scanned = 0
        return line.removesuffix(b"\r")


def _descriptor(stream: TextIO | None, name: str) -> int:
    if stream is None:
        raise click.ClickException(f"standard {name} is closed")
    return stream.fileno()


def _can_wait(fd: int) -> bool:
    """Return whether Trio can wait for a descriptor: not for a file, which never blocks."""
    if not hasattr(select, "epoll"):
        mode = os.fstat(fd).st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(fd)
    with select.epoll() as epoll:
        try:
            epoll.register(fd)
        except PermissionError:
            return False
    return True
