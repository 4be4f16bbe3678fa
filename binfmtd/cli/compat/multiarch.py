"""multiarch/qemu-user-static: ``--reset`` and some options of QEMU's scripts/qemu-binfmt-conf.sh.

It prints a line on stdout for each handler that it registers.  Without ``-p yes`` handlers have no flag F, so the
kernel looks up the emulator's path in the root of each process that executes a program.  In a container, which has
another root, the path is therefore registered even if no file exists there.
"""

import getopt
import os
from collections.abc import Collection, Sequence

from binfmtd.cli.compat.emulators import without_config
from binfmtd.cli.compat.environment import where
from binfmtd.cli.compat.install import Fate
from binfmtd.cli.compat.main import log
from binfmtd.cli.compat.register import EVERY, conclude, every_architecture, register
from binfmtd.errors import UsageError
from binfmtd.host.facts import judges_paths
from binfmtd.model.config import HandlerSpec
from binfmtd.model.handler import Flags
from binfmtd.report.printable import printable

USAGE = """usage: [--reset] [-p|--persistent yes|no] [-c|--credential yes|no] [-g|--preserve-argv0 yes|no]
  --reset              first remove every entry whose name begins with qemu-
  -p, --persistent     flag F: the kernel opens the emulator at registration
  -c, --credential     flags O and C: foreign set-uid programs run as root
  -g, --preserve-argv0 flag P: the program keeps its own argv[0]"""
_SWITCHES = {"p": Flags.F, "c": Flags.O | Flags.C, "g": Flags.P}
_SET_BY = without_config("$QEMU_BIN_DIR", no_flag_f="leave out -p yes", no_credentials="leave out -c yes")
_LONG = {"persistent": "p", "credential": "c", "preserve-argv0": "g"}


def main(arguments: Sequence[str]) -> int:
    """Return 0 if every architecture with an emulator has a handler, else 1.  Raises UsageError."""
    options = _parse(arguments)
    if "help" in options:
        print(USAGE)
        return 0
    flags = Flags.NONE
    for letter, flag in _SWITCHES.items():
        if options.get(letter) == "yes":
            flags |= flag
    directory = os.environ.get("QEMU_BIN_DIR") or "/usr/bin"
    if not directory.startswith("/"):
        raise UsageError(f"$QEMU_BIN_DIR is {directory!r}: write an absolute path")

    def declare(native: Collection[str]) -> tuple[HandlerSpec, ...]:
        patterns = [f"{directory}/qemu-{{name}}-static", f"{directory}/qemu-{{name}}"]
        for_others = Flags.F not in flags and not judges_paths()
        return tuple(
            every_architecture(
                native, patterns[:1] if for_others else patterns, flags, even_without=for_others, set_by=_SET_BY
            )
        )

    reset = "qemu-*" if "reset" in options else ""
    registered = register(where(), declare, EVERY, reset)
    for name, outcome in registered.outcomes.items():
        entry = registered.observed.by_name.get(name)
        if outcome.fate is Fate.THERE:
            log(f"{name} already registered")
        elif outcome.fate is Fate.DONE and entry is not None and entry.registration is not None:
            path = printable(entry.registration.interpreter)
            print(f"Setting {path} as binfmt interpreter for {name.removeprefix('qemu-')}")
    named = (
        f"in {directory}: correct or unset $QEMU_BIN_DIR, or install emulators"
        if os.environ.get("QEMU_BIN_DIR")
        else "here"
    )
    return conclude(registered.outcomes, named, _SET_BY)


def _parse(arguments: Sequence[str]) -> dict[str, str]:
    """Return option letter -> value, read as getopt(1) does; also ``reset`` and ``help``.  Raises UsageError."""
    try:
        pairs, rest = getopt.gnu_getopt(list(arguments), "hp:c:g:", ["help", "reset", *(f"{name}=" for name in _LONG)])
    except getopt.GetoptError as error:
        raise UsageError(f"{printable(str(error))}\n{USAGE}") from None
    if rest:
        raise UsageError(f"{rest[0]!r} is not an option\n{USAGE}")
    options = {}
    for option, value in pairs:
        name = option.lstrip("-")
        letter = _LONG.get(name, "help" if name == "h" else name)
        if letter in _SWITCHES and value not in ("yes", "no"):
            raise UsageError(f"{option} is {value!r}: write yes or no\n{USAGE}")
        options[letter] = value
    return options
