"""The status page of a real daemon in a headless Chromium: light, dark and narrow, and loaded again by itself."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import chromium, show
from support.cli import CHECKOUT
from support.daemon import Daemon, StartDaemon
from support.instance import Instance
from support.waiting import wait_until

from binfmtd.report.page import REFRESH

SHOTS = CHECKOUT / "build/page"
WIDE, MIDDLE, NARROW = (1100, 900), (900, 900), (360, 740)
SMALLEST_LABEL, LEAST_WIDTH = 11, 120  # pixels
READABLE = 4.5  # contrast of text, https://www.w3.org/TR/WCAG22/#contrast-minimum
CONFIG = r"""
architectures = []
[metrics]
listen = "127.0.0.1:{port}"
[handlers.one]
magic = '\x00one'
interpreter = "/usr/bin/true"
[handlers.two]
magic = '\x00two'
interpreter = "/nowhere/{two}"
[handlers.off]
magic = '\x00off'
interpreter = "/usr/bin/true"
enabled = false
"""
# The size of each label of the plot, in pixels on the screen: an SVG may be scaled.
LABELS = """
return [...document.querySelectorAll("svg text")]
    .map(each => parseFloat(getComputedStyle(each).fontSize) * each.getScreenCTM().d);
"""
# The page and its parts that would scroll sideways.
TOO_WIDE = """
return [document.documentElement, ...document.querySelectorAll(".scroll")]
    .filter(each => each.scrollWidth > each.clientWidth).map(each => each.outerHTML);
"""
# The width of each reason, in pixels: a narrow column of text makes a tall gap beside it.
REASONS = """
return [...document.querySelectorAll(".handlers td:last-child:not(:empty)")]
    .map(each => each.getBoundingClientRect().width);
"""
# The contrast of each state's text with the background behind it, by the formula of that page.
CONTRASTS = """
const channels = text => text.match(/[0-9.]+/g).slice(0, 3).map(Number);
const light = text => channels(text).map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, place) => sum + c * [0.2126, 0.7152, 0.0722][place], 0);
const back = light(arguments[0]);
return [...document.querySelectorAll(".state")].map(each => {
    const text = light(getComputedStyle(each).color);
    return (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05);
});
"""


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    """Yield Chromium."""
    with chromium(tmp_path / "profile") as chrome:
        yield chrome


@pytest.fixture
def page(browser: Any, start_daemon: StartDaemon, port: int) -> tuple[Any, Daemon]:
    """Return the browser with the page of a daemon, and the daemon."""
    daemon = start_daemon(CONFIG.format(port=port, two="two" * 20))  # too long for one line of a narrow window
    browser.get(f"http://127.0.0.1:{port}/status")
    return browser, daemon


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, MIDDLE, NARROW], ids=["wide", "middle", "narrow"])
def test_it_can_be_read(page: tuple[Any, Daemon], instance: Instance, scheme: str, size: tuple[int, int]) -> None:
    """Each state has enough contrast, each label of the plot and each reason enough room, and nothing is too wide."""
    browser, daemon = page
    instance.register(b":" + b"x" * 200 + b":E::alien::/usr/bin/true:")
    instance.remove("one")
    daemon.wait_status(lambda status: status["repairs"] and status["foreign"], what="the repair and the foreign entry")
    show(browser, scheme, size)

    def plot() -> Any:
        browser.refresh()
        return browser.find_elements("css selector", "svg rect") and "Foreign" in browser.page_source

    wait_until(plot, what="the page with the repair and the foreign entry")
    background = {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 18, 18)"}[scheme]
    assert browser.execute_script("return matchMedia('(prefers-color-scheme: dark)').matches") == (scheme == "dark")
    contrasts = browser.execute_script(CONTRASTS, background)
    assert len(contrasts) == 4  # the daemon's, and those of the three handlers
    assert min(contrasts) >= READABLE
    labels = browser.execute_script(LABELS)
    assert len(labels) == 4  # 0.1 to 100 ms
    assert min(labels) >= SMALLEST_LABEL
    assert min(browser.execute_script(REASONS)) >= LEAST_WIDTH
    assert browser.execute_script(TOO_WIDE) == []
    SHOTS.mkdir(parents=True, exist_ok=True)
    assert browser.save_screenshot(str(SHOTS / f"{scheme}-{size[0]}.png"))


def test_what_needs_attention_is_on_top(page: tuple[Any, Daemon]) -> None:
    """The handler that waits is the first one, with its reason; no script is in the page."""
    browser, _ = page
    show(browser, "light", WIDE)
    text = browser.execute_script("return document.body.innerText")
    assert browser.title == "binfmtd: waiting"
    assert text.index("Not in order (1)") < text.index("In order (2)")
    assert re.search(r"waiting\s+two\b.*no executable file at /nowhere/two", text)
    assert browser.find_elements("tag name", "script") == []


def test_a_repair_appears_by_itself(page: tuple[Any, Daemon], instance: Instance) -> None:
    """Without a click the page gets the repair of an entry that another program removed, with a bar in the plot."""
    browser, daemon = page
    instance.remove("one")
    daemon.wait_status(lambda status: status["repairs"] == 1, what="the repair")

    def page_with_the_repair() -> str:  # as one text: an element may be gone, since the page loads itself again
        source = str(browser.page_source)
        return source if "one removed by another process" in source and "</footer>" in source else ""

    assert wait_until(page_with_the_repair, 4 * REFRESH, "the page with the repair").count("<rect ") == 1
