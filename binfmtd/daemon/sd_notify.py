"""sd_notify(3): send the daemon's state to the service manager, over the datagram socket in ``$NOTIFY_SOCKET``."""

import os
import socket


class Notifier:
    """A sender of states to the service manager; without ``$NOTIFY_SOCKET`` it does nothing."""

    def __init__(self) -> None:
        # Taken out of the environment, so that no child process sends states in the daemon's name.
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        self._sentence = ""

    def send(self, *states: str) -> None:
        """Send assignments like ``READY=1``.  Ignores errors: the manager may have gone away, or not read."""
        if not self._address:
            return
        try:
            with socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            ) as channel:
                channel.sendto("\n".join(states).encode(), self._address)
        except (OSError, ValueError):
            pass

    def send_status(self, sentence: str) -> None:
        """Have `systemctl status` show this sentence; sends nothing if it is the same as the last one.

        It must not contain a newline, which would begin another assignment.
        """
        if sentence != self._sentence:
            self._sentence = sentence
            self.send(f"STATUS={sentence}")
