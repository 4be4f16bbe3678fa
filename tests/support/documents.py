"""The commands of Docker in the documents: in blocks of code, in spans of code, and in comments of compose.yaml.

A command that the tests cannot run is marked in the document's source, with the reason: by ``<!-- not run: REASON -->``
on the line before a block, or directly after a span.  A span that only names a command (`docker restart`) or leaves out
words (`docker run ... run`) is no command line.
"""

import re
from typing import NamedTuple

from support.cli import CHECKOUT

MARK = r"<!-- not run: (?P<reason>.+?) -->"
_BLOCK = re.compile(rf"^(?:{MARK}\n)?```\w*\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(rf"`(?P<code>docker [^`]+)`(?:{MARK})?")
_COMMAND = re.compile(r"(?:^|[\s'])(docker [a-z].*)")
_LEAST = 3  # words
REPORT = "docs/benchmarks.md"  # `make bench` writes it: results, no instructions


class Fragment(NamedTuple):
    """One command line, its place, and the reason why it is not run; None: it is."""

    page: str
    line: int
    text: str
    reason: str | None


def pages() -> list[str]:
    """Return the documents that have commands of Docker."""
    paths = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md")), CHECKOUT / "config" / "compose.yaml"]
    names = [str(path.relative_to(CHECKOUT)) for path in paths]
    return [name for name in names if name != REPORT and fragments(name)]


def fragments(page: str) -> list[Fragment]:
    """Return the command lines of a document, in their order."""
    text = (CHECKOUT / page).read_text(encoding="utf-8")
    if page.endswith(".yaml"):
        comments = [(number, line.partition("#")[2]) for number, line in enumerate(text.splitlines(), 1) if "#" in line]
        return [each for number, comment in comments for each in _of_line(page, number, comment, None)]
    found: list[Fragment] = []
    for block in _BLOCK.finditer(text):
        first = text.count("\n", 0, block.start("code")) + 1
        for number, line in enumerate(block["code"].splitlines(), first):
            found += _of_line(page, number, line, block["reason"])
    prose = _BLOCK.sub(lambda block: "\n" * block[0].count("\n"), text)
    for span in _SPAN.finditer(prose):
        words = " ".join(span["code"].split())
        if len(words.split()) >= _LEAST and "..." not in words:
            found.append(Fragment(page, prose.count("\n", 0, span.start()) + 1, words, span["reason"]))
    return sorted(found, key=lambda fragment: fragment.line)


def _of_line(page: str, number: int, line: str, reason: str | None) -> list[Fragment]:
    """Return the command in a line of code, which may be quoted (a Jenkinsfile) or in backquotes (a comment)."""
    if spans := list(_SPAN.finditer(line)):
        return [Fragment(page, number, span["code"], span["reason"]) for span in spans]
    command = _COMMAND.search(line)
    if command is None:
        return []
    quoted = line[: command.start(1)].endswith("'")
    return [Fragment(page, number, command[1].partition("'")[0] if quoted else command[1], reason)]
