"""``binfmtd explain``: why a file runs, or does not.

The command follows, step by step, what the kernel would do with the file and with what is registered now.  It does not
execute the file, and needs neither a daemon nor privileges: it reports what the user may not see.
"""

import argparse
import errno
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from functools import cache

from binfmtd.cli import options
from binfmtd.cli.output import print_json, warn
from binfmtd.cli.state import state_dir_or_none
from binfmtd.cli.table import width_of
from binfmtd.errors import MountError, UsageError
from binfmtd.host.exec_files import Programs
from binfmtd.host.kernel_module import DEFAULT_DIRECTORY
from binfmtd.model.entry import ObservedState

RUN = 0
ONE_DOES_NOT_RUN = 1


def parser() -> argparse.ArgumentParser:
    """Return the parser for ``binfmtd explain``."""
    command = options.parser("explain", epilog="Exit status 1 if a file would not run, or if this is unknown.")
    command.add_argument(
        "files", metavar="FILE", nargs="+", help="a file to execute; for a directory, each executable file below it"
    )
    command.add_argument(
        "--root", metavar="DIR", default="", help="judge as if inside this root tree (chroot); FILE is a path in it"
    )
    options.add_config(command)
    options.add_mount(command)
    options.add_state_dir(command)
    options.add_json(command)
    return command


def main(arguments: Sequence[str]) -> int:
    """Return 0 if all files would run, 1 if one would not or if that cannot be determined."""
    given = parser().parse_args(arguments)
    root = os.path.realpath(given.root) if given.root else ""
    if root and not os.path.isdir(root):
        raise UsageError(f"--root {given.root} is not a directory: name the root of a tree")
    from binfmtd.cli.declared import Declared
    from binfmtd.cli.explain.diagnosis import Explainer
    from binfmtd.cli.explain.render import brief, document, full

    observed, mount, sealed = _look(given)
    programs = Programs(root, cache(lambda: _native(given, observed)))  # it executes programs
    explain = Explainer(programs, observed, Declared(given, observed), mount, sealed)
    documents = []
    status, width = RUN, width_of(sys.stdout)
    for file, named in _files(given.files, programs):
        explanation = explain(file)
        if not explanation.runs:
            status = ONE_DOES_NOT_RUN
        if given.json:
            documents.append(document(explanation))
        else:
            for line in full(explanation, width) if named else [brief(explanation)]:
                print(line)
    if given.json:
        print_json(documents)
    return status


def _look(given: argparse.Namespace) -> tuple[ObservedState | None, str, str]:
    """Return what is registered, the directory of binfmt_misc, and how to open it if it is sealed, else "".

    Where the entries cannot be read, warn; the first is then None, or empty if the kernel has no binfmt_misc.
    """
    from binfmtd.host.kernel_module import kernel_has_it
    from binfmtd.kernel.instance import Instance, Observer
    from binfmtd.kernel.mount import find_to_look
    from binfmtd.kernel.seal import how_to_open

    try:
        with Instance(mounted := find_to_look(given.mount)) as instance:
            sealed = how_to_open(mounted.directory) if mounted.sealed else ""
            return Observer().observe(instance), mounted.directory, sealed
    except MountError as error:
        nothing = not kernel_has_it()  # then no entry can exist
        consequence = "so no entry is registered" if nothing else "so the entries cannot be read from here"
        warn(f"{error} ({consequence})")
        return ObservedState() if nothing else None, given.mount or DEFAULT_DIRECTORY, ""


def _native(given: argparse.Namespace, observed: ObservedState | None) -> frozenset[str]:
    from binfmtd.daemon.interpreters.host_facts import HostFacts

    return HostFacts(state_dir_or_none(given), writes=False).native(observed)


def _files(named: Sequence[str], programs: Programs) -> Iterator[tuple[str, bool]]:
    """Yield each file, with True if it was named itself and False if it lies below a named directory."""
    for file in named:
        way = programs.resolve(file)
        if way is None or way.stat is None or not stat.S_ISDIR(way.stat.st_mode):
            yield file, True
            continue
        yielded = False
        for path in _below(programs.place(way), file.rstrip("/"), way.stat.st_dev):
            yielded = True
            yield path, False
        if not yielded:
            warn(f"{file}: no executable file below this directory")


def _below(directory: str, shown: str, device: int) -> Iterator[str]:
    """Yield the executable regular files below a directory, sorted by name; leave out other file systems."""
    todo = [(directory, shown)]  # the next one is last; no recursion, so any depth works
    while todo:
        place, path = todo.pop()
        try:
            status = os.lstat(place)
            if stat.S_ISREG(status.st_mode) and status.st_mode & 0o111:
                yield path
            if not stat.S_ISDIR(status.st_mode) or status.st_dev != device:
                continue
        except OSError as error:  # else it was removed meanwhile
            if error.errno == errno.ENAMETOOLONG:
                warn(f"{path}: {error.strerror}: skipped")
            continue
        try:
            names = sorted(os.listdir(place), reverse=True)
        except OSError as error:
            warn(f"{place}: {error.strerror}: the files in it are skipped")
            continue
        todo += [(os.path.join(place, name), f"{path}/{name}") for name in names]
