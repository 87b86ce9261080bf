"""The check at the end of a test run, in runs of their own."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from left_behind import listening

PLUGIN = Path(__file__).with_name("left_behind.py")

# The middle one of three processes ends; the last is in a session of its own, and listens.
LEAVES_AN_ORPHAN = """
import subprocess, sys

LAST = '''
import socket, sys, time
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
time.sleep(600)
'''
MIDDLE = f'''
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", {LAST!r}], start_new_session=True).pid, flush=True)
'''

def test_leaves():
    with subprocess.Popen([sys.executable, "-c", MIDDLE], stdout=subprocess.PIPE) as process:
        pid, port = int(process.stdout.readline()), int(process.stdout.readline())
    print(f"<{pid} {port}>")
"""

LEAVES_A_SOCKET = """
import socket
kept = []

def test_leaves():
    kept.append(socket.create_server(("127.0.0.1", 0)))
    print(f"<0 {kept[0].getsockname()[1]}>")
"""

CLEAN = """
import subprocess, sys, pytest

@pytest.fixture(scope="session")
def process():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process

def test_one(process):
    assert process.poll() is None

def test_two(process):
    assert process.poll() is None
"""


def run(folder: Path, *options: str, **modules: str) -> subprocess.CompletedProcess[str]:
    (folder / "pytest.ini").touch()  # so that no project above it counts
    (folder / "conftest.py").write_text(PLUGIN.read_text())
    for name, tests in modules.items():
        (folder / f"test_{name}.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-q", "-rP", "-p", "no:cacheprovider"]
    command += ["-p", "xdist", *options, "."]
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "in parallel"])
def test_what_is_left_fails_the_run(options: tuple[str, ...], tmp_path: Path) -> None:
    """An orphan that listens is named with its test, and is gone afterwards; so is a socket."""
    ran = run(tmp_path, *options, orphan=LEAVES_AN_ORPHAN, socket=LEAVES_A_SOCKET, clean=CLEAN)
    made = re.search(r"<([1-9]\d*) (\d+)>", ran.stdout)
    assert made is not None, ran.stdout
    pid, port = made.groups()
    said = rf"process {pid} \(.*\), listening on port {port}, since test_orphan.py::test_leaves"
    assert re.search(rf"(?s)left behind by the tests.*{said}", ran.stdout), ran.stdout
    assert ran.returncode == pytest.ExitCode.TESTS_FAILED
    assert not Path(f"/proc/{pid}").exists()
    made = re.search(r"<0 (\d+)>", ran.stdout)
    assert made is not None, ran.stdout
    said = rf"socket port {made[1]} listens in the test process, since test_socket.py::test_leaves"
    assert re.search(said, ran.stdout), ran.stdout
    assert len(re.findall(", since ", ran.stdout)) == 2, ran.stdout


CRASHES = (
    LEAVES_AN_ORPHAN
    + """
    import os
    os._exit(1)
"""
)


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_what_a_crashed_worker_leaves(tmp_path: Path) -> None:
    """A worker of a parallel run that ends at once can name nothing; the run does, and kills it."""
    ran = run(tmp_path, "-n", "1", "--max-worker-restart=0", it=CRASHES)
    said = (
        r"process (\d+) \(.*time.sleep\(600\).*\), listening on port \d+, since the end of the run"
    )
    left = re.search(rf"(?s)left behind by the tests.*{said}", ran.stdout)
    assert left is not None, ran.stdout
    assert not Path(f"/proc/{left[1]}").exists()


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "in parallel"])
def test_what_is_ended_does_not(options: tuple[str, ...], tmp_path: Path) -> None:
    """A process of a fixture is not left behind when the fixture ends it."""
    ran = run(tmp_path, *options, it=CLEAN)
    assert ran.returncode == 0, ran.stdout
    assert "left behind" not in ran.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_a_socket_whose_name_has_lines(tmp_path: Path) -> None:
    """Anybody's socket may have such a name, which the kernel's table shows as it is."""
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as listener:
        other.bind(str(tmp_path / "a\nb c\u2028d"))
        listener.bind(str(tmp_path / "e f"))
        listener.listen()
        assert str(tmp_path / "e f") in listening(os.getpid())
