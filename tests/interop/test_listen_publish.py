"""`penstock listen` and `penstock publish`, as processes: with each other, and with what is odd."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from termios import FIONREAD
from typing import IO, Any
from uuid import uuid4

import pytest
import trio
from processes import PENSTOCK, Server, serving, wait_until
from scripted import CHUNKED, OPEN, scripted

from wire import DECODED

# What serves /publish and /subscribe.
HUB = (PENSTOCK, "serve", "--bind")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Server]:
    """Serve a hub."""
    with serving(*HUB, "127.0.0.1:0", folder=tmp_path) as server:
        yield server


@pytest.fixture(scope="module")
def shared_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve a hub for tests that have topics of their own on it."""
    with serving(*HUB, "127.0.0.1:0", folder=tmp_path_factory.mktemp("hub")) as server:
        yield server


def publish(
    server: Server, *arguments: str, stdin: str | bytes | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `penstock publish` to its end."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    ran = subprocess.run(
        [PENSTOCK, "publish", f"{server.url}/publish", *arguments],
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        timeout=30,
        check=False,
    )
    out, err = ran.stdout.decode(), ran.stderr.decode()
    return subprocess.CompletedProcess(ran.args, ran.returncode, out, err)


@contextmanager
def running(
    *arguments: str, stdin: int | IO[Any] | None = subprocess.DEVNULL, stdout: int = subprocess.PIPE
) -> Iterator[subprocess.Popen[str]]:
    """Run `penstock` for the length of the block; kill it if it is there at the end."""
    process = subprocess.Popen(
        [PENSTOCK, *arguments], stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, text=True
    )
    try:
        with process:
            yield process
            process.kill()
    finally:
        process.kill()


def topic(server: Server, name: str = "a") -> str:
    """Return the URL of what was and is published on a topic, from the start on."""
    return f"{server.url}/subscribe?topic={name}&last_event_id=earliest"


def lines_of(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline() for _ in range(count)]


def objects_of(process: subprocess.Popen[str], count: int) -> list[Any]:
    return [json.loads(line) for line in lines_of(process, count)]


def end(process: subprocess.Popen[str], number: signal.Signals | None = signal.SIGINT) -> str:
    """End a process, and return what it had still to say on stderr; it must be quick."""
    began = time.monotonic()
    if number is not None:
        process.send_signal(number)
    process.wait(timeout=10)
    assert time.monotonic() - began < 3
    assert process.stderr is not None
    return process.stderr.read()


# With each other.


def test_what_is_published_is_heard(hub: Server) -> None:
    """Data, name and id arrive; the id that publish prints is the event's."""
    first = publish(hub, "--topic", "news", "It rains")
    assert (first.returncode, first.stderr) == (0, "")
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}\n", first.stdout)
    second = publish(hub, "-t", "news", "-t", "x", "--event", "w", "--id", "é 7", "a\r\nb\n\x1b[2J")
    assert (second.returncode, second.stdout, second.stderr) == (0, "é 7\n", "")
    third = publish(hub, "-t", "news", "")
    with running("listen", topic(hub, "news")) as listener:
        assert lines_of(listener, 3) == [f"id: {first.stdout}", "data: It rains\n", "\n"]
        assert "".join(lines_of(listener, 6)) == (
            "id: é 7\nevent: w\ndata: a\ndata: b\ndata: \x1b[2J\n\n"
        )
        assert lines_of(listener, 3) == [f"id: {third.stdout}", "data: \n", "\n"]
        assert end(listener) == ""
        assert listener.returncode == 130
    with running("listen", "--json", "--count", "2", topic(hub, "news")) as listener:
        assert lines_of(listener, 3) == [
            json.dumps({"id": first.stdout.strip(), "event": None, "data": "It rains"}) + "\n",
            '{"id": "é 7", "event": "w", "data": "a\\nb\\n\\u001b[2J"}\n',
            "",
        ]
        assert listener.wait(timeout=5) == 0
    after = ("--last-event-id", "é 7", "--count", "1", f"{hub.url}/subscribe?topic=news")
    with running("listen", *after) as listener:
        assert lines_of(listener, 4) == [f"id: {third.stdout}", "data: \n", "\n", ""]


