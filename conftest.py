"""What every test run has: see the plugin's own docstring."""

pytest_plugins = ["left_behind"]
