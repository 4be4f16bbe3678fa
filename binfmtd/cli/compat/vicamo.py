"""vicamo/binfmt-qemu: without options, register every architecture that does not run natively, as Debian does."""

from collections.abc import Sequence

from binfmtd.cli.compat.environment import where
from binfmtd.cli.compat.register import EVERY, conclude, every_architecture, register
from binfmtd.config.build import DEFAULT_FLAGS
from binfmtd.errors import UsageError

_PATTERNS = ("/usr/bin/qemu-{name}-static", "/usr/bin/qemu-{name}")


def main(arguments: Sequence[str]) -> int:
    """Return 0, and print nothing, if every architecture with an emulator is registered; else 1.  Raises UsageError."""
    if arguments:
        raise UsageError(f"vicamo/binfmt-qemu takes no arguments: leave out {arguments[0]!r}")
    registered = register(where(), lambda native: tuple(every_architecture(native, _PATTERNS, DEFAULT_FLAGS)), EVERY)
    return conclude(registered.outcomes)
