"""The config, the entries and the reconciler for the shared options, and warnings that several commands give."""

import argparse
import os
import stat
from collections.abc import Sequence

from binfmtd.catalog import names
from binfmtd.cli.options import ALL
from binfmtd.cli.state import again, state_dir_to_read
from binfmtd.config.load import load
from binfmtd.daemon.assessment import Assessment
from binfmtd.daemon.entries.reconciler import Reconciler
from binfmtd.daemon.interpreters.host_facts import HostFacts
from binfmtd.daemon.state_files.foreign_entries import ForeignEntryStore
from binfmtd.daemon.state_files.ledger import Ledger
from binfmtd.daemon.state_files.state_dir import running_pid
from binfmtd.errors import MountError
from binfmtd.files.environment import mounts_outlive_us
from binfmtd.files.trust import Trust
from binfmtd.host.facts import boot_id
from binfmtd.kernel.instance import Instance, Observer
from binfmtd.kernel.mount import find
from binfmtd.model.config import Config
from binfmtd.model.desired import DesiredState, UnavailableReason
from binfmtd.model.entry import ObservedState
from binfmtd.report.sentence import counted
from binfmtd.report.status import doubted, no_emulator


def load_config(arguments: argparse.Namespace, architectures: Sequence[str] | None = None) -> Config:
    """Load the config that ``--config`` names, or the default one.

    ``architectures``, if they are not None, take the place of the config's own.  Raises ConfigError.
    """
    return load(arguments.config, trust=Trust.of_this_process(), architectures=architectures)


def observe(directory: str | None) -> ObservedState | None:
    """Return what is registered now, or None if that cannot be read.

    A test of what runs natively needs it: a program proves nothing if an entry takes it.
    """
    try:
        with Instance(find(directory)) as instance:
            return Observer().observe(instance)
    except MountError:
        return None


def not_mounted(given: argparse.Namespace, directory: str) -> str:
    """Return that no process has binfmt_misc mounted (``Mounted.ours_alone``), and what mounts it at ``directory``."""
    what = f"{directory}: binfmt_misc is not mounted, so there are no entries"
    if running_pid(state_dir_to_read(given)) is not None:
        return f"{what}: a daemon runs, and should mount it: see its problem in `{again(given, 'status')}`"
    command = again(given, "apply" if mounts_outlive_us() else "run")
    return f"{what}: run `{command}`, which mounts it and registers handlers"


def reconciler(
    config: Config, directory: str | None, *, writes: bool = True, beside_daemon: bool = False
) -> Reconciler:
    """Return a reconciler that has all that a pass needs; ``directory`` is the state directory.

    Without ``writes``, for a command that only looks, facts about this host are not stored there.
    ``beside_daemon``: a daemon runs with this state directory, and the stand-ins that exist are its own.
    """
    boot = boot_id()
    result = Reconciler(
        config, HostFacts(directory, writes=writes), Ledger(directory, boot), ForeignEntryStore(directory, boot)
    )
    if beside_daemon:
        result.adoption.leave_stand_ins()
    return result


def natively(config: Config, desired: DesiredState) -> list[str]:
    """Return a message for each architecture that the command line names and that needs no handler here."""
    known = desired.by_name.keys() | desired.unavailable_by_name.keys()
    written = {
        names.find(word).name: word for word in config.architectures or () if word != ALL and not word.startswith("-")
    }
    return [
        f"{written.get(str(declared.architecture), declared.architecture)} runs natively: it needs no handler"
        for declared in config.specs
        if declared.unless_native and not declared.from_all and declared.name not in known
    ]


def doubts(desired: DesiredState) -> list[str]:
    """Return a message for each handler whose programs may fail although its entry is as declared."""
    return [f"{h.name}: {doubt}" for h in desired.handlers if h.enabled and (doubt := doubted(h, desired))]


def without_directory(config: Config) -> dict[str, str]:
    """Return a message for each key whose file the daemon cannot write, of which it only logs that."""
    files = {"metrics.textfile": config.metrics.textfile, "labels.file": config.labels}
    return {
        key: f"the directory of {path} does not exist"
        for key, path in files.items()
        if path is not None and _is_missing(os.path.dirname(path))
    }


def _is_missing(directory: str) -> bool:
    """Return True if there is no such directory; False also where this user may not see it."""
    try:
        return not stat.S_ISDIR(os.stat(directory).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def nothing_there(desired: DesiredState) -> str | None:
    """Return a message if handlers are declared and none is possible here, for want of emulators; else None.

    A handler that waits for its own interpreter, or that a guard refused, counts as possible: it has its own message.
    An architecture that runs natively needs no emulator.
    """
    if desired.handlers or {unavailable.cause for unavailable in desired.unavailable} != {UnavailableReason.ABSENT}:
        return None
    return no_emulator(desired.unavailable)


def nothing_to_do(assessment: Assessment) -> str:
    """Return the answer of a command that has found everything in order, with the number of handlers."""
    served = len(assessment.plan.served_elsewhere)
    handlers = [handler for handler in assessment.desired.handlers if handler.enabled]
    if not handlers:
        return "nothing to do" if assessment.desired.unavailable else "nothing to do: no handler is needed"
    by_others = f", {served} of them by entries of other programs" if served else ""
    shadowed = assessment.plan.shadowed
    above = f"; newer entries take the files of {', '.join(sorted(shadowed))}" if shadowed else ""
    return f"nothing to do: {counted(len(handlers), 'handler')} registered{by_others}{above}"
