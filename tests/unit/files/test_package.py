"""The check that a module belongs to the version of the package that runs."""

import subprocess
import sys
from pathlib import Path

import pytest

import binfmtd
from binfmtd.files.package import check_version

MODULE = "binfmtd.no_such_module"


def test_nothing_is_replaced() -> None:
    """As long as the package's files are those of the start, any module may be imported."""
    check_version(MODULE)


def test_there_is_no_file() -> None:
    """In a program that contains the package, nothing can be replaced."""
    code = "import binfmtd; del binfmtd.__file__; from binfmtd.files.package import check_version; "
    assert subprocess.run([sys.executable, "-P", "-c", f"{code}check_version('{MODULE}')"], check=False).returncode == 0


@pytest.mark.parametrize("installed", [True, False], ids=["another version", "removed"])
def test_a_replaced_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, installed: bool) -> None:
    """Once they are replaced, a module that is loaded may be used, and another one may not be imported."""
    if installed:
        (tmp_path / "__init__.py").touch()
    monkeypatch.setattr(binfmtd, "__file__", str(tmp_path / "__init__.py"))
    check_version("binfmtd.files.package")
    with pytest.raises(ImportError, match=f"^{MODULE} is of another version of binfmtd$"):
        check_version(MODULE)
