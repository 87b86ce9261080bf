"""`penstock listen` and `penstock publish`, as processes: with each other, and through pipes."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from cli_steps import end, lines_of, objects_of, publish, running, topic
from forked import run
from processes import PENSTOCK, Server, serving


def test_what_is_published_is_heard(demo: Server) -> None:
    """Data, name and id arrive; the id that publish prints is the event's."""
    first = publish(demo, "--topic", "news", "It rains")
    assert (first.returncode, first.stderr) == (0, "")
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}\n", first.stdout)
    second = publish(
        demo, "-t", "news", "-t", "x", "--event", "w", "--id", "é 7", "a\r\nb\n\x1b[2J"
    )
    assert (second.returncode, second.stdout, second.stderr) == (0, "é 7\n", "")
    third = publish(demo, "-t", "news", "")
    with running("listen", topic(demo, "news")) as listener:
        assert lines_of(listener, 3) == [f"id: {first.stdout}", "data: It rains\n", "\n"]
        assert "".join(lines_of(listener, 6)) == (
            "id: é 7\nevent: w\ndata: a\ndata: b\ndata: \x1b[2J\n\n"
        )
        assert lines_of(listener, 3) == [f"id: {third.stdout}", "data: \n", "\n"]
        assert end(listener) == ""
        assert listener.returncode == 130
    with running("listen", "--json", "--count", "2", topic(demo, "news")) as listener:
        assert lines_of(listener, 3) == [
            json.dumps({"id": first.stdout.strip(), "event": None, "data": "It rains"}) + "\n",
            '{"id": "é 7", "event": "w", "data": "a\\nb\\n\\u001b[2J"}\n',
            "",
        ]
        assert listener.wait(timeout=60) == 0
    after = ("--last-event-id", "é 7", "--count", "1", f"{demo.url}/subscribe?topic=news")
    with running("listen", *after) as listener:
        assert lines_of(listener, 4) == [f"id: {third.stdout}", "data: \n", "\n", ""]


def test_lines_are_published_in_order(demo: Server) -> None:
    """Each line is one event, even an empty one; their number is printed at the end."""
    count = 20_000
    told = publish(demo, "-t", "n", "-", stdin="".join(f"{number}\n" for number in range(count)))
    assert (told.returncode, told.stdout, told.stderr) == (0, "", f"penstock: published {count}\n")
    told = publish(demo, "-t", "n", "--event", "odd", stdin=b'\n \na\r\n\xc3\xa9 "\\\x01\nlast')
    assert (told.returncode, told.stderr) == (0, "penstock: published 5\n")
    assert publish(demo, "-t", "n", "-", stdin="").stderr == "penstock: published 0\n"
    with running("listen", "--json", topic(demo, "n")) as listener:
        # The history of the demonstration is bounded: what is left of it ends here.
        heard = objects_of(listener, 1)
        while heard[-1]["data"] != "last":
            heard += objects_of(listener, 1)
    numbers = [int(event["data"]) for event in heard if event["event"] is None]
    assert numbers == list(range(numbers[0], count))
    assert [event["data"] for event in heard[-5:]] == ["", " ", "a", 'é "\\\x01', "last"]
    assert {event["event"] for event in heard[-5:]} == {"odd"}
    assert len({event["id"] for event in heard}) == len(heard)


def test_the_url_may_have_the_topic(demo: Server) -> None:
    """Then no --topic is needed."""
    ran = run(PENSTOCK, "publish", f"{demo.url}/publish?topic=a", "x")
    assert (ran.returncode, ran.stderr) == (0, b"")
    with running("listen", "--json", topic(demo)) as listener:
        assert objects_of(listener, 1)[0]["data"] == "x"


