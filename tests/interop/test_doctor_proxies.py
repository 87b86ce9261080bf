"""`penstock doctor` before real proxies that are set up badly: what is said, and what to set."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from docs_blocks import DOCS
from doctored import Said, doctor
from processes import PENSTOCK, Server, free_port, serving, wait_until

from require import require

NGINX = """
pid {folder}/pid;
daemon off;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://127.0.0.1:{behind}; {settings} }}
    }}
}}
"""

CADDY = """
{{
    admin off
    auto_https off
}}
http://127.0.0.1:{port} {{
    {settings}
    reverse_proxy 127.0.0.1:{behind}
}}
"""

HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend front
    bind 127.0.0.1:{port}
    {settings}
    default_backend back
backend back
    server server 127.0.0.1:{behind}
"""

# Many events, of an application that answers by hand: nobody asks nginx not to buffer.
PLENTY = """
import trio
from quart import request
from quart_trio import QuartTrio
from penstock import ServerSentEvent
from penstock.quart import EventSourceResponse

app = QuartTrio(__name__)

async def count(events):
    for number in range(1_000_000):
        await events.send(ServerSentEvent("x" * 600, id=str(number)))
        await trio.sleep(0.2)

@app.get("/events")
async def view():
    response = EventSourceResponse(count)
    del response.headers["X-Accel-Buffering"]
    if "plain" in request.args:
        response.headers["Cache-Control"] = "no-cache, no-transform"
    return response
"""


# What is started, in the foreground, with the configuration's path after it.
COMMANDS = {
    "nginx": (NGINX, ("nginx", "-e", "stderr", "-c")),
    "caddy": (CADDY, ("caddy", "run", "--adapter", "caddyfile", "--config")),
    "haproxy": (HAPROXY, ("haproxy", "-db", "-f")),
}


@contextmanager
def proxied(name: str, folder: Path, behind: int, settings: str = "") -> Iterator[str]:
    """Run a proxy with nothing but its defaults, and these settings; the value is its URL."""
    text, (program, *arguments) = COMMANDS[name]
    program = require(program, install=f"apt-get install {name}")
    port = free_port()
    config, log = folder / f"{name}.conf", folder / f"{name}.log"
    config.write_text(text.format(folder=folder, port=port, behind=behind, settings=settings))
    env = {**os.environ, "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [program, *arguments, str(config)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=env,
            cwd=folder,
        )

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=60).close()
        except OSError:
            return False
        return True

    try:
        wait_until(answers)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # Caddy waits for streams that are open, for ever
            process.kill()
            process.wait()


def bare(text: str) -> str:
    """Leave out what differs from one time to the next: figures, and where the server is."""
    text = re.sub(r"http://[^ ]+", "URL", text)
    return re.sub(r"[\d.]+ (ms|s)\b|\b\d+ times", "#", text)


def shown(said: Said, check: str) -> str:
    return bare(said.line(check))


def shown_by_the_page() -> str:
    return bare((DOCS / "doctor.md").read_text())


@pytest.fixture
def plenty(tmp_path: Path) -> Iterator[Server]:
    """Serve many events, without the header that nginx would heed."""
    (tmp_path / "plenty.py").write_text(PLENTY)
    command = (PENSTOCK, "serve", "plenty:app", "--bind", "127.0.0.1:0")
    with serving(*command, folder=tmp_path, cwd=tmp_path) as server:
        assert server.url
        yield server


def test_nginx_that_buffers(plenty: Server, tmp_path: Path) -> None:
    """It says that 4,096 bytes are let go at a time, and what to set; set so, nothing is held."""
    with proxied("nginx", tmp_path, plenty.port) as url:
        said = doctor("--for", "8", f"{url}/events")
    assert (said.status, said.checks["delivery"]) == (1, "FAIL")
    assert "a buffer releases 4096 bytes when it is full" in said.line("delivery")
    assert "nginx: proxy_buffering off; or, from the server" in said.line("delivery")
    assert "Caddy" not in said.out
    assert shown(said, "delivery") in shown_by_the_page()
    with proxied("nginx", tmp_path, plenty.port, "proxy_buffering off;") as url:
        said = doctor("--for", "3", f"{url}/events")
    assert said.checks["delivery"] == "ok"


