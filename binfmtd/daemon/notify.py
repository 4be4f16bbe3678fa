"""sd_notify(3): tell the service manager, over the datagram socket named by ``$NOTIFY_SOCKET``."""

import os
import socket


class Notifier:
    """Sends states; does nothing where nobody listens."""

    def __init__(self) -> None:
        # Taken out of the environment, so that no child speaks in our name.
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        self._sentence = ""

    def send(self, *states: str) -> None:
        """Send assignments like ``READY=1``; a manager that has gone away or does not read is no reason to fail."""
        if not self._address:
            return
        try:
            with socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            ) as channel:
                channel.sendto("\n".join(states).encode(), self._address)
        except (OSError, ValueError):
            pass

    def tell(self, sentence: str) -> None:
        """Have `systemctl status` show this sentence, if it is another one; a newline would begin another state."""
        if sentence != self._sentence:
            self._sentence = sentence
            self.send(f"STATUS={sentence}")
