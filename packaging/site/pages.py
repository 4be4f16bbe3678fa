"""The pages of the web site, and their text.  Only ``hooks.py`` knows mkdocs.

Each document of the repository is a page under its own path: docs/ci.md becomes docs/ci.html, and README.md the home
page.  So the links between documents need no change.  A link to another file or to a directory, such as
``../config/compose.yaml``, leads to a page with its content: source/config/compose.yaml.html.

The documents are written for GitHub.  ``adapted`` changes the little that Python-Markdown reads in another way.
"""

import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = "README.md"
# The four kinds of pages, each with its documents in the order of the navigation.  A pattern stands for the documents
# that match it and are named nowhere.  A document of no kind fails the build and a unit test: add it here.
KINDS: dict[str, tuple[str, ...]] = {
    "Tutorial": ("docs/tutorial.md", "docs/tutorial-*.md"),
    "How-to guides": (
        "docs/build-hosts.md",
        "docs/containers.md",
        "docs/kubernetes.md",
        "docs/ci.md",
        "docs/systemd.md",
        "docs/packages.md",
        "docs/emulators.md",
        "docs/sealed.md",
        "docs/security-modules.md",
        "docs/migrating.md",
        "docs/howto*.md",
        "docs/questions.md",
        "docs/releas*.md",
        "CONTRIBUTING.md",
    ),
    "Reference": (
        "docs/man/binfmtd.8.md",
        "docs/man/binfmtd.toml.5.md",
        "docs/man/binfmt.1.md",
        "docs/man/*.md",
        "docs/logging.md",
        "docs/metrics.md",
        "docs/json*.md",
        "docs/reference*.md",
        "docs/formats.md",
        "docs/drop-ins.md",
        "docs/known-faults.md",
        "docs/hosts.md",
        "docs/kernels.md",
        "CHANGELOG.md",
    ),
    "Explanation": (
        "docs/behaviour.md",
        "docs/reliability.md",
        "docs/benchmarks.md",
        "docs/kernel.md",
        "docs/choices.md",
        "docs/explanation*.md",
        "ARCHITECTURE.md",
        "SECURITY.md",
    ),
}
# Two documents are manual pages as well.
ALSO_MANUALS = {"binfmtd-log": "docs/logging.md", "binfmtd-metrics": "docs/metrics.md"}
MANUALS = "docs/man/"
SOURCES = "source/"
IMAGES = (".svg", ".png")
LANGUAGES = {"yml": "yaml", "Containerfile": "docker", "container": "ini", "service": "ini", "md": "markdown"}

