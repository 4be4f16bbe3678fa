"""From the shared options to what commands work with."""

import argparse
from collections.abc import Sequence

from binfmtd.config.load import load
from binfmtd.daemon.facts import HostFacts
from binfmtd.daemon.ledger import Ledger
from binfmtd.daemon.memory import Memory
from binfmtd.daemon.reconcile import Reconciler
from binfmtd.files.trust import Trust
from binfmtd.kernel.host import boot_id
from binfmtd.model.config import Config
from binfmtd.model.desired import DesiredState, Standing
from binfmtd.report.status import no_emulator


def load_config(arguments: argparse.Namespace, architectures: Sequence[str] | None = None) -> Config:
    """The config that ``--config`` names, or the usual one; ``architectures`` in place of its own.

    Raises ConfigError.
    """
    return load(arguments.config, trust=Trust.of_this_process(), architectures=architectures)


def reconciler(
    config: Config, directory: str | None, *, writes: bool = True, beside_daemon: bool = False
) -> Reconciler:
    """Everything a pass needs; ``directory`` is the state directory, which who only looks does not write to.

    ``beside_daemon``: a daemon of this state directory runs, and has its stand-ins.
    """
    boot = boot_id()
    found = Reconciler(config, HostFacts(directory, writes=writes), Ledger(directory, boot), Memory(directory, boot))
    if beside_daemon:
        found.leave_stand_ins()
    return found


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
    return no_emulator(desired.held)
