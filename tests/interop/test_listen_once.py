"""`penstock listen` reading a stream once, and what it says of a URL that is wrong."""

from __future__ import annotations

import json
import ssl

import pytest
import trio
import trustme
from cli_steps import listening, publish
from processes import Server
from scripted import OPEN, scripted

from penstock.client import EventSource
from penstock.errors import ConnectionFailed

ONE = [OPEN, b"retry: 0\ndata: a\x1b\xc2\x9b\xe2\x80\xae\n\n"]


@pytest.mark.parametrize(
    ("options", "method"),
    [
        (["--once"], "GET"),
        (["--max-attempts", "1"], "GET"),
        (["--data", '{"a": 1}'], "POST"),
        (["-X", "PUT", "-d", "x", "-H", "content-type: text/plain"], "PUT"),
    ],
)
async def test_a_stream_read_once(options: list[str], method: str) -> None:
    """One request, its events, and status 0."""
    async with scripted(*[ONE] * 9) as server:
        ran = await listening(server.url, "--json", *options)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout == b'{"id": null, "event": null, "data": "a\\u001b\\u009b\\u202e"}\n'
    assert json.loads(ran.stdout)["data"] == "a\x1b\x9b\u202e"
    assert [each.split()[0].decode() for each in server.requests] == [method]
    kind = {"GET": None, "POST": "application/json", "PUT": "text/plain"}[method]
    assert server.header("content-type") == [kind]


async def test_attempts_are_counted() -> None:
    """As many requests as were allowed, though each delivers."""
    async with scripted(*[ONE] * 9) as server:
        ran = await listening(server.url, "--json", "--max-attempts", "2")
    assert (ran.returncode, ran.stdout.count(b"\n")) == (0, 2)
    assert len(server.requests) == 2


async def test_a_refusal_is_shown_escaped() -> None:
    """The reason and the body that a server sends do not reach the terminal as they are."""
    head = b"HTTP/1.1 403 \xc2\x9b31m\r\nContent-Type: application/json\r\n\r\n"
    async with scripted([head, b'{"error":\n"\x1b[2J"}']) as server:
        ran = await listening(server.url)
    assert ran.returncode == 1
    assert ran.stderr.count(b"\n") == 1
    assert rb'{"error": "\x1b[2J"}' in ran.stderr
    assert ran.stderr.decode().strip().isprintable()


async def test_a_file_that_is_not_there() -> None:
    """One line, status 2."""
    ran = await listening("http://127.0.0.1:1/", "--data", "@/nowhere")
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert ran.stderr == (
        b"penstock: Invalid value for '--data' / '-d': /nowhere cannot be read: No such file or "
        b"directory. See penstock listen --help.\n"
    )


async def failure(url: str, connect_timeout: float = 30) -> str:
    """Return why a source without a limit of attempts gives up."""
    with trio.fail_after(60):
        async with EventSource(url, connect_timeout=connect_timeout) as source:
            with pytest.raises(ConnectionFailed) as failed:
                await anext(source)
    return str(failed.value)


@pytest.mark.parametrize("answer", [[b"HTTP/1.1 400 X\r\n\r\n"], []])
async def test_tls_to_a_port_of_plain_http(answer: list[bytes]) -> None:
    """It is not asked for ever: the line says what to use."""

    async def plain(stream: trio.SocketStream) -> None:
        async with stream:
            if (await stream.receive_some()).startswith(b"HEAD"):
                await stream.send_all(b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n")
            else:
                for each in answer:
                    await stream.send_all(each)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, plain, 0)
        port = listeners[0].socket.getsockname()[1]
        said = await failure(f"https://127.0.0.1:{port}/")
        assert said.endswith("this port speaks plain HTTP: use http://")
        assert "\n" not in said
        nursery.cancel_scope.cancel()


async def test_plain_http_to_a_port_of_tls() -> None:
    """The same the other way round, though such a port only closes the connection."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

    async def secret(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await stream.receive_some()
        except trio.BrokenResourceError:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_ssl_over_tcp, secret, 0, context)
        port = listeners[0].transport_listener.socket.getsockname()[1]
        assert (await failure(f"http://127.0.0.1:{port}/")).endswith(
            "this port speaks TLS: use https://"
        )
        assert "certificate verify failed" in await failure(f"https://127.0.0.1:{port}/")
        nursery.cancel_scope.cancel()


async def test_a_host_that_does_not_exist() -> None:
    """A mistyped host fails at once."""
    with trio.fail_after(60):
        async with EventSource("http://no.such.host.invalid/", max_failures=1) as source:
            with pytest.raises(ConnectionFailed, match=r"no such host|resolution|[Nn]ame"):
                await anext(source)


def test_too_large_an_event_is_published_nowhere(shared_demo: Server) -> None:
    """The demonstration answers 413, and publish says how large an event may be."""
    event = "x" * 2**20
    for arguments in (["-"], ["--json", "-"]):
        line = json.dumps({"data": event}) if "--json" in arguments else event
        ran = publish(shared_demo, "-t", "large", *arguments, stdin=f"{line}\n")
        assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
        assert "must not be larger than 1,048,576 bytes" in ran.stderr
        assert "nothing was published" in ran.stderr
