"""The page for people."""

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

from binfmtd.report.counts import Counts
from binfmtd.report.page import REFRESH, render_page
from binfmtd.report.snapshot import Snapshot
from binfmtd.report.status import HANDLER_STATES

CLOSED_BY_THEMSELVES = {"meta", "br"}
NOW = datetime(2026, 1, 2, 3, 5, 6, tzinfo=UTC).timestamp()


def repair(name: str, served_ms: float | None, took_ms: float | None, at: str = "2026-01-02T03:04:06.000+00:00") -> Any:
    """Return a row of the history."""
    return {
        "first_at": at,
        "at": at,
        "event": "repaired",
        "entry": name,
        "times": 1,
        "drift": "missing",
        "reason": "removed by another process",
        "detail": None,
        "served_ms": served_ms,
        "took_ms": took_ms,
        "pass": None,
    }


class Reader(HTMLParser):
    """The parts of a page: its tags, links and words."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in CLOSED_BY_THEMSELVES:
            self.open.append(tag)
        self.links += [value or "" for key, value in attrs if key in {"href", "src"}]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_what_the_page_shows(document: dict[str, Any]) -> None:
    """The page shows state, problem, handlers with their reasons, pauses and foreign entries."""
    page = Reader(render_page(document, ["qemu-waiting is waiting: why"], NOW).decode())
    text = " ".join(page.words)
    for row in document["handlers"]:
        assert row["state"] in text
    for words in (
        "binfmtd: degraded",
        "something is wrong",
        "it says nonsense",
        "why & where",
        "qemu-waiting is waiting: why",
        "qemu-paused until resumed",
        "until 2026-01-02 03:04:05 UTC",
        "python3.13 (disabled)",
        '<b>"odd"\\\\n\\xff',
    ):
        assert words in text
    assert page.open == []


def test_what_is_not_listed_is_counted(document: dict[str, Any]) -> None:
    """Of many foreign entries the page lists some, and the heading has the number of all."""
    page = Reader(render_page(document | {"foreign_count": {"enabled": 16_000, "disabled": 600}}, [], NOW).decode())
    assert "Foreign entries (16600)" in page.words
    assert "and 16598 more" in page.words


def test_nothing_in_it_acts_or_comes_from_elsewhere(document: dict[str, Any]) -> None:
    """The page has no script, no image and no address but our own; a name with tags in it stays text."""
    page = Reader(render_page(document, [], NOW).decode())
    assert page.tags <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "table", "thead", "tbody", "tr", "th", "td"),
        *("div", "span", "footer", "ul", "li", "p", "a", "svg", "line", "rect", "text"),
    }
    assert page.links == ["/status.json", "/metrics"]


def test_a_daemon_that_has_nothing_yet(document: dict[str, Any]) -> None:
    """The page exists before the first pass, too."""
    nothing: dict[str, Any] = {
        "handlers": [],
        "contended": [],
        "paused": [],
        "foreign": [],
        "foreign_count": {"enabled": 0, "disabled": 0},
        "mount": None,
        "last_pass": None,
        "history": [],
    }
    page = Reader(
        render_page(document | nothing, ["the daemon is starting: its first pass has not ended"], NOW).decode()
    )
    assert "the daemon is starting: its first pass has not ended" in page.words
    assert page.open == []


def test_what_is_not_in_order_comes_first(document: dict[str, Any]) -> None:
    """The handlers are in two tables: those that need attention, the worst first, and then those in order."""
    words = Reader(render_page(document, [], NOW).decode()).words
    states = [word for word in words if word in HANDLER_STATES]
    assert states == [
        *("failed", "refused", "contended", "waiting", "paused", "stand_in", "shadowed", "registered"),
        *("served_elsewhere", "disabled"),
    ], "the registered one has a reason, which is a fault of its stand-in"
    assert words.index("Not in order (8)") < words.index("In order (2)")


def test_each_value_has_its_heading(document: dict[str, Any]) -> None:
    """A value has the heading of its column, which a narrow screen shows before it; an empty cell stays empty."""
    page = render_page(document, [], NOW).decode()
    assert page.count('<td data-label="interpreter">/usr/bin/true</td>') == len(HANDLER_STATES)
    assert page.count('<td data-label="architecture"></td>') == 1


def test_recent_repairs(document: dict[str, Any]) -> None:
    """The page has the last drifts with cause and age, the newest first, and a bar for each repair time."""
    history = [
        repair("old", 0, 52.0, "2026-01-02T03:00:06.000+00:00"),
        repair("new", 0.7, 0.7),
        repair("none", None, None),
    ]
    page = render_page(document | {"history": history}, [], NOW).decode()
    words = Reader(page).words
    words = words[words.index("when") :]  # the table, after the plot
    places = [
        words.index(f"{name} removed by another process{how}")
        for name, how in (
            ("none", ", repaired"),
            ("new", ", repaired in 0.7 ms"),
            ("old", ", its stand-in served, registered again after 52 ms"),
        )
    ]
    assert places == sorted(places)
    assert "5 min ago" in words
    assert page.count("<rect") == 2
    assert (page.count('class="gap"'), page.count('class="kept"')) == (1, 1)
    assert "Repair times: 2, from 0.7 ms to 52 ms" in page
    assert "<svg" not in render_page(document, [], NOW).decode()


def test_bars_stay_in_the_plot(document: dict[str, Any]) -> None:
    """Whatever the times are, no bar leaves the plot."""
    history = [repair("a", 0.0001, 0.0001), repair("b", 86_400_000.0, 86_400_000.0)]
    page = render_page(document | {"history": history}, [], NOW).decode()
    heights = [float(height) for height in re.findall(r'<rect [^>]*height="([^"]+)"', page)]
    assert heights == [4.0, 126.0]


def test_the_page_is_loaded_again(document: dict[str, Any]) -> None:
    """The browser loads the page again by itself, and the page says when it was made."""
    page = render_page(document, [], NOW).decode()
    assert f'<meta http-equiv="refresh" content="{REFRESH}">' in page
    assert "As of 2026-01-02 03:05:06 UTC" in page
    assert "loaded 1 min ago" in page


def test_the_page_of_a_second_is_made_once(document: dict[str, Any], counts: Counts) -> None:
    """Many requests within a second get one page; the next second has its own ages."""
    snapshot = Snapshot(document, counts, started=True)
    first = snapshot.page(int(NOW))
    assert snapshot.page(int(NOW)) is first
    assert snapshot.page(int(NOW) + 60) != first
