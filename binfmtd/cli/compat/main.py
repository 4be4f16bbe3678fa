"""The command ``binfmt``: choose the drop-in for a command line, run it, and print its errors.

The first rule that applies decides: ``--reset`` as the first word means multiarch; ``$BINFMTD_COMPAT`` names a drop-in;
a flag ``-dir`` means linuxkit; everything else is tonistiigi/binfmt.  Only the chosen module is imported.
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
# Errors of the common code name options of ``binfmtd``; ``binfmt`` has variables for them.
_VARIABLES = {
    "--state-dir": "BINFMTD_STATE_DIR",
    "--own-instance": "BINFMTD_OWN_INSTANCE=1",
    "--no-autoload": "BINFMTD_NO_AUTOLOAD",
}


def entry() -> None:
    """Run the drop-in that this process's arguments and environment choose, and exit."""
    start(main)


def main(arguments: Sequence[str]) -> int:
    """Run one drop-in and return its exit status: 0 done, 1 failed, 2 usage; the last line on stderr is the reason."""

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
    """Return the name of the drop-in, which is its module's name.  Raises UsageError for an unknown name."""
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
    """Print one line on stderr, without time or program name, as the originals do."""
    print(printable(text), file=sys.stderr)


def log_error(error: BinfmtdError) -> None:
    """Print the error as the last line, with variables for options, except in commands of ``binfmtd`` in backticks."""
    parts = str(error).split("`")
    for place, part in enumerate(parts):
        if place % 2 and part.startswith("binfmtd "):
            continue
        for option, variable in _VARIABLES.items():
            parts[place] = parts[place].replace(option, variable)
    log(f"error: {'`'.join(parts)}")
