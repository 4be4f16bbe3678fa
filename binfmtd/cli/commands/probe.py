"""``binfmtd probe``: find out whether the programs of an architecture run here, through which entry, or why not."""

import argparse
import os
import time
from collections.abc import Sequence
from contextlib import suppress

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.names import find as find_architecture
from binfmtd.cli import options
from binfmtd.cli.context import not_mounted, observe
from binfmtd.cli.output import print_json, print_table, warn
from binfmtd.cli.probing import probe, probe_candidates, way
from binfmtd.cli.state import state_dir
from binfmtd.daemon.state_files.probed_file import ProbedFile
from binfmtd.daemon.state_files.state_dir import make_state_dir
from binfmtd.errors import FormatError, MountError, StateError, UsageError
from binfmtd.files.environment import in_user_namespace
from binfmtd.host.facts import boot_id, may_mount
from binfmtd.host.probe import PATIENCE, refuse_without_code_memory
from binfmtd.kernel.mount import find_to_look
from binfmtd.model.probe_result import Probed, Tried, TriedInterpreter
from binfmtd.report.status_json import read_status

MORE_PATIENCE = 60.0  # seconds for one program with --write: on a busy host an emulator takes some seconds to start
DONE = 0
DOES_NOT_RUN = 1


def parser() -> argparse.ArgumentParser:
    """Return the parser for ``binfmtd probe``."""
    command = options.parser(
        "probe", epilog="Exit status 1 if a named architecture does not run, or, with --deep, fails a check."
    )
    command.add_argument("names", metavar="ARCH", nargs="*", help="only these architectures (any alias)")
    command.add_argument(
        "--write",
        action="store_true",
        help="print nothing, and write the result to the state directory, where the daemon reads it",
    )
    command.add_argument(
        "--deep",
        action="store_true",
        help="also check threads, signals, memory, new system calls and the like, on the platforms of Docker",
    )
    command.add_argument(
        "--root",
        metavar="DIR",
        action="append",
        default=[],
        help="with --deep: also run a dynamic program of this root tree in it (repeat it for other architectures)",
    )
    command.add_argument(
        "--skip",
        metavar="CHECK",
        action="append",
        default=[],
        help="with --deep: leave this check out (repeat it for others)",
    )
    options.add_config(command)  # every command accepts it; this one ignores it
    options.add_mount(command)
    options.add_state_dir(command)
    options.add_json(command)
    return command


def main(arguments: Sequence[str]) -> int:
    """Return 0, or 1 if an architecture that was named does not run."""
    given = parser().parse_args(arguments)
    if given.write and given.names:
        raise UsageError("--write tries all architectures: leave the names out")
    if given.deep:
        return _deep(given)
    if given.root or given.skip:
        raise UsageError("--root and --skip are options of the deep checks: add --deep")
    try:
        wanted = [find_architecture(name) for name in given.names] or list(CATALOG.values())
    except FormatError as error:
        raise UsageError(str(error)) from None
    refuse_without_code_memory()
    if given.write:
        from binfmtd.host.scheduling import use_short_slices

        # The daemon starts this command, and its own priority is for repairs.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, max(0, os.getpriority(os.PRIO_PROCESS, 0)))
        with suppress(OSError):
            use_short_slices(0)
        directory = state_dir(given)
        tried_interpreters = tuple(probe_candidates(candidates(directory), MORE_PATIENCE))
        _write(directory, tuple(probe(wanted, observe(given.mount), MORE_PATIENCE)), tried_interpreters)
        return DONE
    observed = observe(given.mount)
    tried = list(probe(wanted, observed))
    if observed is None and (why := _not_mounted(given, tried)):
        warn(why)
    if given.json:
        print_json({"architectures": [result._asdict() for result in tried]})
    else:
        print_table([("ARCHITECTURE", "RUNS", "IN A CHROOT", "TIME", "REASON"), *map(_row, tried)])
    return DONE if all(result.runs for result in tried) or not given.names else DOES_NOT_RUN


def _deep(given: argparse.Namespace) -> int:
    """Make the deep checks, and return 1 if one fails on a platform that was named, or in a tree."""
    from binfmtd.catalog.deep_checks import CHECK_NAMES, deep_programs
    from binfmtd.catalog.names import did_you_mean
    from binfmtd.cli.deep import DeepProbe, document, exceptions, summary
    from binfmtd.host.deep_files import tree_at

    if given.write:
        raise UsageError("--write is for the daemon, which makes no deep checks: leave --deep or --write out")
    for name in given.skip:
        if name not in CHECK_NAMES:
            hint = did_you_mean(name, CHECK_NAMES) or f"name one of {', '.join(CHECK_NAMES)}"
            raise UsageError(f"--skip {name}: unknown check: {hint}")
    try:
        programs = deep_programs(given.names)
    except FormatError as error:
        raise UsageError(str(error)) from None
    trees = [tree_at(root) for root in given.root]
    for tree in trees:
        if tree.program.architecture not in {program.architecture for program in programs}:
            raise UsageError(
                f"--root {tree.root} is a tree for {tree.program.architecture}, which was not named: name it, too"
            )
    refuse_without_code_memory()
    observed = observe(given.mount)
    results = list(DeepProbe(observed, trees, given.skip, PATIENCE)(programs))
    if observed is None and (why := _not_mounted(given, [result.tried for result in results])):
        warn(why)
    if given.json:
        print_json(document(results))
    else:
        print_table(summary(results))
        if rows := exceptions(results):
            print()
            print_table(rows)
    fails = any(result.lacks_dynamic or (given.names and not result.passes) for result in results)
    return DOES_NOT_RUN if fails else DONE


def _not_mounted(given: argparse.Namespace, tried: Sequence[Tried]) -> str | None:
    """Return that binfmt_misc is not mounted, and the remedy, if that is why a program of ``tried`` does not run.

    Return None also where a mount may exist that cannot be seen from here.
    """
    runs_through_entry = any(result.runs and not result.natively for result in tried)
    if all(result.runs for result in tried) or runs_through_entry or in_user_namespace() or not may_mount():
        return None
    try:
        mounted = find_to_look(given.mount)
    except MountError as error:
        return str(error)
    return not_mounted(given, mounted.directory) if mounted.ours_alone else None


def candidates(directory: str) -> dict[str, list[str]]:
    """Return the interpreters of each architecture whose handler has several, as the daemon's status has them."""
    try:
        rows = read_status(directory)["handlers"]
    except StateError:
        return {}
    return {row["architecture"]: row["candidates"] for row in rows if row["candidates"] and row["architecture"]}


def _write(directory: str, tried: tuple[Tried, ...], interpreters: tuple[TriedInterpreter, ...]) -> None:
    make_state_dir(directory)
    file = ProbedFile(directory, boot_id())
    if not file.write(Probed(int(time.time()), tried, interpreters)):
        raise StateError(f"{file.problem}, or name another directory with --state-dir")


def _row(tried: Tried) -> tuple[str, ...]:
    where = "-" if tried.in_chroot is None or not tried.runs else "yes" if tried.in_chroot else "no"
    return tried.name, way(tried), where, f"{tried.duration_us / 1000:.1f} ms", tried.reason
