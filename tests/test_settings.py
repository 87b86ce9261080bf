"""Settings: named, checked when they are made, and found in Hypercorn's configuration."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypercorn.config import Config

from penstock.errors import InvalidSettings
from penstock.hypercorn import Server, Settings


async def app(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nobody asks it")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("send_timeout", 0, "send_timeout must be a number of seconds above 0: 0"),
        ("send_timeout", "5", "send_timeout must be a number of seconds above 0: '5'"),
        ("send_timeout", None, "send_timeout must be a number of seconds above 0: None"),
        ("send_timeout", float("nan"), "send_timeout must be a number of seconds above 0: nan"),
        ("drain_window", -1, "drain_window must be a number of seconds: -1"),
        ("reconnect_spread", True, "reconnect_spread must be a number of seconds: True"),
        ("http2", 1, "http2 must be true or false: 1"),
        ("max_connections", 0, "max_connections must be a whole number above 0: 0"),
        ("max_connections", 1.5, "max_connections must be a whole number above 0: 1.5"),
        ("health", "-", "health must be a path such as '/-', or None: '-'"),
        ("health", "/-/", "health must be a path such as '/-', or None: '/-/'"),
        ("send_buffer", True, "send_buffer must be a whole number above 0: True"),
    ],
)
def test_a_setting_out_of_range_is_refused(name: str, value: object, said: str) -> None:
    """In one line that names it and says what it must be."""
    with pytest.raises(InvalidSettings) as refused:
        Settings(**{name: value})  # type: ignore[arg-type]
    assert str(refused.value) == said


def test_zero_and_none_where_they_mean_something() -> None:
    """No window, no spread; and kernel options that are left alone."""
    Settings(drain_window=0, reconnect_spread=0)
    Settings(tcp_user_timeout=None, tcp_keep_alive=None, send_buffer=None, health=None)


def test_every_setting_says_what_it_is_for() -> None:
    """Each has a documentation string behind it."""
    source = inspect.getsource(Settings)
    for field in fields(Settings):
        assert f"    {field.name}: " in source
        after = source.partition(f"    {field.name}: ")[2].split("\n", 2)[1]
        assert after.startswith('    """'), field.name


def test_a_toml_file_of_hypercorn_has_them_in_a_table(tmp_path: Path) -> None:
    """The table [penstock] is Hypercorn's way to hand them over."""
    file = tmp_path / "hypercorn.toml"
    file.write_text("keep_alive_timeout = 7\n[penstock]\nsend_timeout = 3\nhttp2 = true\n")
    config: Any = Config.from_toml(file)
    assert Settings.from_config(config) == Settings(send_timeout=3, http2=True)
    assert Settings.from_config(Config()) == Settings()
    config.penstock = Settings(max_connections=5)
    assert Settings.from_config(config).max_connections == 5


def test_a_setting_that_does_not_exist_is_named() -> None:
    """With those that do."""
    config: Any = Config()
    config.penstock = {"send_timeuot": 3}
    unknown = "unknown setting 'send_timeuot'; the settings are body"
    with pytest.raises(InvalidSettings, match=unknown):
        Settings.from_config(config)
    config.penstock = 3
    with pytest.raises(InvalidSettings, match="penstock must be a table of settings"):
        Server(app, config)


def test_http_3_is_refused() -> None:
    """A configuration that asks for it is told why, before anything is bound."""
    config = Config()
    config.quic_bind = ["127.0.0.1:0"]
    with pytest.raises(InvalidSettings, match="quic_bind: remove it; HTTP/3 is not supported"):
        Server(app, config)


def test_idle_connections_are_kept_longer_than_proxies_keep_them() -> None:
    """Unless Hypercorn's configuration says how long; and that is not changed."""
    config = Config()
    assert Server(app, config)._config.keep_alive_timeout == 130
    assert Server(app, config, settings=Settings(keep_alive_timeout=9))._config is not config
    assert config.keep_alive_timeout == 5
    config.keep_alive_timeout = 5
    assert Server(app, config)._config.keep_alive_timeout == 5
