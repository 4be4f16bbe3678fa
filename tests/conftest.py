"""Settings for all tests: umask, PATH, ^C, hypothesis, and the share of the reliability suite's numbers."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# Debian's users have a umask of 0002, and binfmtd refuses files that a group can write to; their PATH lacks the
# directory of chroot(8).
os.umask(0o022)
os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
# A shell lets its background jobs ignore SIGINT and SIGQUIT, and the processes that tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

# No deadline, as other processes slow examples down.  Each run has the same examples, so that a failure comes from the
# change that is tested.
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
    """Append the reasons of skipped tests to a file, which ``make test`` prints at its end."""
    path = os.environ.get("BINFMTD_NOT_TESTED")
    if path and "PYTEST_XDIST_WORKER" not in os.environ:  # workers report to the main process
        reports = terminalreporter.getreports("skipped")
        with Path(path).open("a", encoding="utf-8") as file:
            file.writelines(f"{report.longrepr[2].removeprefix('Skipped: ')}\n" for report in reports)


@pytest.fixture
def times(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """Return ``times(full)``: the number of rounds, ``full`` in the whole suite, and always at least one."""
    share = float(request.config.getoption("--share"))
    return lambda full: max(1, round(full * share))
