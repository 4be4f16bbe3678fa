"""docs/releasing.md names each file whose version a release has to raise."""

import re
from collections.abc import Iterator
from pathlib import Path

from binfmtd import __version__

CHECKOUT = Path(__file__).parents[3]
PAGE = (CHECKOUT / "docs/releasing.md").read_text(encoding="utf-8")
DIRECTORIES = ("binfmtd", "config", "debian", "packaging", "systemd", ".github")
MENTIONED = re.compile(rf"(?<![\w.]){re.escape(__version__)}(?!\w|\.\d)")


def files_with_the_version() -> Iterator[str]:
    files = [path for directory in DIRECTORIES for path in (CHECKOUT / directory).rglob("*") if path.is_file()]
    for path in [*files, CHECKOUT / "action.yml"]:
        if MENTIONED.search(path.read_text(encoding="utf-8", errors="replace")):
            yield str(path.relative_to(CHECKOUT))


def test_each_file_is_named() -> None:
    """Each file outside of the documents and tests that contains the version is named, or its directory is."""
    found = set(files_with_the_version())
    assert {"binfmtd/__init__.py", "debian/changelog", "packaging/arch/PKGBUILD"} <= found
    step = PAGE.partition("**Raise the version**")[2].partition("**Write the date**")[0]
    named = set(re.findall(r"`([\w./-]+)`", step))
    directories = tuple(name for name in named if name.endswith("/"))
    assert {path for path in found if path not in named and not path.startswith(directories)} == set()
    assert all((CHECKOUT / name).exists() for name in named if "/" in name), "the page names no file that is gone"


def test_each_job_is_named() -> None:
    """The table of the jobs is that of the workflow, in its order."""
    workflow = (CHECKOUT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    jobs = re.findall(r"(?m)^  ([a-z]+):$", workflow.partition("\njobs:\n")[2])
    assert re.findall(r"(?m)^\| `([a-z]+)` \|", PAGE) == jobs
