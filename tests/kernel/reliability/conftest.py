"""The reliability tests take longer than `make test` may, so they have their own marker.

Those that keep a core busy run one at a time: two of them would leave the daemon no core on a machine that has two.
"""

import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest

IN_EACH_RUN = "test_chaos.py"
KEEP_A_CORE_BUSY = ("test_contention.py", "test_neighbours.py", "test_trust.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name != IN_EACH_RUN:
            item.add_marker(pytest.mark.reliability)


@pytest.fixture(autouse=True)
def busy_core(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let a test that keeps a core busy wait for the one that another of pytest's processes runs."""
    if request.path.name not in KEEP_A_CORE_BUSY:
        yield
        return
    with (tmp_path_factory.getbasetemp().parent / "busy_core").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
