"""The decoder against Chromium's EventSource, on the wire table and on streams drawn at random.

The browser is the judge: where the two differ, the decoder and the table are wrong. In one place
the browser itself leaves the standard; that place is named, and a test notices when it is mended.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Page

from penstock import EventStreamDecoder
from wire import DECODED, Heard

# What means something to a parser, and some that looks as if it did.
TOKENS = [
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\n\r", b"\r\n\r\n"),
    *(
        b"data",
        b"event",
        b"id",
        b"retry",
        b"dat",
        b"Data",
        b"data:",
        b"data: ",
        b"id: ",
        b"event: ",
    ),
    *(b":", b": ", b" ", b"\0", b"\t", b"a", b"ping", b"7", b"\xef\xbb\xbf", b"\xff", b"\xe2\x80"),
    *("\u2028".encode(), "\u0085".encode(), "é".encode(), "😀".encode()),
]


# Chromium 156 does not see a line end that follows the byte order mark at once: it takes it for the
# first character of the next line. The standard drops the mark before lines are looked for.
CHROMIUM_ERRS = (b"\xef\xbb\xbf\n", b"\xef\xbb\xbf\r")


def drawn(number: int, seed: int = 20260) -> list[bytes]:
    """Draw streams of tokens, the same ones in each run."""
    source = random.Random(seed)
    return [
        b"".join(source.choices(TOKENS, k=source.randint(1, 60))) + source.choice([b"", b"\n\n"])
        for _ in range(number)
    ]


def decoded(wire: bytes) -> list[list[str]]:
    """Return what handlers would be given: type, data and last event id."""
    return [
        [event.event or "message", event.data or "", event.id or ""]
        for event in EventStreamDecoder().feed(wire)
    ]


@pytest.fixture
def streams() -> list[bytes]:
    return [case.wire for case in DECODED.values()] + drawn(300)


@pytest.fixture
def origin(streams: list[bytes]) -> Iterator[str]:
    """Serve the streams byte for byte, each at its number, and an empty page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            number = self.path.strip("/")
            body = streams[int(number)] if number else b"<!doctype html><link rel=icon href=data:>"
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream" if number else "text/html")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


LISTEN = """
async ([count, names]) => {
  const listen = (number) => new Promise((resolve) => {
    const heard = [];
    const source = new EventSource(`/${number}`);
    for (const name of names)
      source.addEventListener(name, (e) => heard.push([e.type, e.data, e.lastEventId]));
    source.onerror = () => { source.close(); resolve(heard); };
  });
  const all = [];
  for (let number = 0; number < count; number++) all.push(await listen(number));
  return all;
}
"""


def test_agrees_with_chromium(streams: list[bytes], origin: str, page: Page) -> None:
    """Type, data and last event id of every event are those that the browser dispatches."""
    ours = [decoded(wire) for wire in streams]
    # A browser tells of the names it is asked for only: those of any field that could be a name.
    fields = [line for wire in streams for line in wire.replace(b"\r", b"\n").split(b"\n")]
    names = {"message"} | {name for heard in ours for name, _, _ in heard}
    for field in fields:
        if field.startswith(b"event:") and (name := field[6:].decode(errors="replace")):
            names |= {name, name.removeprefix(" ")}
    page.goto(origin)
    browsers = page.evaluate(LISTEN, [len(streams), sorted(names - {"", "error", "open"})])
    assert len(browsers) == len(streams) >= 40
    print(f"{len(streams)} streams, {sum(map(len, browsers))} events, {len(DECODED)} by hand")
    for wire, heard, browser in zip(streams, ours, browsers, strict=True):
        if not wire.startswith(CHROMIUM_ERRS):
            assert heard == browser, wire
    case = DECODED["a BOM before a blank line"]
    assert browsers[streams.index(case.wire)] == [], "Chromium is mended: remove CHROMIUM_ERRS"


def test_the_table_is_what_the_decoder_says(streams: list[bytes]) -> None:
    """What the browser judged above are the table's own expectations."""
    for case in DECODED.values():
        assert [Heard(data, name, last) for name, data, last in decoded(case.wire)] == [*case.heard]
