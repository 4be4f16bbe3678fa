"""``binfmtd import``: print what other programs declared or registered as a config.

Each thing that a config cannot express, or that was not understood, is a line on stderr.
"""

import argparse
import os
from collections.abc import Sequence

from binfmtd.cli import options
from binfmtd.cli.output import print_json, warn
from binfmtd.errors import FormatError, UsageError
from binfmtd.files.atomic import read_regular, read_start
from binfmtd.files.binfmt_d import DIRECTORIES, conf_files, masks
from binfmtd.files.cure import cure
from binfmtd.formats.binfmt_d import Problem, parse_conf
from binfmtd.formats.debian import is_format, parse_format
from binfmtd.formats.toml import Found, check_toml, render_toml
from binfmtd.host import facts as host
from binfmtd.host.interpreters import program_heads
from binfmtd.kernel.instance import Instance, Observer
from binfmtd.kernel.mount import find_to_look
from binfmtd.model.guard import takes_native
from binfmtd.model.stand_in import is_stand_in

DONE = 0
FAILED = 1
_ENOUGH = 4096  # bytes of a file, enough to contain its first key
AUTO, BINFMT_D, DEBIAN = "auto", "binfmt.d", "debian"


def parser() -> argparse.ArgumentParser:
    """Return the parser for ``binfmtd import``."""
    command = options.parser("import", epilog="Exit status 1 if something could not be read or understood.")
    command.add_argument(
        "paths", metavar="PATH", nargs="*", help="files or directories (systemd's four binfmt.d directories)"
    )
    command.add_argument("--kernel", action="store_true", help="import what is registered now, instead of files")
    command.add_argument(
        "--format",
        choices=(AUTO, BINFMT_D, DEBIAN),
        default=AUTO,
        help="the format of the files (auto: as their content shows)",
    )
    options.add_config(command)  # every command accepts it; this one ignores it
    options.add_mount(command)
    options.add_json(command)
    return command


def main(arguments: Sequence[str]) -> int:
    """Return 0, or 1 if something could not be read or understood; the rest is printed all the same."""
    given = parser().parse_args(arguments)
    if given.kernel and (given.paths or given.format != AUTO):
        raise UsageError(
            "--kernel cannot be combined with files or --format: import them separately, and join the results"
        )
    collected = _Collected()
    if given.kernel:
        _from_kernel(given.mount, collected)
    elif given.paths:
        for path in given.paths:
            _from_path(path, given.format, collected)
    else:
        _from_conf_files(DIRECTORIES, collected)
    for where, reason in collected.notes:
        warn(f"{where}: {reason}")
    if collected.failed and not collected.entries:
        return FAILED  # an empty config would declare that no handler is wanted
    text = render_toml(collected.entries.values())
    if given.json:
        notes = [{"where": where, "reason": reason} for where, reason in collected.notes]
        print_json({"toml": text, "handlers": list(collected.entries), "notes": notes})
    else:
        print(text, end="")
    return FAILED if collected.failed else DONE


class _Collected:
    """The entries that were found, in the order of registration, and notes, each with the place that it is about."""

    def __init__(self) -> None:
        self.entries: dict[str, Found] = {}
        self.notes: dict[tuple[str, str], None] = {}  # in order; a directory is listed for each of the two formats
        self.failed = False
        native = host.native_header()
        self.native = native, program_heads(native)

    def add(self, entry: Found) -> None:
        """Add an entry in place of an earlier one of the same name; leave it out if a config cannot express it."""
        try:
            check_toml(entry.name, entry.registration)
        except FormatError as error:
            self.note(entry.origin, f"entry {entry.name!r} left out: {error}")
            return
        if earlier := self.entries.pop(entry.name, None):
            self.note(entry.origin, f"entry {entry.name!r} replaces the earlier one from {earlier.origin}")
        self.entries[entry.name] = entry
        taken = takes_native(entry.registration.match, *self.native)
        if taken and entry.enabled:
            self.note(
                entry.origin,
                f"entry {entry.name!r} takes {taken} of this host, so binfmtd will refuse it: remove it, or narrow its "
                "mask",
            )

    def note(self, where: str, reason: str) -> None:
        """Record, once, something that a config cannot express, or that the user has to decide."""
        self.notes[where, reason] = None

    def fail(self, where: str, reason: object) -> None:
        """Record something that could not be read or understood: the exit status is then 1."""
        self.note(where, str(reason))
        self.failed = True

    def unreadable(self, path: str, error: OSError) -> None:
        """Record a file or a directory that the kernel does not let us read."""
        self.fail(path, f"cannot be read: {error.strerror}: {cure(error)}")

    def problems(self, path: str, problems: Sequence[Problem]) -> None:
        """Record the lines of a file that could not be understood."""
        for problem in problems:
            self.fail(f"{path}:{problem.line}", problem.reason)


