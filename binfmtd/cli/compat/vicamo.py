"""vicamo/binfmt-qemu: no options; every architecture that does not run natively, with Debian's emulators."""

from collections.abc import Sequence

from binfmtd.cli.compat.register import EVERY, conclude, every_architecture, register
from binfmtd.cli.compat.surroundings import where
from binfmtd.errors import UsageError
from binfmtd.model.handler import Flags

_PATTERNS = ("/usr/bin/qemu-{name}-static", "/usr/bin/qemu-{name}")


def main(arguments: Sequence[str]) -> int:
    """Exit status 0 if every one is registered; silent then."""
    if arguments:
        raise UsageError(f"vicamo/binfmt-qemu takes no arguments, and {arguments[0]!r} is one: leave it out")
    registered = register(
        where(), lambda native: tuple(every_architecture(native, _PATTERNS, Flags.F | Flags.P)), EVERY
    )
    return conclude(registered.outcomes)
