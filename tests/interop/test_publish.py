"""`penstock publish` as a process: what is refused, what fails, signals, and a terminal."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
from uuid import uuid4

import pytest
import trio
from cli_steps import end, lines_of, objects_of, publish, running, shown, terminal, topic
from forked import Process, ran_beside, run
from processes import PENSTOCK, Server
from scripted import scripted

# A line that can be published.
GOOD = '{"data": "after"}'


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("[1]", 'not a JSON object such as {"data": "…"}: [1]'),
        ("{", "not JSON: "),
        ("", "not JSON: "),
        ('{"data": 7}', "data must be text, not int"),
        ('{"data": "a", "id": "1\\n2"}', "id must not contain a line end"),
        ('{"data": "a", "topics": [""]}', "a topic must not be empty"),
        ('{"data": "\\ud800"}', "lone surrogate"),
        ('{"data": "a", "colour": 1}', "there is no field 'colour'"),
        ('{"data": "' + "x" * 2**20 + '"}', "1,048,576"),
        ('{"data": "' + "x" * 2**21 + '"}', "longer than 2097152 bytes"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_bad_line(shared_demo: Server, line: str, says: str) -> None:
    """It is named by its number in the input, with the reason."""
    told = publish(shared_demo, "-t", "bad", "--json", "-", stdin=f"{line}\n{GOOD}\n")
    assert (told.returncode, told.stdout, told.stderr.count("\n")) == (1, "", 1)
    assert told.stderr.startswith("penstock: line 1: ")
    assert says in told.stderr
    assert told.stderr.endswith("; nothing was published\n")


@pytest.mark.parametrize("line", ["[1]", *('{"data": "' + "x" * n + '"}' for n in (2**20, 2**21))])
@pytest.mark.parametrize("before", [1, 1201])
def test_lines_before_a_bad_one(shared_demo: Server, line: str, before: int) -> None:
    """The error has its number, and says what became of all others."""
    own = str(uuid4())
    good = [json.dumps({"data": str(number)}) for number in range(before)]
    stdin = "\n".join([*good, line, GOOD]) + "\n"
    told = publish(shared_demo, "-t", own, "--json", "-", stdin=stdin)
    assert told.returncode == 1
    assert told.stdout == ""
    assert told.stderr.startswith(f"penstock: line {before + 1}: ")
    assert told.stderr.count("\n") == 1
    published = 0
    if found := re.search(r"; lines? 1(?: to (\d+) were| was) published;", told.stderr):
        published = int(found[1] or 1)
        assert told.stderr.endswith("; nothing after that was published\n")
    else:
        assert told.stderr.endswith("; nothing was published\n")
    publish(shared_demo, "-t", own, "end")
    with running("listen", "--json", topic(shared_demo, own)) as listener:
        heard = [event["data"] for event in objects_of(listener, published + 1)]
    assert heard == [*map(str, range(published)), "end"]


def test_a_line_that_is_not_utf_8(shared_demo: Server) -> None:
    """No event could carry it."""
    told = publish(shared_demo, "-t", "a", "-", stdin=b"a\n\xff\nb\n")
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr == (
        "penstock: line 2: not UTF-8: invalid start byte at byte 1; "
        "line 1 was published; nothing after that was published\n"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["x"], "no topic to publish on: give --topic"),
        (["-t", "a", "--id", "1", "-"], "--id is for a single event"),
        (["-t", "a", "--id", "1\n2", "x"], "id must not contain a line end"),
        (["-t", "a", "--event", "1\n2", "-"], "event must not contain a line end"),
        (["-t", "a", "\udcff"], "lone surrogate"),
        (["-t", "a", "--json", "\udcff"], "DATA is not UTF-8"),
        (["-t", "a", "--json", "[]"], "DATA is not a JSON object"),
        (["-t", "a", "--header", "x", "x"], "'x' is not a header"),
        (["-t", "a", "--header", "X: é", "x"], "printable ASCII"),
        (["-t", "a", "--header", "X y: z", "x"], "is not a header"),
    ],
)
def test_misuse_of_publish(arguments: list[str], says: str) -> None:
    """One line that says what to do, and status 2, before anything is sent."""
    ran = run(PENSTOCK, "publish", "http://127.0.0.1:1/publish", *arguments)
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert says in ran.stderr.decode()
    assert ran.stderr.count(b"\n") == 1


@pytest.mark.parametrize("stdin", [None, "a\nb\n"])
@pytest.mark.parametrize(
    ("path", "says"),
    [("", "answered 405 Method Not Allowed"), ("/nowhere", "answered 404 Not Found")],
)
def test_where_nobody_publishes(
    shared_demo: Server, stdin: str | None, path: str, says: str
) -> None:
    """The address and the status are named, and that nothing was published."""
    url = f"{shared_demo.url}{path}"
    what = "x" if stdin is None else "-"
    ran = run(PENSTOCK, "publish", url, "-t", "a", what, stdin=(stdin or "").encode())
    assert (ran.returncode, ran.stdout) == (1, b"")
    shown = url if path else f"{url}/"
    assert ran.stderr.decode() == f"penstock: {shown}: {says}; nothing was published\n"


JSON_HEAD = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "one", "many"),
    [
        (
            [],
            "disconnected without sending a response; it may or may not have been published",
            "lines 1 to 2 may or may not have been published; nothing after that was published",
        ),
        (
            [JSON_HEAD % 503, b'{"error": "the disk is full"}'],
            "the disk is full; nothing was published",
            "the disk is full; nothing was published",
        ),
        ([JSON_HEAD % 500, b"<p>"], "answered 500 X; it may or may not have been published", None),
        ([JSON_HEAD % 400, b'{"error": "\x1b[2J\\nno"}'], "answered 400 X; nothing was", None),
        (
            [JSON_HEAD % 400, b'{"error": "\\u001b[2J\\nno", "line": 99}'],
            r"penstock: \x1b[2J no; nothing was published",
            r"penstock: \x1b[2J no; nothing was published",
        ),
        (
            [JSON_HEAD % 200, b'{"ok": true}'],
            "answered 200 X without an id: is this a publish endpoint?; it may or may not have",
            "without 2 ids: is this a publish endpoint?; lines 1 to 2 may or may not have been",
        ),
        ([JSON_HEAD % 200, b'{"ids": ["1"]}'], "without an id", "without 2 ids"),
        (
            [JSON_HEAD % 200, b'{"id": "1", "ids": ["1", "2"]' + b" " * 2_000_000 + b"}"],
            "without an id",
            "without 2 ids",
        ),
        (
            [JSON_HEAD % 413, b'{"error": "line 2: too large", "line": 2}'],
            "penstock: line 2: too large; nothing was published",
            "penstock: line 2: too large; nothing was published",
        ),
    ],
)
async def test_answers_of_a_hub_in_trouble(answer: list[bytes], one: str, many: str | None) -> None:
    """Its error is shown on one line; uncertainty is reported as such."""
    async with scripted(answer, answer) as server:
        for arguments, says in ((["x"], one), (["-"], many)):
            if says is not None:
                command = (PENSTOCK, "publish", server.url, "-t", "a", *arguments)
                ran = await ran_beside(*command, stdin=b"a\nb\n")
                assert (ran.returncode, ran.stdout) == (1, b"")
                assert says in ran.stderr.decode()
                assert ran.stderr.count(b"\n") == 1


async def test_cookies_are_not_kept() -> None:
    """Those of all answers would make a request that no server takes."""
    answer = [JSON_HEAD.replace(b"\r\n", b"\r\nSet-Cookie: a=b\r\n", 1) % 200, b'{"ids": ["1"]}']
    async with scripted(answer, answer) as server:
        with running("publish", server.url, "-t", "a", "-", stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            for count in (1, 2):
                process.stdin.write("x\n")
                process.stdin.flush()
                while len(server.requests) < count:  # noqa: ASYNC110 - no event of it
                    await trio.sleep(0.01)
            process.stdin.close()
            assert await trio.to_thread.run_sync(process.wait) == 0
    assert server.header("cookie") == [None, None]


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_a_signal_ends_publish(demo: Server, number: signal.Signals, status: int) -> None:
    """While it waits for a line; it reports what was published."""
    arguments = ("publish", f"{demo.url}/publish", "-t", "a", "-")
    with (
        running("listen", topic(demo)) as listener,
        running(*arguments, stdin=subprocess.PIPE) as publisher,
    ):
        assert publisher.stdin is not None
        for line in ("x\n", "y\n"):
            publisher.stdin.write(line)
            publisher.stdin.flush()
            lines_of(listener, 3)
        # That y was sent tells that x was answered; whether y is by now, the publisher will say.
        assert end(publisher, number) in (
            "penstock: interrupted: lines 1 to 2 were published; nothing after that was "
            "published\n",
            "penstock: interrupted: line 1 was published; line 2 may or may not have been "
            "published; nothing after that was published\n",
        )
        assert publisher.returncode == status


async def test_a_signal_while_the_answer_is_waited_for() -> None:
    """Whether it was published is unknown, and reported so."""
    async with scripted([30.0]) as server:
        command = [PENSTOCK, "publish", server.url, "-t", "a", "-"]
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stderr is not None
        async with process.stdin, process.stderr:
            await process.stdin.send_all(b"a\n")
            while not server.requests:  # noqa: ASYNC110 - what a process does has no event
                await trio.sleep(0.01)
            process.send_signal(signal.SIGINT)
            status = await process.wait()
            said = await process.stderr.receive_some()
            assert status == 130, said
            assert said == (
                b"penstock: interrupted: line 1 may or may not have been published; "
                b"nothing after that was published\n"
            )


def test_publish_needs_something_to_publish() -> None:
    """At a terminal it does not just wait: it says what to give, with status 2."""
    with terminal() as (_, program):
        with running("publish", "http://127.0.0.1:1/", "-t", "a", stdin=program) as publisher:
            assert end(publisher, None) == (
                "penstock: nothing to publish: give DATA, or - to type lines and end with Ctrl-D\n"
            )
            assert publisher.returncode == 2


def test_lines_that_are_typed(demo: Server) -> None:
    """Each line is published when it ends; Ctrl-D ends the input."""
    with terminal() as (person, program):
        command = ("publish", f"{demo.url}/publish", "-t", "a", "-")
        with (
            running("listen", "--json", topic(demo)) as listener,
            running(*command, stdin=program) as publisher,
        ):
            for word in ("one", "two"):
                os.write(person, word.encode() + b"\n")
                assert objects_of(listener, 1)[0]["data"] == word
            os.write(person, b"\x04")
            assert end(publisher, None) == "penstock: published 2\n"


def test_progress_on_a_terminal(demo: Server) -> None:
    """A number runs while lines are published; the line is left clean for the last word."""
    with terminal() as (person, program):
        publisher = Process(
            [PENSTOCK, "publish", f"{demo.url}/publish", "-t", "a", "-"],
            stdin=subprocess.PIPE,
            stderr=program,
        )
        with publisher:
            assert publisher.stdin is not None
            count, text = 0, ""
            while "published" not in text:
                publisher.stdin.write(b"x\n")
                publisher.stdin.flush()
                count += 1
                if select.select([person], [], [], 0.2)[0]:
                    text += os.read(person, 65536).decode()
            publisher.stdin.close()
            text += shown(person, f"penstock: published {count}\r\n")
    assert re.fullmatch(r"(\r\d+ published\x1b\[K)+\r\x1b\[Kpenstock: published \d+\r\n", text)
