"""nginx, Caddy and HAProxy as processes, run with the very files of the documentation.

Only addresses, certificates and the paths of pid files and logs are replaced, each a string that
stands in the file exactly once; tests replace more, to show what a line is there for.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trustme
from processes import free_port, wait_until

from require import require

FILES: Final = Path(__file__).parents[2] / "web" / "docs" / "proxies"

Edits = Mapping[str, str]


def replaced(text: str, edits: Edits) -> str:
    """Return a text in which each of these strings, which stands in it once, is another."""
    for old, new in edits.items():
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in:\n{text}"
        text = text.replace(old, new)
    return text


class Certificate:
    """A certificate for localhost, in files, and a context that trusts it."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", "127.0.0.1")
        self.chain, self.key = folder / "chain.pem", folder / "key.pem"
        self.both = folder / "both.pem"
        issued.cert_chain_pems[0].write_to_path(str(self.chain))
        issued.private_key_pem.write_to_path(str(self.key))
        issued.private_key_and_cert_chain_pem.write_to_path(str(self.both))
        self._authority = authority

    def trusted(self) -> ssl.SSLContext:
        """Return a client's context."""
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        return context


@dataclass(frozen=True)
class Place:
    """Where a proxy runs: its folder, its ports, and Penstock's."""

    folder: Path
    certificate: Certificate
    penstock: int
    http: int
    https: int


def _nginx(place: Place) -> Edits:
    folder, certificate = place.folder, place.certificate
    paths = "".join(
        f"{kind}_temp_path {folder / kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return {
        "user www-data;": "user root;",  # who may read the tests' folder; unheeded but for root
        "/run/nginx.pid": str(folder / "nginx.pid"),
        "/var/log/nginx/error.log": "stderr",
        "access_log /var/log/nginx/access.log;": f"access_log {folder / 'access.log'};\n{paths}",
        "worker_rlimit_nofile 65536": "worker_rlimit_nofile 4096",  # what any machine allows
        "worker_connections 32768": "worker_connections 2048",
        "server 127.0.0.1:8080": f"server 127.0.0.1:{place.penstock}",
        "listen 80;": f"listen 127.0.0.1:{place.http};",
        "listen 443 ": f"listen 127.0.0.1:{place.https} ",
        "/etc/ssl/example.org.pem": str(certificate.chain),
        "/etc/ssl/example.org.key": str(certificate.key),
    }


def _caddy(place: Place) -> Edits:
    certificate = place.certificate
    ports = f"http_port {place.http}\n\thttps_port {place.https}"
    return {
        "grace_period 10s": f"admin unix/{place.folder / 'admin'}\n\t{ports}\n\tgrace_period 10s",
        "\nexample.org {": f"\nlocalhost {{\n\ttls {certificate.chain} {certificate.key}",
        "reverse_proxy 127.0.0.1:8080": f"reverse_proxy 127.0.0.1:{place.penstock}",
    }


def _haproxy(place: Place) -> Edits:
    return {
        "log /dev/log local0": "log stderr local0",
        "    user haproxy\n    group haproxy\n": "",
        "maxconn 20000": "maxconn 1000",  # what any machine allows
        "bind :80": f"bind 127.0.0.1:{place.http}",
        "bind :443": f"bind 127.0.0.1:{place.https}",
        "/etc/ssl/example.org.pem": str(place.certificate.both),
        "server penstock 127.0.0.1:8080": f"server penstock 127.0.0.1:{place.penstock}",
    }


@dataclass(frozen=True)
class Kind:
    """One of the three: its file, and how it is started in the foreground."""

    file: str
    edits: Callable[[Place], Edits]
    command: tuple[str, ...]


KINDS: Final = {
    "nginx": Kind("nginx.conf", _nginx, ("nginx", "-e", "stderr", "-g", "daemon off;", "-c")),
    "caddy": Kind("Caddyfile", _caddy, ("caddy", "run", "--adapter", "caddyfile", "--config")),
    "haproxy": Kind("haproxy.cfg", _haproxy, ("haproxy", "-W", "-db", "-f")),
}


class Proxy:
    """A proxy that runs."""

    def __init__(self, name: str, place: Place, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.place = place
        self.process = process

    @property
    def url(self) -> str:
        return f"https://localhost:{self.place.https}"

    @property
    def plain_url(self) -> str:
        return f"http://localhost:{self.place.http}"

    @property
    def log(self) -> str:
        return (self.place.folder / "log").read_text()

    def connect(self, *, alpn: str = "http/1.1") -> ssl.SSLSocket:
        """Return a connection of HTTP/1.1, or another protocol, over TLS."""
        context = self.place.certificate.trusted()
        context.set_alpn_protocols([alpn])
        plain = socket.create_connection(("127.0.0.1", self.place.https), timeout=60)
        return context.wrap_socket(plain, server_hostname="localhost")

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log
        try:
            self.connect().close()
        except OSError:
            return False
        return True


@contextmanager
def proxied(name: str, penstock: int, folder: Path, edits: Edits | None = None) -> Iterator[Proxy]:
    """Run a proxy in front of Penstock's port for the length of the block."""
    kind = KINDS[name]
    program = require(kind.command[0], install=f"apt-get install {name}")
    folder = folder / f"{name}{time.monotonic_ns()}"
    folder.mkdir()
    place = Place(folder, Certificate(folder), penstock, free_port(), free_port())
    text = (FILES / kind.file).read_text()
    config = folder / kind.file
    config.write_text(replaced(replaced(text, edits or {}), kind.edits(place)))
    env = {**os.environ, "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, *kind.command[1:], str(config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=env,
            cwd=folder,
            start_new_session=True,
        )
    try:
        proxy = Proxy(name, place, process)
        wait_until(proxy._answers)
        yield proxy
        assert process.poll() is None, proxy.log
        process.terminate()
        process.wait(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its workers, too, should any be left
        process.wait()
