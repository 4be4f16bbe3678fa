"""For the packages: the source archive, the RPM package and the one file, which are built once."""

import shutil
from pathlib import Path

import pytest
from support.cli import CHECKOUT
from support.make_once import make_once
from support.required import require, unavailable

from binfmtd import __version__

ONE_FILE = "build/onefile/binfmtd"


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source archive, and return its path."""
    return make_once("sdist", f"build/dist/binfmtd-{__version__}.tar.gz", tmp_path_factory)


@pytest.fixture(scope="session")
def rpm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the RPM package, and return its path; `make rpm` fails if rpmlint finds anything."""
    if shutil.which("rpmbuild") is None or shutil.which("rpmlint") is None:
        unavailable("not here: rpmbuild or rpmlint; `make test-packages` installs them")
    return make_once("rpm", f"build/rpm/RPMS/noarch/binfmtd-{__version__}-1.noarch.rpm", tmp_path_factory)


@pytest.fixture(scope="session")
def one_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the one file, and return its path."""
    require("test-packages", ("mmdebstrap", "make"), "`make one-file` enters a root tree")
    make_once("one-file", ONE_FILE, tmp_path_factory)
    return CHECKOUT / ONE_FILE  # no other target makes it again
