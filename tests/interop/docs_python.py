"""Runs the pages' Python: applications are served and asked, tests and scripts are run."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from docs_blocks import ANY, Block, local, write_modules
from forked import run
from processes import PENSTOCK, Curl, Server, serving

from require import require_module

# Blocks that no run here could show to be right, each with the test that does.
ELSEWHERE = {
    "async def ping(events):\n": "test_readme.test_the_trio_program_is_the_demonstration",
    "# before.py\n": "test_from_sse_starlette.test_the_stream_says_the_same",
    "# before_news.py\n": "test_from_sse_starlette.test_the_news_are_the_same",
}

# Libraries that a page shows beside Penstock, which depends on none of them.
OPTIONAL = ["trio_asyncio"]

# An application, and lines that are to be put behind one of the reader's.
_HAS_APP = re.compile(r"(?m)^app = |^from \w+ import app$")
_CONTINUES = re.compile(r"(?m)^@?app\.")

# Prints the paths that an application answers to GET; a variable part is "1".
_PATHS = """
import importlib, json, re, sys
app = importlib.import_module(sys.argv[1]).app
rules = [rule for rule in app.url_map.iter_rules() if "GET" in (rule.methods or ())]
print(json.dumps([re.sub("<.*?>", "1", r.rule) for r in rules if r.endpoint != "static"]))
"""


def run_python(block: Block, folder: Path) -> None:
    """Run a block as what it is; fail if it fails, or has nothing to run."""
    if any(block.source.startswith(start) for start in ELSEWHERE):
        return
    for name in OPTIONAL:
        if f"import {name}\n" in block.source:
            require_module(name)
    write_modules(block.page, folder)
    path = folder / f"{block.module}.py"
    source = local(block.source)
    if _CONTINUES.search(source) and not _HAS_APP.search(source):
        source = f"from {ANY} import app\n{source}"
    path.write_text(source)
    if re.search(r"(?m)^(async )?def test_", source):
        (folder / "pytest.ini").touch()  # so that no project above it counts
        # The fork that it runs in has imported Penstock, which is no fault of the block.
        warnings = ("-W", "error", "-W", "ignore:Module already imported")
        test = ("-m", "pytest", "-q", *warnings, "-p", "no:cacheprovider", path.name)
        said = _run(*test, folder=folder)
        assert re.search(r"(?m)^\d+ passed in", said), said  # and none was skipped
        return
    serves = 'if __name__ == "__main__":' in source and "serve" in source
    if _HAS_APP.search(source):
        _ask_for_streams(block, folder)
    elif not serves:
        _run("-W", "error", path.name, folder=folder)
    if serves:
        with serving(sys.executable, "-W", "error", path.name, folder=folder, cwd=folder) as server:
            assert server.url
            assert server.stop() == 0, server.log


def _run(*arguments: str, folder: Path) -> str:
    ran = run(sys.executable, *arguments, cwd=folder)
    assert ran.returncode == 0, (ran.stdout + ran.stderr).decode()
    return ran.stdout.decode()


def _ask_for_streams(block: Block, folder: Path) -> None:
    """Serve an application; each of its streams has to begin, one at least, and none may fail."""
    paths = json.loads(_run("-c", _PATHS, block.module, folder=folder))
    command = (PENSTOCK, "serve", f"{block.module}:app", "--bind", "127.0.0.1:0")
    with serving(*command, folder=folder, cwd=folder) as server:
        streams = [path for path in paths if _streams(server, path)]
        assert streams, f"none of {paths} is a stream"
        assert server.stop() == 0
        assert not re.search("Traceback|ERROR", server.log), server.log


def _streams(server: Server, path: str) -> bool:
    """Ask for a path, and tell whether it answers with events."""
    with Curl("-i", "--max-time", "20", f"{server.url}{path}") as client:
        head = b""
        while (line := client.lines.readline()).strip():
            head += line.lower()
        status = int(head.split()[1])
        assert status < 500, head
        if b"content-type: text/event-stream" not in head:
            return False
        assert status == 200
        assert client.lines.readline() == b":\n"
        fields = iter(client.lines.readline, b"")
        assert any(re.match(b"(data|event|id|retry): ", line) for line in fields), path
        return True
