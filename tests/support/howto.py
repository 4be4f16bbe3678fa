"""The blocks of code in the how-to pages, as a reader copies them."""

import re
import textwrap
from typing import NamedTuple

from support.cli import CHECKOUT

DIRECTORY = CHECKOUT / "docs" / "howto"
_BLOCK = re.compile(r"^ *```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One block: its page, its language, and its text without the indentation of a list."""

    page: str
    language: str
    text: str


def blocks(language: str) -> list[Block]:
    """Return the blocks of one language in all pages."""
    pages = sorted(DIRECTORY.glob("*.md"))
    found = ((page, match) for page in pages for match in _BLOCK.finditer(page.read_text(encoding="utf-8")))
    return [Block(page.name, language, textwrap.dedent(match[2])) for page, match in found if match[1] == language]
