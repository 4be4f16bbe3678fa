"""Root trees with dynamic programs: the host's own files, copied."""

import re
import shutil
import subprocess
from pathlib import Path

DO_NOTHING = "/bin/true"


def native_tree(directory: Path) -> Path:
    """Make a root tree of the host's ``/bin/true`` and the libraries that it needs, and return its path."""
    program = Path(DO_NOTHING)
    listed = subprocess.run(["ldd", program.resolve()], check=True, capture_output=True, text=True).stdout
    for path in [str(program), *re.findall(r"(/\S+) \(0x", listed)]:
        inside = directory / path.lstrip("/")
        inside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, inside)
        inside.chmod(0o755)
    return directory


def libraries(tree: Path) -> list[Path]:
    """Return the libraries of a tree, without its dynamic linker."""
    return [path for path in tree.rglob("*.so*") if path.is_file() and not path.name.startswith("ld")]
