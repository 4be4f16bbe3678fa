"""For tests on old and odd hosts, each of them made on this machine, with a private instance of binfmt_misc."""

import shutil

import pytest
from support.required import Needs, require, unavailable


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    require("test-hosts", (), "these hosts have several users")


@pytest.fixture(scope="session")
def needs() -> Needs:
    """Return ``needs(program...)``, which skips the test if one of these programs is missing."""

    def check(*programs: str) -> None:
        if missing := [program for program in programs if shutil.which(program) is None]:
            unavailable(f"not here: {', '.join(missing)}; `make test-hosts` installs them")

    return check