def test_lines_are_published_in_order(hub: Server) -> None:
    """Each is one event, empty ones, too; how many is told at the end."""
    count = 20_000
    told = publish(hub, "-t", "n", "-", stdin="".join(f"{number}\n" for number in range(count)))
    assert (told.returncode, told.stdout, told.stderr) == (0, "", f"penstock: published {count}\n")
    told = publish(hub, "-t", "n", "--event", "odd", stdin=b'\n \na\r\n\xc3\xa9 "\\\x01\nlast')
    assert (told.returncode, told.stderr) == (0, "penstock: published 5\n")
    assert publish(hub, "-t", "n", "-", stdin="").stderr == "penstock: published 0\n"
    with running("listen", "--json", topic(hub, "n")) as listener:
        # The history of the demonstration is bounded: what is left of it ends here.
        heard = objects_of(listener, 1)
        while heard[-1]["data"] != "last":
            heard += objects_of(listener, 1)
    numbers = [int(event["data"]) for event in heard if event["event"] is None]
    assert numbers == list(range(numbers[0], count))
    assert [event["data"] for event in heard[-5:]] == ["", " ", "a", 'é "\\\x01', "last"]
    assert {event["event"] for event in heard[-5:]} == {"odd"}
    assert len({event["id"] for event in heard}) == len(heard)


def test_the_url_may_have_the_topic(hub: Server) -> None:
    """Then no --topic is needed."""
    ran = subprocess.run(
        [PENSTOCK, "publish", f"{hub.url}/publish?topic=a", "x"],
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
    with running("listen", "--json", topic(hub)) as listener:
        assert objects_of(listener, 1)[0]["data"] == "x"


def test_events_as_json_objects(hub: Server) -> None:
    """A line has its own topics, name and id; options are for those that have none."""
    events = [
        {"data": "a", "topics": ["x"], "event": "own", "id": "1"},
        {"data": "b\nc", "retry": 1500},
    ]
    stdin = "".join(json.dumps(event) + "\n" for event in events)
    told = publish(hub, "--json", "-t", "y", "--event", "given", "-", stdin=stdin)
    assert (told.returncode, told.stderr) == (0, "penstock: published 2\n")
    one = publish(hub, "--json", "-t", "y", "--id", "3", '{"data": "d"}')
    assert (one.returncode, one.stdout) == (0, "3\n")
    with running("listen", "--json", topic(hub, "x")) as listener:
        assert objects_of(listener, 1) == [{"id": "1", "event": "own", "data": "a"}]
    with running("listen", "--json", topic(hub, "y")) as listener:
        (second, third) = objects_of(listener, 2)
    assert (second["event"], second["data"]) == ("given", "b\nc")
    assert third == {"id": "3", "event": None, "data": "d"}


def test_one_hears_what_the_other_pipes_on(hub: Server, tmp_path: Path) -> None:
    """What listen prints with --json, publish takes with --json, at another server."""
    with serving(*HUB, "127.0.0.1:0", folder=tmp_path) as other:
        target = f"{other.url}/publish"
        with (
            running("listen", "--json", topic(hub)) as source,
            running("publish", target, "-t", "copied", "--json", "-", stdin=source.stdout) as pipe,
            running("listen", "--json", topic(other, "copied")) as sink,
        ):
            for number in range(3):
                published = publish(hub, "-t", "a", "--event", "e", str(number))
                heard = {"id": published.stdout.strip(), "event": "e", "data": str(number)}
                assert objects_of(sink, 1) == [heard]
            source.kill()
            assert end(pipe, None) == "penstock: published 3\n"
            assert pipe.returncode == 0


def test_a_line_that_comes_alone_goes_off_at_once(hub: Server) -> None:
    """A pipe that stays open is no reason to wait."""
    arguments = ("publish", f"{hub.url}/publish", "-t", "a", "-")
    with (
        running("listen", "--json", topic(hub, "a")) as listener,
        running(*arguments, stdin=subprocess.PIPE) as publisher,
    ):
        assert publisher.stdin is not None
        for number in range(3):
            publisher.stdin.write(f"{number}\n")
            publisher.stdin.flush()
            began = time.monotonic()
            assert objects_of(listener, 1)[0]["data"] == str(number)
            # The first waits for both to have started.
            assert time.monotonic() - began < 1 or number == 0
        publisher.stdin.close()
        assert end(publisher, None) == "penstock: published 3\n"


# Errors in what is published.


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("[1]", 'it is no JSON object, such as {"data": "…"}: [1]'),
        ("{", "it is no JSON: "),
        ("", "it is no JSON: "),
        ('{"data": 7}', "data must be text, not int"),
        ('{"data": "a", "id": "1\\n2"}', "id must not contain a line end"),
        ('{"data": "a", "topics": [""]}', "a topic must not be empty"),
        ('{"data": "\\ud800"}', "lone surrogate"),
        ('{"data": "a", "colour": 1}', "there is no field 'colour'"),
        ('{"data": "' + "x" * 2**20 + '"}', "1,048,576"),
        ('{"data": "' + "x" * 2**21 + '"}', "it is longer than 2097152 bytes"),
        ("[" * 100_000, "it is no JSON"),
    ],
)
@pytest.mark.parametrize("before", [0, 1, 1201])
def test_a_bad_line(shared_hub: Server, line: str, says: str, before: int) -> None:
    """It is named by its number in the input, with the reason; of all others the fate is told."""
    own = str(uuid4())
    good = [json.dumps({"data": str(number)}) for number in range(before)]
    stdin = "\n".join([*good, line, '{"data": "after"}']) + "\n"
    told = publish(shared_hub, "-t", own, "--json", "-", stdin=stdin)
    assert told.returncode == 1
    assert told.stdout == ""
    assert told.stderr.startswith(f"penstock: line {before + 1}: ")
    assert says in told.stderr
    assert told.stderr.count("\n") == 1
    published = 0
    if found := re.search(r"; lines? 1(?: to (\d+) were| was) published;", told.stderr):
        published = int(found[1] or 1)
        assert told.stderr.endswith("; nothing after that was\n")
    else:
        assert told.stderr.endswith("; nothing was published\n")
    publish(shared_hub, "-t", own, "end")
    with running("listen", "--json", topic(shared_hub, own)) as listener:
        heard = [event["data"] for event in objects_of(listener, published + 1)]
    assert heard == [*map(str, range(published)), "end"]


