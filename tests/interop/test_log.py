"""What `penstock serve` writes to standard error, whoever sends what, and whoever reads it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from processes import PENSTOCK, CurlFixture, Server, serving

APP = """
from quart import abort, request
from quart_trio import QuartTrio
from penstock import ServerSentEvent
from penstock.quart import EventSourceResponse

app = QuartTrio(__name__)

@app.get("/<name>/bug")
async def bug(name):
    raise LookupError(f"nothing is called {name}")

@app.get("/flood")
async def flood():
    for _ in range(3000):
        app.logger.warning("x" * 1000)
    return "done"
"""


def asked(server: Server, request: bytes) -> bytes:
    """Return the first line of the answer."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(request)
        return client.makefile("rb").readline()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "logged.py").write_text(APP)
    return tmp_path


SERVE = (PENSTOCK, "serve", "logged:app", "-b", "127.0.0.1:0")


def test_a_client_forges_nothing(folder: Path) -> None:
    """Line ends, escape sequences and bidi controls of a path are escaped, in tracebacks, too."""
    with serving(*SERVE, folder=folder, cwd=folder) as server:
        path = b"/a%0d%0aINFO%20forged%1b[2J%c2%85%e2%80%a8%e2%80%ae/bug"
        assert b" 500 " in asked(server, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert server.stop() == 0
    escaped = r"a\r\nINFO forged\x1b[2J\x85\u2028\u202e"
    assert f"Exception on request GET /{escaped}/bug" in server.log
    assert "LookupError" in server.log
    records = [line for line in server.log.split("\n") if not line.startswith("  ") and line]
    assert all(re.match(r"\d{4}-\d\d-\d\d .* (ERROR|INFO) ", line) for line in records)
    assert all(line.isprintable() for line in server.log.split("\n"))


def test_what_a_client_can_cause_is_one_line(folder: Path) -> None:
    """A bad target or host of thirty bytes has no traceback, and repeated no line of its own."""
    with serving(*SERVE, folder=folder, cwd=folder) as server:
        for request in (b"GET ?x=1", b"GET http://[/"):
            for _ in range(50):
                asked(server, request + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(50):
            asked(server, b"GET / HTTP/1.1\r\nHost: a..b\r\n\r\n")
        assert server.stop() == 0
    assert "Traceback" not in server.log
    assert len(server.log) < 5000  # a line for each of the 150 would be some 20,000


def test_a_bug_has_its_traceback_once(folder: Path) -> None:
    """Its repetitions are counted."""
    with serving(*SERVE, folder=folder, cwd=folder) as server:
        for number in range(20):
            request = f"GET /{number}/bug HTTP/1.1\r\nHost: x\r\n\r\n"
            assert b" 500 " in asked(server, request.encode())
        assert server.stop() == 0
    assert 1 <= server.log.count("Traceback") <= 3  # a slow machine takes longer than a window
    counted = map(int, re.findall(r"… repeated (\d+) times in the last \d+ s", server.log))
    assert sum(counted) + server.log.count("Traceback") == 20


def test_an_unread_log_stops_nothing(folder: Path) -> None:
    """Far more than a pipe holds is logged; requests are answered, and the process ends."""
    read, write = os.pipe()
    process = subprocess.Popen(SERVE, stdout=subprocess.PIPE, stderr=write, cwd=folder)
    os.close(write)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(b":")[2])
        for path in ("flood", "flood", "-/ready"):
            with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
                client.sendall(f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert b" 200 " in client.makefile("rb").readline()
        process.terminate()
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        os.close(read)


def test_a_log_that_is_closed(folder: Path, curl: CurlFixture) -> None:
    """Without standard error, the server serves."""
    command = ("sh", "-c", 'exec "$@" 2>&-', "sh", *SERVE)
    with serving(*command, folder=folder, cwd=folder) as server:
        assert curl("-o", "/dev/null", "-w", "%{http_code}", f"{server.url}/a/bug").lines.read()
        assert server.stop() == 0


def test_a_key_with_a_passphrase(tmp_path: Path, curl: CurlFixture) -> None:
    """It is asked for in one line, told from a wrong one, and used."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(certificate)
    private = load_pem_private_key(issued.private_key_pem.bytes(), None)
    encryption = BestAvailableEncryption(b"open sesame")
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    right, wrong, long = tmp_path / "right", tmp_path / "wrong", tmp_path / "long"
    long.write_text("x" * 1025)
    right.write_text("open sesame\n")
    wrong.write_text("sesame")
    options = ("--certfile", str(certificate), "--keyfile", str(key), "--bind", "127.0.0.1:0")
    for more, said in (
        (
            (),
            f"cannot use {key} for TLS: the key has a passphrase: give a file that has it, with "
            "--keyfile-password-file",
        ),
        (
            ("--keyfile-password-file", str(wrong)),
            f"cannot use {certificate} with {key} for TLS: the passphrase in {wrong} is wrong",
        ),
        (
            ("--keyfile-password-file", str(long)),
            f"cannot use the passphrase in {long}: it has more than 1024 bytes: give a file whose "
            "first line is only the passphrase of the key",
        ),
    ):
        command = [PENSTOCK, "serve", *options, *more]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (ran.returncode, ran.stderr) == (1, f"penstock: {said}\n")
    command = [PENSTOCK, "serve", *options, "--keyfile-password-file", str(right)]
    with serving(*command, folder=tmp_path) as server:
        client = curl("--cacert", f"{tmp_path}/authority.pem", f"{server.url}/-/ready")
        assert client.lines.read() == b"ready\n"
        assert server.stop() == 0
