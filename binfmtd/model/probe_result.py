"""The results of running the architectures' programs: values, as in probed.json and ``probe --json``."""

from typing import NamedTuple


class Tried(NamedTuple):
    """The result for one architecture's program.  A field is None if its value could not be determined.

    ``entry`` takes the program.  ``in_chroot`` is True if it also runs in a root that contains nothing else, as in
    another container.  ``reason`` is why it does not run, or not in such a root.  ``duration_us`` is in microseconds.
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
        """True if it runs, and the probe did not show that it fails in another root, such as a container's."""
        return self.runs and self.in_chroot is not False


class Probed(NamedTuple):
    """All results.  ``at`` is the time of the probe, in seconds since the epoch."""

    at: int
    architectures: tuple[Tried, ...]
