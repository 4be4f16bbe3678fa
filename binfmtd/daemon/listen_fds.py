"""The listening socket that systemd opens for us (sd_listen_fds(3)), so that the daemon itself needs no network."""

import os
import socket
from contextlib import suppress

_FIRST = 3  # SD_LISTEN_FDS_START
NAME = "metrics"  # FileDescriptorName= of the socket unit


def passed_socket() -> socket.socket | None:
    """Return the listening socket that systemd passed under NAME, or None.

    The variables are removed from the environment, and no child process inherits the descriptors.
    """
    pid, number, names = (os.environ.pop(f"LISTEN_{key}", "") for key in ("PID", "FDS", "FDNAMES"))
    os.environ.pop("LISTEN_PIDFDID", None)  # from systemd 258 on
    if pid != str(os.getpid()) or not (number.isascii() and number.isdigit()):
        return None
    descriptors = range(_FIRST, _FIRST + int(number))
    named = dict(zip(names.split(":"), descriptors, strict=False))
    for descriptor in descriptors:
        with suppress(OSError):
            os.set_inheritable(descriptor, False)  # noqa: FBT003  the standard library takes it so
    with suppress(KeyError, OSError):
        passed = socket.socket(fileno=named[NAME])
        if passed.type == socket.SOCK_STREAM and passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return passed
        passed.detach()
    return None
