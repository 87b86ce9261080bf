"""The short form of what `nox -s durability` does fifty times."""

from __future__ import annotations

import pytest
from durability_client import Publisher

import durability

pytestmark = pytest.mark.interop


def test_what_was_acknowledged_outlives_sigkill(capsys: pytest.CaptureFixture[str]) -> None:
    """Five times, at a random moment: it is there, in its order, once."""
    assert durability.run(5, seed=4) == 0
    assert "all there in their order, once" in capsys.readouterr().out


def test_a_history_that_lost_something_is_noticed() -> None:
    """The verdict names what is missing, doubled, out of order, or in part."""
    publisher = Publisher("p", 10, acknowledged=20, unknown=10)
    whole = [f"p {number}" for number in range(20)]
    assert durability.verdict([publisher], whole) == []
    assert durability.verdict([publisher], [f"p {number}" for number in range(30)]) == []
    for bad in (
        whole[:-1],
        whole[1:],
        [*whole, "p 19"],
        [*whole[:5], whole[6], whole[5], *whole[7:]],
        [*whole, "p 20"],
        [*whole, "q 1"],
    ):
        assert durability.verdict([publisher], bad), bad
