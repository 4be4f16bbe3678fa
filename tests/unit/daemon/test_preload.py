"""What the daemon imports only where it is used is loaded by ``preload``."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from binfmtd.daemon import preload

PACKAGE = Path(preload.__file__).parents[1]
ROOT = "binfmtd.cli.run"
# When the daemon is ready, the command line is done with.
COMMAND_LINE = "binfmtd.cli."


def source(module: str) -> Path | None:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def imports(node: ast.AST, *, lazily: bool = False) -> Iterator[tuple[str, bool]]:
    """Each module that is imported below a node, and whether by a function; without those for the type checker."""
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
    """What any module that can be reached from one imports in a function."""
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
    """Each module that a function of the daemon imports is loaded afterwards."""
    code = f"import sys, {ROOT}; from binfmtd.daemon.preload import preload; preload(sys.exit); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    lazy = imported_by_functions(ROOT)
    assert "binfmtd.config.parse" in lazy
    assert lazy - set(loaded) == set()


def test_nothing_is_there_in_vain() -> None:
    """Each module of the list is imported by a function somewhere in the daemon."""
    assert {*preload.MODULES, *preload.OPTIONAL} - imported_by_functions(ROOT) == set()


def test_a_module_that_is_missing() -> None:
    """It is said in one line that asks for a restart, and the others are loaded."""
    code = "import sys; sys.modules['binfmtd.report.page'] = None; from binfmtd.daemon.preload import preload; "
    code += f"preload(print); assert sys.modules[{preload.MODULES[-1]!r}]"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith("import of binfmtd.report.page halted; ")
    assert said.endswith(f": {preload.REMEDY}\n")
    assert said.count("\n") == 1
