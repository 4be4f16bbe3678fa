"""Work in slices: a generator that yields between two slices, so that its caller may do other work.

Example: a look at 10,000 entries takes about 10 ms.  The daemon makes one slice of it after another, and between two of
them it repairs what other programs do.  A command makes them all ``in_one_go``.
"""

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")

Steps = Generator[None, None, T]  # T is the result of the work


def in_one_go(steps: Steps[T]) -> T:
    """Do all slices of the work, and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
