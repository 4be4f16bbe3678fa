"""Draw docs/repair.svg, the session of the README: ``make picture``.

A shell gets commands typed on a terminal of its own, one after the other, and what the terminal shows is drawn.  The
entries that the demo removes are those of a private instance of binfmt_misc (``binfmtd sandbox``).
"""

import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from support.terminal_picture import draw
from support.waiting import deadline_in

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "repair.svg"
COLUMNS, LINES = 100, 50
PROMPT = "$ "
TITLE = "A terminal: make demo's program removes entries while a foreign program runs, and binfmtd repairs them"
COMMANDS = ("binfmtd sandbox --log-level error -- sh", "python tests/demo.py", "binfmtd status --history")
DEADLINE_SECONDS = 120


class Terminal:
    """An interactive shell on a terminal, and all that the terminal has shown."""

    def __init__(self) -> None:
        kept = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR", "ENV")}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.chdir(ROOT)
            os.execvpe("sh", ["sh", "-i"], kept | {"PS1": PROMPT, "TERM": "xterm", "PATH": path})  # noqa: S606  a shell
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self.text = ""
        self._wait_for_prompt()

    def type(self, command: str) -> None:
        """Type a command, and wait until the next prompt is there."""
        os.write(self._terminal, f"{command}\n".encode())
        self._read_until(lambda: f"{PROMPT}{command}\r\n" in self.text)
        self._wait_for_prompt()

    def close(self) -> None:
        """End the shells, the innermost first."""
        with suppress(OSError):  # EIO when no process has the terminal open any more
            os.write(self._terminal, b"exit\nexit\n")
            while select.select([self._terminal], [], [], DEADLINE_SECONDS)[0] and os.read(self._terminal, 65536):
                pass
        os.close(self._terminal)  # SIGHUP, if it still runs
        os.waitpid(self._pid, 0)

    def _wait_for_prompt(self) -> None:
        self._read_until(lambda: f"\n{self.text}".endswith(f"\n{PROMPT}"))

    def _read_until(self, condition: Callable[[], bool]) -> None:
        deadline = deadline_in(DEADLINE_SECONDS)
        while not condition():
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not select.select([self._terminal], [], [], remaining)[0]:
                raise TimeoutError(f"no prompt after {DEADLINE_SECONDS} s:\n{self.text}")
            self.text += os.read(self._terminal, 65536).decode()


def main() -> int:
    """Type the commands, and draw what the terminal has shown; return 1 if an execution failed."""
    terminal = Terminal()
    try:
        for command in COMMANDS:
            terminal.type(command)
    finally:
        terminal.close()
    lines = terminal.text.replace("\r\n", "\n").removesuffix(PROMPT).splitlines()
    if not any(": 0 of " in line and line.endswith(" failed") for line in lines):
        sys.stderr.write("\n".join(["picture: the demo did not work, and the picture stays as it is:", *lines, ""]))
        return 1
    PICTURE.write_text(draw(lines, COLUMNS, TITLE, PROMPT), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