def _from_kernel(mount: str | None, collected: _Collected) -> None:
    mounted = find_to_look(mount)
    with Instance(mounted) as instance:
        observed = Observer().observe(instance)
    if not observed.switched_on:
        collected.note(mounted.directory, "binfmt_misc is switched off as a whole there; a config cannot express that")
    for entry in reversed(observed.entries):  # the newest wins in the kernel, and the last in a config
        origin = f"{mounted.directory}/{entry.name}"
        if is_stand_in(entry.name):
            continue
        if entry.registration is None:
            collected.fail(origin, "left out: this version of binfmtd cannot read its content: declare it by hand")
        else:
            collected.add(Found(entry.name, entry.registration, origin, entry.enabled))


def _from_path(path: str, kind: str, collected: _Collected) -> None:
    if not os.path.isdir(path):
        _from_file(path, kind, collected)
        return
    if kind == DEBIAN:
        for file in _visible(path, collected):
            _from_file(file, DEBIAN, collected)
        return
    if kind == AUTO:
        _from_others(path, collected)
    _from_conf_files([path], collected, kind)


def _from_others(directory: str, collected: _Collected) -> None:
    """Import Debian's format files from a directory, and note the files that are neither these nor *.conf."""
    strangers = []
    for file in _visible(directory, collected):
        if file.endswith(".conf"):
            continue
        if _looks_like_debian(file):
            _from_file(file, DEBIAN, collected)
        else:
            strangers.append(os.path.basename(file))
    if strangers:
        more = f" and {len(strangers) - 3} more" if strangers[3:] else ""
        names = ", ".join(strangers[:3]) + more
        reason = (
            f"left out, because they are neither *.conf nor Debian's format files: {names}; to import a file, name it"
        )
        collected.note(directory, reason)


def _looks_like_debian(file: str) -> bool:
    try:
        return is_format(read_start(file, _ENOUGH))
    except OSError:
        return True  # reading it reports the reason
    except FormatError:
        return False


def _visible(directory: str, collected: _Collected) -> list[str]:
    try:
        names = os.listdir(directory)
    except OSError as error:
        collected.unreadable(directory, error)
        return []
    paths = [os.path.join(directory, name) for name in sorted(names, key=os.fsencode) if not name.startswith(".")]
    return [path for path in paths if not os.path.isdir(path) and not masks(path)]


def _from_conf_files(directories: Sequence[str], collected: _Collected, kind: str = BINFMT_D) -> None:
    files, errors = conf_files(directories)
    for error in errors:
        collected.unreadable(str(error.filename), error)
    for file in files:
        _from_file(file, kind, collected)


def _from_file(path: str, kind: str, collected: _Collected) -> None:
    try:
        text = read_regular(path)
    except OSError as error:
        collected.unreadable(path, error)
        return
    except FormatError as error:
        collected.fail(path, error)
        return
    if kind == DEBIAN or (kind == AUTO and is_format(text)):
        _from_debian(path, text, collected)
    else:
        rules, problems = parse_conf(text)
        if kind == AUTO and problems and not rules:
            first = problems[0]
            reason = f"neither a binfmt.d file ({first.reason}) nor one of Debian's format files"
            collected.fail(f"{path}:{first.line}", f"{reason}: name the format with --format to see all problems")
            return
        collected.problems(path, problems)
        for rule in rules:
            collected.add(Found(rule.name, rule.registration, f"{path}:{rule.line}"))


def _from_debian(path: str, text: bytes, collected: _Collected) -> None:
    name = os.path.basename(path)
    format_file, problems = parse_format(text)
    collected.problems(path, problems)
    if format_file is None:
        return
    if format_file.detector is not None:
        collected.note(
            path,
            f"entry {name!r} left out: the kernel cannot run its detector {format_file.detector!r}, which decides for "
            f"each file; to give all such files to its interpreter, declare [handlers.{name}] by hand",
        )
        return
    collected.add(Found(name, format_file.registration, f"{path} (package {format_file.package})"))
