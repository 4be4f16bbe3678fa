"""For the packages: the source archive, the RPM package and the one file, which are built once."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cli import CHECKOUT, run
from support.required import require, unavailable
from support.waiting import SLOWNESS

from binfmtd import __version__

BUILD_SECONDS = 600 * SLOWNESS
ONE_FILE = "build/onefile/binfmtd"

Make = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return a function that runs ``make TARGET`` once, however many of pytest's processes call it, and returns a file.

    The file is a copy, as are those beside it, since another target may make it again.
    """
    ours = tmp_path_factory.getbasetemp()
    shared = ours.parent if "PYTEST_XDIST_WORKER" in os.environ else ours

    def make(target: str, made: str) -> Path:
        with (shared / "make.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            copy = shared / "made" / target
            if not copy.exists():
                done = run(["make", "-C", str(CHECKOUT), target], timeout=BUILD_SECONDS)
                assert done.status == 0, (done.stdout[-3000:], done.stderr[-3000:])
                copy.mkdir(parents=True)
                for file in (CHECKOUT / made).parent.iterdir():
                    if file.is_file():
                        shutil.copy2(file, copy)
            return copy / os.path.basename(made)

    return make


@pytest.fixture(scope="session")
def sdist(make: Make) -> Path:
    """Build the source archive, and return its path."""
    return make("sdist", f"build/dist/binfmtd-{__version__}.tar.gz")


@pytest.fixture(scope="session")
def rpm(make: Make) -> Path:
    """Build the RPM package, and return its path; `make rpm` fails if rpmlint finds anything."""
    if shutil.which("rpmbuild") is None or shutil.which("rpmlint") is None:
        unavailable("not here: rpmbuild or rpmlint; `make test-packages` installs them")
    return make("rpm", f"build/rpm/RPMS/noarch/binfmtd-{__version__}-1.noarch.rpm")


@pytest.fixture(scope="session")
def one_file(make: Make) -> Path:
    """Build the one file, and return its path."""
    require("test-packages", ("mmdebstrap", "make"), "`make one-file` enters a root tree")
    make("one-file", ONE_FILE)
    return CHECKOUT / ONE_FILE  # no other target makes it again
