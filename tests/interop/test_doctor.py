"""`penstock doctor`, as a process: good servers, bad ones, and what is asked for wrongly."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio
import trustme
from docs_blocks import DOCS
from doctored import DOCTOR, Said, doctor, said_by
from forked import Process, ran_beside
from processes import PENSTOCK, Server, free_port, serving
from scripted import CHUNKED, OPEN, OVER, Scripted, scripted

from penstock.doctor.observation import Observation, StreamEnd
from penstock.doctor.probe import observe
from penstock.doctor.report import findings_of


async def ask(server: Scripted, *arguments: str) -> Said:
    """Run the doctor to its end, beside a server in the test's own Trio run."""
    with trio.fail_after(60):
        return said_by(await ran_beside(*DOCTOR, server.url, *arguments))


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def headed(head: bytes, *fields: bytes) -> bytes:
    """Return a head with more fields."""
    return head[:-2] + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def event(number: int, text: str = "x") -> bytes:
    return b"id: %d\ndata: %s\n\n" % (number, text.encode())


def slowly(parts: Iterable[bytes], pause: float) -> list[bytes | float]:
    """Return an answer that has a pause after each of these."""
    return [each for part in parts for each in (part, pause)]


NO_CACHE = b"Cache-Control: no-store"
GOOD = headed(CHUNKED, NO_CACHE, b"X-Accel-Buffering: no")


# Good servers.


def test_a_hub_that_is_well(demo: Server) -> None:
    """The demonstration's hub has nothing but HTTP/1.1 to be warned of, and the status is 0."""
    said = doctor("--for", "7", f"{demo.url}/subscribe?topic=*")
    assert (said.status, said.err) == (0, "")
    checks = ("answer", "caching", "compression", "first byte", "delivery", "format", "held")
    assert said.checks == {**dict.fromkeys((*checks, "resume"), "ok"), "protocol": "warn"}
    assert "X-Accel-Buffering: no" in said.line("caching")
    assert "continued with" in said.line("resume")
    assert said.out.endswith("\n0 failed, 1 warning\n")


