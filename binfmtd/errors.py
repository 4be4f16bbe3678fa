"""The errors that binfmtd raises on purpose: one small tree.

Each message is one line: what is wrong, where, and what to do about it.  The command line prints it unchanged and exits
with ``exit_code``.  ``again`` is the condition under which another attempt can succeed.
"""

from collections.abc import Sequence
from enum import StrEnum
from errno import EMFILE, ENFILE, ENOMEM


class Again(StrEnum):
    """The condition under which another attempt can succeed."""

    NEVER = "never"  # the same input fails the same way
    RELOAD = "reload"  # an administrator has to change the config or the interpreter; the daemon notices that
    MOUNT = "mount"  # the mount table has to change; the daemon notices that
    LATER = "later"  # something has to change that no event reports: try again after a while
    NOW = "now"  # another process was faster: read the state again and retry


PASSING = frozenset({EMFILE, ENFILE, ENOMEM})  # shortages, which end without our doing
LONGEST = 4000  # characters of a message


class BinfmtdError(Exception):
    """The root of the tree.

    A message of more than LONGEST characters, which repeats a very long value, is cut in its middle: the place of the
    error and the remedy are at the ends.
    """

    exit_code = 1
    again = Again.NEVER

    def __init__(self, message: str) -> None:
        if len(message) > LONGEST:
            message = f"{message[: LONGEST // 2]} ... {message[-LONGEST // 2 :]}"
        super().__init__(message)


class UsageError(BinfmtdError):
    """A command line or an environment that asks for something that does not exist."""

    exit_code = 2


class ConfigError(BinfmtdError):
    """A config that cannot be used; the message names the file, the key and the remedy.

    ``others`` are such messages for further mistakes that were found.  ``again`` is LATER if the reason is a shortage
    and no mistake.
    """

    exit_code = 78  # EX_CONFIG of sysexits.h
    again = Again.RELOAD

    def __init__(self, message: str, others: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.others = tuple(others)

    @classmethod
    def of(cls, mistakes: Sequence[str]) -> "ConfigError":
        """Return one error for all mistakes, of which there is at least one; its message is the first."""
        first, *others = mistakes
        more = f" (and {len(others)} more mistake{'s' if others[1:] else ''})" if others else ""
        return cls(first + more, others)


class FormatError(BinfmtdError):
    """A text, value or file that is malformed, or that binfmt_misc cannot express."""


DAMAGE = (FormatError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


def damage(error: Exception) -> str:
    """Return in which way one of our own files is damaged; ``error`` is one of DAMAGE, raised by reading it."""
    if isinstance(error, FormatError):
        return str(error)
    if isinstance(error, KeyError):
        return f"the key {error} is missing"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    if (line := getattr(error, "lineno", None)) is not None:  # json.JSONDecodeError, which would have to be imported
        return f"line {line} is not valid JSON"
    return "its tables and lists are not arranged as this version writes them"


class MountError(BinfmtdError):
    """The lack of a usable binfmt_misc; ``errno``, the kernel's if it refused a call, selects ``again``."""

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.again = Again.LATER if errno in PASSING else Again.MOUNT


class VanishError(MountError):
    """A registration that would end with this process, because no other process has this instance mounted."""


class WriteRefusedError(BinfmtdError):
    """A write to binfmt_misc that the kernel refused; ``errno`` is the kernel's."""

    def __init__(self, message: str, errno: int, again: Again) -> None:
        super().__init__(message)
        self.errno = errno
        self.again = again


class SealError(BinfmtdError):
    """A failure to make binfmt_misc read-only or writable; ``errno`` is the kernel's, 0 if it refused nothing."""

    again = Again.LATER

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class StateError(BinfmtdError):
    """A state directory, or a file in it, that cannot be used."""

    again = Again.LATER


class AlreadyRunningError(StateError):
    """A state directory whose lock another daemon holds; ``pid`` is its process id, or 0 if unknown."""

    def __init__(self, message: str, pid: int) -> None:
        super().__init__(message)
        self.pid = pid


class PersistenceError(BinfmtdError):
    """A failure to have the handlers registered again after a reboot."""

    again = Again.MOUNT


class ProbeError(BinfmtdError):
    """A failure to try the architectures' programs on this host."""

    again = Again.LATER


class StoreError(BinfmtdError):
    """A store of emulators that cannot be used, or an image, archive or directory that nothing can be added from."""


class SandboxError(BinfmtdError):
    """A machine on which an ordinary user cannot have their own instance."""
