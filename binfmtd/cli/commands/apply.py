"""``binfmtd apply``: make one pass over binfmt_misc, and end.

With ``--arch`` it only adds entries.  While a daemon runs with the same state directory it writes nothing, because the
daemon's config decides; it then checks that what was asked for is registered.
"""

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from binfmtd.cli import options
from binfmtd.cli.bound_emulators import bound_emulators
from binfmtd.cli.commands.plan import describe
from binfmtd.cli.context import doubts, load_config, natively, nothing_there, nothing_to_do
from binfmtd.cli.one_shot import Visit, more_architectures, refused_beside, visit
from binfmtd.cli.output import print_json, print_table, warn
from binfmtd.cli.state import state_dir
from binfmtd.config.file_versions import DEFAULT_PATH
from binfmtd.daemon.assessment import ReconcileResult
from binfmtd.errors import PersistenceError
from binfmtd.model.desired import UnavailableReason
from binfmtd.model.drift import Act, Action, Drift, additive
from binfmtd.report.printable import printable
from binfmtd.report.status import unavailable_reason

if TYPE_CHECKING:
    from binfmtd.daemon.state_files.boot_persistence import BootPersistence

DONE = 0
FAILED = 1
_DONE = {
    Act.REGISTER: "registered",
    Act.REPLACE: "replaced",
    Act.REMOVE: "removed",
    Act.ENABLE: "enabled",
    Act.DISABLE: "disabled",
    Act.RESTORE: "restored",
}


class Failure(NamedTuple):
    """An entry or a file that is not as wanted, and why; ``errno`` is the kernel's, if it refused a write."""

    entry: str
    reason: str
    errno: int | None = None


def parser() -> argparse.ArgumentParser:
    """Return the parser for ``binfmtd apply``."""
    command = options.parser(
        "apply",
        epilog="With --arch, entries are only added: none that existed before is removed.  --arch none --persistent "
        "undoes what --persistent did.  While a daemon runs, nothing is written, because the daemon's config decides.  "
        "Exit status 1 if anything is not as wanted at the end.",
    )
    options.add_config(command)
    options.add_arch(command)
    options.add_persistent(command)
    options.add_reach(command)
    options.add_mount(command)
    command.add_argument(
        "--hold",
        metavar="DIR",
        help="also mount binfmt_misc at this directory, which is made if it is missing, and leave it mounted: entries "
        "then outlast an unmount at the usual place",
    )
    options.add_state_dir(command)
    options.add_json(command)
    return command


def main(arguments: Sequence[str]) -> int:
    """Return 0 if all that is wanted is in order at the end, else 1."""
    given = parser().parse_args(arguments)
    wanted = options.architectures(given)
    if given.persistent and wanted == ():
        from binfmtd.cli.take_back import take_back

        return take_back(given)
    boot_persistence, config = None, load_config(given, wanted)
    if given.persistent:
        from binfmtd.daemon.state_files.boot_persistence import BootPersistence, find_host, outlasting

        boot_persistence, config = BootPersistence(find_host(given.host_root)), outlasting(config)
        boot_persistence.check_reader()
    directory = state_dir(given)
    with visit(config, directory, options.where(given), given.hold) as here:
        result = here.converge(additive if wanted is not None else lambda _: True)
    failures = _failures(here, result, only_adding=wanted is not None)
    if boot_persistence is not None:
        refused = {action.entry for action, _ in result.failed}
        boot_persistence.want(result.assessment, config, refused, adding=wanted is not None)
        failures += _keep(boot_persistence, write=here.daemon is None)
    if failures and here.daemon is not None:
        wish = more_architectures(wanted) if wanted else "change the handlers that are listed below"
        entries = [failure.entry for failure in failures]
        own = None if wanted is not None else os.path.abspath(given.config or DEFAULT_PATH)
        warn(refused_beside(here.daemon, directory, wish, entries, config=own))
    desired = result.assessment.desired
    warnings = [
        *natively(config, desired),
        *doubts(desired),
        *config.warnings,
        *(boot_persistence.warnings if boot_persistence is not None else ()),
    ]
    registrations = [handler.registration for handler in desired.handlers]
    if boot_persistence is not None:
        registrations += boot_persistence.copied()
    warnings += [bound.problem for bound in bound_emulators(registrations)]
    nothing = nothing_there(desired)
    for problem in (here.reconciler.ledger.problem, nothing, *warnings):
        if problem:
            warn(problem)
    opened = here.instance.mounted.directory if here.opened else None
    _print(result, failures, here.mounted, boot_persistence, as_json=given.json, idle=not nothing, opened=opened)
    for failure in failures:
        warn(f"{failure.entry}: {failure.reason}")
    return FAILED if failures or nothing else DONE


