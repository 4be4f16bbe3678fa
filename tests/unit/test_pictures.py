"""The pictures of the documents: the session of the README, and the screenshots of the status page."""

import re
import struct
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from support.terminal_picture import COLOURS, MARGIN, TEXT, TYPED, WIDTH, Run, draw, runs

DOCS = Path(__file__).parents[2] / "docs"
REPAIR = DOCS / "repair.svg"
SVG = "{http://www.w3.org/2000/svg}"
SCREENSHOTS = ("status-light.png", "status-dark.png", "status-narrow.png")


def elements(picture: str) -> list[ET.Element]:
    return [*ET.fromstring(picture).iter()]  # noqa: S314  our own picture


def texts(picture: str) -> list[ET.Element]:
    return [each for each in elements(picture) if each.tag == f"{SVG}text"]


def test_a_line_has_its_colours() -> None:
    """Text keeps its colour and its column; what was typed is brighter."""
    coloured = [Run(0, "ab ", TEXT), Run(3, "good", COLOURS["32"]), Run(7, " !", TEXT)]
    assert [*runs("ab \x1b[32mgood\x1b[0m !", "$ ")] == coloured
    assert [*runs("$ ls", "$ ")] == [Run(0, "$ ls", TYPED)]
    assert [*runs("", "$ ")] == []


def test_an_unknown_control_is_an_error() -> None:
    """A control that moves the cursor cannot be drawn."""
    with pytest.raises(ValueError, match="does not know"):
        [*runs("a\x1b[2Kb", "$ ")]


def test_what_is_drawn() -> None:
    """Special characters are escaped, leading blanks are kept as a distance, and empty lines take their place."""
    picture = draw(["$ a <b> & 'c'", "", "   d"], 20, "<title>")
    first, last = texts(picture)
    assert (first.text, last.text) == ("$ a <b> & 'c'", "d")
    assert last.get("x") == f"{MARGIN + 3 * WIDTH:.1f}"
    assert last.get("textLength") == f"{WIDTH:.1f}"


def test_the_session() -> None:
    """The session of the README is a small picture without scripts and foreign content; no execution failed in it."""
    picture = REPAIR.read_text(encoding="utf-8")
    assert len(picture) < 60_000
    assert {each.tag.removeprefix(SVG) for each in elements(picture)} == {"svg", "title", "rect", "g", "text"}
    assert "http" not in picture.replace(SVG.strip("{}"), "")
    shown = "\n".join(each.text or "" for each in texts(picture))
    assert re.search(r"(?m)^\$ python tests/demo\.py$", shown)
    removals = r"^3\. entry qemu-\w+ was removed 9 times while a loop executed it: 0 of [1-9]\d* failed$"
    assert re.search(removals, shown, re.MULTILINE)
    assert re.search(r"(?m)^5\. the program runs: exit status 42$", shown)


@pytest.mark.parametrize("name", SCREENSHOTS)
def test_screenshots(name: str) -> None:
    """A screenshot is a PNG file of less than 100 KB, and docs/metrics.md shows it."""
    content = (DOCS / name).read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(content) < 100_000
    width, height = struct.unpack(">II", content[16:24])
    assert (width < 500) is (name == "status-narrow.png")
    assert height > 300
    assert f"]({name})" in (DOCS / "metrics.md").read_text(encoding="utf-8")
