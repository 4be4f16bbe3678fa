"""For tests on old and odd hosts, each of them made on this machine, with a private instance of binfmt_misc."""

import os
import shutil
from collections.abc import Callable

import pytest
from support.instance import Instance, UnavailableError

Needs = Callable[..., None]


def unavailable(reason: str) -> None:
    """Skip; in CI fail, or nothing would be tested."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        unavailable("these hosts have several users, which takes root: run this as root")
    try:
        Instance(everybody=True).close()
    except UnavailableError as error:
        unavailable(str(error))


@pytest.fixture(scope="session")
def needs() -> Needs:
    """Return ``needs(program...)``, which skips the test if one of these programs is missing."""

    def check(*programs: str) -> None:
        if missing := [program for program in programs if shutil.which(program) is None]:
            unavailable(f"not here: {', '.join(missing)}; `make test-hosts` installs them")

    return check
