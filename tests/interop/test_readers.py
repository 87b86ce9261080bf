"""Unmodified clients of the field read our streams: every event, and nothing that is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import httpx_sse
import openai
import pytest
from processes import PENSTOCK, Server, serving, wait_until

HERE = Path(__file__).parent
TEXT = "Water flows é漢😀"
NUMBERS = ["n1", "n2", "n3"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Serve the application of this test with `penstock serve`."""
    command = (PENSTOCK, "serve", "--bind", "127.0.0.1:0", "reader_app:app")
    with serving(*command, folder=tmp_path, cwd=HERE) as server:
        yield server


def openai_of(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def anthropic_of(server: Server) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0)


def chat(server: Server, model: str) -> Any:
    return openai_of(server).chat.completions.create(
        model=model, messages=[{"role": "user", "content": "?"}], stream=True
    )


def messages(server: Server, model: str) -> Any:
    return anthropic_of(server).messages.create(
        model=model, max_tokens=9, messages=[{"role": "user", "content": "?"}], stream=True
    )


def test_openai(server: Server) -> None:
    """OpenAI's client reads a chat completion over POST, up to ``[DONE]``."""
    with chat(server, "m") as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    assert len(chunks) == 4
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_anthropic(server: Server) -> None:
    """Anthropic's client reads a message over POST, up to ``message_stop``."""
    with messages(server, "m") as stream:
        events = list(stream)
    assert "".join(each.delta.text for each in events if each.type == "content_block_delta") == TEXT
    assert [event.type for event in events][-1] == "message_stop"
    with anthropic_of(server).messages.stream(
        model="m", max_tokens=9, messages=[{"role": "user", "content": "?"}]
    ) as helped:
        assert helped.get_final_text() == TEXT


@pytest.mark.parametrize("ask", [chat, messages])
def test_an_abandoned_generation_stops(ask: Callable[[Server, str], Any], server: Server) -> None:
    """The client is closed in the middle, and the producer's finally runs."""
    delays = []
    for number in range(5):
        with ask(server, "endless") as stream:
            for _ in range(4):
                next(stream)
            left = time.monotonic()
        finished = wait_until(lambda number=number: finished_at(server)[number:], within=30)
        delays.append(finished[0] - left)
    print(f"{ask.__name__}: finally after {', '.join(f'{each * 1000:.1f}' for each in delays)} ms")


def finished_at(server: Server) -> list[float]:
    times: list[float] = httpx.get(f"{server.url}/finished").json()
    return times


def test_httpx_sse(server: Server) -> None:
    """It gives no event that has neither data nor a name."""
    with httpx.Client(timeout=30) as client:
        with httpx_sse.connect_sse(client, "GET", f"{server.url}/numbers") as source:
            events = list(source.iter_sse())
    assert [(event.id, event.data) for event in events] == [("1", "n1"), ("2", "n2"), ("3", "n3")]