CODE = re.compile(r"(^ *```.*?^ *```$|`(?:[^`\n]|\n(?!\n))+`)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?![a-z]+:|#)(?P<path>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
MARKER = re.compile(r" *(?:[-*]|\d+\.) ")
MANUAL_TITLE = re.compile(r"\A# (?P<name>\S+) (?P<section>\d) .*$", re.MULTILINE)
MANUAL = re.compile(r"\*\*(?P<name>[\w.-]+)\*\*\((?P<section>\d)\)")


def documents() -> list[str]:
    """Return the paths of the documents below the repository's root: README.md, docs/ci.md."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def of_kind(kind: str, all_documents: Sequence[str]) -> list[str]:
    """Return the documents of a kind: those that it names, and those that match its patterns."""
    named = {page for pages in KINDS.values() for page in pages}
    return [
        page
        for entry in KINDS[kind]
        for page in ([entry] if "*" not in entry else all_documents)
        if page == entry or (fnmatchcase(page, entry) and page not in named)
    ]


def navigation(all_documents: Sequence[str]) -> list[dict[str, str] | dict[str, list[str]]]:
    """Return the navigation as mkdocs reads it."""
    return [{"Home": HOME}, *({kind: of_kind(kind, all_documents)} for kind in KINDS)]


def slug(heading: str, _separator: str = "-") -> str:
    """Return the anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def resolved(path: str, page: str) -> str | None:
    """Return the path below the root that a link of a page leads to, or None if nothing is there."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
    return target if not target.startswith("..") and (ROOT / target).exists() else None


def linked(pages: Iterable[str]) -> list[str]:
    """Return the other files and directories to which these documents link, directly or through one another."""
    found = dict.fromkeys(pages)
    known = set(found)
    queue = list(found)
    while queue:
        page = queue.pop()
        for link in LINK.finditer("".join(CODE.split((ROOT / page).read_text(encoding="utf-8"))[::2])):
            target = resolved(link["path"], page)
            if target is not None and target not in found:
                found[target] = None
                queue += [target] if target.endswith(".md") else []
    return [path for path in found if path not in known]


def source_page(path: str) -> str:
    """Return the path of the page that shows a file or a directory."""
    return f"{SOURCES}{path}.md".replace("/.", "/")


def source(path: str) -> str:
    """Return that page's text: the file, or each file below the directory that has a text."""
    whole = ROOT / path
    below = sorted(each for each in whole.rglob("*") if each.is_file() and "__pycache__" not in each.parts)
    return "\n\n".join([f"# `{path}`", *(block for file in below or [whole] for block in _listing(file, whole))]) + "\n"


def _listing(file: Path, whole: Path) -> Iterator[str]:
    try:
        text = file.read_text(encoding="utf-8").rstrip()
    except UnicodeDecodeError:
        return
    if file != whole:
        yield f"## `{file.relative_to(whole).as_posix()}`"
    suffix = file.suffix.removeprefix(".") or file.name
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    yield f"{fence}{LANGUAGES.get(suffix, suffix if suffix.isalpha() else 'text')}\n{text}\n{fence}"


def adapted(text: str, page: str) -> str:
    """Return a document's text for Python-Markdown, with its links to files of the source and to manual pages."""
    if page.startswith(MANUALS):
        text = MANUAL_TITLE.sub(r"# \g<name>(\g<section>)", text)
    parts = CODE.split(_lists(text))
    parts[::2] = [_links(part, page) for part in parts[::2]]
    return "".join(parts)


def _lists(text: str) -> str:
    """Write a blank line between a text and an item below it, and four spaces before what belongs to an item."""
    lines: list[str] = []
    items: list[int] = []  # where the text of each item begins that the line may belong to
    is_list: bool | None = None  # the block that began after the last blank line or heading
    fence = False
    for line in text.split("\n"):
        indent = len(line) - len(line.lstrip())
        marker = None if fence else MARKER.match(line)
        if marker and is_list is False and (items or line.startswith(("- ", "* ", "1. "))):
            lines.append("")
            is_list = None
        while items and line and not fence and indent < items[-1] and (marker or is_list is None):
            items.pop()
        if line.lstrip().startswith("```"):
            fence = not fence
        begins = items[-1] if items else 0
        lines.append(" " * (4 * len(items) + indent - begins) + line.lstrip() if items and indent >= begins else line)
        if marker:
            items.append(marker.end())
        if line == "" or (line.startswith("#") and not fence):
            is_list = None
        elif is_list is None:
            is_list = bool(marker)
    return "\n".join(lines)


def _links(text: str, page: str) -> str:
    def to_source(link: re.Match[str]) -> str:
        target = resolved(link["path"], page)
        if target is None or target.endswith((".md", *IMAGES)):
            return link[0]
        return f"]({_relative(source_page(target), page)}{link['anchor'] or ''})"

    def to_manual(name: re.Match[str]) -> str:
        path = ALSO_MANUALS.get(name["name"], f"{MANUALS}{name['name']}.{name['section']}.md")
        return name[0] if path == page or not (ROOT / path).exists() else f"[{name[0]}]({_relative(path, page)})"

    text = LINK.sub(to_source, text)
    return MANUAL.sub(to_manual, text) if page.startswith(MANUALS) else text


def _relative(path: str, page: str) -> str:
    return posixpath.relpath(path, posixpath.dirname(page) or ".")
