"""Runs the pages' commands against the demonstration, or the server that they start."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Container
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from docs_blocks import ROOT, Block, write_modules
from forked import run
from processes import HYPERCORN, PENSTOCK, Curl, Server, serving, wait_until

# What is done to the reader's own system, and cannot be done to this one.
OF_THE_READERS = {"apt-get", "caddy", "docker", "haproxy", "nginx", "sudo", "systemctl"}

_INSTALLS = re.compile(r"python -m pip install [\w.\[\]-]+")
_SESSION = re.compile(r"python -m nox -s ([\w]+)( -- .*)?")
_LOCAL = re.compile(r"(127\.0\.0\.1|localhost):80\d\d\b")


def commands_of(source: str) -> list[str]:
    """Return the commands of a block, without comments and prompts."""
    lines = source.replace("\\\n", " ").splitlines()
    bare = [re.sub(r"(^| )# .*", "", line).removeprefix("$ ").strip() for line in lines]
    return [command.strip() for line in bare for command in line.split("&&") if command.strip()]


def run_shell(block: Block, folder: Path) -> None:
    """Run a block's commands in their order; what goes on is ended behind the last."""
    write_modules(block.page, folder)
    commands = commands_of(block.source)
    assert commands, "there is no command"
    with ExitStack() as stack:
        session = _Session(folder, stack)
        for command in commands:
            session.run(command)
        session.check_those_that_go_on()


class _Session:
    """One block's commands: the server that they mean, and what goes on in the background."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._server: Server | None = None
        self._listening: list[Server] = []
        self._curls: list[Curl] = []

    def run(self, command: str) -> None:
        """Run one, as what it is; one that is not known is an error."""
        words = shlex.split(command)
        if _INSTALLS.fullmatch(command) or words[0] in OF_THE_READERS:
            return
        if session := _SESSION.fullmatch(command):
            check_session(session[1])
        elif words[0] == "hypercorn" or words[:2] == ["penstock", "serve"]:
            self._serve(words)
        elif words[:2] == ["penstock", "listen"]:
            # From the earliest: it need not be there before what is published.
            earliest = ("--last-event-id", "earliest")
            self._listening.append(self._start([PENSTOCK, *self._here(words[1:]), *earliest]))
        elif words[0] == "curl" and words[1].startswith("-N"):
            self._curls.append(self._stack.enter_context(Curl(*self._here(words[2:]))))
        elif words[0] == "curl":
            self._finish(["curl", "-fsS", *self._here(words[1:])])
        elif words[:2] == ["penstock", "publish"]:
            self._finish([PENSTOCK, *self._here(words[1:])])
        elif words[:2] == ["penstock", "doctor"] and _LOCAL.search(command):
            # For a second, whatever the page says; and 1 is what it says of a stream, too.
            self._finish([PENSTOCK, *self._here(words[1:]), "--for", "1"], statuses=(0, 1))
        elif words[0] == "penstock":
            _check_options(words)
        else:
            raise AssertionError(f"nobody runs this command: {command}")

    def check_those_that_go_on(self) -> None:
        """See that those which go on have said something."""
        for listening in self._listening:
            wait_until(lambda said=listening: said.output or None)  # type: ignore[misc]
        for curl in self._curls:
            assert curl.lines.readline()

    def _serve(self, words: list[str]) -> None:
        command = [HYPERCORN if words[0] == "hypercorn" else PENSTOCK, *words[1:]]
        if "--bind" in command:
            del command[command.index("--bind") : command.index("--bind") + 2]
        self._server = self._start([*command, "--bind", "127.0.0.1:0"])
        assert self._server.url

    def _start(self, command: list[str]) -> Server:
        return self._stack.enter_context(serving(*command, folder=self._folder, cwd=self._folder))

    def _here(self, words: list[str]) -> list[str]:
        """Have a command ask the block's server, or the demonstration where it starts none."""
        if self._server is None:
            self._server = self._start([PENSTOCK, "serve", "--bind", "127.0.0.1:0"])
        here = self._server.url.rpartition("/")[2]
        return [_LOCAL.sub(here, word) for word in words]

    def _finish(self, command: list[str], *, statuses: Container[int] = (0,)) -> None:
        ran = run(*command, cwd=self._folder)
        assert ran.returncode in statuses, ran.stderr.decode()


@cache
def sessions() -> str:
    """Return what nox lists."""
    command = [sys.executable, "-m", "nox", "-l"]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout


def check_session(name: str) -> None:
    """See that there is such a session; one for several Pythons has one of them in its name."""
    assert re.search(rf"\b{name}(-[\d.]+)? ->", sessions()), f"there is no session {name}"


def _check_options(words: list[str]) -> None:
    """See that a subcommand that cannot be run here exists, with the options that it is given."""
    ran = run(PENSTOCK, words[1], "--help")
    assert ran.returncode == 0, ran.stderr.decode()
    told = ran.stdout.decode()
    for option in (word.partition("=")[0] for word in words[2:] if word.startswith("-")):
        assert option in told, f"{words[1]} has no {option}"
