"""Requirements of a suite: without them its tests are skipped with the reason, and fail in CI."""

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from support.instance import Instance, UnavailableError

Needs = Callable[..., None]  # the fixture ``needs``


def require(target: str, programs: Iterable[str], because: str, directories: Iterable[Path] = ()) -> None:
    """Require these programs, which ``make TARGET`` installs, directories, root, and an instance with all users.

    ``because``: the reason why that takes root.
    """
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if missing := [program for program in programs if shutil.which(program, path=path) is None]:
        unavailable(f"not here: {', '.join(missing)}; `make {target}` installs them")
    if missing := [str(directory) for directory in directories if not directory.is_dir()]:
        unavailable(f"not here: {', '.join(missing)}")
    if os.geteuid() != 0:
        unavailable(f"{because}, which takes root: run this as root")
    try:
        Instance(everybody=True).close()
    except UnavailableError as error:
        unavailable(str(error))


def unavailable(reason: str) -> None:
    """Skip; in CI fail, or nothing would be tested."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
