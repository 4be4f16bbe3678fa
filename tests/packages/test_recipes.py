"""The recipes for Alpine and Arch: their function package() installs from the source archive into $pkgdir.

Neither abuild nor makepkg is here.  A shell sources the recipe, with the variables that these tools set, and calls the
function where they would.
"""

from pathlib import Path

import pytest
from support.cli import CHECKOUT, run
from support.waiting import SLOWNESS

from binfmtd import __version__

pytestmark = pytest.mark.packages

ALPINE = ("sh", CHECKOUT / "packaging/alpine/APKBUILD")
ARCH = ("bash", CHECKOUT / "packaging/arch/PKGBUILD")
# abuild enters $builddir, makepkg $srcdir.
ALPINE_CALL = 'set -eu; srcdir=$1 pkgdir=$2; . "$3"; cd "$srcdir/$pkgname-$pkgver"; build; package'
ARCH_CALL = 'set -eu; srcdir=$1 pkgdir=$2; . "$3"; cd "$srcdir"; package'
BOTH = (
    "etc/binfmtd/binfmtd.toml",
    "usr/bin/binfmt",
    "usr/bin/binfmtd",
    "usr/share/bash-completion/completions/binfmtd",
    "usr/share/doc/binfmtd/README.md",
    "usr/share/fish/vendor_completions.d/binfmtd.fish",
    "usr/share/man/man8/binfmtd.8",
    "usr/share/zsh/site-functions/_binfmtd",
)
UNITS = "usr/lib/systemd"


@pytest.fixture(scope="module")
def source(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the source archive, and return the directory in which it is."""
    directory = tmp_path_factory.mktemp("src")
    assert run(["tar", "--extract", f"--file={sdist}", f"--directory={directory}"]).status == 0
    return directory


def package(shell: str, call: str, recipe: Path, source: Path, target: Path) -> Path:
    target.mkdir()
    done = run([shell, "-c", call, shell, str(source), str(target), str(recipe)], timeout=120 * SLOWNESS)
    assert done.status == 0, done.stderr
    return target


def missing(target: Path, *names: str) -> list[str]:
    return [name for name in (*BOTH, *names) if not (target / name).is_file()]


def test_alpine(source: Path, tmp_path: Path) -> None:
    """The function installs the command, its pages, and the service of OpenRC instead of systemd's units."""
    target = package(ALPINE[0], ALPINE_CALL, ALPINE[1], source, tmp_path / "pkg")
    assert missing(target, "etc/init.d/binfmtd", "etc/conf.d/binfmtd") == []
    assert not (target / UNITS).exists()
    assert (target / "etc/init.d/binfmtd").stat().st_mode & 0o777 == 0o755
    assert (target / "etc/conf.d/binfmtd").stat().st_mode & 0o777 == 0o644


def test_arch(source: Path, tmp_path: Path) -> None:
    """The function installs the command, its pages, the license and systemd's units, which start the command."""
    target = package(ARCH[0], ARCH_CALL, ARCH[1], source, tmp_path / "pkg")
    unit = f"{UNITS}/system/binfmtd.service"
    assert missing(target, unit, "usr/share/licenses/binfmtd/LICENSE") == []
    assert "ExecStart=/usr/bin/env --block-signal=TERM,INT,HUP /usr/bin/binfmtd run" in (target / unit).read_text()
    assert not (target / "etc/init.d").exists()


@pytest.mark.parametrize(("shell", "recipe"), [ALPINE, ARCH], ids=["alpine", "arch"])
def test_nothing_is_written_elsewhere(shell: str, recipe: Path, source: Path, tmp_path: Path) -> None:
    """Every path in the package's texts is one on the installed system: none names $pkgdir."""
    call = ALPINE_CALL if shell == "sh" else ARCH_CALL
    target = package(shell, call, recipe, source, tmp_path / "pkg")
    named = [path for path in target.rglob("*") if path.is_file() and str(tmp_path).encode() in path.read_bytes()]
    assert named == []


def test_the_archive_is_the_one_that_they_name(sdist: Path) -> None:
    """The recipes and the spec name the source archive as `make sdist` names it."""
    assert sdist.name == f"binfmtd-{__version__}.tar.gz"
    for _, recipe in (ALPINE, ARCH):
        assert "$pkgname-$pkgver.tar.gz" in recipe.read_text()
