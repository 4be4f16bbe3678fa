"""Files of the package that are not Python modules, such as the programs of ``binfmtd probe --deep``.

Usually they are in the package's directory.  The one file (packaging/onefile) is a program that contains Python and
binfmtd, so it has no such directory: they are in the program itself, and its module ``_onefile`` returns them.  No
other Python has that module.
"""

import os
import sys


def in_one_file() -> bool:
    """Return True if this process runs the one file."""
    return "_onefile" in sys.builtin_module_names


def read_packaged(path: str) -> bytes:
    """Return the content of a file, whose path is relative to the package.  Raises OSError."""
    if in_one_file():
        import _onefile

        return bytes(_onefile.content(f"binfmtd/{path}"))
    with open(os.path.join(os.path.dirname(os.path.dirname(__file__)), path), "rb") as file:
        return file.read()
