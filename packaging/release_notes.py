"""Print the notes of a release: what CHANGELOG.md has under the heading of its version.

``release_notes.py v0.1.0 --base URL/`` prints the text below ``## 0.1.0 (2026-12-01)``.  Links to files of the source
become links to URL, since a release has no files beside it.  A heading without a date, or a tag that is not the
version of the source, is an error: so a tag on the wrong commit makes no release.
"""

import argparse
import re
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADING = re.compile(r"^## (?P<version>\S+) \((?P<date>[^)]*)\)$")
LINK = re.compile(r"\]\((?!https?:|#)(?P<path>[^)]+)\)")
VERSION = re.compile(r'^__version__ = "(?P<version>.+)"$', re.MULTILINE)


class NotesError(Exception):
    """The notes cannot be written; the message says why, and what to do."""


def notes(changelog: str, version: str, base: str = "") -> str:
    """Return the section of a version, with links that begin with ``base``.  Raises NotesError."""
    section: list[str] | None = None
    for line in changelog.splitlines():
        heading = HEADING.match(line)
        if section is not None and line.startswith("## "):
            break
        if section is not None:
            section.append(line)
        elif heading is not None and heading["version"] == version:
            if not _is_date(heading["date"]):
                raise NotesError(f"CHANGELOG.md: {line} has no date: write one, such as ## {version} (2026-12-01)")
            section = []
    if section is None:
        raise NotesError(f"CHANGELOG.md has no heading for {version}: write ## {version} (DATE) above its changes")
    text = "\n".join(section).strip()
    if not text:
        raise NotesError(f"CHANGELOG.md has nothing under {version}: write what changed")
    return LINK.sub(lambda link: f"]({base}{link['path']})", text) + "\n"


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text  # it also takes the year and week, and no hyphens
    except ValueError:
        return False


def main() -> int:
    """Print the notes; return 1 with a message if there are none."""
    parser = argparse.ArgumentParser(description="Print the notes of a release, from CHANGELOG.md.")
    parser.add_argument("tag", help="the version, also as a tag: v0.1.0")
    parser.add_argument("--base", default="", metavar="URL/", help="written before each link to a file of the source")
    parser.add_argument("--root", type=Path, default=ROOT, metavar="DIR", help="the source")
    given = parser.parse_args()
    version = given.tag.removeprefix("v")
    source = VERSION.search((given.root / "binfmtd/__init__.py").read_text(encoding="utf-8"))
    try:
        if source is None or source["version"] != version:
            raise NotesError(f"{given.tag} is not the version in binfmtd/__init__.py: change it, or tag another commit")
        sys.stdout.write(notes((given.root / "CHANGELOG.md").read_text(encoding="utf-8"), version, given.base))
    except NotesError as error:
        sys.stderr.write(f"release_notes: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