def test_tls_and_http2(tmp_path: Path) -> None:
    """Over TLS it speaks HTTP/2, as a browser does, and has nothing to say of connections."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    chain, key, trusted = tmp_path / "chain", tmp_path / "key", tmp_path / "trusted"
    certificate.cert_chain_pems[0].write_to_path(str(chain))
    certificate.private_key_pem.write_to_path(str(key))
    authority.cert_pem.write_to_path(str(trusted))
    command = (PENSTOCK, "serve", "--bind", "127.0.0.1:0")
    tls = ("--certfile", str(chain), "--keyfile", str(key))
    with serving(*command, *tls, folder=tmp_path) as server:
        url = f"https://localhost:{server.port}/subscribe?topic=*"
        said = doctor("--for", "7", url, SSL_CERT_FILE=str(trusted))
        assert (said.status, said.err) == (0, "")
        assert set(said.checks.values()) == {"ok"}
        assert said.line("protocol") == "HTTP/2: streams share a connection"
        assert said.out.endswith("\n0 failed, 0 warnings\n")
        untrusted = doctor(url)
        assert (untrusted.status, untrusted.out) == (2, "")
        assert re.fullmatch(
            r"penstock: cannot connect to .*certificate verify failed.*\n", untrusted.err
        )


async def test_what_it_asks() -> None:
    """It requests as a browser does, with the given headers, and reconnects with an id."""
    async with scripted(
        [GOOD, *(chunk(event(n)) for n in range(1, 6)), 30.0],
        [GOOD, chunk(event(4)), 30.0],
    ) as server:
        said = await ask(
            server, "--for", "1", "--origin", "https://A.example:443", "-H", "Cookie: a=b"
        )
    assert server.header("accept") == ["text/event-stream"] * 2
    assert server.header("accept-encoding")[0] == "gzip, deflate, br, zstd"
    assert server.header("origin") == ["https://a.example"] * 2  # without the default port
    assert server.header("cookie") == ["a=b"] * 2
    assert server.header("last-event-id") == [None, "2"]
    assert "“4” followed, not “3”" in said.line("resume")
    assert said.checks["cors"] == "FAIL"
    assert said.status == 1


def test_for_programs(demo: Server) -> None:
    """With --json, an object has the same findings, and figures."""
    said = doctor("--json", "--for", "1", f"{demo.url}/sse")
    found: Any = json.loads(said.out)
    assert said.out.count("\n") == 1
    assert (found["url"], found["failed"], found["interrupted"], found["unreachable"]) == (
        *(f"{demo.url}/sse", 0, False, None),
    )
    checks = {check["check"]: check for check in found["checks"]}
    assert checks["answer"]["status"] == 200
    assert checks["protocol"]["mark"] == "warn"
    assert checks["protocol"]["advice"]
    assert checks["format"]["events"] >= 1
    assert checks["held"]["held_for"] >= 1
    assert doctor("--json", "--for", "1", f"{demo.url}/").status == 1


# Bad servers.


@dataclass(frozen=True)
class Bad:
    """A server with a fault: its responses, and the finding."""

    answers: tuple[Iterable[bytes | float], ...]
    check: str
    mark: str
    said: str
    hint: str = ""
    status: int = 1
    hold: str = "1"
    arguments: tuple[str, ...] = ()


PACKED = gzip.compress(b"data: x\n\n" * 3)
BAD = {
    "never answers": Bad(
        ([30.0],), "answer", "FAIL", "within 1 s, not even a head", "nginx: proxy_buffering off"
    ),
    "drips a head without an end": Bad(
        (slowly([b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n"] * 40], 0.1),),
        *("answer", "FAIL", "within 1 s, not even a head"),
    ),
    "has a head without an end": Bad(
        (itertools.chain([b"HTTP/1.1 200 OK\r\nX: "], itertools.repeat(b"x" * 65536)),),
        *("answer", "FAIL", "no response from"),
    ),
    "closes at once": Bad(([],), "answer", "FAIL", "no response from"),
    "speaks something else": Bad(
        ([b"SSH-2.0-OpenSSH_9.2\r\n"],), "answer", "FAIL", "no response from"
    ),
    "says 204": Bad(([OVER],), "answer", "FAIL", "204 No Content", "answer 200"),
    "sends a page": Bad(
        ([OPEN.replace(b"event-stream", b"html")],),
        *("answer", "FAIL", "“text/html” instead of", "Content-Type: text/event-stream"),
    ),
    "redirects to itself": Bad(
        tuple(
            [b"HTTP/1.1 301 M\r\nLocation: /events\r\nContent-Length: 0\r\n\r\n"] for _ in "x" * 30
        ),
        *("redirects", "FAIL", "21 redirects: 301 to “http://", "X-Forwarded-Proto"),
    ),
    "redirects to nowhere": Bad(
        ([b"HTTP/1.1 302 F\r\nLocation: http://[::x]/\r\nContent-Length: 0\r\n\r\n"],),
        *("answer", "FAIL", "redirected to 'http://[::x]/', which is not a URL"),
    ),
    "redirects to what cannot be asked": Bad(
        ([b"HTTP/1.1 302 F\r\nLocation: ftp://127.0.0.1/\r\nContent-Length: 0\r\n\r\n"],),
        *("answer", "FAIL", "redirected to 'ftp://127.0.0.1/', which is not http or https"),
    ),
    "redirects to what is no name": Bad(
        ([b"HTTP/1.1 302 F\r\nLocation: http://xn--/\r\nContent-Length: 0\r\n\r\n"],),
        *("answer", "FAIL", "http://xn--/"),
    ),
    "redirects to no name": Bad(
        ([b"HTTP/1.1 302 F\r\nLocation: http://%s/\r\nContent-Length: 0\r\n\r\n" % (b"a" * 99)],),
        *("answer", "FAIL", "label"),
    ),
    "gathers it whole": Bad(
        ([headed(OPEN, NO_CACHE, b"Content-Length: 18"), event(1) + event(2)[:2]],),
        *("delivery", "FAIL", "buffered completely", "proxy_buffering off"),
    ),
    "lets a buffer go when it is full": Bad(
        (slowly([GOOD, *[chunk((event(1) * 9)[:50])] * 5, b""], 0.6),),
        *("delivery", "FAIL", "releases 50 bytes when it is full", "nginx: proxy_buffering off"),
        hold="3",
    ),
    "compresses": Bad(
        ([headed(GOOD, b"Content-Encoding: gzip"), chunk(PACKED), 30.0],),
        *("compression", "warn", "“gzip”", "gzip off", 0),
    ),
    "compresses, and holds it back": Bad(
        ([headed(GOOD, b"Content-Encoding: gzip"), chunk(PACKED[:10]), 30.0],),
        *("compression", "FAIL", "10 bytes arrived that decompress to nothing", "Caddy: encode"),
    ),
    "compresses by a way that is not known here": Bad(
        (
            [headed(GOOD, b"Content-Encoding: br"), chunk(b"..."), 30.0],
            [GOOD, chunk(event(1)), 30.0],
        ),
        *("compression", "warn", "“br”", "Caddy: encode", 0),
    ),
    "says that it compressed": Bad(
        ([headed(GOOD, b"Content-Encoding: gzip"), chunk(event(1)), 30.0],),
        *("held", "FAIL", "the data is not compressed"),
    ),
    "sends a bomb": Bad(
        ([headed(GOOD, b"Content-Encoding: gzip"), chunk(gzip.compress(b"x" * 10**8)), 30.0],),
        *("format", "FAIL", "bytes of one event, without its end"),
        hold="5",
    ),
    "may be kept by a cache": Bad(
        ([CHUNKED, chunk(event(1)), 30.0],), "caching", "warn", "no Cache-Control", "no-store", 0
    ),
    "cuts it": Bad(
        ([GOOD, chunk(event(1))],), "held", "FAIL", "broken after", "the logs of the proxy"
    ),
    "cuts it after a silence": Bad(
        ([GOOD, chunk(event(1)), 1.5],), "held", "FAIL", "broken", "proxy_read_timeout", hold="5"
    ),
    "ends it": Bad(
        ([GOOD, chunk(event(1)), b"0\r\n\r\n"],),
        *("held", "warn", "ended after", "204 tells", 0),
    ),
    "sends lines that are none": Bad(
        ([GOOD, chunk(b'{"a": 1}\n\ndata: x\n\n'), 30.0],),
        *("format", "FAIL", 'line 1 “{"a": 1}”: a line that is not a field', "begins with data:"),
    ),
    "never ends a line": Bad(
        (itertools.chain([OPEN], itertools.repeat(b"x" * 65536)),),
        *("format", "FAIL", "bytes of one event, without its end", "after each event"),
        hold="5",
    ),
    "begins anew": Bad(
        tuple([GOOD, *(chunk(event(n)) for n in range(1, 6)), 30.0] for _ in "12"),
        *("resume", "FAIL", "began again with “1”", "Last-Event-ID"),
    ),
    "begins anew, with much at once": Bad(
        tuple([GOOD, chunk(b"".join(event(n) for n in range(500))), 30.0] for _ in "12"),
        *("resume", "FAIL", "began again with “0”", "Last-Event-ID"),
    ),
    "refuses an id": Bad(
        (
            [GOOD, chunk(event(1)), 30.0],
            [b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n"],
        ),
        *("resume", "FAIL", "it answered 400", "accept any Last-Event-ID"),
    ),
    "sends a page to one that comes back": Bad(
        ([GOOD, chunk(event(1)), 30.0], [OPEN.replace(b"event-stream", b"html"), b"hi"]),
        *("resume", "FAIL", "“text/html” instead of text/event-stream", "Content-Type"),
    ),
    "encodes twice": Bad(
        ([GOOD, chunk(b"data: data: x\ndata: \ndata: \n\n" * 2), 30.0],),
        *("format", "warn", "the data of events is itself an event", "only the data", 0),
    ),
    "names a coding that is none": Bad(
        ([headed(GOOD, b"Content-Encoding: utf-8"), chunk(event(1)), 30.0],),
        *(
            "compression",
            "warn",
            "“utf-8” is not a content coding",
            "leave Content-Encoding out",
            0,
        ),
    ),
    "redirects a POST": Bad(
        (
            [b"HTTP/1.1 302 F\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n"],
            [GOOD, chunk(event(1)), b"0\r\n\r\n"],
        ),
        *("redirects", "FAIL", "turns the POST into a GET", "307"),
        arguments=("--data", "x"),
    ),
    "is away when one comes back": Bad(
        ([GOOD, chunk(event(1)), 30.0], []), "resume", "FAIL", "no response from"
    ),
    "has no ids": Bad(
        ([GOOD, chunk(b"data: x\n\n"), 30.0],), "resume", "warn", "no ids", "a unique id", 0
    ),
    "writes to the terminal": Bad(
        ([GOOD, chunk(b"\x1b[2Jdata: x\n\n"), 30.0],), "format", "FAIL", r"“\x1b[2Jdata: x”"
    ),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_a_bad_server_is_told_from_a_good_one(bad: Bad) -> None:
    """Each fault has its mark, words, advice and exit status."""
    answers: Any = bad.answers
    async with scripted(*answers) as server:
        said = await ask(server, "--for", bad.hold, *bad.arguments)
    assert said.checks[bad.check] == bad.mark, said.out
    assert bad.said in said.line(bad.check)
    assert bad.hint in said.line(bad.check)
    assert (said.status, said.err) == (bad.status, "")
    assert "\x1b" not in said.out


async def test_the_command_itself() -> None:
    """Started as its users do, it distinguishes a good server from a bad one."""
    bad = BAD["sends a page"]
    answers: Any = ([GOOD, chunk(event(1)), 30.0], [GOOD, 30.0], *bad.answers)
    async with scripted(*answers) as server:
        command = [*DOCTOR, server.url, "--for", "1"]
        really = partial(trio.run_process, capture_stdout=True, capture_stderr=True, check=False)
        good, said = said_by(await really(command)), said_by(await really(command))
    assert (good.status, good.err) == (0, "")
    assert (good.checks["answer"], good.checks["held"]) == ("ok", "ok")
    assert (said.status, said.err) == (bad.status, "")
    assert said.checks[bad.check] == bad.mark
    assert bad.said in said.line(bad.check)


async def test_what_cannot_be_unpacked_is_asked_for_plain() -> None:
    """A stream in an unsupported coding is requested again uncompressed."""
    packed = headed(GOOD, b"Content-Encoding: br")
    async with scripted(
        [packed, 30.0],
        [GOOD, chunk(b"data: x\n\n"), 30.0],
        [packed, 30.0],
        [packed, b"1\r\nx\r\n", 30.0],
    ) as server:
        plain = await ask(server, "--for", "1")
        never = await ask(server, "--for", "1")
    assert server.header("accept-encoding")[1::2] == ["identity"] * 2
    assert (plain.checks["compression"], plain.line("format")) == ("warn", "1 event, 0 comments")
    assert (never.checks["compression"], never.checks["format"]) == ("warn", "skip")
    assert "compressed as “br”: cannot be examined" in never.line("format")


@pytest.mark.parametrize("coding", [b"none", b"identity", b"None, identity"])
async def test_a_coding_of_no_effect_is_no_coding(coding: bytes) -> None:
    """Servers send `none` to keep proxies from compressing: the stream is read as it is."""
    answer: list[bytes | float]
    answer = [headed(GOOD, b"Content-Encoding: " + coding), chunk(b"data: x\n\n"), 30.0]
    async with scripted(answer) as server:
        said = await ask(server, "--for", "1")
    assert (said.checks["compression"], said.line("format")) == ("ok", "1 event, 0 comments")
    assert len(server.requests) == 1


async def test_a_large_event_and_a_fast_stream_are_well() -> None:
    """An event of 2 MB and 30 events a second are what browsers take: neither fails anything."""
    large = chunk(b"data: %s\n\n" % (b"x" * 2**21))
    fast = slowly([chunk(event(n)) for n in range(1, 100)], 0.033)
    async with scripted([GOOD, large, *fast]) as server:
        said = await ask(server, "--for", "3")
    assert (said.checks["format"], said.checks["delivery"]) == ("warn", "ok")
    assert "fine in browsers" in said.line("format")


# Other methods than GET.


async def test_a_post_is_sent_once() -> None:
    """With --data it is a POST, JSON by default, which is not repeated."""
    body = '{"stream": true}'
    answer = [GOOD, chunk(event(1) + event(2)), b"0\r\n\r\n"]
    packed = [headed(GOOD, b"Content-Encoding: br"), chunk(b"..."), b"0\r\n\r\n"]
    async with scripted(answer, packed) as server:
        said = await ask(server, "--data", body, "-H", "Content-Type: text/x")
        unread = await ask(server, "--request", "put", "-d", body)
    assert [request.split(b" ")[0] for request in server.requests] == [b"POST", b"PUT"]
    assert server.header("content-type") == ["text/x", "application/json"]
    assert server.header("content-length") == [str(len(body))] * 2
    assert server.requests[0].endswith(body.encode())
    assert (said.status, said.checks["held"], said.checks["resume"]) == (0, "ok", "skip")
    assert "a POST is not sent twice" in said.line("resume")
    assert (unread.checks["format"], unread.checks["resume"]) == ("skip", "skip")


async def test_a_body_from_a_file(tmp_path: Path) -> None:
    """The content of @FILE is sent unchanged."""
    (tmp_path / "body").write_bytes(b"a=\xff\n")
    async with scripted([GOOD, chunk(event(1)), b"0\r\n\r\n"]) as server:
        await ask(server, "--data", f"@{tmp_path / 'body'}")
    assert server.requests[0].endswith(b"\r\n\r\na=\xff\n")


@pytest.mark.parametrize("written", ["http://127.0.0.1:{}", "HTTP://127.0.0.1:{}/"])
async def test_a_page_of_the_same_origin_needs_no_cors(written: str) -> None:
    """The stream's own origin, however it is written, may read it without any header."""
    async with scripted([GOOD, chunk(event(1)), b"0\r\n\r\n"]) as server:
        said = await ask(server, "--for", "1", "--origin", written.format(server.port))
    assert said.checks["cors"] == "ok"


