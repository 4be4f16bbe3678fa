"""Files of the package: from its directory, or from the one file."""

import sys
from errno import ENOENT
from types import ModuleType

import pytest
from support.cli import CHECKOUT

from binfmtd.files.packaged import in_one_file, read_packaged

PROGRAM = "host/deep_programs/riscv64-pie"


def test_from_the_directory() -> None:
    """Usually a file is read from the package's directory, and an error names its path."""
    assert not in_one_file()
    assert read_packaged(PROGRAM) == (CHECKOUT / "binfmtd" / PROGRAM).read_bytes()
    with pytest.raises(OSError, match="No such file") as caught:
        read_packaged("host/deep_programs/none")
    assert (caught.value.errno, caught.value.filename) == (ENOENT, str(CHECKOUT / "binfmtd/host/deep_programs/none"))


def test_from_the_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the one file its module has the files, by paths that begin with the package's name."""
    module = ModuleType("_onefile")
    module.content = lambda path: memoryview(path.encode())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "_onefile", module)
    monkeypatch.setattr(sys, "builtin_module_names", (*sys.builtin_module_names, "_onefile"))
    assert in_one_file()
    assert read_packaged(PROGRAM) == f"binfmtd/{PROGRAM}".encode()
