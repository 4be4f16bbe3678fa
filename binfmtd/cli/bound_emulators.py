"""Emulators that SELinux lets the processes of one container execute, and of no other.

A file of a container carries the categories of that container.  Flag F serves it to all containers, and each execution
in another one then fails with "Permission denied".
"""

import shlex
from collections.abc import Iterable

from binfmtd.formats.selinux import categories
from binfmtd.host.security_modules import label_of_file, selinux_enforces
from binfmtd.model.handler import Flags, Registration


def bound_emulators(registrations: Iterable[Registration]) -> dict[str, str]:
    """Return interpreter -> label, for those with F whose label carries categories; {} if SELinux does not enforce."""
    if not selinux_enforces():
        return {}
    paths = {registration.interpreter for registration in registrations if Flags.F in registration.flags}
    labels = {path: label_of_file(path) for path in sorted(paths)}
    return {path: label for path, label in labels.items() if categories(label)}


def problem(path: str, label: str) -> str:
    """Return what such a label means, and what helps."""
    return (
        f"{path} has the SELinux label {label} with the categories {categories(label)}: containers with other "
        'categories may not execute it, and their programs fail with "Permission denied"; use an emulator of the '
        "host, start the container that registers with `--security-opt label=level:s0`, or take the categories off "
        "the file"
    )


def remedy(path: str) -> str:
    """Return the command that takes the categories off."""
    return f"chcon -l s0 {shlex.quote(path)}"
