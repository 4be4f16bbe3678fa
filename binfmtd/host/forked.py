"""Work that would change this process for good, such as entering a namespace: a child process does it."""

import os
from collections.abc import Callable

from binfmtd.errors import BinfmtdError


def in_a_child(work: Callable[[], object]) -> str | None:
    """Do the work in a child process; return the reason why it failed, or None.

    An exception that is neither an OSError nor a BinfmtdError gives the reason
    "the child process failed with an unexpected error".
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        message = "the child process failed with an unexpected error"
        try:
            work()
            message = ""
        except (OSError, BinfmtdError) as error:
            message = str(error)
        finally:
            os.write(writing, message.encode("utf-8", "backslashreplace"))
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        message = file.read().decode()
    os.waitpid(child, 0)
    return message or None
