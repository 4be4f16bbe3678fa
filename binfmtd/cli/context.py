"""From the shared options to what commands work with."""

import argparse
import json
import os
import sys
from collections.abc import Sequence

from binfmtd.catalog.architectures import EMULATOR_PACKAGE
from binfmtd.cli.table import table
from binfmtd.config.load import load
from binfmtd.daemon.facts import HostFacts
from binfmtd.daemon.ledger import Ledger
from binfmtd.daemon.memory import Memory
from binfmtd.daemon.reconcile import Reconciler
from binfmtd.daemon.state_dir import ROOT_STATE_DIR, default_state_dir
from binfmtd.errors import StateError
from binfmtd.files.trust import Trust
from binfmtd.kernel.host import boot_id
from binfmtd.model.config import Config
from binfmtd.model.desired import DesiredState, Standing
from binfmtd.report.printable import printable


def load_config(arguments: argparse.Namespace, architectures: Sequence[str] | None = None) -> Config:
    """The config that ``--config`` names, or the usual one; ``architectures`` in place of its own.

    Raises ConfigError.
    """
    return load(arguments.config, trust=Trust.of_this_process(), architectures=architectures)


def state_dir(arguments: argparse.Namespace) -> str:
    """The state directory that ``--state-dir`` names, or the usual one.  Raises StateError."""
    named: str | None = arguments.state_dir
    return named or default_state_dir()


def state_dir_to_read(arguments: argparse.Namespace) -> str:
    """The same for reading: without one of one's own, root's daemon is the one that is meant.  Raises StateError."""
    if arguments.state_dir or os.environ.get("BINFMTD_STATE_DIR"):
        return state_dir(arguments)
    own = state_dir_or_none(arguments)
    if own is None or not os.path.exists(own):
        return own if own and not os.path.exists(ROOT_STATE_DIR) else ROOT_STATE_DIR
    return own


def state_dir_or_none(arguments: argparse.Namespace) -> str | None:
    """The same for commands that only read, and do without."""
    try:
        return state_dir(arguments)
    except StateError:
        return None


def reconciler(config: Config, directory: str | None, *, writes: bool = True) -> Reconciler:
    """Everything a pass needs; ``directory`` is the state directory, which who only looks does not write to."""
    boot = boot_id()
    return Reconciler(config, HostFacts(directory, writes=writes), Ledger(directory, boot), Memory(directory, boot))


def natively(config: Config, desired: DesiredState) -> list[str]:
    """What to say of architectures that were asked for on the command line, and need no handler here."""
    known = desired.by_name.keys() | desired.held_by_name.keys()
    return [
        f"{declared.architecture} runs natively: it needs no handler"
        for declared in config.declarations
        if declared.unless_native and not declared.from_all and declared.name not in known
    ]


def nothing_there(config: Config, desired: DesiredState) -> str | None:
    """Why there is nothing to keep, where something was asked for: the message, or None."""
    if not config.declarations or desired.handlers or any(h.standing is not Standing.ABSENT for h in desired.held):
        return None
    return (
        f"no architecture has an emulator here: install them (Debian: apt-get install {EMULATOR_PACKAGE}), or say "
        "where they are with [emulators] paths"
    )


def print_json(document: object) -> None:
    """One JSON document on stdout."""
    print(json.dumps(document, indent=2))


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they must be, the first row being the heading."""
    for line in table(rows):
        print(line)


def warn(text: str) -> None:
    """One line on stderr."""
    print(f"binfmtd: {printable(text)}", file=sys.stderr)
