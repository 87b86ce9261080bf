"""Figures that say how fast something is: printed always, judged only where they are measured."""

from __future__ import annotations

import os

JUDGED = os.environ.get("PENSTOCK_TEST_FIGURES") == "judged"


def figure(kept: bool, text: str) -> None:
    """Print a figure; fail if it is not what it should be and figures are judged.

    `nox -s interop` judges them, on a machine with nothing else to do. Elsewhere another program
    may have the processor, which is no fault of the server's.
    """
    print(text)
    assert kept or not JUDGED, text