# What is asked for wrongly, and what ends it.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing argument 'URL'"),
        (["ftp://example.org/"], "is not a URL such as"),
        (["--for", "0", "http://127.0.0.1/"], "'0' must be more than 0"),
        (["--for", "nan", "http://127.0.0.1/"], "'nan' must be more than 0"),
        (["--for", "x", "http://127.0.0.1/"], "'x' is not a number of seconds"),
        (["--origin", "a.example", "http://127.0.0.1/"], "is not an origin, such as https://"),
        (["--origin", "https://a.example/x", "http://127.0.0.1/"], "is not an origin"),
        (["--origin", "https://[::1", "http://127.0.0.1/"], "is not an origin: Invalid IPv6 URL"),
        (["--origin", "https://a.example:99999", "http://127.0.0.1/"], "Port out of range"),
        (["--request", "P T", "http://127.0.0.1/"], "'P T' is not a method"),
        (["--request", "HEAD", "http://127.0.0.1/"], "is not a method that can be answered with"),
        (["--data", "@/nowhere", "http://127.0.0.1/"], "cannot be read: No such file"),
        (["--header", "a", "http://127.0.0.1/"], "'a' is not a header"),
    ],
)
def test_wrong_usage(arguments: list[str], said: str) -> None:
    """It is one line, and status 2."""
    ran = doctor(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert re.fullmatch(r"penstock: .*\n", ran.err)
    assert said in ran.err


def test_nobody_to_ask() -> None:
    """A server that cannot be reached is one line, status 2, and an object for programs."""
    url = f"http://127.0.0.1:{free_port()}/"
    ran = doctor(url)
    line = f"penstock: cannot connect to {url}: Connection refused\n"
    assert (ran.status, ran.out, ran.err) == (2, "", line)
    ran = doctor("--json", url)
    assert (ran.status, ran.err) == (2, line)
    found: Any = json.loads(ran.out)
    assert (f"penstock: {found['unreachable']}\n", found["checks"]) == (line, [])


def test_the_page_tells_of_all_options_and_checks() -> None:
    """The page on the doctor has each of its options, and each check."""
    options = set(re.findall(r"--[a-z]+", doctor("--help").out.partition("Examples:")[0]))
    page = (DOCS / "doctor.md").read_text()
    rows = "".join(re.findall(r"(?m)^\| (`-.*?) \|", page))
    assert set(re.findall(r"--[a-z]+", rows)) == options - {"--help"}
    checks = {bad.check for bad in BAD.values()} | {"cors", "protocol", "first byte"}
    assert checks <= set(re.findall(r"(?m)^\| ([a-z ]+) \|", page))


@contextmanager
def started(*arguments: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run it for the length of the block."""
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    with Process([*DOCTOR, *arguments], stdin=subprocess.DEVNULL, **piped) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_ends_it(number: signal.Signals, status: int) -> None:
    """It prints what it found so far, nothing on stderr, and closes the connection."""
    async with scripted([GOOD, chunk(event(1)), 30.0]) as server:
        with started(server.url, "--for", "60") as process:
            with trio.fail_after(60):
                while not server.requests:  # noqa: ASYNC110 - no event of it
                    await trio.sleep(0.01)
                await trio.sleep(0.3)
                process.send_signal(number)
                out, err = await trio.to_thread.run_sync(process.communicate)
                while not server.gone:  # noqa: ASYNC110 - no event of it
                    await trio.sleep(0.01)
    assert (process.returncode, err) == (status, b"")
    assert re.search(rb"\ninterrupted; so far 0 failed, \d warnings?\n$", out)


async def test_nobody_reads_what_it_prints() -> None:
    """It ends silently when the pipe is closed, even before it printed anything."""
    async with scripted([GOOD, chunk(b"bad\n\n"), 30.0]) as server:
        with started(server.url, "--for", "60") as process:
            with trio.fail_after(60):
                while not server.requests:  # noqa: ASYNC110 - no event of it
                    await trio.sleep(0.01)
                await trio.sleep(0.3)  # or it may have seen nothing that failed
                assert process.stdout is not None
                assert process.stderr is not None
                process.stdout.close()
                assert await trio.to_thread.run_sync(process.wait) == 0
                assert process.stderr.read() == b""


async def test_a_terminal_sees_colours_and_how_far_it_is() -> None:
    """On a terminal, marks have colours, and a line on stderr shows the progress."""
    ours, theirs = pty.openpty()
    with ExitStack() as stack:
        stack.callback(os.close, ours)
        async with scripted([GOOD, chunk(event(1)), 30.0], [GOOD, 30.0]) as server:
            with started(server.url, "--for", "1", stdout=theirs, stderr=theirs) as process:
                os.close(theirs)
                shown = b""
                with trio.fail_after(60):
                    while process.poll() is None or b"failed" not in shown:
                        await trio.lowlevel.wait_readable(ours)
                        try:
                            shown += os.read(ours, 65536)
                        except OSError:  # its last descriptor is closed
                            break
    assert b"holding: " in shown
    assert b"\x1b[32mok  \x1b[0m" in shown


# Observing itself.


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.01, 0.05, 0.2, 0.5])
async def test_observing_can_be_cancelled_anywhere(delay: float) -> None:
    """Cancelled at any moment, it leaves no connection open and no task, and says what it saw."""
    answers: list[list[bytes | float]] = [
        [GOOD, *(chunk(event(n)) for n in range(4)), 30.0] for _ in range(2)
    ]
    async with scripted(*answers) as server:
        before = trio.lowlevel.current_statistics().tasks_living
        seen = Observation(server.url, 0.1)
        with trio.move_on_after(delay) as scope:
            await observe(httpx2.URL(server.url), seen)
        assert seen.stopped == scope.cancelled_caught
        assert findings_of(seen)
        with trio.fail_after(60):
            while trio.lowlevel.current_statistics().tasks_living > before:  # noqa: ASYNC110
                await trio.sleep(0.01)


async def test_what_is_seen_is_there_at_once() -> None:
    """While the stream is held, the observation has what came so far."""
    async with scripted([GOOD, chunk(event(1)), 30.0]) as server:
        seen = Observation(server.url, 60.0)
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(observe, httpx2.URL(server.url), seen))
                while seen.body is None or not seen.body.events:  # noqa: ASYNC110
                    await trio.sleep(0.01)
                assert (seen.end, list(seen.body.ids)) == (None, ["1"])
                nursery.cancel_scope.cancel()
        assert seen.end is StreamEnd.STOPPED
