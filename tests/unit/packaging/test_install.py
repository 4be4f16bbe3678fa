"""The files of `make install` and `make uninstall`, in a DESTDIR, as in the virtual environment of docs/systemd.md.

The PREFIX is that of the Python that runs the tests, so these tests run with each Python.
"""

import os
import site
import sys
from pathlib import Path

from support import imported
from support.cli import CHECKOUT, run
from support.links import broken, links

installed_documents = imported(CHECKOUT / "packaging/installed_documents.py")
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

    @property
    def documents(self) -> Path:
        return self.root / f"{PREFIX}/share/doc/binfmtd".lstrip("/")


def test_links(tmp_path: Path) -> None:
    """Each relative link of each installed document leads to an installed file or directory, and to its heading."""
    tree = Tree(tmp_path)
    tree.make("install")
    pages = [*tree.documents.rglob("*.md")]
    assert {"README.md", "kubernetes.md", "binfmtd.8.md", "wsl.md"} <= {page.name for page in pages}
    for page in pages:
        assert list(broken(page)) == [], page
        for link in links(page):
            path = (page.parent / link.partition("#")[0]).resolve()
            assert path.is_relative_to(tree.documents.resolve()), f"{page}: {link}"


def test_mended(tmp_path: Path) -> None:
    """A link to what is installed as an example leads there; one to another missing file becomes its text and path."""
    for path in ("docs/a.md", "examples/config/b.toml"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    for before, after in {
        "[a](a.md) [b](a.md#x) [c](https://x.invalid/) [d](#here)": None,
        "`[a](none)`\n```sh\n[a](none)\n[b](none)\n```\n[`a`](a.md)": None,
        "[b](../config/b.toml), [dir](../config)": "[b](../examples/config/b.toml), [dir](../examples/config)",
        "[`b`](../config/b.toml#x)": "[`b`](../examples/config/b.toml#x)",
        "([x.py](../tests/x.py#y))": "(`tests/x.py` in the source)",
        "[`tests/x.py`](../tests/x.py)": "`tests/x.py` in the source",
        "see [its\ntests](../tests/x.py) and [a](a.md)": "see its\ntests (`tests/x.py` in the source) and [a](a.md)",
        "[outside](../../x)": "outside (`../x` in the source)",
    }.items():
        assert installed_documents.mended(before, "docs/a.md", tmp_path) == (before if after is None else after)
    assert installed_documents.mended("[b](config/b.toml)", "README.md", tmp_path) == "[b](examples/config/b.toml)"


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
