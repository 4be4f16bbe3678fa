"""The recipes of all packages: their version, their syntax, and that they require what pyproject.toml requires."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from binfmtd import __version__

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "packaging/rpm/binfmtd.spec"
APKBUILD = ROOT / "packaging/alpine/APKBUILD"
PKGBUILD = ROOT / "packaging/arch/PKGBUILD"
CONTROL = ROOT / "debian/control"
INITD = ROOT / "packaging/openrc/binfmtd.initd"
CONFD = ROOT / "packaging/openrc/binfmtd.confd"
# A package of PyPI: its name in Fedora, Alpine and Arch.
NAMES = {
    "pydantic": ("python3-pydantic", "py3-pydantic", "python-pydantic"),
    "structlog": ("python3-structlog", "py3-structlog", "python-structlog"),
    "typing_extensions": ("python3-typing-extensions", "py3-typing-extensions", "python-typing_extensions"),
    "pyinotify": ("python3-inotify", "py3-inotify", "python-pyinotify"),
    "pyasyncore": ("python3-pyasyncore", "py3-pyasyncore", "python-pyasyncore"),
}
RECIPES = (SPEC, APKBUILD, PKGBUILD)


def required() -> dict[str, str]:
    """Return the packages that pyproject.toml requires: name -> the lowest version, or nothing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    found = [re.fullmatch(r"(\w+)(?:>=([\d.]+))?(?:;.*)?", each.replace(" ", "")) for each in project["dependencies"]]
    return {match[1]: match[2] or "" for match in found if match}


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        (SPEC, r"^Version: +(\S+)$"),
        (SPEC, r"^%changelog\n\* .* <\S+> - (\S+)-\d+$"),
        (APKBUILD, r"^pkgver=(\S+)$"),
        (PKGBUILD, r"^pkgver=(\S+)$"),
        (ROOT / "debian/changelog", r"\Abinfmtd \((\S+)\) "),
    ],
    ids=["spec", "spec's changelog", "APKBUILD", "PKGBUILD", "debian"],
)
def test_version(path: Path, pattern: str) -> None:
    """Each package has binfmtd's own version, also in the newest entry of its changelog."""
    assert re.findall(pattern, path.read_text("utf-8"), re.MULTILINE) == [__version__]


def test_release() -> None:
    """The newest entry of the spec's changelog is about the spec's release."""
    text = SPEC.read_text("utf-8")
    (release,) = re.findall(r"^Release: +(\d+)%\{\?dist\}$", text, re.MULTILINE)
    assert f"> - {__version__}-{release}\n" in text.partition("\n%changelog\n")[2].splitlines(keepends=True)[0]


@pytest.mark.parametrize(
    ("shell", "path"),
    [("sh", APKBUILD), ("bash", PKGBUILD), ("sh", INITD), ("sh", CONFD), ("sh", ROOT / "debian/binfmtd.prerm")],
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
def test_syntax(shell: str, path: Path) -> None:
    """The shell that executes the file can read it."""
    done = subprocess.run([shell, "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_names_are_complete() -> None:
    """Each package that pyproject.toml requires has a name in each distribution."""
    assert required().keys() == NAMES.keys()


@pytest.mark.parametrize(("index", "path"), [*enumerate(RECIPES)], ids=[path.name for path in RECIPES])
def test_requirements(index: int, path: Path) -> None:
    """Each package requires what pyproject.toml requires, in the same version, and Python in the lowest one."""
    text = path.read_text("utf-8").replace(" >= ", ">=")
    wanted = {NAMES[name][index]: version for name, version in required().items()}
    wanted["python" if path == PKGBUILD else "python3"] = "3.11"
    for name, version in wanted.items():
        written = rf"(?m)(^|[\s']){re.escape(name + (f'>={version}' if version else ''))}($|[\s'])"
        assert re.search(written, text), f"{path.name} does not require {name} {version}".rstrip()


def test_debian_requires_the_same_version_of_pydantic() -> None:
    """debian/control names the version itself; the names of the others come from the package's metadata."""
    assert f"python3-pydantic (>= {required()['pydantic']})" in CONTROL.read_text("utf-8")
