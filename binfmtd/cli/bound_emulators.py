"""Emulators that SELinux does not let every container execute.

Flag F serves an emulator to all containers.  If the policy does not let one of them map it, the kernel finds that out
when it has already replaced the process, so the program is killed by SIGSEGV.

* A file of a container carries the categories of that container; other containers have others.
* A file elsewhere on the host may have a type that no container may execute.
"""

import shlex
from collections.abc import Iterable
from typing import NamedTuple

from binfmtd.formats.selinux import categories
from binfmtd.host.security_modules import label_of_file, may_execute, selinux_enforces
from binfmtd.model.handler import Flags, Registration

# An ordinary container of podman, CRI-O or Docker; the categories are those of no other by chance alone.
_CONTAINER = "system_u:system_r:container_t:s0:c1022,c1023"
_KILLED = "their programs are killed by SIGSEGV (exit status 139)"


class Bound(NamedTuple):
    """An emulator that not every container may execute: its path, the problem, and the command that ends it."""

    path: str
    problem: str
    remedy: str


def bound_emulators(registrations: Iterable[Registration]) -> list[Bound]:
    """Return these emulators among the interpreters with F; none if SELinux does not enforce."""
    if not selinux_enforces():
        return []
    paths = {registration.interpreter for registration in registrations if Flags.F in registration.flags}
    return [bound for path in sorted(paths) if (bound := judge(path, label := label_of_file(path), _executable(label)))]


def judge(path: str, label: str, executable: bool | None) -> Bound | None:  # noqa: FBT001  of three values
    """Return the problem of an emulator with this label; ``executable``: if the policy lets a container execute it."""
    has = f"{path} has the SELinux label {label}"
    if carried := categories(label):
        text = (
            f"{has} with the categories {carried}: containers with other categories may not execute it, and {_KILLED}; "
            "use an emulator of the host, start the container that registers with `--security-opt label=type:spc_t "
            "--security-opt label=level:s0`, or take the categories off the file"
        )
        return Bound(path, text, f"chcon -l s0 {shlex.quote(path)}")
    if executable is False:
        text = f"{has}: the policy lets no container execute it, and {_KILLED}; give the file the type bin_t"
        return Bound(path, text, f"chcon -t bin_t {shlex.quote(path)}")
    return None


def _executable(label: str) -> bool | None:
    return may_execute(_CONTAINER, label) if label else None
