"""For all tests: how hypothesis works here, and how often the reliability suite does everything."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# The same for every user: Debian's have a umask of 0002, and binfmtd refuses what a group may write to; and their PATH
# lacks the directory of chroot(8).
os.umask(0o022)
os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
# A shell has its jobs in the background ignore ^C, and so would whatever the tests start and then interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The time of one example says nothing on a machine that others use too.  The same examples in each run, so that a
# failure comes from the change that is tested.
settings.register_profile("binfmtd", deadline=None, derandomize=True, max_examples=100)
settings.load_profile("binfmtd")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--share",
        type=float,
        default=0.02,
        help="how much of the full numbers tests/kernel/reliability does: 1 is all (make reliability); default 0.02",
    )
    parser.addoption("--seed", default="5", help="of the chaos test: a number, or random; default 5")
    parser.addoption("--steps", type=int, help="of the chaos test, instead of a share of the full number")


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    """Note for ``make test``, which says it at its end, why something was not tested."""
    path = os.environ.get("BINFMTD_NOT_TESTED")
    if path and "PYTEST_XDIST_WORKER" not in os.environ:  # the others tell the one that started them
        reports = terminalreporter.getreports("skipped")
        with Path(path).open("a", encoding="utf-8") as file:
            file.writelines(f"{report.longrepr[2].removeprefix('Skipped: ')}\n" for report in reports)


@pytest.fixture
def times(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """Yield ``times(full)``: how often to do what the whole suite does ``full`` times; always once at least."""
    share = float(request.config.getoption("--share"))
    return lambda full: max(1, round(full * share))
