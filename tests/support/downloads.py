"""Commands that download Debian's packages, such as mmdebstrap: tried again where a mirror fails for a moment.

apt repeats a download by itself, but not a list that a mirror replaces meanwhile, nor the look-up of the mirror's name.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from support.waiting import SLOWNESS

MAKE_SECONDS = 900 * SLOWNESS
_TRIES = 3


def make(command: Sequence[str], made: Path) -> None:
    """Run a command that makes a file or a directory, up to three times; AssertionError with its last messages.

    What a try that has failed leaves there is removed.
    """
    for left in reversed(range(_TRIES)):
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, errors="replace", timeout=MAKE_SECONDS, cwd="/"
        )
        if done.returncode == 0:
            return
        if made.is_dir():
            shutil.rmtree(made)
        else:
            made.unlink(missing_ok=True)
        assert left, f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
