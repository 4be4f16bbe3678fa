"""Import all of binfmtd, and compile the modules of Python's library that it uses: a step of the images' build.

A package that the images lack would compile them.  An image without their bytecode compiles them at each start.

The bytecode is "unchecked": Python does not compare it with the time of its source.  A reproducible build changes these
times, so other bytecode would count as stale.  When apt upgrades Python, its packages remove the bytecode.
"""

import ast
import importlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import binfmtd

LIBRARY = Path(os.__file__).parent
LATE = "_strptime"  # datetime imports it when it is called


def imports(source: bytes) -> Iterator[str]:
    """Yield the modules of the library that a source imports, also late, within a function."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        yield from (name for name in names if name.partition(".")[0] in sys.stdlib_module_names)


def main() -> None:
    """Import and compile; ImportError if a module is missing."""
    for module in pkgutil.walk_packages(binfmtd.__path__, "binfmtd."):
        if not module.name.endswith(".__main__"):
            imported = importlib.import_module(module.name)
            if imported.__file__:
                for name in imports(Path(imported.__file__).read_bytes()):
                    importlib.import_module(name)
    importlib.import_module(LATE)
    files = {Path(file) for module in [*sys.modules.values()] if (file := getattr(module, "__file__", None))}
    files |= {*LIBRARY.glob("encodings/*.py")}  # Python imports an encoding when a text has it
    used = sorted(str(path) for path in files if path.is_relative_to(LIBRARY) and path.suffix == ".py")
    # In a process of its own: what this one has imported would change how constants are stored.
    compiler = [sys.executable, "-B", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    subprocess.run([*compiler, *used], check=True)


if __name__ == "__main__":
    main()
