"""Why the daemon makes a pass.  The values are words of the log, the status and the metrics."""

from enum import StrEnum, auto


class Trigger(StrEnum):
    """The reason for a pass, or for finding the instance before it."""

    START = auto()  # the daemon's first
    RELOAD = auto()  # another config is in force
    QUIET = auto()  # a name has been quiet for ``settle``, or a backoff allows its repair
    INTERPRETER = auto()  # an interpreter's file is another one: only stand-ins are written
    MOUNT = auto()  # the mount table has changed
    WATCH_LOST = auto()  # the kernel has removed the watch on the instance
    OVERFLOW = auto()  # the kernel has dropped events
    RESYNC = auto()  # ``resync`` seconds have passed
    PAUSE = auto()  # ``pause`` or ``resume``, or the end of a pause
    STOP = auto()  # the daemon ends

    @property
    def sums_up(self) -> bool:
        """True if one log line sums up what such a pass registered, since no other program undid it."""
        return self in (Trigger.START, Trigger.RELOAD)
