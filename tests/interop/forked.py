"""A command as a process that starts at once: a fork of one that has imported what it needs.

An interpreter takes half a second of the processor, or a whole one, to import what a command needs,
and the tests start hundreds. A fork is a process as any other: it has its own pid, descriptors,
directory, environment and signals, ends as an interpreter ends, and is a child of the test process.
Of `penstock` and `hypercorn`, what matters to how they are started and imported is asked of the
real ones.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import inspect
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import trio

_PR_SET_CHILD_SUBREAPER = 36

PENSTOCK = str(Path(sys.executable).parent / "penstock")
HYPERCORN = str(Path(sys.executable).parent / "hypercorn")

# What the commands import, and what the applications do that the tests serve; not the applications.
MODULES = (
    *(f"penstock.cli.{name}" for name in ("serve", "publish", "listen", "doctor")),
    *("penstock.quart", "penstock.logs", "h2.connection", "wsproto", "socksio"),
    *("hypercorn.__main__", "penstock.hypercorn"),
)

# What pytest imports, as soon as it is run.
PYTEST = ("pytest", "hypothesis", "pytest_trio.plugin", "penstock.testing.pytest_plugin")


class _Origin:
    """The process that is forked, as who asks for forks has it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._environment = _started_with(os.environ)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # Ctrl-C is for the tests, which end it
        )
        theirs.close()

    def can_start(self, command: Sequence[Any], env: dict[str, str] | None) -> bool:
        """Tell whether a fork would be as what is started by itself."""
        same = env is None or _started_with(env) == self._environment
        return same and (command[0] in (PENSTOCK, HYPERCORN) or _is_program(command))

    def fork(self, descriptors: list[int], **order: Any) -> int:
        with self._lock:
            socket.send_fds(self._control, [json.dumps(order).encode()], descriptors)
            answer = self._control.recv(100)
        assert answer, "the process to fork has ended"
        return int(answer)

    def end(self) -> None:
        self._control.close()
        self._process.wait(timeout=60)


_starting = threading.Lock()
_origin: _Origin | None = None
_enabled = False


def _started_with(env: Any) -> dict[str, str]:
    """Return what of an environment matters to an interpreter before it runs anything."""
    names = ("PYTHON", "LC_", "LANG", "LD_")
    started = {name: value for name, value in env.items() if name.startswith(names)}
    started.pop("PYTHONUNBUFFERED", None)  # a fork has buffers: a line must be flushed to be seen
    return started


def _is_program(command: Sequence[Any]) -> bool:
    """Tell whether it is Python that runs a file, code, or pytest, without other options."""
    if command[0] != sys.executable:
        return False
    first, *rest = map(str, command[3:] if _warns_as_errors(command) else command[1:])
    # `python -m penstock` is tested for what it does, and so is not one.
    return first == "-c" or first.endswith(".py") or [first, *rest[:1]] == ["-m", "pytest"]


def _warns_as_errors(command: Sequence[Any]) -> bool:
    return list(command[1:3]) == ["-W", "error"]


@contextmanager
def forks() -> Iterator[None]:
    """Have `Process` fork while the block runs, where the system can. Blocks may be nested."""
    global _enabled, _origin
    if _enabled:
        yield
        return
    _enabled = sys.platform == "linux"
    try:
        yield
    finally:
        _enabled = False
        if _origin is not None:
            _origin.end()
            _origin = None


class Process(subprocess.Popen[Any]):
    """A process; if it is `penstock`, `hypercorn`, or a program in Python, a fork."""

    def _execute_child(self, *given: Any) -> None:
        global _origin
        execute: Any = subprocess.Popen._execute_child  # type: ignore[attr-defined]  # private
        asked = inspect.signature(execute).bind(self, *given).arguments
        command, env = asked["args"], asked["env"]
        with _starting:
            if _enabled and _origin is None:
                # The fork's own parent ends at once, and this process adopts it.
                ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
                _origin = _Origin()
        if not _enabled or not _origin or not _origin.can_start(command, env):
            execute(self, *given)
            return
        pipes = [
            asked[name]
            for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        ]
        ends = [pipes[0], pipes[3], pipes[5]]
        try:
            self.pid = _origin.fork(
                [number if end == -1 else end for number, end in enumerate(ends)],
                command=[os.fsdecode(each) for each in command],
                cwd=os.fspath(asked["cwd"] or os.getcwd()),
                env=dict(os.environ) if env is None else env,
                session=asked["start_new_session"],
            )
            self._child_created = True
        finally:
            self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]  # private


def run(
    *command: str, stdin: bytes | None = None, env: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end, with this or nothing as its input."""
    with Process(
        command,
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        **options,
    ) as process:
        try:
            out, err = process.communicate(stdin, timeout=60)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


async def ran_beside(
    *command: str, stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end, beside what this Trio run serves."""
    return await trio.to_thread.run_sync(partial(run, *command, stdin=stdin))


# In the process that is forked.


def _import(modules: Iterable[str]) -> None:
    for each in modules:
        with suppress(ModuleNotFoundError):
            importlib.import_module(each)
    gc.collect()
    gc.freeze()


def _forked(control: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork for each order, and return in the fork alone."""
    while True:
        order, descriptors, _, _ = socket.recv_fds(control, 2**20, 3)
        if not order:
            os._exit(0)
        if "pytest" in (asked := json.loads(order))["command"]:
            _import(PYTEST)
        reading, writing = os.pipe()
        if (between := os.fork()) == 0:
            if (pid := os.fork()) == 0:
                control.close()
                os.close(reading)
                os.close(writing)
                return asked, descriptors
            os.write(writing, str(pid).encode())
            os._exit(0)
        os.waitpid(between, 0)
        for descriptor in (writing, *descriptors):
            os.close(descriptor)
        control.send(os.read(reading, 100))  # now that it is the test process's child
        os.close(reading)


def _become(order: dict[str, Any], descriptors: list[int]) -> None:
    """Have what an interpreter has that was started so."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    if order["session"]:
        os.setsid()
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    sys.argv = order["command"]
    script = sys.argv[0] in (PENSTOCK, HYPERCORN)  # which Python runs
    sys.orig_argv = [sys.executable, *(sys.argv if script else sys.argv[1:])]
    sys.path[0] = str(Path(PENSTOCK).parent)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        before = getattr(sys, name)
        buffering = 1 if name == "stderr" else -1  # of a line
        stream = open(  # noqa: SIM115 - for as long as the process is there
            number, mode, buffering, before.encoding, before.errors, closefd=False
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _interpret(command: list[str]) -> None:
    """Do what Python does that is started so."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if _warns_as_errors(command):
        warnings.simplefilter("error")
        del command[1:3]
    if command[0] == HYPERCORN:
        runpy.run_path(HYPERCORN, run_name="__main__")
        return
    first, *sys.argv = command[1:]
    if first == "-m":
        sys.path[0] = os.getcwd()
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.path[0] = ""
        code, sys.argv[0] = sys.argv[0], "-c"
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.path[0] = os.path.realpath(os.path.dirname(first))
        sys.argv.insert(0, first)
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    from penstock.__main__ import main

    _import(MODULES)
    _become(*_forked(socket.socket(fileno=int(sys.argv[1]))))
    if sys.argv[0] == PENSTOCK:
        main()
    else:
        _interpret(sys.argv)
