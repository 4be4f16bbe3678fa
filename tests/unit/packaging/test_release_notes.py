"""packaging/release_notes.py: the text of a release, from CHANGELOG.md, and its errors."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from binfmtd import __version__

CHECKOUT = Path(__file__).parents[3]
CHANGELOG = """# Changelog

## 1.10.0 (2027-01-31)
### Commands
- `new` ([docs/new.md](docs/new.md#how), [source](https://example.com/), [above](#commands)).

## 1.1.0 (2026-12-01)
The first version.

## 1.0.0 (unreleased)
Not yet.

## 0.9.0 (2026-01-01)
"""


def notes(root: Path, tag: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CHECKOUT / "packaging/release_notes.py"), tag, f"--root={root}", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a source with this changelog, whose version ``version`` sets."""
    (tmp_path / "binfmtd").mkdir()
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    return tmp_path


def version(root: Path, number: str) -> None:
    (root / "binfmtd/__init__.py").write_text(f'__version__ = "{number}"\n')


def test_a_section(root: Path) -> None:
    """It prints what is between two headings; links to files get the base, other links stay."""
    version(root, "1.10.0")
    done = notes(root, "v1.10.0", "--base=https://example.org/blob/v1.10.0/")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "### Commands\n- `new` ([docs/new.md](https://example.org/blob/v1.10.0/docs/new.md#how), "
        "[source](https://example.com/), [above](#commands)).\n"
    )
    version(root, "1.1.0")
    assert notes(root, "1.1.0").stdout == "The first version.\n"


@pytest.mark.parametrize(
    ("source", "tag", "message"),
    [
        ("1.1.0", "v1.10.0", "v1.10.0 is not the version in binfmtd/__init__.py"),
        ("2.0.0", "v2.0.0", "CHANGELOG.md has no heading for 2.0.0"),
        ("1.0.0", "v1.0.0", "## 1.0.0 (unreleased) has no date"),
        ("0.9.0", "v0.9.0", "CHANGELOG.md has nothing under 0.9.0"),
    ],
)
def test_errors(root: Path, source: str, tag: str, message: str) -> None:
    """A tag of another version, and a section that is missing, empty or without a date, make no release."""
    version(root, source)
    done = notes(root, tag)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr


def test_our_changelog(tmp_path: Path) -> None:
    """The changelog has a section for this version; each of its links to a file leads to one."""
    (tmp_path / "binfmtd").mkdir()
    version(tmp_path, __version__)
    text = (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")
    (tmp_path / "CHANGELOG.md").write_text(text.replace("(unreleased)", "(2026-12-01)"), encoding="utf-8")
    done = notes(tmp_path, f"v{__version__}", "--base=BASE/")
    assert done.returncode == 0, done.stderr
    links = re.findall(r"\]\(BASE/([^)#]+)", done.stdout)
    assert links
    assert [link for link in links if not (CHECKOUT / link).exists()] == []
