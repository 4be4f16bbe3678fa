"""Follow an exec step by step, as the kernel performs it: which entry takes the file, and which program runs.

Source: fs/exec.c (exec_binprm, search_binary_handler), fs/binfmt_misc.c (load_misc_binary), fs/binfmt_script.c.

* The entry or the ``#!`` line that takes a file names an interpreter, which the kernel executes in the file's place.
  An entry may take the interpreter, too.  After five such steps the next one fails with ELOOP.
* The kernel tries binfmt_misc first, newest entry first; then scripts; then the loaders of the host's own programs.
* The kernel compares an extension with the path that the caller passed, and later with the interpreter's path.
* An entry with flag O puts the file aside, for a descriptor.  The kernel can do that once.  If the interpreter is then
  not a program, but is taken itself, the exec fails with ENOEXEC.
* With F the interpreter is the file that the kernel opened at the registration.  Without F the kernel looks the path up
  at each exec.

Example: ``./hello`` is an ARM program.  In step 1 the entry ``qemu-arm`` takes it and names ``/usr/bin/qemu-arm``.  In
step 2 no entry takes that file, and the ELF loader runs it.

The caller supplies the files (``Files``), so that tests can compare this module with the real kernel.
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
    """The reason why an exec fails: the kernel's errno, the reason in words, and a remedy."""

    errno: int
    reason: str
    remedy: str = ""


class Opened(NamedTuple):
    """A file as exec has opened it.

    ``head`` is its first 256 bytes.  ``place`` is the path where ``Files`` found it; empty if it has no path now.
    """

    head: bytes
    place: str


class Files(Protocol):
    """The files that exec can open."""

    def open(self, path: str) -> Opened | Refusal:
        """Return the executable file to which a path leads, or why it cannot be executed."""

    def opened_by(self, entry: Entry) -> Opened | Refusal:
        """Return the file that the kernel opened when the entry, which has flag F, was registered."""

    def load(self, file: Opened) -> Refusal | None:
        """Return None if the host's own loaders run the file, else the reason: ENOEXEC if none of them takes it."""


class Passed(StrEnum):
    """The reason why an entry that matches does not take a file."""

    SHADOWED = "shadowed"  # a newer entry takes it
    DISABLED = "disabled"
    SWITCHED_OFF = "switched_off"  # the instance as a whole


class PassedOver(NamedTuple):
    """An entry that matches the file but does not take it."""

    entry: Entry
    passed: Passed


class Step(NamedTuple):
    """One file that exec tries.

    ``taker`` is the entry that takes it, or its own first line.  It is None if only the host's own loaders may take it.
    ``unclear`` are enabled entries that the kernel tries before, and that this version cannot parse: they may take it.
    """

    path: str
    file: Opened
    taker: Entry | Shebang | None
    passed_over: tuple[PassedOver, ...] = ()
    unclear: tuple[Entry, ...] = ()

    @property
    def interpreter(self) -> str | None:
        """The path that the kernel executes in the file's place, or None."""
        if isinstance(self.taker, Entry):
            return self.taker.registration.interpreter if self.taker.registration else None
        return self.taker.interpreter if self.taker else None


class Execution(NamedTuple):
    """A whole exec.  ``failure`` is why it fails, or None if the last step's program runs with ``argv``."""

    steps: tuple[Step, ...]
    argv: tuple[str, ...]
    failure: Refusal | None = None

    @property
    def no_handler_takes_it(self) -> bool:
        """True if the exec fails with ENOEXEC because nothing takes its last file."""
        return self.failure is not None and self.failure.errno == ENOEXEC and self.steps[-1].taker is None


class _Course:
    def __init__(self, argv: list[str]) -> None:
        self.argv = argv
        self.steps: list[Step] = []

    def end(self, failure: Refusal | None) -> Execution:
        return Execution(tuple(self.steps), tuple(self.argv), failure)


def execute(path: str, observed: ObservedState, files: Files, argv: Sequence[str] = ()) -> Execution:
    """Follow an exec of ``path`` to its end.  ``argv`` is what the caller of exec passes, by default only the path."""
    course = _Course(list(argv or (path,)))
    # The kernel refuses an empty path from a caller (getname_flags); in a first line it means the current directory.
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
        next_file = files.opened_by(entry) if entry and Flags.F in flags else files.open(step.interpreter)
        if isinstance(next_file, Refusal):
            return course.end(next_file)
        if put_aside:
            return course.end(Refusal(ENOEXEC, _TWICE, _NO_DESCRIPTOR))
        put_aside = wants_descriptor
        if len(course.steps) > REWRITES:
            by_entry = any(isinstance(step.taker, Entry) for step in course.steps)
            return course.end(Refusal(ELOOP, _AGAIN, _NARROW if by_entry else _NAME_A_PROGRAM))
        path, file = step.interpreter, next_file


_TWICE = "the entry has flag O, but an entry or a #! line takes its interpreter: flag O requires a native program there"
_NO_DESCRIPTOR = "register the entry without flags O and C, or with a native program as interpreter"
_AGAIN = f"each interpreter is itself taken by an entry or a #! line, and the kernel stops after {REWRITES} of them"
_NAME_A_PROGRAM = "name a program that is no script in the first line of the last of them"
_NARROW = "narrow the magic and mask of the entry that takes the interpreters, or disable that entry"


def _search(path: str, file: Opened, observed: ObservedState) -> Step:
    taker: Entry | Shebang | None = None
    passed_over: list[PassedOver] = []
    unclear: list[Entry] = []
    for entry in observed.entries:
        if entry.registration is None:
            if taker is None and entry.enabled and observed.switched_on:
                unclear.append(entry)
        elif takes(entry.registration.match, file.head, path):
            if not observed.switched_on:
                passed_over.append(PassedOver(entry, Passed.SWITCHED_OFF))
            elif not entry.enabled:
                passed_over.append(PassedOver(entry, Passed.DISABLED))
            elif taker is None:
                taker = entry
            else:
                passed_over.append(PassedOver(entry, Passed.SHADOWED))
    return Step(path, file, taker or parse_shebang(file.head), tuple(passed_over), tuple(unclear))


def _rewritten(argv: list[str], step: Step, interpreter: str) -> list[str]:
    """Return argv with the interpreter first, then the file's path, which replaces argv[0] unless flag P keeps that."""
    if isinstance(step.taker, Shebang):
        argument = [] if step.taker.argument is None else [step.taker.argument]
        return [interpreter, *argument, step.path, *argv[1:]]
    preserved = step.taker and step.taker.registration and Flags.P in step.taker.registration.flags
    return [interpreter, step.path, *(argv if preserved else argv[1:])]
