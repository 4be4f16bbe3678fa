"""sd_notify(3): send the daemon's state to the service manager, over the datagram socket in ``$NOTIFY_SOCKET``."""

import os
import socket
import time
from errno import EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM

_AGAIN = 0.1  # seconds until a message is sent again; twice as long each time
_LONGEST = 60.0
_FOR_NOW = (EAGAIN, EMFILE, ENFILE, ENOBUFS, ENOMEM)
_NEVER = float("inf")


class Notifier:
    """A sender of states to the service manager; without ``$NOTIFY_SOCKET`` it does nothing.

    The kernel refuses a message while the manager has too many unread ones (net.unix.max_dgram_qlen), and a socket
    while this process has too many open files.  The message is then sent later: without READY=1 systemd would end the
    daemon.  ``due_at`` is the time of the next ``retry`` (monotonic, in seconds); infinity if nothing is left to send.
    """

    def __init__(self) -> None:
        self.due_at = _NEVER
        self._again = _AGAIN
        self._unsent: dict[str, str] = {}  # by the name of the first assignment, oldest first
        # Taken out of the environment, so that no child process sends states in the daemon's name.
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        self._sentence = ""

    def send(self, *states: str) -> None:
        """Send assignments like ``READY=1``, in place of those of the same name that could not be sent yet.

        Ignores errors: the manager may have gone away.
        """
        if not self._address:
            return
        name = states[0].partition("=")[0]
        self._unsent.pop(name, None)  # the new message comes after those of other names
        self._unsent[name] = "\n".join(states)
        self._send_all()

    def retry(self, _: float) -> None:
        """Send what could not be sent before."""
        self._again = min(2 * self._again, _LONGEST)
        self._send_all()

    def _send_all(self) -> None:
        self.due_at = _NEVER
        for name, message in tuple(self._unsent.items()):
            try:
                with socket.socket(
                    socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
                ) as channel:
                    channel.sendto(message.encode(), self._address)
            except OSError as error:
                if error.errno in _FOR_NOW:
                    self.due_at = time.monotonic() + self._again
                    return
            except ValueError:
                pass
            self._again = _AGAIN
            del self._unsent[name]

    def send_status(self, sentence: str) -> None:
        """Have `systemctl status` show this sentence; sends nothing if it is the same as the last one.

        It must not contain a newline, which would begin another assignment.
        """
        if sentence != self._sentence:
            self._sentence = sentence
            self.send(f"STATUS={sentence}")
