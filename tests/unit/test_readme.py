"""The numbers in the README are those of docs/benchmarks.md."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def rows(file: str, region: str) -> list[list[str]]:
    """Return the rows of a table that `make bench` writes, without the multiples in brackets."""
    text = (ROOT / file).read_text("utf-8")
    (found,) = re.findall(rf"<!-- bench:{region} -->\n(.*?)<!-- /bench -->", text, re.DOTALL)
    lines = [line.strip("|").split("|") for line in found.splitlines() if line.startswith("|")]
    return [[cell.partition(" (")[0].strip() for cell in line] for line in lines[2:]]


def test_for_how_long_programs_fail() -> None:
    """The README has the median and p99 of binfmtd after a flush."""
    (flushed,) = (row[1:3] for row in rows("docs/benchmarks.md", "flush") if row[0] == "binfmtd")
    assert [row[1:] for row in rows("README.md", "pause")] == [flushed]
