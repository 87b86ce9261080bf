"""The lines of `penstock publish -`, on a virtual clock: how they are cut, and when they go off."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from penstock.cli.runtime import LineReader, LineTooLong

Clock = trio.testing.MockClock


def reader_of(*arrivals: tuple[float, bytes], end: float = 0) -> LineReader:
    """Return a reader of bytes that arrive at given times."""
    began, rest = trio.current_time(), [*arrivals, (end, b"")]

    async def receive() -> bytes:
        await trio.sleep_until(began + rest[0][0])
        return rest.pop(0)[1]

    return LineReader(receive)


async def batches_of(reader: LineReader) -> list[tuple[float, list[bytes]]]:
    """Return all batches, each with when it came."""
    began, batches = trio.current_time(), []
    while lines := await reader.batch():
        batches.append((round(trio.current_time() - began, 6), lines))
    return batches


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b"", []),
        (b"a", [b"a"]),
        (b"a\n", [b"a"]),
        (b"a\r\nb\r\n", [b"a", b"b"]),
        (b"\n\na\n\n", [b"", b"", b"a", b""]),
        (b"a\rb\n", [b"a\rb"]),
        (b"a\r\r\nb\r", [b"a\r", b"b"]),
        (b"\xff\0\n \n", [b"\xff\0", b" "]),
    ],
)
async def test_lines_are_cut_as_they_are(
    autojump_clock: Clock, text: bytes, lines: Sequence[bytes]
) -> None:
    """Whole, byte by byte, and with or without an end of the last; none is dropped."""
    whole = await batches_of(reader_of((0, text)))
    single = await batches_of(reader_of(*((0, text[i : i + 1]) for i in range(len(text)))))
    assert [line for _, batch in whole for line in batch] == lines
    assert [line for _, batch in single for line in batch] == lines


async def test_a_line_that_comes_alone_waits_for_a_moment(autojump_clock: Clock) -> None:
    """From the first line on, not from the last; of silence before it nothing is waited for."""
    slowly = [(12 + 0.04 * number, b"c\n") for number in range(5)]
    batches = await batches_of(reader_of((10, b"a\n"), (10.04, b"b\n"), *slowly, end=20))
    assert batches == [
        (10.05, [b"a", b"b"]),
        (12.05, [b"c", b"c"]),
        (12.13, [b"c", b"c"]),
        (12.21, [b"c"]),
    ]


async def test_half_a_line_is_no_line(autojump_clock: Clock) -> None:
    """A line without its end belongs to the batch in which it ends."""
    batches = await batches_of(reader_of((0, b"a\nb"), (1, b"c\nd"), end=2))
    assert batches == [(0.05, [b"a"]), (1.05, [b"bc"]), (2, [b"d"])]


async def test_a_batch_has_a_bound(autojump_clock: Clock) -> None:
    """A batch is limited in lines and bytes; a full one is returned at once."""
    batches = await batches_of(reader_of((0, b"a\n" * 1200), end=1))
    assert [(when, len(lines)) for when, lines in batches] == [(0, 500), (0, 500), (0.05, 200)]
    large = b"x" * 600_000 + b"\n"
    batches = await batches_of(reader_of((0, large * 5), end=1))
    assert [(when, len(lines)) for when, lines in batches] == [(0, 2), (0, 2), (0.05, 1)]


async def test_a_line_has_a_bound(autojump_clock: Clock) -> None:
    """The lines before it are returned; then each call raises."""
    reader = reader_of((0, b"a\nb\n" + b"x" * 2**21), (0.01, b"x"), (0.02, b"x\n"))
    assert await reader.batch() == [b"a", b"b"]
    for _ in range(2):
        with pytest.raises(LineTooLong, match="longer than 2097152 bytes"):
            await reader.batch()
    for end in (b"\n", b"\na\n", b""):
        longest = b"x" * 2**21
        assert [len(line) for line in await reader_of((0, longest + end)).batch()][:1] == [2**21]
        with pytest.raises(LineTooLong):
            await reader_of((0, longest + b"x" + end)).batch()
