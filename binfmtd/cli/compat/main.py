"""``binfmt``: which of the images' command lines is meant, and what all of them have in common.

``--reset`` as the first word is multiarch's.  Else ``$BINFMTD_COMPAT`` says whose it is; without it ``-dir`` is
linuxkit's, and all else tonistiigi/binfmt's.  Only that one's module is imported.
"""

import importlib
import os
import sys
from collections.abc import Mapping, Sequence

from binfmtd.cli.main import guarded, start
from binfmtd.errors import BinfmtdError, UsageError
from binfmtd.report.printable import printable

VARIABLE = "BINFMTD_COMPAT"
DROP_INS = ("tonistiigi", "linuxkit", "multiarch", "vicamo")
# What an error of the common code calls an option is a variable here.
_VARIABLES = {
    "--state-dir": "BINFMTD_STATE_DIR",
    "--own-instance": "BINFMTD_OWN_INSTANCE=1",
    "--no-autoload": "BINFMTD_NO_AUTOLOAD",
}


def entry() -> None:
    """Run the drop-in that this process's arguments and environment mean, and exit."""
    start(main)


def main(arguments: Sequence[str]) -> int:
    """Run one; the exit status is 0 done, 1 failed, 2 usage, and the last line on stderr says why."""

    def run() -> int:
        module = importlib.import_module(f"binfmtd.cli.compat.{choose(arguments, os.environ)}")
        status: int = module.main(arguments)
        return status

    try:
        return guarded(run)
    except UsageError as error:
        for line in str(error).split("\n"):
            log(line)
        return error.exit_code
    except BinfmtdError as error:
        log_error(error)
        return error.exit_code


def choose(arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """The name of the drop-in, which is that of its module.  Raises UsageError for an unknown one."""
    named = environment.get(VARIABLE, "")
    if named and named not in DROP_INS:
        raise UsageError(f"${VARIABLE} is {named!r}: write one of {', '.join(DROP_INS)}")
    if arguments and arguments[0] == "--reset":
        return "multiarch"
    if named:
        return named
    if any(word.startswith("-") and word.lstrip("-").partition("=")[0] == "dir" for word in arguments):
        return "linuxkit"
    return DROP_INS[0]


def log(text: str) -> None:
    """One line on stderr, without time or name, as the originals have it."""
    print(printable(text), file=sys.stderr)


def log_error(error: BinfmtdError) -> None:
    """Why nothing could be done, as the last line; a command of ``binfmtd`` in it keeps its options."""
    parts = str(error).split("`")
    for place, part in enumerate(parts):
        if place % 2 and part.startswith("binfmtd "):
            continue
        for option, variable in _VARIABLES.items():
            parts[place] = parts[place].replace(option, variable)
    log(f"error: {'`'.join(parts)}")