def test_events_as_json_objects(demo: Server) -> None:
    """A line may have topics, a name and an id; options apply to lines without them."""
    events = [
        {"data": "a", "topics": ["x"], "event": "own", "id": "1"},
        {"data": "b\nc", "retry": 1500},
    ]
    stdin = "".join(json.dumps(event) + "\n" for event in events)
    told = publish(demo, "--json", "-t", "y", "--event", "given", "-", stdin=stdin)
    assert (told.returncode, told.stderr) == (0, "penstock: published 2\n")
    one = publish(demo, "--json", "-t", "y", "--id", "3", '{"data": "d"}')
    assert (one.returncode, one.stdout) == (0, "3\n")
    with running("listen", "--json", topic(demo, "x")) as listener:
        assert objects_of(listener, 1) == [{"id": "1", "event": "own", "data": "a"}]
    with running("listen", "--json", topic(demo, "y")) as listener:
        (second, third) = objects_of(listener, 2)
    assert (second["event"], second["data"]) == ("given", "b\nc")
    assert third == {"id": "3", "event": None, "data": "d"}


def test_one_hears_what_the_other_pipes_on(demo: Server, tmp_path: Path) -> None:
    """What listen prints with --json, publish takes with --json, at another server."""
    with serving(PENSTOCK, "serve", "--bind", "127.0.0.1:0", folder=tmp_path) as other:
        target = f"{other.url}/publish"
        with (
            running("listen", "--json", topic(demo)) as source,
            running("publish", target, "-t", "copied", "--json", "-", stdin=source.stdout) as pipe,
            running("listen", "--json", topic(other, "copied")) as sink,
        ):
            for number in range(3):
                published = publish(demo, "-t", "a", "--event", "e", str(number))
                heard = {"id": published.stdout.strip(), "event": "e", "data": str(number)}
                assert objects_of(sink, 1) == [heard]
            source.kill()
            assert end(pipe, None) == "penstock: published 3\n"
            assert pipe.returncode == 0


def test_a_line_that_comes_alone_goes_off_at_once(demo: Server) -> None:
    """A pipe that stays open is no reason to wait."""
    arguments = ("publish", f"{demo.url}/publish", "-t", "a", "-")
    with (
        running("listen", "--json", topic(demo, "a")) as listener,
        running(*arguments, stdin=subprocess.PIPE) as publisher,
    ):
        assert publisher.stdin is not None
        for number in range(3):
            publisher.stdin.write(f"{number}\n")
            publisher.stdin.flush()
            assert objects_of(listener, 1)[0]["data"] == str(number)
        publisher.stdin.close()
        assert end(publisher, None) == "penstock: published 3\n"


@pytest.mark.parametrize("command", ["listen", "publish"])
@pytest.mark.parametrize(
    "url", ["example.org", "ftp://example.org/", "http://", "http://[::1/", "\x1b"]
)
def test_what_is_no_url(command: str, url: str) -> None:
    """It is one line, with status 2."""
    ran = run(PENSTOCK, command, url)
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert b"is not a URL" in ran.stderr
    assert ran.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("command", "status", "says"),
    [
        ("listen --count 1 {url} >/dev/full", 1, "cannot write to standard output: No space left"),
        ("listen --count 1 {url} >&-", 1, "standard output is closed"),
        ("listen --count 1 {url} >/dev/null", 0, ""),
        ("listen --count 1 {url} >{file} && grep -q 'data: x' {file}", 0, ""),
        ("publish {demo} -t a x >/dev/full", 1, "cannot write to standard output: No space left"),
        ("publish {demo} -t a x >&-", 1, "standard output is closed"),
        ("publish {demo} -t a - <&-", 1, "standard input is closed"),
        ("publish {demo} -t a - 0>/dev/null", 1, "cannot read from standard input: Bad file"),
        ("publish {demo} -t a <{script}", 0, "published 2"),
        ("publish {demo} -t a </dev/null", 0, "published 0"),
    ],
)
def test_where_standard_streams_lead(
    demo: Server, tmp_path: Path, command: str, status: int, says: str
) -> None:
    """A file, a device, nothing: it works, or one line says why not."""
    script = tmp_path / "lines"
    script.write_text("a\nb\n")
    publish(demo, "-t", "a", "x")
    filled = command.format(
        url=f"'{topic(demo)}'",
        demo=f"{demo.url}/publish",
        file=tmp_path / "out",
        script=script,
    )
    ran = subprocess.run(
        ["bash", "-c", f"'{PENSTOCK}' {filled}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == status
    assert says in ran.stderr
    assert ran.stderr.count("\n") == (1 if says else 0)
