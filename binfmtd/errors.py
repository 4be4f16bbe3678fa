"""Every error that binfmtd raises on purpose: one small tree.

The message of each says what is wrong, where, and what to do about it, in one line; the command line prints it as it is
and exits with ``exit_code``.  ``again`` tells what makes another try worth while.
"""

from enum import StrEnum
from errno import EMFILE, ENFILE, ENOMEM


class Again(StrEnum):
    """What has to happen before the same thing can go better."""

    NEVER = "never"  # the same input fails the same way
    RELOAD = "reload"  # an administrator has to change the config or the interpreter, which is noticed
    MOUNT = "mount"  # the mount table has to change, which is noticed
    LATER = "later"  # something that no event reports: try again after a while
    NOW = "now"  # another process was faster: look, and try again


PASSING = frozenset({EMFILE, ENFILE, ENOMEM})  # a shortage, which ends by itself or by somebody else's doing
LONGEST = 4000  # characters of a message


class BinfmtdError(Exception):
    """The root of the tree.

    A message that repeats a very long value is cut in its middle: where it is wrong and what to do stand at the ends.
    """

    exit_code = 1
    again = Again.NEVER

    def __init__(self, message: str) -> None:
        if len(message) > LONGEST:
            message = f"{message[: LONGEST // 2]} ... {message[-LONGEST // 2 :]}"
        super().__init__(message)


class UsageError(BinfmtdError):
    """The command line or the environment asks for something that does not exist."""

    exit_code = 2


class ConfigError(BinfmtdError):
    """The config cannot be used: names the file, the key and the remedy."""

    exit_code = 78  # EX_CONFIG of sysexits.h
    again = Again.RELOAD


class FormatError(BinfmtdError):
    """A text or a value is outside what binfmt_misc can express."""


class MountError(BinfmtdError):
    """binfmt_misc is not to be had at the moment; ``errno`` is what the kernel said, if that was the reason."""

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.again = Again.LATER if errno in PASSING else Again.MOUNT


class VanishError(MountError):
    """What would be registered would be gone with this process, since nobody else has this instance mounted."""


class WriteRefusedError(BinfmtdError):
    """The kernel refused a write to binfmt_misc; ``errno`` is the kernel's."""

    def __init__(self, message: str, errno: int, again: Again) -> None:
        super().__init__(message)
        self.errno = errno
        self.again = again


class SealError(BinfmtdError):
    """binfmt_misc cannot be made read-only or writable; ``errno`` is the kernel's, 0 if it refused nothing."""

    again = Again.LATER

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class StateError(BinfmtdError):
    """The state directory cannot be used."""

    again = Again.LATER


class AlreadyRunningError(StateError):
    """Another daemon holds the lock of this state directory; ``pid`` is its process id, or 0 if unknown."""

    def __init__(self, message: str, pid: int) -> None:
        super().__init__(message)
        self.pid = pid


class PersistenceError(BinfmtdError):
    """What is registered cannot be made to come back after a reboot."""

    again = Again.MOUNT


class ProbeError(BinfmtdError):
    """Programs cannot be tried here."""

    again = Again.LATER


class SandboxError(BinfmtdError):
    """This machine does not let an ordinary user have an instance of its own."""
