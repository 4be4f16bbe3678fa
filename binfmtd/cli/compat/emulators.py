"""The emulators of tonistiigi/binfmt: their paths, and the entries that they get, as its variables define them.

``$QEMU_BINARY_PATH`` is their directory, ``$QEMU_BINARY_PREFIX`` comes before the names of file and entry, and
``$QEMU_PRESERVE_ARGV0`` adds flag P.  Two things differ from the original.  If ``qemu-CPU`` does not exist,
``qemu-CPU-static`` is used.  The original registers flag C, with which the kernel sets O, too; here C is left out
unless ``$BINFMTD_CREDENTIALS`` asks for it.
"""

import os

from binfmtd.catalog.architectures import Architecture
from binfmtd.errors import FormatError, UsageError
from binfmtd.formats.register_line import encode_line
from binfmtd.model.config import HandlerSpec, SetBy
from binfmtd.model.handler import Flags, Registration


def without_config(paths: str = "", *, no_flag_f: str = "", no_credentials: str = "") -> SetBy:
    """Return what changes an architecture's handler in a drop-in, which reads no config; ``paths`` is a variable."""
    return SetBy(
        paths, "put in its place", no_flag_f, no_credentials, match="", without="it needs no emulator", force=""
    )


def paths(name: str) -> tuple[str, ...]:
    """Return the paths at which QEMU's emulator may be, the original's first.  Raises UsageError for bad variables."""
    directory = os.environ.get("QEMU_BINARY_PATH") or "/usr/bin"
    if not directory.startswith("/"):
        raise UsageError(f"$QEMU_BINARY_PATH is {directory!r}: write an absolute path")
    path = os.path.normpath(f"{directory}/{entry_name(name)}")
    return path, f"{path}-static"


def entry_name(name: str) -> str:
    """Return the entry's name, with the prefix.  Raises UsageError for a prefix that contains a slash."""
    prefix = os.environ.get("QEMU_BINARY_PREFIX", "")
    if "/" in prefix:
        raise UsageError(
            f"$QEMU_BINARY_PREFIX is {prefix!r}: write a prefix without a slash, and the directory in $QEMU_BINARY_PATH"
        )
    return f"{prefix}qemu-{name}"


def spec(architecture: Architecture) -> HandlerSpec:
    """Return the handler that an architecture gets.  Raises UsageError for variables that no entry can express."""
    from binfmtd.cli.options import switch

    flags = Flags.O | Flags.F
    if os.environ.get("QEMU_PRESERVE_ARGV0"):
        flags |= Flags.P
    if switch("BINFMTD_CREDENTIALS"):
        flags |= Flags.C
    name = entry_name(architecture.name)
    interpreters = paths(architecture.name)
    try:
        for path in interpreters:
            encode_line(name, Registration(architecture.match, path, flags))
    except FormatError as error:
        raise UsageError(f"$QEMU_BINARY_PREFIX or $QEMU_BINARY_PATH: {error}") from None
    prefixed = " or $QEMU_BINARY_PREFIX" if os.environ.get("QEMU_BINARY_PREFIX") else ""
    set_by = without_config(f"$QEMU_BINARY_PATH{prefixed}")
    return HandlerSpec(
        name, architecture.match, interpreters, flags, architecture=architecture.name, source=name, set_by=set_by
    )
