"""Standard input and output under Trio: what waits on them, a signal can end.

A thread could not be cancelled, and making the descriptors non-blocking would make them so for the
shell, too. So each read and write waits until it would not block, and is then made.
"""

from __future__ import annotations

import os
import select
import stat
import sys
from typing import Final, TextIO, final

import click
import trio

__all__ = ["Input", "Output", "Unread"]

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
