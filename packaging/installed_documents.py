"""Mend the links of installed documents: ``python packaging/installed_documents.py DIRECTORY``.

``make install`` copies the documents to DIRECTORY as they are in the source, but not each file to which they link.  A
link to a file below DIRECTORY/examples leads there; in place of any other link without a target is its text:

    [compose.yaml](../config/compose.yaml)                  [compose.yaml](../examples/config/compose.yaml)
    [its tests](../tests/hosts/test_wsl.py)                 its tests (`tests/hosts/test_wsl.py` in the source)
    [test_wsl.py](../tests/hosts/test_wsl.py)               `tests/hosts/test_wsl.py` in the source
"""

import os
import re
import sys
from pathlib import Path

EXAMPLES = "examples"  # it has the folder config of the source
SPAN = r"`[^`\n]+`"
TARGET = r"(?![a-z]+:|#)(?P<path>[^)\s#]+)(?P<anchor>#[^)\s]*)?"
# A block or a span of code, which has no links, or a link; that of an image has its text in place of the image, too.
CODE_OR_LINK = re.compile(
    rf"^ *```.*?^ *```$|!?\[(?P<text>(?:{SPAN}|[^`\]])*)\]\({TARGET}\)|{SPAN}",
    re.MULTILINE | re.DOTALL,
)


def mended(text: str, page: str, root: Path) -> str:
    """Return the text of the document at ``root``/``page``, with links to what is there."""
    directory = os.path.dirname(page)

    def mend(found: re.Match[str]) -> str:
        if found["path"] is None:
            return found[0]
        path = os.path.normpath(os.path.join(directory, found["path"]))
        if not path.startswith("..") and (root / path).exists():
            return found[0]
        if (root / EXAMPLES / path).exists():
            to = os.path.relpath(os.path.join(EXAMPLES, path), directory or ".")
            return f"[{found['text']}]({to}{found['anchor'] or ''})"
        where = f"`{path}` in the source"
        return where if path.endswith(found["text"].strip("`")) else f"{found['text']} ({where})"

    return CODE_OR_LINK.sub(mend, text)


if __name__ == "__main__":
    below = Path(sys.argv[1])
    for document in below.rglob("*.md"):
        before = document.read_text(encoding="utf-8")
        after = mended(before, document.relative_to(below).as_posix(), below)
        if after != before:
            document.write_text(after, encoding="utf-8")
