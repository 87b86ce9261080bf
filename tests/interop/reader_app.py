"""Streams in the formats of widely used clients, with everything in them that a server may send.

Comments come before, between and after the events, and ``retry`` in the first block and the last.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import trio
from quart import Response, request
from quart_trio import QuartTrio

from penstock import ServerSentEvent
from penstock.quart import EventSourceResponse, last_event_id, require_trio

Events = trio.abc.SendChannel[ServerSentEvent]

app = QuartTrio(__name__)
require_trio(app)

# Where the tests have put the packages of npm that pages load.
PACKAGES = Path(os.environ.get("PENSTOCK_TEST_PACKAGES", "."))

WORDS = ("Water", " flows", " é漢😀")
KEEP_ALIVE = 0.05

finished: list[float] = []
asked: list[str | None] = []


async def send_all(events: Events, given: list[ServerSentEvent]) -> None:
    await events.send(ServerSentEvent(retry=100, comment="begins"))
    for event in given:
        await events.send(event)
        await trio.sleep(3 * KEEP_ALIVE)  # keep-alive comments come meanwhile
    await events.send(ServerSentEvent(retry=200))


def chat(word: str | None) -> ServerSentEvent:
    delta = {} if word is None else {"role": "assistant", "content": word}
    choice = {"index": 0, "delta": delta, "finish_reason": "stop" if word is None else None}
    return ServerSentEvent.json(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": [choice],
        }
    )


@app.post("/v1/chat/completions")
async def completions() -> EventSourceResponse:
    """Answer as OpenAI's API does."""
    endless = (await request.get_json())["model"] == "endless"

    async def produce(events: Events) -> None:
        try:
            if endless:
                while True:
                    await events.send(chat("word"))
                    await trio.sleep(0.01)
            done = ServerSentEvent("[DONE]")
            await send_all(events, [*map(chat, WORDS), chat(None), done])
        finally:
            finished.append(time.monotonic())

    return EventSourceResponse(produce, keep_alive=KEEP_ALIVE)


def named(name: str, **value: Any) -> ServerSentEvent:
    return ServerSentEvent.json({"type": name, **value}, event=name)


@app.post("/v1/messages")
async def messages() -> EventSourceResponse:
    """Answer as Anthropic's API does."""
    endless = (await request.get_json())["model"] == "endless"
    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }

    def delta(word: str) -> ServerSentEvent:
        return named("content_block_delta", index=0, delta={"type": "text_delta", "text": word})

    begin = [
        named("message_start", message=message),
        named("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    ]
    end = [
        named("content_block_stop", index=0),
        named(
            "message_delta",
            delta={"stop_reason": "end_turn", "stop_sequence": None},
            usage={"output_tokens": 3},
        ),
        named("message_stop"),
    ]

    async def produce(events: Events) -> None:
        try:
            if endless:
                for event in begin:
                    await events.send(event)
                while True:
                    await events.send(delta("word"))
                    await trio.sleep(0.01)
            await send_all(events, [*begin, named("ping"), *map(delta, WORDS), *end])
        finally:
            finished.append(time.monotonic())

    return EventSourceResponse(produce, keep_alive=KEEP_ALIVE)


@app.get("/finished")
async def when_finished() -> list[float]:
    """Return when producers' finally ran, by the clock that all processes share."""
    return finished


@app.route("/numbers", methods=["GET", "POST"])
async def numbers() -> EventSourceResponse:
    """Send three numbered events at a time, up to nine, from where the client was; then "end"."""
    asked.append(last_event_id())
    after = int(last_event_id() or "0")

    async def produce(events: Events) -> None:
        given = [ServerSentEvent(f"n{n}", id=str(n)) for n in range(after + 1, after + 4)]
        if after >= 6:
            given.append(ServerSentEvent("over", event="end"))
        await send_all(events, given)

    return EventSourceResponse(produce, keep_alive=KEEP_ALIVE)


@app.get("/asked")
async def which_were_asked() -> list[str | None]:
    """Return the Last-Event-ID of each request for numbers so far."""
    return asked


@app.get("/packages/<path:name>")
async def package(name: str) -> Response:
    """Serve a file of a package; modules are imported without their ``.js``."""
    path = PACKAGES / name
    source = path if path.suffix == ".js" else path.with_name(f"{path.name}.js")
    return Response(source.read_text(), content_type="text/javascript; charset=utf-8")


@app.get("/page")
async def page() -> str:
    """Return a page with nothing in it."""
    return "<!doctype html><meta charset=utf-8><title>Page</title><body>"
