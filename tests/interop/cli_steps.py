"""Running `penstock listen` and `penstock publish` as processes, with pipes and terminals."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from forked import Process, ran_beside, run
from processes import PENSTOCK, Server


def publish(
    server: Server, *arguments: str, stdin: str | bytes | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `penstock publish` to its end."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    ran = run(PENSTOCK, "publish", f"{server.url}/publish", *arguments, stdin=given)
    out, err = ran.stdout.decode(), ran.stderr.decode()
    return subprocess.CompletedProcess(ran.args, ran.returncode, out, err)


@contextmanager
def running(
    *arguments: str, stdin: int | IO[Any] | None = subprocess.DEVNULL, stdout: int = subprocess.PIPE
) -> Iterator[subprocess.Popen[str]]:
    """Run `penstock` for the length of the block; kill it if it is there at the end."""
    process = Process(
        [PENSTOCK, *arguments], stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, text=True
    )
    try:
        with process:
            yield process
            process.kill()
    finally:
        process.kill()


def topic(server: Server, name: str = "a") -> str:
    """Return the URL of what was and is published on a topic, from the start on."""
    return f"{server.url}/subscribe?topic={name}&last_event_id=earliest"


def lines_of(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline() for _ in range(count)]


def objects_of(process: subprocess.Popen[str], count: int) -> list[Any]:
    return [json.loads(line) for line in lines_of(process, count)]


def end(process: subprocess.Popen[str], number: signal.Signals | None = signal.SIGINT) -> str:
    """End a process, and return what it had still to say on stderr."""
    if number is not None:
        process.send_signal(number)
    process.wait(timeout=60)
    assert process.stderr is not None
    return process.stderr.read()


async def listening(url: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run `penstock listen` to its end, beside what serves it."""
    return await ran_beside(PENSTOCK, "listen", *arguments, url)


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """Give both ends of a pseudo-terminal: the person's and the program's."""
    person, program = pty.openpty()
    try:
        yield person, program
    finally:
        os.close(person)
        os.close(program)


def shown(person: int, until: str) -> str:
    """Return what a terminal shows, once that is among it."""
    text = ""
    while until not in text:
        assert select.select([person], [], [], 10)[0], text
        text += os.read(person, 65536).decode()
    return text
