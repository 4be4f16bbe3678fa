"""What a year on a build farm does takes longer than `make test` may: it has a marker of its own."""

from pathlib import Path

import pytest

IN_EACH_RUN = "test_chaos.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name != IN_EACH_RUN:
            item.add_marker(pytest.mark.reliability)
