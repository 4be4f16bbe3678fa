"""The module ``__main__`` of the one file: prepare the imports, then run the command.

* Modules in Python are frozen: they are in a table of the program, in which Python itself finds them.
* A compiled module, such as pydantic_core, is a shared library, and the dynamic linker loads libraries only from files.
  So it is copied into a file in memory (memfd_create(2)), which the linker maps as it maps any library.  No directory
  is written to.
* The file is both commands: as ``binfmt``, by a link of this name, it is the drop-in, else it is ``binfmtd``.
* binfmtd starts itself with ``sys.executable -P -m binfmtd``; the one file takes these words in front of a command.
"""

import _imp
import os
import sys
from collections.abc import Callable
from errno import EACCES, ENOSYS, EPERM
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec
from itertools import count
from types import ModuleType
from typing import Any

# None of these may need a compiled module: the loader of those is below.
import _onefile
from _onefile_tables import COMPILED  # a module's name -> the file of its library, and the libraries that it needs

from binfmtd.errors import BinfmtdError
from binfmtd.files.cure import cure

_NOEXEC_SEAL = 8  # MFD_NOEXEC_SEAL, Linux 6.3: it cannot be executed as a program; older kernels refuse the flag
_AS_PYTHON = (["-P", "-m", "binfmtd"], ["-m", "binfmtd"])
_LIBGCC = "libgcc_s.so.1"  # the only library from the host that is not glibc's
_REMEDY = "see dmesg for what forbids it, or install binfmtd with pip instead (docs/packages.md)"
_numbers = count()
_loaded: set[str] = set()


class LibraryError(BinfmtdError, ImportError):
    """A library of the one file that cannot be loaded here."""


class Compiled:
    """The finder and loader of compiled modules."""

    @classmethod
    def find_spec(cls, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """Return how to load a module, or None if it is not one of ours."""
        loader: Any = cls
        return ModuleSpec(name, loader, origin="the one file") if name in COMPILED else None

    @staticmethod
    def create_module(spec: ModuleSpec) -> ModuleType | None:
        """Load the libraries that the module needs, and then the module.  Raises LibraryError."""
        file, needed = COMPILED[spec.name]
        for library in needed:
            if library not in _loaded:
                _from_memory(library, _onefile.load)
                _loaded.add(library)

        def create(path: str) -> ModuleType:
            spec.origin = path
            return _imp.create_dynamic(spec)

        return _from_memory(file, create)

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Execute the module's own initialization."""
        _imp.exec_dynamic(module)


def _from_memory(name: str, use: Callable[[str], ModuleType | None]) -> ModuleType | None:
    """Call ``use`` with the path of a file in memory that has the library in it.  Raises LibraryError."""
    try:
        descriptor = _memory_file(name)
    except OSError as error:
        remedy = _REMEDY if error.errno in (EACCES, ENOSYS, EPERM) else cure(error)
        raise LibraryError(f"{name} cannot be copied into memory ({error.strerror}): {remedy}") from None
    try:
        # The linker takes two libraries of one path for one library, and the descriptor's number is used again.
        return use(f"/proc/self/{'./' * next(_numbers)}fd/{descriptor}")
    except ImportError as error:
        raise LibraryError(f"{name} cannot be loaded from memory ({error}): {_remedy(str(error))}") from None
    finally:
        os.close(descriptor)


def _memory_file(name: str) -> int:
    try:
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC | _NOEXEC_SEAL)
    except OSError:
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        rest = _onefile.content(name)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remedy(problem: str) -> str:
    if problem.startswith(_LIBGCC):
        return f"install the package that has {_LIBGCC}: libgcc, on Debian libgcc-s1"
    return _REMEDY if os.path.exists("/proc/self/fd") else "mount /proc"


def _run() -> None:
    own = next((words for words in _AS_PYTHON if sys.argv[1 : len(words) + 1] == words), None)
    if own is None and os.path.basename(sys.argv[0]) == "binfmt":
        from binfmtd.cli.compat.main import entry
    else:
        from binfmtd.cli.main import entry

        if own is not None:
            del sys.argv[1 : len(own) + 1]
    entry()


# Only what is in this program is imported, whatever Python the host has.
sys.meta_path[:] = [Compiled, BuiltinImporter, FrozenImporter]
sys.path.clear()
sys.path_hooks.clear()
sys._stdlib_dir = None  # type: ignore[attr-defined]  # else FrozenImporter gives modules the paths of files that are not there
try:
    _run()
except LibraryError as error:  # of a module that is imported before a command can report errors
    sys.exit(f"binfmtd: {error}")
