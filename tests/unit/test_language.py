"""Rules of CONTRIBUTING.md, Language, that a program can check."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
NOT_SO = ("What ", "Whether ", "The same ")
SUFFIXES = {".py", ".md", ".toml", ".yaml", ".yml", ".service", ".sh", ".c", ".h"}
AVOIDED = re.compile(
    r"\b(somebody|whoever|quarrel\w*|heard|hears)\b|\bdef test_\w*?(somebody|nobod|whoever|quarrel|heard|_told|_tells)",
    re.IGNORECASE,
)


def beginnings() -> Iterator[tuple[str, str]]:
    """Yield the place and the first line of each docstring of the package, its tests and its packaging."""
    for path in (path for name in ("binfmtd", "tests", "packaging") for path in CHECKOUT.glob(f"{name}/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                yield f"{path}:{getattr(node, 'lineno', 1)}", text.splitlines()[0]


def test_how_docstrings_begin() -> None:
    """No docstring begins with What, Whether or The same: a function's begins with a verb, another one with a noun."""
    found = list(beginnings())
    assert len(found) > 1000
    assert [f"{place}: {line}" for place, line in found if line.startswith(NOT_SO)] == []


def texts() -> Iterator[Path]:
    """Yield the source files, tests and documents, also those that quote the words."""
    yield from CHECKOUT.glob("*.md")
    for directory in ("binfmtd", "tests", "docs", "config", "systemd", "packaging"):
        yield from (path for path in (CHECKOUT / directory).rglob("*") if path.suffix in SUFFIXES)


def test_names_and_words() -> None:
    """No source file, document or name of a test contains a word that CONTRIBUTING.md rules out."""
    found = []
    for path in set(texts()) - {Path(__file__), CHECKOUT / "CONTRIBUTING.md"}:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if AVOIDED.search(line):
                found.append(f"{path}:{number}: {line.strip()}")
    assert found == []
