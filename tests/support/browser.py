"""A headless Chromium, driven through chromedriver: its colours, its size, and the addresses that its pages request."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # nothing reaches another host
)


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """Yield Chromium with a new profile; skip if it, its driver or selenium is missing."""
    webdriver: Any = pytest.importorskip("selenium.webdriver", reason="takes selenium: make test-browser installs it")
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("takes chromium and chromium-driver: make test-browser installs them")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (*ARGUMENTS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as chrome:
        yield chrome


def show(browser: Any, scheme: str, size: tuple[int, int]) -> None:
    """Set the colour scheme that the user prefers, and the size of the window."""
    width, height = size
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def requested(browser: Any) -> list[str]:
    """Return the addresses that pages have requested since the last call, also those that could not be reached."""
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    sent = (message["params"] for message in messages if message["method"] == "Network.requestWillBeSent")
    # Chromium's own first page makes requests, too.
    return [each["request"]["url"] for each in sent if not each["documentURL"].startswith("chrome")]
