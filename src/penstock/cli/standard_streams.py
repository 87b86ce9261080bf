"""Standard input and output under Trio: what waits on them, a signal can end."""

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

__all__ = ["BadLine", "Input", "LineReader", "Output", "Unread", "run"]

_CHUNK: Final = 65536  # bytes; what a pipe holds


class Unread(Exception):
    """Nobody reads standard output any more."""


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
        """Whether a person reads it."""
        return os.isatty(self._fd)

    async def write(self, data: bytes) -> None:
        """Write all of it; there is no buffer.

        Raises:
          Unread: nobody reads it any more.
          click.ClickException: it takes no more.

        Cancellation:
          It can be cancelled, and lets others run only where it waits. A part may then have been
          written.
        """
        # A pipe that can be written to takes so many bytes without blocking.
        size = select.PIPE_BUF if self._waits else len(data)
        rest = memoryview(data)
        while rest:
            if self._waits and not self._writable.poll(0):
                await trio.lowlevel.wait_writable(self._fd)
            else:  # where what is written comes from, others had their turn
                await trio.lowlevel.checkpoint_if_cancelled()
            try:
                rest = rest[os.write(self._fd, rest[:size]) :]
            except BlockingIOError:  # somebody made it non-blocking, and was faster
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
        await trio.sleep_forever()  # no pipe, or one that this process may read itself


@final
class Input:
    """Standard input.

    Raises:
      click.ClickException: it is closed.
    """

    def __init__(self) -> None:
        self._fd = _descriptor(sys.stdin, "input")
        self._waits = _can_wait(self._fd)

    async def receive_some(self) -> bytes:
        """Return some bytes, as soon as there are any; none at the end.

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
            except BlockingIOError:  # somebody made it non-blocking, and was faster
                continue
            except OSError as error:
                raise click.ClickException(
                    f"cannot read from standard input: {error.strerror}"
                ) from error


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


# Lines. A batch is stored at once and answered at once; of more, nothing gets faster.
_MOST_LINES: Final = 500

# Bytes after which a batch goes off, and that a line may have. The hub takes events of up to 1 MiB
# and bodies of up to 16, in which a byte of data may have to be escaped to six.
_ENOUGH_BYTES: Final = 2**20
_LONGEST_LINE: Final = 2**21

# Seconds. Less than a person notices, more than a program needs between two lines that it writes.
_GATHER: Final = 0.05


class BadLine(Exception):
    """A line that cannot be taken; it is the input's, not the server's.

    Attributes:
      number: which, from 1.
    """

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number: int = number


@final
class LineReader:
    """Cut what is received into lines, without their ends (LF or CRLF).

    Args:
      receive: returns some bytes as soon as there are any, and none at the end.
    """

    def __init__(self, receive: Callable[[], Awaitable[bytes]]) -> None:
        self._receive = receive
        self._buffer = bytearray()
        self._scanned = 0  # so many bytes of the buffer are known to hold no line end
        self._ended = False
        self._too_long = False
        self.taken: int = 0
        """How many lines were returned."""

    async def batch(self) -> list[bytes]:
        """Return the lines that come within a moment of the first; none at the end.

        Raises:
          BadLine: the line after those returned before is too long.

        Cancellation:
          A checkpoint. When it is cancelled, the lines that it had gathered are lost.
        """
        lines: list[bytes] = []
        size, deadline = 0, math.inf
        while True:
            while (line := self._next_line()) is not None:
                if not lines:
                    deadline = trio.current_time() + _GATHER
                lines.append(line)
                size += len(line)
                if len(lines) == _MOST_LINES or size >= _ENOUGH_BYTES:
                    return self._taken(lines)
            if self._too_long and not lines:
                raise BadLine(self.taken + 1, f"it is longer than {_LONGEST_LINE} bytes")
            if self._too_long or self._ended:
                return self._taken(lines)
            with trio.move_on_at(deadline) as limit:
                received = await self._receive()
                self._buffer += received
                self._ended = not received
            if limit.cancelled_caught:
                return self._taken(lines)

    def _taken(self, lines: list[bytes]) -> list[bytes]:
        self.taken += len(lines)
        return lines

    def _next_line(self) -> bytes | None:
        end = self._buffer.find(b"\n", self._scanned)
        size = len(self._buffer) if end < 0 else end
        self._too_long = size > _LONGEST_LINE
        if self._too_long or (end < 0 and not (self._ended and self._buffer)):
            self._scanned = size
            return None
        line = bytes(self._buffer[:size])
        del self._buffer[: len(line) + 1]
        self._scanned = 0
        return line.removesuffix(b"\r")


def run(work: Callable[[], Awaitable[None]], *, output: Output | None = None) -> int:
    """Run a command's work; return the status to exit with.

    It is 0 when the work is done; 130 after SIGINT (Ctrl-C), 143 after SIGTERM and 129 after
    SIGHUP, which cancel the work; a second one ends the process at once. Where an output is given,
    a pipe that nobody reads any more ends the work, and that is 0, too: its reader has had enough.

    Raises:
      click.ClickException: the work raised it.
    """
    # Before the work begins, and when it is over, a signal has nothing to cancel.
    with exiting_at(stopping_signals()):
        return trio.run(_run, work, output)


async def _run(work: Callable[[], Awaitable[None]], output: Output | None) -> int:
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
