"""packaging/site/pages.py: each document has a kind, and its text is changed for Python-Markdown as it has to be."""

import re
from collections import Counter
from pathlib import Path

import pytest
from support import imported

CHECKOUT = Path(__file__).parents[3]
pages = imported(CHECKOUT / "packaging/site/pages.py")


def in_navigation(documents: list[str]) -> Counter[str]:
    """Return how often the navigation has each document."""
    found: Counter[str] = Counter()
    for item in pages.navigation(documents):
        for entry in item.values():
            found.update([entry] if isinstance(entry, str) else entry)
    return found


def test_each_document_has_one_kind() -> None:
    """The navigation has each document of the repository once; KINDS in packaging/site/pages.py says where."""
    documents = pages.documents()
    assert {"README.md", "docs/tutorial.md", "docs/man/binfmtd.8.md"} <= set(documents)
    assert in_navigation(documents) == Counter(documents)


def test_a_new_page_is_found_by_its_name() -> None:
    """A new how-to or manual page is in the navigation by itself; a page of another name is not."""
    found = in_navigation(["docs/howto-new.md", "docs/howto/other.md", "docs/man/new.7.md", "docs/stray.md"])
    assert {"docs/howto-new.md", "docs/howto/other.md"} <= set(pages.of_kind("How-to guides", list(found)))
    assert "docs/man/new.7.md" in pages.of_kind("Reference", list(found))
    assert "docs/stray.md" not in found


def test_four_kinds() -> None:
    """The navigation has four kinds, and each has pages."""
    kinds = [kind for item in pages.navigation(pages.documents()) for kind in item]
    assert kinds == ["Home", "Tutorial", "How-to guides", "Reference", "Explanation"]


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [("EXIT STATUS", "exit-status"), ("/proc that hides something", "proc-that-hides-something"), ("A - b", "a---b")],
)
def test_anchors(heading: str, anchor: str) -> None:
    """A heading has the anchor that GitHub gives it."""
    assert pages.slug(heading, "-") == anchor


def test_links_to_files() -> None:
    """A link to a file or a folder of the source leads to the page that shows it; other links stay."""
    text = "[a](../config/compose.yaml) [b](../config/presets#x) `[c](../Containerfile)` [d](ci.md#e) [f](https://g.h/)"
    assert pages.adapted(text, "docs/containers.md") == (
        "[a](../source/config/compose.yaml.md) [b](../source/config/presets.md#x) `[c](../Containerfile)`"
        " [d](ci.md#e) [f](https://g.h/)"
    )
    assert pages.adapted("[a](docs/benchmarks/builds.svg)", "README.md") == "[a](docs/benchmarks/builds.svg)"
    assert pages.adapted("[a](../gone.toml)", "docs/ci.md") == "[a](../gone.toml)"


def test_linked_files_have_pages() -> None:
    """Each file to which a document links is found, also through a README below packaging."""
    found = pages.linked(["README.md", "docs/ci.md"])
    assert {"config/presets", "docs/benchmarks/builds.svg", "action.yml"} <= set(found)
    assert "docs/ci.md" not in found
    assert pages.source_page(".github/workflows/release.yml") == "source/github/workflows/release.yml.md"


def test_a_source_page() -> None:
    """The page of a folder has each file in a block of its own, and that of a file has the file."""
    folder = pages.source("config/presets")
    headings = re.findall(r"^## `(.+)`$", folder, re.MULTILINE)
    assert headings == sorted(path.name for path in (CHECKOUT / "config/presets").iterdir())
    assert (CHECKOUT / "config/presets/wine.toml").read_text(encoding="utf-8").rstrip() in folder
    assert pages.source("config/compose.yaml").startswith("# `config/compose.yaml`\n\n```yaml\n")


LISTS = """Text:
- one
  more
  - inner
    more
- two

## Title
- three

1. Run

   ```sh
   - no list
   ```

   and end.
2. Stop

Text
```
Text:
- no
  - list
```
"""
ADAPTED_LISTS = """Text:

- one
    more
    - inner
        more
- two

## Title
- three

1. Run

    ```sh
    - no list
    ```

    and end.

2. Stop

Text
```
Text:
- no
  - list
```
"""


def test_lists() -> None:
    """A list after a text gets a blank line, and what belongs to an item four spaces; code stays as it is."""
    assert pages.adapted(LISTS, "docs/ci.md") == ADAPTED_LISTS


def test_manual_pages() -> None:
    """The title of a manual page is its name and section, and the names of our other pages are links."""
    title = '# binfmt 1 "2026-11-25" "binfmtd" "User Commands"'
    assert pages.adapted(f"{title}\n\nText\n", "docs/man/binfmt.1.md") == "# binfmt(1)\n\nText\n"
    names = "**binfmtd**(8), **binfmt**(1), **binfmtd-log**(7), **mount**(8)"
    assert pages.adapted(names, "docs/man/binfmt.1.md") == (
        "[**binfmtd**(8)](binfmtd.8.md), **binfmt**(1), [**binfmtd-log**(7)](../logging.md), **mount**(8)"
    )
