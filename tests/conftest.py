"""What every test run has."""

import os

import pytest
from hypothesis import HealthCheck, settings

# Looks for processes and sockets that tests leave behind.
pytest_plugins = ["left_behind"]

# Hypothesis fails an example that takes 0.2 s, and data that is slow to make: no test is to fail
# because the machine is busy.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("short", settings.get_profile("patient"), max_examples=10)
settings.register_profile("thorough", settings.get_profile("patient"), max_examples=1000)
settings.load_profile(os.environ.get("PENSTOCK_TEST_PROFILE", "patient"))

# The modules that take longest; no worker is to begin with one when the others have finished.
LONGEST = (
    *("test_proxies", "test_doctor", "test_stalled", "test_page_scenarios", "test_demo_scenarios"),
    *("test_page_accessibility", "test_browser", "test_page", "test_readers", "test_faults"),
    *("test_event_source", "test_storm", "test_lifespan", "test_resume", "test_doctor_proxies"),
    *("test_durability", "test_demo_hub_stop", "test_listen_publish", "test_serve", "test_drain"),
    *("test_listen_format", "test_hub_model", "test_cursor", "test_doctor_examination"),
    *("test_no_leaks", "test_open_app", "test_house", "test_log_contract", "test_open_client"),
)


@pytest.hookimpl(trylast=True)  # when each test has its marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> tuple[bool, int]:
        name = item.path.stem
        longest = LONGEST.index(name) if name in LONGEST else len(LONGEST)
        return item.get_closest_marker("interop") is not None, longest

    # Unit tests come first: they tell soonest.
    items.sort(key=place)
