"""`penstock doctor` as a process, and what it said."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass

from forked import run
from processes import PENSTOCK

DOCTOR = (PENSTOCK, "doctor")


@dataclass(frozen=True)
class Said:
    """What it printed, and its status."""

    status: int
    out: str
    err: str

    @property
    def checks(self) -> dict[str, str]:
        """Each check with its mark."""
        rows = re.findall(r"(?m)^(ok|warn|FAIL|skip) +(\w+(?: \w+)?) ", self.out)
        return {check: mark for mark, check in rows}

    def line(self, check: str) -> str:
        """Return a check's line, and the advice below it."""
        found = re.search(rf"(?m)^\w+ +{check} +(.*(?:\n +- .*)*)", self.out)
        assert found, self.out
        return found[1]


def said_by(ran: subprocess.CompletedProcess[bytes]) -> Said:
    said = Said(ran.returncode, ran.stdout.decode(), ran.stderr.decode())
    assert "Traceback" not in said.err
    return said


def doctor(*arguments: str, **env: str) -> Said:
    """Run it to its end."""
    return said_by(run(*DOCTOR, *arguments, env={**os.environ, **env}))