def test_nginx_that_holds_the_header_back(demo: Server, tmp_path: Path) -> None:
    """Of a stream with few events, not even the header comes; it says so, and what to set."""
    held = "proxy_ignore_headers X-Accel-Buffering;"
    with proxied("nginx", tmp_path, demo.port, held) as url:
        said = doctor("--for", "2", f"{url}/subscribe?topic=*")
    assert (said.status, said.checks) == (1, {"answer": "FAIL"})
    assert "not even a head" in said.line("answer")
    assert "nginx: proxy_buffering off" in said.line("answer")
    assert shown(said, "answer") in shown_by_the_page()
    with proxied("nginx", tmp_path, demo.port) as url:  # with the header that Penstock sends
        assert doctor("--for", "1", f"{url}/subscribe?topic=*").status == 0


def test_nginx_that_compresses(plenty: Server, tmp_path: Path) -> None:
    """It compresses whatever the server says; the doctor says where that is turned off."""
    gzip = "gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any; gzip_http_version 1.0;"
    settings = f"proxy_buffering off; {gzip}"
    with proxied("nginx", tmp_path, plenty.port, settings) as url:
        for path in ("/events", "/events?plain"):
            said = doctor("--for", "1", f"{url}{path}")
            assert said.checks["compression"] in ("warn", "FAIL")
            assert "nginx: gzip off; in the location" in said.line("compression")


def test_nginx_that_cuts_what_is_silent(demo: Server, tmp_path: Path) -> None:
    """It says after how long it was cut, and what to set."""
    with proxied("nginx", tmp_path, demo.port, "proxy_read_timeout 2s;") as url:
        said = doctor("--for", "8", f"{url}/subscribe?topic=none")
    assert (said.status, said.checks["held"]) == (1, "FAIL")
    assert re.match(r"broken after \d+\.\d s, \d+\.\d s after the last byte", said.line("held"))
    assert "nginx: proxy_read_timeout" in said.line("held")


def test_nginx_without_a_server(tmp_path: Path) -> None:
    """It says that a proxy got no response."""
    with proxied("nginx", tmp_path, free_port()) as url:
        said = doctor("--for", "2", f"{url}/events")
    assert said.status == 1
    assert "502 Bad Gateway: a proxy got no response" in said.line("answer")


def test_caddy_that_compresses(plenty: Server, tmp_path: Path) -> None:
    """It lets nothing out of what it compresses, whatever the server says; then it passes all."""
    settings = "encode {\n        gzip\n        minimum_length 1\n    }"  # 512 by itself
    with proxied("caddy", tmp_path, plenty.port, settings) as url:
        for path in ("/events", "/events?plain"):
            said = doctor("--for", "2", f"{url}{path}")
            assert (said.status, said.checks["compression"]) == (1, "FAIL")
            assert "Caddy: encode with a matcher" in said.line("compression")
            assert "nginx: " not in said.line("compression")
    with proxied("caddy", tmp_path, plenty.port) as url:
        said = doctor("--for", "3", f"{url}/events")
        assert (said.checks["compression"], said.checks["delivery"]) == ("ok", "ok")


def test_haproxy_that_compresses(plenty: Server, tmp_path: Path) -> None:
    """It compresses text/event-stream if configured to, unless the server forbids it."""
    settings = "compression algo gzip\n    compression type text/event-stream"
    with proxied("haproxy", tmp_path, plenty.port, settings) as url:
        said = doctor("--for", "1", f"{url}/events")
        assert said.checks["compression"] in ("warn", "FAIL")
        assert "HAProxy: compression type without" in said.line("compression")
        assert doctor("--for", "1", f"{url}/events?plain").checks["compression"] == "ok"
