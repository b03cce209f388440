"""Debian's chromium, driven by selenium, for the tests of pages and of the app; nothing is downloaded for it."""

import json
import shutil
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars"
).split()


@contextmanager
def browser(folder, width=1200, height=900):
    """A browser with a profile of its own in ``folder``; skips the test where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium: pip install selenium")
    if not (CHROMIUM and DRIVER):
        pytest.skip("no chromium and chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def fetched(driver) -> set[str]:
    """The hosts, or schemes where there is none, of all that was asked for since the last call."""
    found = set()
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            address = urlsplit(message["params"]["request"]["url"])
            if not address.scheme.startswith("chrome"):  # the browser's own first page
                found.add(address.hostname or address.scheme)
    return found


def complaints(driver) -> list[str]:
    """What the console says."""
    return [entry["message"] for entry in driver.get_log("browser")]
