"""Targets of the Makefile that tests require, each made once in a run: by the first of pytest's processes."""

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from support.cli import CHECKOUT, run
from support.waiting import SLOWNESS

BUILD_SECONDS = 600 * SLOWNESS


def make_once(target: str, file: str, directories: pytest.TempPathFactory) -> Path:
    """Run ``make TARGET`` unless another of pytest's processes has; return a copy of a file that it makes.

    The files beside it are copied, too.  Another target may make them again meanwhile.
    """
    ours = directories.getbasetemp()
    shared = ours.parent if "PYTEST_XDIST_WORKER" in os.environ else ours
    copies = shared / "made" / target
    with (shared / "make.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not copies.exists():
            done = run(["make", "-C", str(CHECKOUT), target], timeout=BUILD_SECONDS)
            assert done.status == 0, (done.stdout[-3000:], done.stderr[-3000:])
            copies.mkdir(parents=True)
            for beside in (CHECKOUT / file).parent.iterdir():
                if beside.is_file():
                    shutil.copy2(beside, copies)
    return copies / os.path.basename(file)
