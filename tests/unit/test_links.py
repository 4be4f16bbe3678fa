"""Links in the documents lead to files and headings that exist, and each page can be reached from the README.

The tests that the documents name exist, too.
"""

import re
from functools import cache
from pathlib import Path

import pytest
from support.links import broken, links

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CITED = re.compile(r"`((?:\w+/)*test_\w+(?:\.py)?)`")
RULE = re.compile(r"(?m)^\|.*\| ([^|]+) \|$")  # of a table: its last column has the test
CLICKS = 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page: Path) -> None:
    """Each relative link of the page leads to a file, and to one of its headings if it names one."""
    assert list(broken(page)) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    """A missing file and a missing heading are found; code and other sites are not followed."""
    (tmp_path / "other.md").write_text("# Of `one`'s, two\n```\n# no heading\n```\n")
    page = tmp_path / "page.md"
    page.write_text("[a](other.md#of-ones-two) [b](gone.md) [c](other.md#no-heading) `[d](x)` [e](https://x.invalid)\n")
    assert list(broken(page)) == ["gone.md: no such file", "other.md#no-heading: no such heading"]


def test_each_page_can_be_reached() -> None:
    """From the README each page of the documents is two clicks away at most."""
    reached = {ROOT / "README.md"}
    for _ in range(CLICKS):
        for page in [page for page in reached if page.suffix == ".md"]:
            reached |= {(page.parent / target.partition("#")[0]).resolve() for target in links(page)}
    assert [str(page.relative_to(ROOT)) for page in PAGES if page not in reached] == []


@cache
def existing_tests() -> frozenset[str]:
    """Return the files of tests, by name and by path, and the names of their tests."""
    files = [*(ROOT / "tests").rglob("test_*.py")]
    names = (re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8")) for file in files)
    paths = (str(file.relative_to(ROOT)) for file in files)
    return frozenset({*(file.name for file in files), *paths, *(name for found in names for name in found)})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_tests_that_it_names(page: Path) -> None:
    """Each test that the page names exists; the tables of reliability.md leave out ``test_``."""
    text = page.read_text(encoding="utf-8")
    cited = set(CITED.findall(text))
    if page.name == "reliability.md":
        words = {word for cell in RULE.findall(text) for word in re.findall(r"`(\w+)`", cell)}
        cited |= {f"test_{word.removeprefix('test_')}" for word in words}
        assert len(cited) > 50
    assert cited - existing_tests() == set()