def _keep(boot_persistence: "BootPersistence", *, write: bool) -> list[Failure]:
    """Write the file that brings the handlers back after a reboot; return what it would not bring back.

    Without ``write``, beside a daemon, only compare the file with what is wanted: writing it is the daemon's task.
    """
    failures = [Failure(name, reason) for name, reason in boot_persistence.left_out.items()]
    try:
        if write:
            boot_persistence.finish()
        elif not boot_persistence.in_step():
            failures.append(
                Failure(
                    boot_persistence.file,
                    "differs from the config; start the daemon with --persistent (binfmtd run), which then updates it",
                )
            )
    except PersistenceError as error:
        failures.append(Failure(boot_persistence.file, str(error)))
    return failures


def _failures(here: Visit, result: ReconcileResult, *, only_adding: bool) -> list[Failure]:
    refused = {action.entry: error for action, error in result.failed}
    sources = {declared.name: declared.source for declared in here.reconciler.config.specs}
    unavailable = [
        unavailable
        for unavailable in result.assessment.desired.unavailable
        if unavailable.cause is not UnavailableReason.ABSENT
    ]
    failures = [
        Failure(handler.name, f"{handler.cause.value}: {unavailable_reason(handler)}") for handler in unavailable
    ]
    failures += [Failure(name, str(error), error.errno) for name, error in refused.items()]
    failures += [Failure(name, reason) for name, reason in result.assessment.plan.blocked.items()]
    for action in result.assessment.plan.actions:
        if action.entry in refused or (only_adding and not additive(action)):
            continue
        if here.daemon is None:
            reason = f"still {action.drift.value}: another program changes this entry at the same time; try again"
        else:
            declared = f"; declared by {source}" if (source := sources.get(action.entry)) else ""
            reason = f"{action.drift.value}: {action.reason}{declared}"
        failures.append(Failure(action.entry, reason))
    return failures


def _reason(action: Action) -> str:
    """Return why the action was taken, as seen after it."""
    return "no entry had this name" if action.drift is Drift.MISSING and action.act is Act.REGISTER else action.reason


def _print(
    result: ReconcileResult,
    failures: Sequence[Failure],
    mounted: Sequence[str],
    boot_persistence: "BootPersistence | None",
    *,
    as_json: bool,
    idle: bool,
    opened: str | None = None,
) -> None:
    """Print what was done, as text or as one JSON document.

    ``mounted`` lists where binfmt_misc was mounted, and ``opened`` is the directory whose seal was opened.
    ``idle``: if nothing was done, that is correct.
    """
    if as_json:
        document: dict[str, Any] = {
            "actions": [describe(action) for action in result.done],
            "failed": [failure._asdict() for failure in failures],
        }
        if mounted:
            document["mounted"] = mounted
        if opened is not None:
            document["opened"] = opened
        if boot_persistence is not None:
            document["persistent"] = boot_persistence.file
        print_json(document)
        return
    for place in mounted:
        print(f"mounted binfmt_misc at {printable(place)}")
    if opened is not None:
        print(f"opened the seal of binfmt_misc at {printable(opened)}")
    if result.done:
        rows = [(_DONE[action.act], action.entry, action.drift.value, _reason(action)) for action in result.done]
        print_table([("DONE", "ENTRY", "DRIFT", "REASON"), *rows])
    elif idle and not failures and not mounted and opened is None:
        print(nothing_to_do(result.assessment))
    if boot_persistence is not None and not failures:
        print(f"after a reboot, the handlers come back through {printable(boot_persistence.named)}")
