"""For the packages: the source archive, the RPM package and the one file, which are built once."""

import shutil
from pathlib import Path

import pytest
from support.cli import CHECKOUT, run
from support.required import require, unavailable
from support.waiting import SLOWNESS

from binfmtd import __version__

BUILD_SECONDS = 600 * SLOWNESS
# Files whose tests use one build directory: one of pytest's processes runs them all.  Each other file is alone.
_TOGETHER = {
    "test_rpm": "source archive",
    "test_rpm_systemd": "source archive",
    "test_recipes": "source archive",
    "test_one_file": "one file",
    "test_one_file_systemd": "one file",
}


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.xdist_group(_TOGETHER.get(item.path.stem, item.path.stem)))


@pytest.fixture(scope="session")
def sdist() -> Path:
    """Build the source archive, and return its path."""
    done = run(["make", "-C", str(CHECKOUT), "sdist"], timeout=BUILD_SECONDS)
    assert done.status == 0, (done.stdout[-3000:], done.stderr[-3000:])
    return CHECKOUT / f"build/dist/binfmtd-{__version__}.tar.gz"


@pytest.fixture(scope="session")
def rpm() -> Path:
    """Build the RPM package, and return its path; `make rpm` fails if rpmlint finds anything."""
    if shutil.which("rpmbuild") is None or shutil.which("rpmlint") is None:
        unavailable("not here: rpmbuild or rpmlint; `make test-packages` installs them")
    done = run(["make", "-C", str(CHECKOUT), "rpm"], timeout=BUILD_SECONDS)
    assert done.status == 0, (done.stdout[-3000:], done.stderr[-3000:])
    return CHECKOUT / f"build/rpm/RPMS/noarch/binfmtd-{__version__}-1.noarch.rpm"


@pytest.fixture(scope="session")
def one_file() -> Path:
    """Build the one file, and return its path."""
    require("test-packages", ("mmdebstrap", "make"), "`make one-file` enters a root tree")
    done = run(["make", "-C", str(CHECKOUT), "one-file"], timeout=BUILD_SECONDS)
    assert done.status == 0, (done.stdout[-3000:], done.stderr[-3000:])
    return CHECKOUT / "build/onefile/binfmtd"
