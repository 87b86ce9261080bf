"""The ways to start a server, and a server as a row sees it: a process and what it has noted."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import forked
import trustme
from processes import HYPERCORN, PENSTOCK, Server

HERE: Final = Path(__file__).resolve().parent


class Way(StrEnum):
    """How a server is started."""

    STOCK = "stock"
    SERVE = "penstock serve"
    INSTALL_SERVE = "install+serve"
    INSTALL_CLI = "install+CLI"


@dataclass(frozen=True)
class Settings:
    """What a server is started with, whatever the way."""

    tls: bool = False
    http2: bool = False
    """HTTP/2 on a port without TLS: stock has it always."""
    workers: int = 0
    """Of Hypercorn's command line; the other ways have none."""
    host: str = "127.0.0.1"
    keep_alive_timeout: float = 1
    """Seconds; `penstock serve` is given 5."""
    send_timeout: float = 2
    drain_window: float = 1
    tcp_user_timeout: float = 3
    tcp_keep_alive: float = 1
    more: tuple[tuple[str, Any], ...] = ()
    """More of Hypercorn's settings."""


class Certificates:
    """A certificate for all servers of a run, in a folder of its own; what its clients trust."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._authority = trustme.CA()
        issued = self._authority.issue_cert("127.0.0.1", "localhost")
        self.certfile, self.keyfile = folder / "cert.pem", folder / "key.pem"
        issued.private_key_pem.write_to_path(self.keyfile)
        for part in issued.cert_chain_pems:
            part.write_to_path(self.certfile, append=True)

    def client_context(self, *protocols: str) -> ssl.SSLContext:
        """Return a context for a client that speaks these protocols."""
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        context.set_alpn_protocols(list(protocols))
        return context


@dataclass
class Running:
    """A server that runs."""

    way: Way
    settings: Settings
    server: Server
    notes_path: Path
    certificates: Certificates

    @cached_property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, _, port = self.server.url.partition("//")[2].rpartition(":")
        return host, int(port)

    @property
    def keep_alive_timeout(self) -> float:
        """Seconds after which it closes an idle connection."""
        return 5 if self.way is Way.SERVE else self.settings.keep_alive_timeout

    def notes(self) -> list[dict[str, Any]]:
        """Return what its producers have noted; see `faults_app.note`."""
        lines = self.notes_path.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def alive(self) -> bool:
        """Tell whether the process is there."""
        return self.server.process.poll() is None

    def memory(self) -> float:
        """Return the megabytes that the process occupies."""
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        (line,) = (line for line in status.split("\n") if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1000

    def sockets(self) -> int:
        """Return how many sockets the process has open."""
        count = 0
        for descriptor in Path(f"/proc/{self.server.process.pid}/fd").iterdir():
            try:
                count += os.readlink(descriptor).startswith("socket:")
            except FileNotFoundError:  # closed a moment ago
                continue
        return count


class DidNotStartError(Exception):
    """The server said why, and ended."""


@contextmanager
def launched(way: Way, settings: Settings, pems: Certificates) -> Iterator[Running]:
    """Start a server in a process group of its own; at the end of the block nothing is left of it.

    Whoever asks for its address waits for it to listen, or learns why it does not.
    """
    own = Path(tempfile.mkdtemp(prefix="server", dir=pems.folder))
    notes, output, log = own / "notes", own / "out", own / "err"
    notes.touch()
    # Unbuffered output would hide that a line is not flushed.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    env["FAULTS_LOG"] = str(notes)
    with output.open("wb") as out, log.open("wb") as err:
        process = forked.Process(
            _command(way, settings, own, pems),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=HERE,
            env=env,
            start_new_session=True,
        )
    try:
        yield Running(way, settings, Server(process, output, log), notes, pems)
    finally:
        # Also workers whose master has ended without them.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until_it_listens(running: Running) -> None:
    """Wait for the address.

    Raises:
      DidNotStartError: there will be none.
    """
    try:
        running.address  # noqa: B018 - looking it up is the wait
    except AssertionError:
        said = (running.server.output + running.server.log).strip().split("\n")
        raise DidNotStartError(f"did not start: {said[-1]}") from None


def _command(way: Way, settings: Settings, folder: Path, pems: Certificates) -> list[str]:
    if way is Way.SERVE:
        command = [PENSTOCK, "serve", "faults_app:app", "--bind", f"{settings.host}:0"]
        command += ["--send-timeout", str(settings.send_timeout)]
        command += ["--drain-window", str(settings.drain_window), "--keep-alive-timeout", "5"]
        if settings.tls:
            command += ["--certfile", str(pems.certfile), "--keyfile", str(pems.keyfile)]
        return [*command, "--http2"] if settings.http2 else command
    config = folder / "hypercorn.toml"
    config.write_text(_toml(way, settings, pems))
    if way is Way.INSTALL_SERVE:
        return [sys.executable, "guarded_serve.py", str(config)]
    app = "faults_app:app" if way is Way.STOCK else "guarded_app:app"
    workers = str(settings.workers)
    return [HYPERCORN, "-k", "trio", "-w", workers, "--config", str(config), app]


def _toml(way: Way, settings: Settings, pems: Certificates) -> str:
    values: dict[str, Any] = {
        "bind": [f"{settings.host}:0"],
        "keep_alive_timeout": settings.keep_alive_timeout,
        **dict(settings.more),
    }
    if settings.tls:
        values |= {"certfile": str(pems.certfile), "keyfile": str(pems.keyfile)}
    own = ("http2", "send_timeout", "drain_window", "tcp_user_timeout", "tcp_keep_alive")
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    if way is not Way.STOCK:
        lines += [
            "[penstock]",
            *(f"{name} = {json.dumps(getattr(settings, name))}" for name in own),
        ]
    return "\n".join(lines) + "\n"
