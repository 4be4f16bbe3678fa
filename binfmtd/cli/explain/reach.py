"""Where the interpreter of an entry can be used: here, and inside a chroot or a container.

With flag F the kernel has opened the interpreter, so it needs no path in a chroot.  But a dynamic one still needs its
dynamic linker there, and a script the interpreter that its first line names.
"""

from typing import NamedTuple

from binfmtd.host.exec_files import Programs
from binfmtd.model.entry import Entry
from binfmtd.model.execution import Opened, Refusal
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.shebang import parse_shebang


class Reach(NamedTuple):
    """Where an entry's interpreter can be used: here (or in the tree that was named), and in every chroot."""

    here: bool
    in_chroot: bool
    static: bool
    why: str


def reach(programs: Programs, entry: Entry, registration: Registration) -> Reach:
    """Return where the interpreter can be used; with flag F, judge it by the file that is at its path now."""
    path = registration.interpreter
    opened = Flags.F in registration.flags
    file = programs.opened_by(entry) if opened else programs.open(path)
    if isinstance(file, Refusal):
        return Reach(here=False, in_chroot=False, static=False, why=file.reason)
    if not file.place:
        why = f"{path} cannot be read here; the kernel uses the file that it opened at the registration (flag F)"
        return Reach(here=True, in_chroot=True, static=True, why=why)
    needs = _needs(programs, file)
    if not opened:
        why = f"without flag F the kernel looks for {path} in the chroot" + (f", and for {needs}" if needs else "")
        return Reach(here=True, in_chroot=False, static=needs is None, why=why)
    if needs is None:
        why = "the kernel opened it at the registration (flag F), and it is static"
        return Reach(here=True, in_chroot=True, static=True, why=why)
    why = f"the kernel opened it at the registration (flag F), but in a chroot it needs {needs}, unlike a static one"
    return Reach(here=True, in_chroot=False, static=False, why=why)


def _needs(programs: Programs, file: Opened) -> str | None:
    """Return the file that an interpreter needs: its dynamic linker, or what its first line names; else None."""
    if script := parse_shebang(file.head):
        return script.interpreter
    elf = programs.elf(file.place)
    return elf.linker if elf else None
