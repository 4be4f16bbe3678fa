"""The reliability tests take longer than `make test` may, so they have their own marker."""

from pathlib import Path

import pytest

IN_EACH_RUN = "test_chaos.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name != IN_EACH_RUN:
            item.add_marker(pytest.mark.reliability)
