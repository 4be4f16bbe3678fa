"""``binfmtd probe``: find out whether the programs of an architecture run here, through which entry, or why not.

A tiny program of each architecture is run.  Its root is first a directory that contains nothing else: so only an
interpreter that the kernel has opened (flag F) can run it, as in any container.  If that fails with ENOENT, it is run
again in our own root.
"""

import argparse
import errno
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from binfmtd.catalog.architectures import CATALOG, Architecture
from binfmtd.catalog.names import find as find_architecture
from binfmtd.catalog.program import tiny_program
from binfmtd.cli import options
from binfmtd.cli.commands.check import observe
from binfmtd.cli.output import print_json, print_table
from binfmtd.cli.state import state_dir
from binfmtd.cli.trial import server
from binfmtd.daemon.probed_file import ProbedFile
from binfmtd.daemon.state_dir import make_state_dir
from binfmtd.errors import FormatError, StateError, UsageError
from binfmtd.host.facts import boot_id
from binfmtd.host.interpreters import file_identity
from binfmtd.host.probe import PATIENCE, Prober, refuse_without_code_memory
from binfmtd.model.entry import ObservedState
from binfmtd.model.handler import Registration
from binfmtd.model.probe_result import Probed, Tried, TriedInterpreter
from binfmtd.model.stand_in import PREFIX as STAND_IN
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
    tried = list(probe(wanted, observe(given.mount)))
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
    results = list(DeepProbe(observe(given.mount), trees, given.skip, PATIENCE)(programs))
    if given.json:
        print_json(document(results))
    else:
        print_table(summary(results))
        if rows := exceptions(results):
            print()
            print_table(rows)
    fails = any(result.lacks_dynamic or (given.names and not result.passes) for result in results)
    return DOES_NOT_RUN if fails else DONE


def probe(
    wanted: Sequence[Architecture], observed: ObservedState | None, patience: float = PATIENCE
) -> Iterator[Tried]:
    """Run the program of each architecture and yield the result; ``observed`` shows which entry takes it.

    A program that does nothing for ``patience`` seconds is killed.  Raises ProbeError.
    """
    with Prober(patience=patience) as alone, Prober(in_chroot=False, patience=patience) as here:
        for architecture in wanted:
            name, program = architecture.name, tiny_program(architecture)
            attempt = alone(name, program)
            in_chroot = attempt.runs if attempt.in_chroot else None
            reason = attempt.reason
            if attempt.in_chroot and attempt.errno == errno.ENOENT:
                attempt = here(name, program)
                reason = f"not in a chroot: {reason}" if attempt.runs else attempt.reason
            serving = None if observed is None or attempt.natively else server(observed, name)
            entry = serving.name.removeprefix(STAND_IN) if serving else None  # a stand-in's handler
            if attempt.crashed and serving is not None and serving.registration is not None:
                reason += _known(name, serving.registration)
            yield Tried(name, attempt.runs, attempt.natively, entry, in_chroot, reason, round(attempt.duration * 1e6))


def candidates(directory: str) -> dict[str, list[str]]:
    """Return the interpreters of each architecture whose handler has several, as the daemon's status has them."""
    try:
        rows = read_status(directory)["handlers"]
    except StateError:
        return {}
    return {row["architecture"]: row["candidates"] for row in rows if row["candidates"] and row["architecture"]}


def probe_candidates(interpreters: Mapping[str, Sequence[str]], patience: float) -> Iterator[TriedInterpreter]:
    """Execute each of these interpreters with the program of its architecture.  Raises ProbeError."""
    with Prober(in_chroot=False, patience=patience) as run:
        for name, paths in interpreters.items():
            for path in paths:
                if (identity := file_identity(path)) is not None:
                    attempt = run(name, tiny_program(CATALOG[name]), through=path)
                    yield TriedInterpreter(path, identity.text, attempt.reason)


def _known(architecture: str, registration: Registration) -> str:
    """Return the known faults that can crash such a program in this emulator, to follow a reason; "" if there is none.

    The program is neither position-independent nor written in a language with its own demands.
    """
    from binfmtd.catalog.known_faults import Effect, known_faults
    from binfmtd.cli.fault_texts import about, named
    from binfmtd.host.emulations import emulation, host_conditions

    found = emulation(registration.interpreter, registration.flags)
    if found is None:
        return ""
    faults = [
        about(fault)
        for fault in known_faults(found, architecture, host_conditions())
        if fault.effect is Effect.CRASH and not fault.pie and not fault.special
    ]
    return "".join(f"; a known fault of {named(found)}: {text}" for text in faults)


def _write(directory: str, tried: tuple[Tried, ...], interpreters: tuple[TriedInterpreter, ...]) -> None:
    make_state_dir(directory)
    file = ProbedFile(directory, boot_id())
    if not file.write(Probed(int(time.time()), tried, interpreters)):
        raise StateError(f"{file.problem}, or name another directory with --state-dir")


def way(tried: Tried) -> str:
    """Return in words what runs an architecture's programs, or "no"."""
    if not tried.runs:
        return "no"
    return "natively" if tried.natively else f"through {tried.entry or 'an entry that cannot be seen from here'}"


def _row(tried: Tried) -> tuple[str, ...]:
    where = "-" if tried.in_chroot is None or not tried.runs else "yes" if tried.in_chroot else "no"
    return tried.name, way(tried), where, f"{tried.duration_us / 1000:.1f} ms", tried.reason
