"""The page for people."""

from html.parser import HTMLParser
from typing import Any

from binfmtd.report.page import render_page

CLOSED_BY_THEMSELVES = {"meta", "br"}


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
    page = Reader(render_page(document, ["qemu-waiting is waiting: why"]).decode())
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
        "python3.13 (disabled)",
        '<b>"odd"\\\\n\\xff',
    ):
        assert words in text
    assert page.open == []


def test_what_is_not_listed_is_counted(document: dict[str, Any]) -> None:
    """Of many foreign entries the page lists some, and the heading has the number of all."""
    page = Reader(render_page(document | {"foreign_count": {"enabled": 16_000, "disabled": 600}}, []).decode())
    assert "Foreign entries (16600)" in page.words
    assert "and 16598 more" in page.words


def test_nothing_in_it_acts_or_comes_from_elsewhere(document: dict[str, Any]) -> None:
    """The page has no script, no image and no address but our own; a name with tags in it stays text."""
    page = Reader(render_page(document, []).decode())
    assert page.tags <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "table", "tr", "th", "td", "ul", "li", "p", "a")
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
    }
    page = Reader(render_page(document | nothing, ["the daemon is starting: its first pass has not ended"]).decode())
    assert "the daemon is starting: its first pass has not ended" in page.words
    assert page.open == []
