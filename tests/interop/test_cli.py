"""Bad input at the command line: one line on stderr, the right status, no traceback."""

from __future__ import annotations

import errno
import importlib
import os
import socket
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import forked
import pytest
from processes import PENSTOCK, serving

from penstock import cli
from penstock.cli import serve
from penstock.cli.addresses import DEFAULT_ADDRESS
from penstock.hypercorn import Settings


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `penstock` as a fork: a process that has the command line's modules."""
    return _read(forked.run(PENSTOCK, *arguments, cwd=cwd))


def run_really(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `penstock` as its users do."""
    command = [PENSTOCK, *arguments]
    devnull = subprocess.DEVNULL
    return _read(subprocess.run(command, stdin=devnull, capture_output=True, timeout=60, cwd=cwd))


def _read(ran: subprocess.CompletedProcess[bytes]) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess(
        ran.args, ran.returncode, ran.stdout.decode(), ran.stderr.decode()
    )


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "text.py").write_text("app = 'text'")
    (tmp_path / "callables.py").write_text(
        "def factory(): ...\nasync def view(): ...\ndef wsgi(environ, start_response): ...\n"
        "class Class:\n    def __init__(self, *args): ...\n"
    )
    (tmp_path / "asyncio_app.py").write_text("from quart import Quart\napp = Quart('x')")
    (tmp_path / "needs_more.py").write_text("import no_such_dependency")
    (tmp_path / "bad_value.py").write_text("PORT = int('no number')")
    (tmp_path / "bad_name.py").write_text("import os\nos.no_such_thing")
    (tmp_path / "colorsys.py").write_text("app = 'this one, and not that of Python'")
    (tmp_path / "starts_badly.py").write_text(
        "from quart_trio import QuartTrio\n"
        "app = QuartTrio('x')\n"
        "@app.before_serving\n"
        "async def connect(): raise RuntimeError('the database is away')\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["serve", "no.such:app"], 2, "no module 'no' for 'no.such:app': check its spelling"),
        (["serve", "empty:missing"], 2, "module 'empty' has no 'missing'"),
        (["serve", "empty.deeper:app"], 2, "no module 'empty.deeper'"),
        (["serve", "empty"], 2, "'empty' is not MODULE:APP, such as empty:app"),
        (
            ["serve", "text.py:app"],
            2,
            "'text.py' is a file: give the module's name, text:app",
        ),
        (["serve", ":app"], 2, "is not MODULE:APP"),
        (["serve", "text.py"], 2, "'text.py' is not MODULE:APP, such as text:app"),
        (["serve", "1 2:app"], 2, "no module '1 2'"),
        (
            ["serve", "text:app"],
            2,
            "'text:app' is not an ASGI application but str: give an object such as",
        ),
        (["serve", "colorsys:app"], 2, "'colorsys:app' is not an ASGI application but str"),
        (["serve", "asyncio_app:app"], 2, "is a Quart application for asyncio: use QuartTrio"),
        (
            ["serve", "callables:factory"],
            2,
            "'callables:factory' is not an ASGI application but function",
        ),
        (["serve", "callables:Class"], 2, "is not an ASGI application but type: give an object"),
        (["serve", "callables:view"], 2, "is not an ASGI application but function"),
        (["serve", "callables:wsgi"], 2, "is not an ASGI application but function"),
        (["serve", "--bind", "unix:"], 2, "has no path, such as unix:/run/penstock/penstock.sock"),
        (["serve", "--bind", "unix:empty.py"], 1, "A file that is not a socket is there: remove"),
        (["serve", "--bind", "unix:no/such"], 1, "No such file or directory: choose another path"),
        (["serve", "--bind", f"unix:{'x' * 200}"], 1, "AF_UNIX path too long: choose another path"),
        (["serve", "--bind", "fd://x"], 2, "has no descriptor number, such as fd://3"),
        (["serve", "--bind", "fd://99"], 1, "Bad file descriptor: the parent process has to"),
        (["serve", "--bind", "fd://0"], 1, "cannot listen on fd://0: "),
        (["serve", "--bind", "nonsense"], 2, "'nonsense' is not HOST:PORT, such as 127.0.0.1:8080"),
        (["serve", "--bind", ":8080"], 2, "is not HOST:PORT"),
        (["serve", "--bind", "[]:8080"], 2, "is not HOST:PORT"),
        (["serve", "--bind", "[localhost]:8080"], 2, "is not HOST:PORT"),
        (["serve", "--bind", "loc\udcffal:80"], 2, "is not HOST:PORT"),
        (["serve", "--bind", "a\nb:80"], 2, "is not HOST:PORT"),
        (["serve", "--bind", "localhost:²"], 2, "no port from 0 to 65535"),
        (["serve", "--bind", "localhost:" + "1" * 5000], 2, "no port from 0 to 65535"),
        (["serve", "--bind", "[::x]:80"], 1, "cannot listen on [::x]:80: no such host"),
        (["serve", "--bind", "a..b:80"], 1, "cannot listen on a..b:80: no such host"),
        (["serve", "--bind", "::1:80"], 2, "such as 127.0.0.1:8080 or [::1]:8080"),
        (["serve", "--bind", "localhost:http"], 2, "no port from 0 to 65535"),
        (["serve", "--bind", "localhost:65536"], 2, "no port from 0 to 65535"),
        (["serve", "--bind", "localhost:-1"], 2, "no port from 0 to 65535"),
        (["serve", "--bind", "203.0.113.1:0"], 1, "cannot listen on 203.0.113.1:0: "),
        (
            ["serve", "--bind", "no.such.host.invalid:0"],
            1,
            "no such host: choose an address of",
        ),
        (["serve", "--colour"], 2, "See penstock serve --help."),
        (["serve", "a:b", "c:d"], 2, "unexpected extra argument"),
        (["sreve"], 2, "No such command 'sreve'. Did you mean 'serve'? See penstock --help."),
    ],
)
def test_one_line_that_says_what_to_do(
    arguments: list[str], status: int, says: str, modules: Path
) -> None:
    """An expected error names the thing and the remedy."""
    # Of each status, one is asked of the command itself.
    real = arguments[-1] in ("no.such:app", "unix:no/such")
    ran = (run_really if real else run)(*arguments, cwd=modules)
    assert ran.returncode == status
    assert ran.stdout == ""
    assert ran.stderr.startswith("penstock: ")
    assert says in ran.stderr
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("host", "family", "shown"),
    [("127.0.0.1", socket.AF_INET, "127.0.0.1"), ("::1", socket.AF_INET6, "[::1]")],
)
def test_a_port_in_use(host: str, family: socket.AddressFamily, shown: str) -> None:
    """The address is named, and a remedy."""
    with socket.create_server((host, 0), family=family) as taken:
        where = f"{shown}:{taken.getsockname()[1]}"
        ran = run("serve", "--bind", where)
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert ran.stderr == (
        f"penstock: cannot listen on {where}: Address already in use: "
        "stop the program that uses it, or choose another port, with --bind\n"
    )


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Make port 1 one that this process may not have, as root or not."""
    importlib.import_module("penstock.demo.application")  # which this user may not be able to read
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.usefixtures("unprivileged")
def test_a_port_without_permission(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ports below 1024 are for the superuser on most systems."""
    try:
        socket.create_server(("127.0.0.1", 1)).close()
    except PermissionError:
        pass
    else:  # a container may allow every port: the kernel's answer is given in its place

        def refuse(*args: object, **options: object) -> socket.socket:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(socket, "create_server", refuse)
    monkeypatch.setattr("sys.argv", ["penstock", "serve", "--bind", "127.0.0.1:1"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "penstock: no permission to listen on 127.0.0.1:1: "
        "choose a port of 1024 or above, with --bind\n"
    )


def test_an_application_that_does_not_start(modules: Path) -> None:
    """Its own traceback is in the log; the last line says that it did not start, and why."""
    ran = run_really("serve", "starts_badly:app", "--bind", "127.0.0.1:0", cwd=modules)
    assert ran.returncode == 1
    assert ran.stdout == ""
    last = ran.stderr.splitlines()[-1]
    assert last.startswith("penstock: starts_badly:app did not start: ")
    assert "the database is away" in last
    assert ran.stderr.count("Traceback") == 1


@pytest.mark.parametrize(
    ("module", "error"),
    [
        ("needs_more", "ModuleNotFoundError: No module named 'no_such_dependency'"),
        ("bad_value", "ValueError: invalid literal for int() with base 10: 'no number'"),
        ("bad_name", "AttributeError: module 'os' has no attribute 'no_such_thing'"),
    ],
)
def test_a_fault_in_the_application_is_for_its_author(
    module: str, error: str, modules: Path
) -> None:
    """Its traceback begins in the module, and the last line says what could not be done."""
    ran = (run_really if module == "needs_more" else run)("serve", f"{module}:app", cwd=modules)
    assert ran.returncode == 1
    first, where, *_, raised, last = ran.stderr.splitlines()
    assert first == "Traceback (most recent call last):"
    assert where.startswith(f'  File "{modules / module}.py", line ')
    assert raised == error
    assert last == f"penstock: {module!r} cannot be imported: {error}"


@pytest.mark.parametrize(
    ("redirect", "says"), [(">/dev/full", "No space left on device"), ("| true", "Broken pipe")]
)
def test_an_output_that_takes_nothing(redirect: str, says: str) -> None:
    """Nobody could read where the server listens: it exits with an error."""
    command = f'"{PENSTOCK}" serve --bind 127.0.0.1:0 {redirect}'
    ran = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 1
    assert ran.stderr == f"penstock: cannot write to standard output: {says}\n"


def test_tls_needs_a_certificate_and_its_key(tmp_path: Path) -> None:
    """A missing or invalid file is one line."""
    other = tmp_path / "other.pem"
    other.write_text("nothing")
    ran = run("serve", "--certfile", str(other))
    assert (ran.returncode, ran.stderr) == (
        2,
        "penstock: TLS needs both --certfile and --keyfile\n",
    )
    ran = run("serve", "--certfile", str(other), "--keyfile", str(other))
    assert ran.returncode == 1
    assert ran.stderr == (
        f"penstock: cannot use {other} with {other} for TLS: they are not a certificate and its "
        "key: give PEM files\n"
    )
    ran = run("serve", "--certfile", "away.pem", "--keyfile", str(other))
    assert ran.returncode == 2
    assert "'away.pem' does not exist" in ran.stderr


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--send-timeout", "0", "send_timeout must be a number of seconds above 0: 0.0"),
        ("--drain-window", "-1", "drain_window must be a number of seconds: -1.0"),
        ("--reconnect-spread", "soon", "Invalid value for '--reconnect-spread': 'soon'"),
        ("--max-connections", "0", "Invalid value for '--max-connections': 0 is not in"),
    ],
)
def test_settings_out_of_range(option: str, value: str, said: str) -> None:
    """One line, status 2."""
    ran = run("serve", option, value)
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"penstock: {said}")
    assert ran.stderr.count("\n") == 1


def test_defaults() -> None:
    """What help says of the default address is so."""
    assert DEFAULT_ADDRESS == "127.0.0.1:8080"
    settings = Settings()
    config = serve._config(None, None, None, settings)
    assert config.graceful_timeout == settings.drain_window == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SSL_CERT_FILE", "/nowhere"),
        ("SSL_CERT_FILE", "/etc/passwd"),
        ("HTTP_PROXY", "ftp://a"),
        ("HTTP_PROXY", "socks9://a"),
        ("HTTP_PROXY", "socks5://127.0.0.1:1"),
        ("HTTP_PROXY", "http://[::1"),
    ],
)
def test_an_environment_that_is_wrong(name: str, value: str) -> None:
    """What asks a server says so before it asks."""
    env = {**os.environ, name: value}
    for command, status in ((("listen",), 1), (("publish", "--topic=a"), 1), (("doctor",), 2)):
        ran = _read(forked.run(PENSTOCK, *command, "http://127.0.0.1:1/", env=env))
        assert (ran.returncode, ran.stdout) == (status, "")
        said = "penstock: the environment names a proxy or certificates that cannot be used: "
        assert ran.stderr.startswith(said)
        assert ran.stderr.count("\n") == 1


def test_ctrl_c_before_trio_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """While modules are imported, Ctrl-C ends the process as it ends any other."""

    def interrupted(**options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.cli, "main", interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130


def test_version_and_help() -> None:
    """Both are for people, and on stdout."""
    assert run_really("--version").stdout == f"penstock, version {version('penstock')}\n"
    for arguments in (["--help"], ["-h"], ["serve", "--help"]):
        ran = run(*arguments)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert "penstock serve shop:app --bind 0.0.0.0:80" in ran.stdout
    said = " ".join(ran.stdout.split())
    for default in (
        "[default: the sockets of systemd, or 127.0.0.1:8080]",
        "[default: no-http2]",
        "streams to end. [default: 5]",
        "idle for this long. [default: 130]",
    ):
        assert default in said
    assert run().stdout == run_really("--help").stdout
    for said in ("serve    Serve an application,", "publish  Publish", "listen   Print the events"):
        assert said in run().stdout


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["--help"], {"trio", "hypercorn", "quart", "httpx2"}),
        (["serve", "--help"], {"httpx2"}),
        (["listen", "--help"], {"hypercorn", "quart"}),
        (["publish", "--help"], {"hypercorn", "quart"}),
        (["doctor", "--help"], {"hypercorn", "quart"}),
    ],
)
def test_what_another_command_needs_is_not_imported(arguments: list[str], absent: set[str]) -> None:
    """None is slower to start for what the others do."""
    code = (
        "import sys\nfrom penstock.cli import main\n"
        "try:\n    main()\nfinally:\n    print(*sys.modules, sep='\\n')"
    )
    python = str(Path(PENSTOCK).with_name("python"))
    ran = subprocess.run(
        [python, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    assert "penstock" in ran.stdout
    assert not absent & set(ran.stdout.split())


def test_python_m_penstock(tmp_path: Path) -> None:
    """The module does what the command does."""
    python = str(Path(PENSTOCK).with_name("python"))
    arguments = (python, "-m", "penstock", "serve", "--bind", "127.0.0.1:0")
    with serving(*arguments, folder=tmp_path) as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert server.stop() == 0