def test_a_line_that_is_not_utf_8(shared_hub: Server) -> None:
    """No event could carry it."""
    told = publish(shared_hub, "-t", "a", "-", stdin=b"a\n\xff\nb\n")
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr == (
        "penstock: line 2: it is not UTF-8: invalid start byte at byte 1; "
        "line 1 was published; nothing after that was\n"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["x"], "where to publish? Give a --topic"),
        (["-t", "a", "--id", "1", "-"], "--id is the id of one event"),
        (["-t", "a", "--id", "1\n2", "x"], "id must not contain a line end"),
        (["-t", "a", "--event", "1\n2", "-"], "event must not contain a line end"),
        (["-t", "a", "\udcff"], "lone surrogate"),
        (["-t", "a", "--json", "\udcff"], "DATA: it is not UTF-8"),
        (["-t", "a", "--json", "[]"], "DATA: it is no JSON object"),
        (["-t", "a", "--header", "x", "x"], "'x' is not a header"),
        (["-t", "a", "--header", "X: é", "x"], "printable ASCII"),
        (["-t", "a", "--header", "X y: z", "x"], "is not a header"),
    ],
)
def test_misuse_of_publish(arguments: list[str], says: str) -> None:
    """One line that says what to do, and status 2, before anything is sent."""
    command = [PENSTOCK, "publish", "http://127.0.0.1:1/publish", *arguments]
    ran = subprocess.run(
        [os.fsencode(each) for each in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert says in ran.stderr.decode()
    assert ran.stderr.count(b"\n") == 1


@pytest.mark.parametrize("command", ["listen", "publish"])
@pytest.mark.parametrize(
    "url", ["example.org", "ftp://example.org/", "http://", "http://[::1/", "\x1b"]
)
def test_what_is_no_url(command: str, url: str) -> None:
    """It is said, with status 2."""
    ran = subprocess.run(
        [PENSTOCK, command, url], capture_output=True, text=True, timeout=20, check=False
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "is not a URL" in ran.stderr
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize("stdin", [None, "a\nb\n"])
@pytest.mark.parametrize(
    ("path", "says"),
    [("", "answered 405 Method Not Allowed"), ("/nowhere", "answered 404 Not Found")],
)
def test_where_nobody_publishes(
    shared_hub: Server, stdin: str | None, path: str, says: str
) -> None:
    """The address and the status are named, and that nothing was published."""
    url = f"{shared_hub.url}{path}"
    ran = subprocess.run(
        [PENSTOCK, "publish", url, "-t", "a", "x" if stdin is None else "-"],
        input=stdin or "",
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    shown = url if path else f"{url}/"
    assert ran.stderr == f"penstock: {shown}: {says}; nothing was published\n"


JSON_HEAD = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "one", "many"),
    [
        (
            [],
            "disconnected without sending a response; whether it was published is not known",
            "whether lines 1 to 2 were published is not known; nothing after that was",
        ),
        (
            [JSON_HEAD % 503, b'{"error": "the disk is full"}'],
            "the disk is full; nothing was published",
            "the disk is full; nothing was published",
        ),
        ([JSON_HEAD % 500, b"<p>"], "answered 500 X; whether it was published is not known", None),
        ([JSON_HEAD % 400, b'{"error": "\x1b[2J\\nno"}'], "answered 400 X; nothing was", None),
        (
            [JSON_HEAD % 400, b'{"error": "\\u001b[2J\\nno", "line": 99}'],
            "penstock: [2J no; nothing was published",
            "penstock: [2J no; nothing was published",
        ),
        (
            [JSON_HEAD % 200, b'{"ok": true}'],
            "answered 200 X, without 1 id: is this where one publishes?; whether it was published",
            "without 2 ids: is this where one publishes?; whether lines 1 to 2 were published is",
        ),
        ([JSON_HEAD % 200, b'{"ids": ["1"]}'], "without 1 id", "without 2 ids"),
        (
            [JSON_HEAD % 200, b'{"id": "1", "ids": ["1", "2"]' + b" " * 2_000_000 + b"}"],
            "without 1 id",
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
    """What it says is shown on one line; what is not certain is told as that."""
    async with scripted(answer, answer) as server:
        for arguments, says in ((["x"], one), (["-"], many)):
            if says is not None:
                ran = await trio.run_process(
                    [PENSTOCK, "publish", server.url, "-t", "a", *arguments],
                    stdin=b"a\nb\n",
                    capture_stdout=True,
                    capture_stderr=True,
                    check=False,
                )
                assert (ran.returncode, ran.stdout) == (1, b"")
                assert says in ran.stderr.decode()
                assert ran.stderr.count(b"\n") == 1


# Ends.


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_a_signal_ends_listen(hub: Server, number: signal.Signals, status: int) -> None:
    """While it reads and while it waits to connect again; nothing is said."""
    publish(hub, "-t", "a", "x")
    with running("listen", topic(hub)) as listener:
        lines_of(listener, 3)
        assert end(listener, number) == ""
        assert listener.returncode == status
    with running("listen", "http://127.0.0.1:1/") as listener:
        assert listener.stderr is not None
        assert "Connection refused; connecting again in" in listener.stderr.readline()
        assert end(listener, number) == ""
        assert listener.returncode == status


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"]
)
def test_a_signal_ends_publish(hub: Server, number: signal.Signals, status: int) -> None:
    """While it waits for a line; what was published is told."""
    arguments = ("publish", f"{hub.url}/publish", "-t", "a", "-")
    with (
        running("listen", topic(hub)) as listener,
        running(*arguments, stdin=subprocess.PIPE) as publisher,
    ):
        assert publisher.stdin is not None
        for line in ("x\n", "y\n"):
            publisher.stdin.write(line)
            publisher.stdin.flush()
            lines_of(listener, 3)
        # That y was sent tells that x was answered; whether y is by now, the publisher will say.
        assert end(publisher, number) in (
            "penstock: interrupted: lines 1 to 2 were published; nothing after that was\n",
            "penstock: interrupted: line 1 was published; whether line 2 was published is not "
            "known; nothing after that was\n",
        )
        assert publisher.returncode == status


async def test_a_signal_while_the_answer_is_waited_for() -> None:
    """What became of what was sent is not known, and that is said."""
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
                b"penstock: interrupted: whether line 1 was published is not known; "
                b"nothing after that was\n"
            )


def test_a_closed_socket_ends_listen(shared_hub: Server) -> None:
    """With the next event, and with status 0: nobody reads it."""
    own = str(uuid4())
    reader, writer = socket.socketpair()
    with reader, writer:
        with running("listen", topic(shared_hub, own), stdout=writer.fileno()) as listener:
            publish(shared_hub, "-t", own, "first")
            assert reader.recv(4) == b"id: "
            reader.close()
            publish(shared_hub, "-t", own, "second")
            assert end(listener, None) == ""
            assert listener.returncode == 0


@pytest.mark.parametrize("events", [1, 5])
def test_a_closed_pipe_ends_listen(hub: Server, events: int) -> None:
    """At once, even if nothing more comes; with status 0, and without a word."""
    for number in range(events):
        publish(hub, "-t", "a", str(number))
    command = f"'{PENSTOCK}' listen --json '{topic(hub)}' | head -1; echo ${{PIPESTATUS[@]}}"
    began = time.monotonic()
    ran = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=20, check=False
    )
    assert time.monotonic() - began < 5
    assert ran.stderr == ""
    first, status = ran.stdout.splitlines()
    assert json.loads(first)["data"] == "0"
    assert status == "0 0"


def test_a_reader_that_does_not_read_keeps_nobody(hub: Server) -> None:
    """Ctrl-C ends listen even while its pipe takes no more."""
    publish(hub, "-t", "a", "-", stdin=("x" * 1000 + "\n") * 2000)
    with running("listen", topic(hub)) as listener:
        assert listener.stdout is not None
        pipe = listener.stdout.fileno()
        held: list[int] = []

        def full() -> bool:
            """Tell whether much is in it, and does not become more."""
            held.append(int.from_bytes(fcntl.ioctl(pipe, FIONREAD, b"1234"), sys.byteorder))
            return held[-1] > 32768 and held[-20:] == held[-1:] * 20

        wait_until(full)
        assert end(listener) == ""
        assert listener.returncode == 130


@pytest.mark.parametrize(
    ("command", "status", "says"),
    [
        ("listen --count 1 {url} >/dev/full", 1, "cannot write to standard output: No space left"),
        ("listen --count 1 {url} >&-", 1, "standard output is closed"),
        ("listen --count 1 {url} >/dev/null", 0, ""),
        ("listen --count 1 {url} >{file} && grep -q 'data: x' {file}", 0, ""),
        ("publish {hub} -t a x >/dev/full", 1, "cannot write to standard output: No space left"),
        ("publish {hub} -t a x >&-", 1, "standard output is closed"),
        ("publish {hub} -t a - <&-", 1, "standard input is closed"),
        ("publish {hub} -t a - 0>/dev/null", 1, "cannot read from standard input: Bad file"),
        ("publish {hub} -t a <{script}", 0, "published 2"),
        ("publish {hub} -t a </dev/null", 0, "published 0"),
    ],
)
def test_where_standard_streams_lead(
    hub: Server, tmp_path: Path, command: str, status: int, says: str
) -> None:
    """A file, a device, nothing: it works, or one line says why not."""
    script = tmp_path / "lines"
    script.write_text("a\nb\n")
    publish(hub, "-t", "a", "x")
    filled = command.format(
        url=f"'{topic(hub)}'",
        hub=f"{hub.url}/publish",
        file=tmp_path / "out",
        script=script,
    )
    ran = subprocess.run(
        ["bash", "-c", f"'{PENSTOCK}' {filled}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert ran.returncode == status
    assert says in ran.stderr
    assert ran.stderr.count("\n") == (1 if says else 0)


async def listening(url: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run `penstock listen` to its end, beside what serves it."""
    return await trio.run_process(
        [PENSTOCK, "listen", *arguments, url],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )


async def test_204_ends_listen() -> None:
    """There is no more: status 0."""
    async with scripted() as server:
        ran = await listening(server.url, "-H", "X-Key: k : k", "--last-event-id", "é")
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
        assert server.header("x-key") == ["k : k"]
        assert server.header("last-event-id") == ["é"]


@pytest.mark.parametrize(
    ("answer", "options", "says"),
    [
        ([b"HTTP/1.1 404 X\r\n\r\n"], [], "/events: answered 404 X, not 200"),
        ([b"HTTP/1.1 200 X\r\n\r\n"], [], "answered with no content type, not with text/event"),
        ([OPEN, b"data: " + b"x" * 99], ["--max-event-size", "50"], "larger than max_event_size"),
        ([b"HTTP/1.1 503 X\r\n\r\n"], ["--max-attempts", "1"], "503 X; gave up after 1 attempt"),
        ([OPEN, 30.0], ["--max-attempts", "1", "--max-silence", "0.1"], "nothing came for 0.1 s"),
    ],
)
async def test_what_cannot_be_listened_to(
    answer: list[bytes | float], options: list[str], says: str
) -> None:
    """One line says why, and the status is 1."""
    async with scripted(answer) as server:
        ran = await listening(server.url, *options)
    assert (ran.returncode, ran.stdout) == (1, b"")
    assert says in ran.stderr.decode()
    assert ran.stderr.startswith(b"penstock: ")
    assert ran.stderr.count(b"\n") == 1


def test_a_server_that_is_restarted(tmp_path: Path) -> None:
    """A line on stderr tells of it; then what the new one has is heard, a gap included."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        bind = f"127.0.0.1:{free.getsockname()[1]}"
    with serving(*HUB, bind, "--reconnect-spread", "0", folder=tmp_path) as server:
        publish(server, "-t", "a", "before")
        url = f"{server.url}/subscribe?topic=a"
        with running("listen", "--json", "--last-event-id", "earliest", url) as listener:
            (before,) = objects_of(listener, 1)
            assert server.stop() == 0
            with serving(*HUB, bind, folder=tmp_path) as again:
                (gap,) = objects_of(listener, 1)
                publish(again, "-t", "a", "after")
                (after,) = objects_of(listener, 1)
            told = end(listener)
    assert [before["data"], after["data"]] == ["before", "after"]
    assert gap["event"] == "gap"
    assert json.loads(gap["data"]) == {"last_event_id": before["id"]}
    assert re.match(r"penstock: http://\S+/subscribe: .*; connecting again in \d+\.\d s\n", told)


# A public format's fixtures.

SPECIFIED: dict[str, tuple[bytes, list[dict[str, str | None]]]] = {
    "the stock ticker": (
        b"data: YHOO\ndata: +2\ndata: 10\n\n",
        [{"id": None, "event": None, "data": "YHOO\n+2\n10"}],
    ),
    "a comment and ids": (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\n"
        b"data:  third event\n\n",
        [
            {"id": "1", "event": None, "data": "first event"},
            {"id": None, "event": None, "data": "second event"},
            {"id": None, "event": None, "data": " third event"},
        ],
    ),
    "empty data, and data of one line end": (
        b"data\n\ndata\ndata\n\ndata:",
        [
            {"id": None, "event": None, "data": ""},
            {"id": None, "event": None, "data": "\n"},
        ],
    ),
    "a space after the colon": (
        b"data:test\n\ndata: test\n\n",
        [{"id": None, "event": None, "data": "test"}] * 2,
    ),
    "event types": (
        b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
        [
            {"id": None, "event": "add", "data": "73857293"},
            {"id": None, "event": "remove", "data": "2153"},
            {"id": None, "event": "add", "data": "113411"},
        ],
    ),
}


def _fixtures() -> dict[str, tuple[bytes, list[dict[str, str | None]]]]:
    """Return the specification's examples, and our table of wire cases."""
    table: dict[str, tuple[bytes, list[dict[str, str | None]]]] = dict(SPECIFIED)
    for name, case in DECODED.items():
        events: list[dict[str, str | None]] = [
            {
                "id": each.last_event_id or None,
                "event": None if each.type == "message" else each.type,
                "data": each.data,
            }
            for each in case.heard
        ]
        # A case that sets the reconnection time would be waited for: it is set back.
        table[name] = (case.wire + (b"\n\nretry: 1\n" if case.retry else b""), events)
    return table


def _whole(wire: bytes) -> Sequence[bytes | float]:
    return [OPEN, wire]


def _byte_by_byte(wire: bytes) -> Sequence[bytes | float]:
    return [CHUNKED, b"".join(b"1\r\n%c\r\n" % byte for byte in wire[:20_000]), b"0\r\n\r\n"]


@pytest.mark.parametrize("cut", [_whole, _byte_by_byte])
async def test_a_public_format(cut: Callable[[bytes], Sequence[bytes | float]]) -> None:
    """The specification's examples and our own cases, each a stream, come out as they should."""
    fixtures = _fixtures()
    if cut is _byte_by_byte:
        fixtures = {name: case for name, case in fixtures.items() if len(case[0]) < 20_000}
    answers: list[Sequence[bytes | float]] = []
    for name, (wire, _) in fixtures.items():
        # Between two streams: no id is left of the one before, and the next is asked for at once.
        mark = json.dumps(name)
        answers += [[OPEN, f"id\nretry: 1\ndata: {mark}\nevent: case\n\n".encode()], cut(wire)]
    async with scripted(*answers) as server:
        ran = await listening(server.url, "--json")
    assert ran.returncode == 0
    heard: dict[str, list[Any]] = {}
    for line in ran.stdout.decode().split("\n")[:-1]:
        event = json.loads(line)
        if event["event"] == "case":
            heard[json.loads(event["data"])] = current = []
            continue
        if event["event"] == "message":  # a name as any other; a browser's default, too
            event["event"] = None
        current.append(event)
    assert heard == {name: events for name, (_, events) in fixtures.items()}


# Terminals.


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """Give both ends of a pseudo-terminal: the person's and the program's."""
    person, program = pty.openpty()
    try:
        yield person, program
    finally:
        os.close(person)
        os.close(program)


def shown(person: int, until: str) -> str:
    """Return what a terminal shows, once that is among it."""
    text = ""
    while until not in text:
        assert select.select([person], [], [], 10)[0], text
        text += os.read(person, 65536).decode()
    return text


def test_publish_needs_something_to_publish() -> None:
    """At a terminal it does not just wait: it says what to give, with status 2."""
    with terminal() as (_, program):
        with running("publish", "http://127.0.0.1:1/", "-t", "a", stdin=program) as publisher:
            assert end(publisher, None) == (
                "penstock: nothing to publish: give DATA, or - to type lines and end with Ctrl-D\n"
            )
            assert publisher.returncode == 2


def test_lines_that_are_typed(hub: Server) -> None:
    """Each goes off when it is ended; Ctrl-D ends it all."""
    with terminal() as (person, program):
        command = ("publish", f"{hub.url}/publish", "-t", "a", "-")
        with (
            running("listen", "--json", topic(hub)) as listener,
            running(*command, stdin=program) as publisher,
        ):
            for word in ("one", "two"):
                os.write(person, word.encode() + b"\n")
                assert objects_of(listener, 1)[0]["data"] == word
            os.write(person, b"\x04")
            assert end(publisher, None) == "penstock: published 2\n"


def test_a_terminal_shows_control_characters(hub: Server) -> None:
    """An event can neither clear the screen nor type for somebody."""
    publish(hub, "-t", "a", "\x1b[2J\x9b5n\x07\tx\r\ny")
    with terminal() as (person, program):
        with running("listen", "--count", "1", topic(hub), stdout=program) as listener:
            text = shown(person, "y")
            assert "data: \\x1b[2J\\x9b5n\\x07\tx\r\ndata: y" in text
            assert "\x1b" not in text
            assert listener.wait(timeout=5) == 0


def test_progress_on_a_terminal(hub: Server) -> None:
    """A number runs while lines are published; the line is left clean for the last word."""
    with terminal() as (person, program):
        publisher = subprocess.Popen(
            [PENSTOCK, "publish", f"{hub.url}/publish", "-t", "a", "-"],
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
    assert re.fullmatch(r"(\r\d+ published)+\r\x1b\[Kpenstock: published \d+\r\n", text)
