"""A foreign program that a booted machine executes without a pause, while a test does something to the daemon."""

from support import Closing
from support.booted import PROGRAM, System
from support.waiting import wait_until

DIRECTORY = "/run/storm"
FILE = "/etc/storm.sh"  # systemd-run would expand some of its variables
# Its argument is the emulator's exit status.  Prints each other one, and the number of executions at the end.
SCRIPT = f"""
n=0
while [ ! -e {DIRECTORY}/enough ]; do
    {PROGRAM}; s=$?; n=$((n + 1)); [ $s = "$1" ] || echo "failed: $s"
    : >{DIRECTORY}/begun
done >{DIRECTORY}/outcomes 2>&1
echo "executions: $n" >>{DIRECTORY}/outcomes
"""
DEADLINE_SECONDS = 60


class Storm(Closing):
    """The executions, from the end of the first one to ``end``."""

    def __init__(self, machine: System, expected: int) -> None:
        self._machine = machine
        assert machine.run("sh", "-c", f"rm -rf {DIRECTORY} && mkdir {DIRECTORY}").status == 0
        machine.write(FILE, SCRIPT)
        started = machine.run("systemd-run", "--quiet", "--collect", "sh", FILE, str(expected))
        assert started.status == 0, started.stderr
        begun = f"{DIRECTORY}/begun"
        wait_until(lambda: machine.run("test", "-e", begun).status == 0, DEADLINE_SECONDS, "the first execution")

    def end(self) -> int:
        """End it, and return the number of executions; AssertionError if one had another exit status."""
        self.close()

        def outcomes() -> str:
            text = self._machine.run("cat", f"{DIRECTORY}/outcomes").stdout
            return text if "executions: " in text else ""

        found = wait_until(outcomes, DEADLINE_SECONDS, "the last execution")
        assert "failed" not in found, found
        return int(found.split()[-1])

    def close(self) -> None:
        """End it; a second call does nothing."""
        self._machine.run("touch", f"{DIRECTORY}/enough")
        self._machine.run("rm", "-f", FILE)
