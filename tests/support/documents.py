"""The commands of docker or kubectl in the documents: in blocks and spans of code, and in comments of YAML files.

A command that the tests cannot run is marked in the document's source, with the reason: by ``<!-- not run: REASON -->``
on the line before a block, or directly after a span.  A span that only names a command (`docker restart`) or leaves out
words (`docker run ... run`) is no command line.
"""

import re
from typing import NamedTuple

from support.cli import CHECKOUT

MARK = r"<!-- not run: (?P<reason>.+?) -->"
_BLOCK = re.compile(rf"^(?:{MARK}\n)?```\w*\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)
_LEAST = 3  # words
REPORT = "docs/benchmarks.md"  # `make bench` writes it: results, no instructions


class Fragment(NamedTuple):
    """One command line, its place, and the reason why it is not run; None: it is."""

    page: str
    line: int
    text: str
    reason: str | None


def pages() -> list[str]:
    """Return the documents that have commands of docker."""
    paths = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md")), CHECKOUT / "config" / "compose.yaml"]
    names = [str(path.relative_to(CHECKOUT)) for path in paths]
    return [name for name in names if name != REPORT and fragments(name)]


def fragments(page: str, program: str = "docker") -> list[Fragment]:
    """Return the command lines of a document, in their order."""
    return _Reader(page, program).fragments()


class _Reader:
    def __init__(self, page: str, program: str) -> None:
        self._page = page
        self._span = re.compile(rf"`(?P<code>{program} [^`]+)`(?:{MARK})?")
        self._command = re.compile(rf"(?:^|[\s'])({program} (?:-n )?[a-z].*)")

    def fragments(self) -> list[Fragment]:
        text = (CHECKOUT / self._page).read_text(encoding="utf-8")
        if self._page.endswith(".yaml"):
            comments = enumerate((line.partition("#")[2] for line in text.splitlines()), 1)
            return [each for number, comment in comments for each in self._of_line(number, comment, None)]
        found: list[Fragment] = []
        for block in _BLOCK.finditer(text):
            first = text.count("\n", 0, block.start("code")) + 1
            for number, line in enumerate(block["code"].splitlines(), first):
                found += self._of_line(number, line, block["reason"])
        prose = _BLOCK.sub(lambda block: "\n" * block[0].count("\n"), text)
        for span in self._span.finditer(prose):
            words = " ".join(span["code"].split())
            if len(words.split()) >= _LEAST and "..." not in words:
                number = prose.count("\n", 0, span.start()) + 1
                found.append(Fragment(self._page, number, words, span["reason"]))
        return sorted(found, key=lambda fragment: fragment.line)

    def _of_line(self, number: int, line: str, reason: str | None) -> list[Fragment]:
        """Return the command in a line of code, which may be quoted (a Jenkinsfile) or in backquotes (a comment)."""
        if spans := list(self._span.finditer(line)):
            return [Fragment(self._page, number, span["code"], span["reason"]) for span in spans]
        command = self._command.search(line)
        if command is None:
            return []
        quoted = line[: command.start(1)].endswith("'")
        return [Fragment(self._page, number, command[1].partition("'")[0] if quoted else command[1], reason)]
