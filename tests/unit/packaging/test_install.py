"""The files of `make install` and `make uninstall`, in a DESTDIR, as in the virtual environment of docs/systemd.md.

The PREFIX is that of the Python that runs the tests, so these tests run with each Python.
"""

import os
import site
import sys
from pathlib import Path

from support.cli import CHECKOUT, run

PREFIX = sys.prefix


class Tree:
    """An installation below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        below = next(path for path in site.getsitepackages() if path.startswith(f"{PREFIX}/lib/"))
        self.packages = root / below.lstrip("/")

    def make(self, target: str) -> None:
        """Run a target of the Makefile; AssertionError with its messages if it fails."""
        variables = (f"DESTDIR={self.root}", f"PREFIX={PREFIX}", f"INSTALL_PYTHON={sys.executable}")
        # No variables of the make that runs these tests.
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
        result = run(["make", "-s", "-C", str(CHECKOUT), *variables, target], env=environment)
        assert result.status == 0, result.stderr

    def files(self) -> set[str]:
        """Return the paths of all files."""
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir()}

    def named(self) -> set[str]:
        """Return all paths, of directories too, whose last part has our name."""
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*binfmt*")}


CONFIG = {"etc/binfmtd", "etc/binfmtd/binfmtd.toml"}


def test_uninstall(tmp_path: Path) -> None:
    """`make uninstall` removes all that `make install` installed but the config."""
    tree = Tree(tmp_path)
    tree.make("install")
    assert len(tree.files()) > 100
    assert list(tree.packages.glob("*.dist-info")) != []
    tree.make("uninstall")
    assert tree.files() == {"etc/binfmtd/binfmtd.toml"}
    assert tree.named() == CONFIG


def test_beside_pip(tmp_path: Path) -> None:
    """`make install` leaves the .dist-info of pip, so that pip can upgrade; `make uninstall` removes it with the files.

    Otherwise pip lists a package whose files are gone.
    """
    tree = Tree(tmp_path)
    of_pip, of_another = (tree.packages / f"{name}.dist-info" for name in ("binfmtd-0.0.1", "another-0.0.1"))
    for made in (of_pip, of_another):
        made.mkdir(parents=True)
        (made / "INSTALLER").write_text("pip\n")
    tree.make("install")
    assert {*tree.packages.glob("*.dist-info")} == {of_pip, of_another}
    tree.make("uninstall")
    assert [*tree.packages.glob("*.dist-info")] == [of_another]
    assert tree.named() == CONFIG
