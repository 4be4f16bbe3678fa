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


class TriedInterpreter(NamedTuple):
    """The result of executing one of several interpreters of a handler with its architecture's program.

    ``file`` is the identity of the file that was executed (``FileIdentity.text``), and ``reason`` why it does not run
    the program; empty if it does.
    """

    path: str
    file: str
    reason: str


class Probed(NamedTuple):
    """All results.  ``at`` is the time of the probe, in seconds since the epoch.

    ``interpreters`` are those of handlers that have several.
    """

    at: int
    architectures: tuple[Tried, ...]
    interpreters: tuple[TriedInterpreter, ...] = ()
