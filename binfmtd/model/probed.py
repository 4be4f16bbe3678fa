"""What came of running the architectures' programs: values, as the file and ``probe --json`` have them."""

from typing import NamedTuple


class Tried(NamedTuple):
    """One architecture's program.  Where something could not be found out it is None.

    ``entry`` is the one that takes the program, ``in_chroot`` whether it runs also where nothing but itself is, as in
    somebody's container; ``reason`` says why it does not run, or not there.
    """

    name: str
    runs: bool
    natively: bool | None
    entry: str | None
    in_chroot: bool | None
    reason: str
    duration_us: int

    @property
    def runs_anywhere(self) -> bool:
        """Whether it runs, and nothing tells that it would not in a container."""
        return self.runs and self.in_chroot is not False


class Probed(NamedTuple):
    """All of them.  ``at`` is when, in seconds since the epoch."""

    at: int
    architectures: tuple[Tried, ...]
