"""What every test run has."""

import os

from hypothesis import HealthCheck, settings

# Looks for processes and sockets that tests leave behind.
pytest_plugins = ["left_behind"]

# Hypothesis fails an example that takes 0.2 s, and data that is slow to make: no test is to fail
# because the machine is busy.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("short", settings.get_profile("patient"), max_examples=10)
settings.register_profile("thorough", settings.get_profile("patient"), max_examples=1000)
settings.load_profile(os.environ.get("PENSTOCK_TEST_PROFILE", "patient"))
