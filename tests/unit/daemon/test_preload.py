"""``preload`` loads what the daemon imports only where it is used."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from binfmtd.daemon import preload

PACKAGE = Path(preload.__file__).parents[1]
ROOT = "binfmtd.cli.commands.run"
# A daemon that is ready no longer needs the command line.
COMMAND_LINE = "binfmtd.cli."


def source(module: str) -> Path | None:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def imports(node: ast.AST, *, lazily: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield each module that is imported below a node, and True if a function does it; none for the type checker."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((name.name, lazily) for name in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            yield child.module, lazily
            below = (f"{child.module}.{name.name}" for name in child.names)
            yield from ((name, lazily) for name in below if source(name))
        elif not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from imports(child, lazily=lazily or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))


def imported_by_functions(root: str) -> set[str]:
    """Return what functions import in any module that can be reached from ``root``."""
    reached, waiting, lazy = set[str](), [root], set[str]()
    while waiting:
        module = waiting.pop()
        file = source(module)
        if file is None or module in reached:
            continue
        reached.add(module)
        for name, lazily in imports(ast.parse(file.read_text("utf-8"))):
            waiting.append(name)
            if lazily and not module.startswith(COMMAND_LINE):
                lazy.add(name)
    return lazy


def test_nothing_is_left_out() -> None:
    """``preload`` loads each module that a function of the daemon imports, but those that few daemons need."""
    code = f"import sys, {ROOT}; from binfmtd.daemon.preload import preload; preload(sys.exit); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    lazy = imported_by_functions(ROOT)
    assert set(preload.LATER) <= lazy
    assert lazy - set(loaded) == set(preload.LATER)


def test_nothing_is_there_in_vain() -> None:
    """A function somewhere in the daemon imports each module of the list."""
    assert {*preload.MODULES, *preload.LATER} - imported_by_functions(ROOT) == set()


def test_a_module_that_is_missing() -> None:
    """A missing module is one line that asks for a restart, and the other modules are loaded."""
    code = "import sys; sys.modules['binfmtd.host.native'] = None; from binfmtd.daemon.preload import preload; "
    code += f"preload(print); assert sys.modules[{preload.MODULES[-1]!r}]"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith("import of binfmtd.host.native halted; ")
    assert said.endswith(f": {preload.REMEDY}\n")
    assert said.count("\n") == 1


def test_a_package_that_is_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A module that cannot be loaded, for whatever reason, is reported and ends nothing."""
    for name, text in (("broken", "("), ("odd", "raise AttributeError('no such\\nthing')")):
        (tmp_path / f"replaced_{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    reasons: list[str] = []
    monkeypatch.setattr(preload, "MODULES", ("replaced_broken", "replaced_odd", "tomllib"))
    assert preload.preload(reasons.append)
    assert len(reasons) == 2
    assert reasons[-1] == f"no such thing: {preload.REMEDY}"
