"""Helpers that the tests share: private instances of binfmt_misc, the daemon as a process, and ways to wait."""

from collections.abc import Callable

Times = Callable[[int], int]  # the fixture ``times``
