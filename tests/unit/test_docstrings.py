"""The rule for the beginnings of docstrings (CONTRIBUTING.md, Language)."""

import ast
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
NOT_SO = ("What ", "Whether ", "The same ")


def beginnings() -> Iterator[tuple[str, str]]:
    """Yield the place and the first line of each docstring of the package and of its tests."""
    for path in (*CHECKOUT.glob("binfmtd/**/*.py"), *CHECKOUT.glob("tests/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                yield f"{path}:{getattr(node, 'lineno', 1)}", text.splitlines()[0]


def test_how_docstrings_begin() -> None:
    """No docstring begins with What, Whether or The same: a function's begins with a verb, another one with a noun."""
    found = list(beginnings())
    assert len(found) > 1000
    assert [f"{place}: {line}" for place, line in found if line.startswith(NOT_SO)] == []
