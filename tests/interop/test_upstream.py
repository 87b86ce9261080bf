"""What of Hypercorn and Quart-Trio is replaced or built on is still what it was.

A change there fails here: read it, decide what it means for the guarantee, then note the new code.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from operator import attrgetter

import pytest

# The first 16 digits of the SHA-256 of each source, of Hypercorn 0.18.0, and of both ends of the
# ranges of Quart (0.22 and 0.23) and Quart-Trio (0.12 and 0.13) where they differ.
SOURCES = {
    "hypercorn.config:Config.create_sockets": "3ba0bab3918e4238",
    "hypercorn.config:Config.create_ssl_context": "66241a00f5167198",
    "hypercorn.events:Updated": "2ac39e7065c0347f",
    "hypercorn.protocol.events:Response": "65d6ea1332731f5e",
    "hypercorn.protocol.h11:H11Protocol": "b32a61e0a8ca2127",
    "hypercorn.protocol.h11:H11WSConnection": "33372cf689429978",
    "hypercorn.protocol.h2:H2Protocol": "7257f8bafccaa2e5",
    "hypercorn.protocol.h2:StreamBuffer": "bc347b7c78068613",
    "hypercorn.protocol.http_stream:HTTPStream": "e0f656feb55ab89c",
    "hypercorn.protocol.ws_stream:WSStream": "67434c428a1a3c04",
    "hypercorn.protocol:ProtocolWrapper": "caf949187e9b4a81",
    "hypercorn.run:run": "d84ea71e1b5fc628",
    "hypercorn.trio.lifespan:Lifespan": "7c58a46fd0717442",
    "hypercorn.trio.run:trio_worker": "93848f30a88b8175",
    "hypercorn.trio.run:worker_serve": "8dc8347a9fc357ca",
    "hypercorn.trio.task_group:TaskGroup": "8467a3a16a7e8763",
    "hypercorn.trio.tcp_server:TCPServer": "5593e38b83d3e22e",
    "hypercorn.trio.worker_context:WorkerContext": "45885f0c0bd5bc9d",
    "hypercorn.trio:serve": "9b117d42d6cfa7ef",
    "quart.asgi:ASGIHTTPConnection": "6065b18f7c6ef8b5 c6377a098870a68a",
    "quart.wrappers.response:ResponseBody": "a75733fb01236be7",
    "quart_trio.asgi:TrioASGIHTTPConnection": "6393e71c2a5138be 3a17dce123a50e94",
}


def fingerprint(name: str) -> str:
    module, _, attribute = name.partition(":")
    source = inspect.getsource(attrgetter(attribute)(importlib.import_module(module)))
    return hashlib.sha256(source.encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_the_code_that_is_replaced_or_built_on_is_as_it_was(name: str) -> None:
    """The source is one that was read when ours was written."""
    found = fingerprint(name)
    assert found in SOURCES[name].split(), f"{name} has changed: {found}"
