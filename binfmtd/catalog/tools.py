"""A guess at the tool that has replaced an entry, by the interpreter and flags of the new one.

The sources of each tool show what it registers: tonistiigi/binfmt (cmd/binfmt/main.go: flags CF, with P in its image),
linuxkit and docker/binfmt (etc/binfmt.d: CF), multiarch/qemu-user-static (QEMU's qemu-binfmt-conf.sh with the suffix
-static), Debian's qemu-user-binfmt, update-binfmts (a detector takes the place of the interpreter), WSL (init registers
itself).  The kernel adds O to C.
"""

import re
from collections.abc import Callable

from binfmtd.model.handler import Flags, Registration

_CREDENTIALS = Flags.C | Flags.O | Flags.F

# Interpreter, flags, and the tool that registers both so; the first that fits counts.
_TOOLS: tuple[tuple[str, Callable[[Flags], bool], str], ...] = (
    (r"/init", lambda _: True, "WSL"),
    (r"/usr/libexec/qemu-binfmt/.*", lambda _: True, "Debian's qemu-user-binfmt"),
    (r".*/binfmt-support/run-detectors", lambda _: True, "update-binfmts"),
    (r".*/qemu-\w+-static", lambda _: True, "multiarch/qemu-user-static, or a distribution's qemu-user-static"),
    (r"/usr/bin/qemu-\w+", lambda flags: flags == _CREDENTIALS | Flags.P, "tonistiigi/binfmt"),
    (r"/usr/bin/qemu-\w+", lambda flags: flags == _CREDENTIALS, "linuxkit/binfmt, docker/binfmt or tonistiigi/binfmt"),
)


def looks_like(registration: Registration | None) -> str | None:
    """Return the tool that may have registered this entry; None if it could be any program."""
    if registration is None:
        return None
    for path, flags_fit, tool in _TOOLS:
        if re.fullmatch(path, registration.interpreter, re.DOTALL) and flags_fit(registration.flags):
            return tool
    return None
