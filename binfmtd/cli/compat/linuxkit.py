"""linuxkit/binfmt and docker/binfmt: register the lines in the files of a directory; print nothing on success.

All files are read, in the order of their names and with any suffix; empty lines and lines that begin with ``#`` are
skipped.  The first error ends the run: the lines before it are registered.

The original's image has lines for its emulators in /etc/binfmt.d.  Ours has none: if that directory is missing or empty
and ``-dir`` is not given, every architecture that has an emulator here and does not run natively gets a handler.
"""

import os
from collections.abc import Iterator, Sequence

from binfmtd.cli.compat import goflags
from binfmtd.cli.compat.environment import where
from binfmtd.cli.compat.goflags import Flag
from binfmtd.cli.compat.register import EVERY, Declare, conclude, every_architecture, register
from binfmtd.config.build import DEFAULT_FLAGS
from binfmtd.errors import FormatError
from binfmtd.files.atomic import read_regular
from binfmtd.files.binfmt_d import masks
from binfmtd.formats.register_line import check_interpreter, decode_line
from binfmtd.model.config import HandlerSpec, SetBy
from binfmtd.model.stand_in import is_stand_in

DIRECTORY = "/etc/binfmt.d"
FLAGS = (
    Flag("dir", "directory of files with registration lines", DIRECTORY),
    Flag("mount", "mount point of binfmt_misc, which is mounted there if necessary", "/proc/sys/fs/binfmt_misc"),
)
_SET_BY = SetBy(
    paths="", no_flag_f='write "{}" as its flags if the handler is meant for this root alone', force=""
)  # the line itself
_PATTERNS = ("/usr/bin/qemu-{name}", "/usr/bin/qemu-{name}-static")


def main(arguments: Sequence[str]) -> int:
    """Return 0 if every line is registered, else 1.  Raises FormatError for the first bad line."""
    given = goflags.parse(arguments, "binfmt", FLAGS)
    there = where(given.texts.get("mount"))
    named = given.texts.get("dir")
    if named is None and not _has_files(DIRECTORY):
        registered = register(there, lambda native: tuple(every_architecture(native, _PATTERNS, DEFAULT_FLAGS)), EVERY)
        return conclude(registered.outcomes)
    declared: dict[str, HandlerSpec] = {}
    problem: FormatError | None = None
    try:
        for spec in _declarations(named or DIRECTORY):
            declared.pop(spec.name, None)  # the later line of a name replaces the earlier one
            declared[spec.name] = spec
    except FormatError as error:
        problem = error
    for name, spec in declared.items():
        outcome = register(there, _just(spec), f"declare [handlers.{name}]").outcomes[name]
        if outcome.reason:
            raise FormatError(f"{spec.source}: {name}: {outcome.reason}")
    if problem is not None:
        raise problem
    return 0


def _just(spec: HandlerSpec) -> Declare:
    """Return the function that declares this handler alone, so that the run ends at the first refused line."""
    return lambda _: (spec,)


def _has_files(directory: str) -> bool:
    try:
        return bool(os.listdir(directory))
    except FileNotFoundError:
        return False
    except OSError:
        return True  # reading it raises the error


def _declarations(directory: str) -> Iterator[HandlerSpec]:
    """Read the handlers, in the order of the lines.  Raises FormatError at the first bad line or unreadable file."""
    try:
        names = sorted(os.listdir(os.fsencode(directory)))
    except OSError as error:
        raise FormatError(f"{directory}: {error.strerror}: name a directory with -dir") from None
    for name in names:
        path = os.path.join(directory, os.fsdecode(name))
        if masks(path):
            continue
        try:
            content = read_regular(path)
        except OSError as error:
            raise FormatError(f"{path}: {error.strerror}") from None
        for number, line in enumerate(content.split(b"\n"), 1):
            if line and not line.startswith(b"#"):
                yield _declaration(line, f"{path}:{number}")


def _declaration(line: bytes, source: str) -> HandlerSpec:
    try:
        name, registration = decode_line(line)
        check_interpreter(registration.interpreter)
        if is_stand_in(name):
            raise FormatError(f"name {name!r} is reserved for binfmtd's stand-ins: choose another")
    except FormatError as error:
        raise FormatError(f"{source}: {error}") from None
    match, flags = registration.match, registration.flags
    return HandlerSpec(name, match, (registration.interpreter,), flags, source=source, set_by=_SET_BY)
