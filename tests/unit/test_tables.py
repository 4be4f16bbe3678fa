"""Each table over an enum has all of its members: a new drift without a text fails here, and not in the daemon."""

import importlib
import pkgutil
from collections.abc import Iterator
from enum import Enum
from typing import Any

import pytest

import binfmtd

PARTIAL = {
    "binfmtd.cli.doctor.render._COLOURS",  # what was not checked has no colour
    "binfmtd.cli.doctor.entries._TEXTS",  # an opaque entry has no interpreter, and a text of its own
}


def tables() -> Iterator[Any]:
    """Yield each dict of a module whose keys are members of one enum."""
    for found in pkgutil.walk_packages(binfmtd.__path__, "binfmtd."):
        if found.name.endswith("__main__"):
            continue
        module = importlib.import_module(found.name)
        for name, value in vars(module).items():
            if not isinstance(value, dict) or not value or not all(isinstance(key, Enum) for key in value):
                continue
            (kind,) = {type(key) for key in value}
            if kind.__module__.startswith("binfmtd."):
                yield pytest.param(f"{found.name}.{name}", kind, value, id=name)


@pytest.mark.parametrize(("name", "kind", "table"), [*tables()])
def test_no_member_is_missing(name: str, kind: type[Enum], table: dict[Enum, object]) -> None:
    """The table has a value for every member, but for the few whose users expect that one is missing."""
    assert (set(kind) == table.keys()) is (name not in PARTIAL)
