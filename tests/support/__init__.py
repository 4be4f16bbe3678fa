"""Helpers that the tests share: private instances of binfmt_misc, the daemon as a process, and ways to wait."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Self

Times = Callable[[int], int]  # the fixture ``times``


class Closing:
    """A context manager that calls ``close`` at its end."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def imported(path: Path) -> ModuleType:
    """Import a file that is in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
