"""What the kernel does with a file that is executed, step by step.

Source: fs/exec.c (exec_binprm, search_binary_handler), fs/binfmt_misc.c (load_misc_binary), fs/binfmt_script.c.

* Whoever takes the file names an interpreter, which is executed in its place, and may be taken again: five times at
  most, then the exec fails with ELOOP.
* binfmt_misc is asked first, newest entry first; then scripts; then the loaders of the host's own programs.
* An extension is compared with the path as it was given, and later with the interpreter's.
* An entry with flag O puts the file aside, for a descriptor.  That can be done once: if then the interpreter is not a
  program but taken itself, the exec fails with ENOEXEC.
* With F the interpreter is the file that was opened at the registration; without, its path is looked up now.

Files are somebody else's affair (``Files``): so this can be held against the real kernel.
"""

from collections.abc import Sequence
from enum import StrEnum
from errno import ELOOP, ENOENT, ENOEXEC
from typing import NamedTuple, Protocol

from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.handler import Flags
from binfmtd.model.match import takes
from binfmtd.model.shebang import Shebang, parse_shebang

REWRITES = 5


class Refusal(NamedTuple):
    """Why an exec fails: the kernel's errno, in words, and what would help."""

    errno: int
    reason: str
    remedy: str = ""


class Opened(NamedTuple):
    """A file as exec has opened it: its first 256 bytes, and where whoever opened it found it (empty: nowhere now)."""

    head: bytes
    place: str


class Files(Protocol):
    """What there is to execute."""

    def open(self, path: str) -> Opened | Refusal:
        """The executable file that a path leads to."""

    def opened_by(self, entry: Entry) -> Opened | Refusal:
        """The file that the kernel opened when an entry with flag F was registered."""

    def load(self, file: Opened) -> Refusal | None:
        """What the loaders of the host's own programs say; None: it runs, ENOEXEC: it is not theirs."""


class Passed(StrEnum):
    """Why an entry that matches does not take a file."""

    SHADOWED = "shadowed"  # a newer one takes it
    DISABLED = "disabled"
    SWITCHED_OFF = "switched_off"  # binfmt_misc as a whole


class Rival(NamedTuple):
    """An entry that would have taken the file."""

    entry: Entry
    passed: Passed


class Step(NamedTuple):
    """One file on the way.

    ``taker`` is the entry that takes it, or its own first line; None: the host's own loader, or nobody.  ``unclear``
    are entries that come before, and say what this version does not know.
    """

    path: str
    file: Opened
    taker: Entry | Shebang | None
    rivals: tuple[Rival, ...] = ()
    unclear: tuple[Entry, ...] = ()

    @property
    def interpreter(self) -> str | None:
        """What is executed in its place."""
        if isinstance(self.taker, Entry):
            return self.taker.registration.interpreter if self.taker.registration else None
        return self.taker.interpreter if self.taker else None


class Execution(NamedTuple):
    """All of it: ``failure`` says why the exec fails, and is None if the last step's program runs with ``argv``."""

    steps: tuple[Step, ...]
    argv: tuple[str, ...]
    failure: Refusal | None = None

    @property
    def nobody_takes_it(self) -> bool:
        """Whether it fails for want of a handler."""
        return self.failure is not None and self.failure.errno == ENOEXEC and self.steps[-1].taker is None


class _Course:
    def __init__(self, argv: list[str]) -> None:
        self.argv = argv
        self.steps: list[Step] = []

    def end(self, failure: Refusal | None) -> Execution:
        return Execution(tuple(self.steps), tuple(self.argv), failure)


def execute(path: str, observed: ObservedState, files: Files, argv: Sequence[str] = ()) -> Execution:
    """Follow an exec of ``path`` to its end; ``argv`` is what the caller passes, by default just the path."""
    course = _Course(list(argv or (path,)))
    # Of its callers the kernel takes no empty path (getname_flags); of a first line it does, for the current directory.
    file = files.open(path) if path else Refusal(ENOENT, "an empty path leads to no file", "name a file")
    if isinstance(file, Refusal):
        return course.end(file)
    put_aside = False
    while True:
        step = _search(path, file, observed)
        course.steps.append(step)
        if step.interpreter is None:
            return course.end(files.load(file))
        course.argv = _rewritten(course.argv, step, step.interpreter)
        entry = step.taker if isinstance(step.taker, Entry) else None
        flags = entry.registration.flags if entry and entry.registration else Flags.NONE
        wants_descriptor = Flags.O in flags
        found = files.opened_by(entry) if entry and Flags.F in flags else files.open(step.interpreter)
        if isinstance(found, Refusal):
            return course.end(found)
        if put_aside:
            return course.end(Refusal(ENOEXEC, _TWICE, _NO_DESCRIPTOR))
        put_aside = wants_descriptor
        if len(course.steps) > REWRITES:
            return course.end(Refusal(ELOOP, _AGAIN, _NAME_A_PROGRAM))
        path, file = step.interpreter, found


_TWICE = "flag O has put the file aside for a descriptor, and its interpreter is no program but taken itself"
_NO_DESCRIPTOR = "register the entry without O and C, or with a program for interpreter"
_AGAIN = f"each interpreter is taken itself, and after {REWRITES} of them the kernel gives up"
_NAME_A_PROGRAM = "narrow the magic and mask of the entry that takes interpreters, or disable it"


def _search(path: str, file: Opened, observed: ObservedState) -> Step:
    taker: Entry | Shebang | None = None
    rivals: list[Rival] = []
    unclear: list[Entry] = []
    for entry in observed.entries:
        if entry.registration is None:
            if taker is None and entry.enabled and observed.switched_on:
                unclear.append(entry)
        elif takes(entry.registration.match, file.head, path):
            if not observed.switched_on:
                rivals.append(Rival(entry, Passed.SWITCHED_OFF))
            elif not entry.enabled:
                rivals.append(Rival(entry, Passed.DISABLED))
            elif taker is None:
                taker = entry
            else:
                rivals.append(Rival(entry, Passed.SHADOWED))
    return Step(path, file, taker or parse_shebang(file.head), tuple(rivals), tuple(unclear))


def _rewritten(argv: list[str], step: Step, interpreter: str) -> list[str]:
    """The interpreter comes before the file, whose path takes the place of argv[0] unless flag P keeps that."""
    if isinstance(step.taker, Shebang):
        argument = [] if step.taker.argument is None else [step.taker.argument]
        return [interpreter, *argument, step.path, *argv[1:]]
    preserved = step.taker and step.taker.registration and Flags.P in step.taker.registration.flags
    return [interpreter, step.path, *(argv if preserved else argv[1:])]
