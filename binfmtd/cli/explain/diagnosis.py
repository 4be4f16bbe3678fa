"""The answer to why a file runs: through which entry or interpreter; or else why it does not, and what helps.

``model.execution`` follows the kernel's exec.  This module turns the result into reasons, remedies and notes.  It also
finds what fails only after a successful exec: a dynamic linker or a program for env(1) that is missing, or a library.
"""

import os
from errno import EACCES, ENOENT, ENOEXEC, errorcode
from itertools import pairwise
from mmap import PAGESIZE
from shlex import quote
from typing import TYPE_CHECKING

from binfmtd.catalog.architectures import CATALOG
from binfmtd.cli.declared import Declared
from binfmtd.cli.explain.reach import Reach, reach
from binfmtd.errors import FormatError
from binfmtd.files.atomic import reading
from binfmtd.files.distribution import this_system
from binfmtd.formats.elf import ET_DYN, ElfFile
from binfmtd.formats.elf_types import elf_kind, libc_of
from binfmtd.formats.file_types import Kind, kind_of
from binfmtd.host.emulator_settings import in_words, settings_in
from binfmtd.host.exec_files import UNSEEN, Programs
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.examine import P_BY_NAME
from binfmtd.model.execution import REWRITES, Execution, Opened, Passed, Refusal, Step, execute
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Extension
from binfmtd.model.shebang import Shebang
from binfmtd.model.stand_in import PREFIX as STAND_IN

if TYPE_CHECKING:
    from binfmtd.cli.explain.faults import FaultNotes

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # a login's; used in a root tree
_QEMU = "qemu-"  # the names of all of QEMU's emulators begin so


class Explanation:
    """The answer about one file; ``runs`` is None where that cannot be determined from here."""

    def __init__(self, file: str, execution: Execution) -> None:
        self.file = file
        self.execution = execution
        self.runs: bool | None = True
        self.reason = ""
        self.remedy = ""
        self.config = ""  # config lines that would declare a handler
        self.errno: str | None = None
        self.kind: Kind | None = None  # of the file; or of the interpreter that nothing takes
        self.reach: dict[str, Reach] = {}  # by the entry's name
        self.notes: list[str] = []

    @property
    def by(self) -> str | None:
        """The kind of what takes the file itself: ``native``, ``script`` or ``entry``; None if nothing does."""
        taker = self.execution.steps[0].taker if self.execution.steps else None
        if taker is None:
            return "native" if self.execution.steps and self.execution.failure is None else None
        return "entry" if isinstance(taker, Entry) else "script"

    @property
    def entry(self) -> Entry | None:
        """The first entry that takes the file or one of its interpreters; None if no entry does."""
        return next((step.taker for step in self.execution.steps if isinstance(step.taker, Entry)), None)

    def fails(self, refusal: Refusal) -> None:
        """Record that the file does not run, and why; or that it is unknown, if the reason is UNSEEN."""
        self.runs = None if refusal.errno == UNSEEN else False
        self.errno = errorcode.get(refusal.errno)
        self.reason, self.remedy = refusal.reason, refusal.remedy


class Explainer:
    """Explains files, one after the other, as a process with this root directory would execute them."""

    def __init__(
        self, programs: Programs, observed: ObservedState | None, declared: Declared, mount: str, sealed: str = ""
    ) -> None:
        """``observed`` is None where the entries cannot be read; ``mount`` is where an administrator finds them.

        ``sealed`` says how to open binfmt_misc, if it is sealed.
        """
        self._sealed = sealed
        self._programs = programs
        self._observed = observed
        self._declared = declared
        self._mount = mount
        self._fault_notes: FaultNotes | None = None  # made for the first file that an entry takes

    def __call__(self, file: str) -> Explanation:
        """Return the answer about a file."""
        execution = execute(file, self._observed or ObservedState(), self._programs)
        explanation = Explanation(file, execution)
        if execution.steps:
            explanation.kind = self._kind(execution.steps[0])
        for step in execution.steps:
            self._look_at(step, explanation)
        if execution.failure is not None:
            explanation.fails(execution.failure)
            if not execution.steps:
                self._not_even_opened(explanation, execution.failure)
            elif execution.no_handler_takes_it:
                self._nobody(explanation, execution.steps[-1])
            elif execution.failure.errno != ENOEXEC and len(execution.steps) <= REWRITES:
                self._interpreter_fails(explanation, execution.steps[-1], execution.failure)
        else:
            for step, following in pairwise(execution.steps):
                if isinstance(step.taker, Entry):
                    self._needs_its_own(explanation, step, following.file)
                elif step.taker is not None:
                    self._finds_what_it_names(explanation, step, step.taker)
            self._is_whole(explanation, execution.steps[0])
        return explanation

    def _look_at(self, step: Step, explanation: Explanation) -> None:
        explanation.notes += [
            f"entry {entry.name} comes first and has content that this version of binfmtd cannot read: it may take "
            f"{step.path}"
            for entry in step.unclear
        ]
        entry = step.taker
        if not isinstance(entry, Entry) or entry.registration is None:
            return
        explanation.reach[entry.name] = reach(self._programs, entry, entry.registration)
        if Flags.C in entry.registration.flags:
            explanation.notes.append(
                f"entry {shown(entry)} has flag C: for a set-uid file, its interpreter runs with the rights of the "
                "file's owner"
            )
        elif self._programs.is_set_id(step.file):
            explanation.notes.append(f"its set-uid or set-gid bit has no effect: entry {shown(entry)} has no flag C")
        if Flags.O not in entry.registration.flags and self._programs.is_execute_only(step.file):
            explanation.notes.append(
                f"it fails for users who may execute but not read it: entry {shown(entry)} has no flag O, so the "
                "interpreter itself has to open the file"
            )
        opened = Flags.F in entry.registration.flags
        file = self._programs.opened_by(entry) if opened else self._programs.open(entry.registration.interpreter)
        if isinstance(file, Opened) and file.place:
            if settings := settings_in(file.place):
                explanation.notes.append(
                    f"the interpreter of entry {shown(entry)} has settings: {in_words(settings)}; a variable of the "
                    "same name in the caller's environment comes first"
                )
            explanation.notes += self._known_faults(step, file, entry.registration)

    def _known_faults(self, step: Step, file: Opened, registration: Registration) -> list[str]:
        """Return notes on the known faults that the entry's emulator has with this program."""
        architecture, elf = self._kind(step).architecture, self._programs.elf(step.file.place)
        if architecture is None or elf is None:
            return []
        if self._fault_notes is None:
            from binfmtd.cli.explain.faults import FaultNotes

            self._fault_notes = FaultNotes()
        flags = registration.flags
        if registration.interpreter.endswith(P_BY_NAME):  # it needs not see P: its name says so
            flags &= ~Flags.P
        return self._fault_notes.of(file.place, flags, architecture, pie=elf.e_type == ET_DYN)

    # Why it does not run

    def _not_even_opened(self, explanation: Explanation, failure: Refusal) -> None:
        """Add what helps where the file itself cannot be opened."""
        import shutil

        path = explanation.file
        if failure.errno == EACCES and (granting := self._programs.granting(path)):
            then = Explainer(granting, self._observed, self._declared, self._mount, self._sealed)(path)
            if then.execution.steps and not then.runs:
                problem = "; ".join(filter(None, (then.reason, then.remedy)))
                explanation.notes.append(f"if you could execute it, the next problem would be: {problem}")
                explanation.kind, explanation.config = then.kind, then.config
        elif failure.errno == ENOENT and self._programs.rooted and os.path.lexists(path):
            explanation.remedy = "with --root, FILE is a path inside of the tree: leave out the path of the tree itself"
        elif failure.errno == ENOENT and "/" not in path and (elsewhere := shutil.which(path)):
            explanation.remedy = f"give its path: a shell finds this program at {elsewhere}"

    def _nobody(self, explanation: Explanation, step: Step) -> None:
        """Explain that nothing takes the file, or an interpreter: what it is, and which handler would take it."""
        if self._sealed:
            explanation.notes.append(self._sealed)
        explanation.kind = kind = self._kind(step)
        if self._is_ours(step):
            explanation.reason, explanation.remedy = f"{step.path} is {kind.description}", kind.remedy
            return
        off = [other for other in step.passed_over if other.passed is Passed.SWITCHED_OFF and other.entry.enabled]
        disabled = [other for other in step.passed_over if not other.entry.enabled]
        explanation.reason = f"{step.path} is {kind.description}, and no entry takes it"
        if off:
            explanation.reason += f": entry {shown(off[0].entry)} would, but binfmt_misc is switched off as a whole"
            explanation.remedy = f"as root: echo 1 > {self._mount}/status"
            return
        if disabled:
            explanation.reason += f": entry {shown(disabled[0].entry)} would, but is disabled"
            explanation.remedy = f"as root: echo 1 > {quote(f'{self._mount}/{disabled[0].entry.name}')}"
            return
        if self._observed is None:
            explanation.runs = None
            explanation.reason = (
                f"{step.path} is {kind.description}; the entries cannot be read from here, so it is unknown whether "
                "one takes it"
            )
            if kind.architecture is not None:
                explanation.remedy = f"run `binfmtd probe {kind.architecture}`, which tries to run such a program"
                return
        if step.unclear:
            explanation.runs = None
        explanation.remedy, explanation.config = self._declared.remedy(kind, step.file.head, step.path)

    def _is_ours(self, step: Step) -> bool:
        """Return True if the file is a native program: as the kernel cannot load it, no handler would help."""
        elf = self._programs.elf(step.file.place)
        return elf is not None and self._programs.is_native(elf)

    def _kind(self, step: Step) -> Kind:
        elf = self._programs.elf(step.file.place)
        if elf is not None:
            return elf_kind(elf, step.file.head)
        try:
            with reading(step.file.place) as read:
                return kind_of(read, step.path)
        except (OSError, FormatError):
            return kind_of(lambda offset, size: step.file.head[offset : offset + size], step.path)

    def _interpreter_fails(self, explanation: Explanation, step: Step, failure: Refusal) -> None:
        """Explain that an entry's or a script's interpreter, or a program's dynamic linker, cannot be used."""
        missing = failure.errno == ENOENT
        if isinstance(step.taker, Shebang):
            path = step.taker.interpreter
            explanation.reason = f"the first line of {step.path} names {path!r}: {failure.reason}"
            if missing and path.endswith("\r"):
                explanation.reason = (
                    f"the first line of {step.path} ends with a carriage return, which the kernel takes for a part of "
                    f"the interpreter's path {path!r}"
                )
                explanation.remedy = _convert(step.path)
            elif missing:
                explanation.remedy = f"install {path}, or name another interpreter in the first line"
        elif isinstance(step.taker, Entry):
            lost = "its interpreter is missing" if missing else "its interpreter cannot be executed"
            explanation.reason = f"entry {shown(step.taker)} takes {step.path}, but {lost}: {failure.reason}"
            if missing:
                explanation.remedy = (
                    "install it there, or register the entry with flag F, so that the kernel opens it beforehand"
                )
        else:
            explanation.reason = f"{step.path}: {failure.reason}"
            elf = self._programs.elf(step.file.place)
            if elf and missing:
                explanation.remedy = _bring_libc(elf, rooted=self._programs.rooted)

    # Why it fails although the exec succeeds

    def _finds_what_it_names(self, explanation: Explanation, step: Step, script: Shebang) -> None:
        """Check that env(1) finds the program that a script's first line passes to it.

        Also note an argument that ends with a carriage return, which the kernel does not count as a blank.
        """
        word = script.argument or ""
        if word.endswith("\r"):
            explanation.notes.append(
                "the first line ends with a carriage return, which the kernel passes to the interpreter: "
                f"{_convert(step.path)}"
            )
        if os.path.basename(script.interpreter) != "env" or not word or word.startswith("-") or "=" in word:
            return
        path = _PATH if self._programs.rooted else os.environ.get("PATH", _PATH)
        places = [word] if "/" in word else [f"{directory}/{word}" for directory in path.split(":") if directory]
        if any(self._there(place) for place in places):
            return
        remedy = "install that program, or name another one in the first line"
        if " " in word:
            remedy = f"the kernel passes all of it as one argument: write {script.interpreter} -S {word}"
        explanation.fails(
            Refusal(
                0, f"{script.interpreter}, which the first line of {step.path} names, finds no program {word!r}", remedy
            )
        )

    def _needs_its_own(self, explanation: Explanation, step: Step, interpreter: Opened) -> None:
        """Check that a dynamic program finds its own dynamic linker, where QEMU looks for it.

        QEMU may have a link with another name, such as Debian's aarch64-binfmt-P.  An emulator other than QEMU may
        bring its own linker, so there a missing one is only noted.
        """
        elf = self._programs.elf(step.file.place)
        if elf is None or elf.linker is None or step.interpreter is None:
            return
        paths = (step.interpreter, interpreter.place and os.path.realpath(interpreter.place))
        emulator = next((name for name in map(os.path.basename, paths) if name.startswith(_QEMU)), "")
        if not emulator:
            if not self._there(elf.linker):
                explanation.notes.append(
                    f"it is dynamically linked, and its dynamic linker {elf.linker} is missing: it runs only if "
                    f"{step.interpreter} has its own"
                )
            return
        name = emulator.removeprefix(_QEMU).removesuffix("-static")
        prefixes = [f"/usr/gnemul/qemu-{name}", f"/etc/qemu-binfmt/{name}"]  # QEMU's own, and Debian's up to 12
        if prefix := os.environ.get("QEMU_LD_PREFIX"):
            prefixes = [prefix]
        for path in (*(directory + elf.linker for directory in prefixes), elf.linker):
            if self._there(path):
                explanation.notes.append(f"it is dynamically linked, and its dynamic linker exists: {path}")
                return
        whose = f" ({libc})" if (libc := libc_of(elf.linker)) else ""
        reason = (
            f"it is dynamically linked, and its dynamic linker {elf.linker}{whose} is missing, also below "
            f"{' and '.join(prefixes)}: {emulator} would start, and end with an error"
        )
        explanation.fails(Refusal(0, reason, _bring_libc(elf, rooted=self._programs.rooted)))

    def _is_whole(self, explanation: Explanation, step: Step) -> None:
        """Check that an ELF file has all that it needs to run; one that an entry takes by its extension may be data."""
        entry, kind, elf = explanation.entry, explanation.kind, self._programs.elf(step.file.place)
        if elf is None or kind is None or (entry and entry.registration and _by_extension(entry.registration)):
            return
        if elf.damage:
            reason = f"{step.path}: {elf.damage}: {step.interpreter} would start, and end with an error"
            explanation.fails(Refusal(0, reason, kind.remedy))
        elif kind.word == "elf-library":
            reason = f"{step.path} is {kind.description}, without an entry point: it crashes at its start"
            explanation.fails(Refusal(0, reason, kind.remedy))
        else:
            self._is_cut_off(explanation, step, elf)

    def _is_cut_off(self, explanation: Explanation, step: Step, elf: ElfFile) -> None:
        """Check that the file contains its segments.

        The loader clears the rest of the page in which a writable segment ends that has more bytes in memory than in
        the file.  If that page lies beyond the end of the file, SIGSEGV or SIGBUS follows (padzero in fs/binfmt_elf.c;
        QEMU's loader does the same).
        """
        size = self._programs.size(step.file)
        if not 0 < size < max((load.end for load in elf.loads), default=0):
            return
        end = max(load.end for load in elf.loads)
        where = f"it is cut off: its segments end at byte {end}, and the file at byte {size}"
        cleared = [load.end for load in elf.loads if load.writable and load.in_memory > load.in_file]
        if any(size <= end // PAGESIZE * PAGESIZE < end for end in cleared):
            reason = f"{step.path}: {where}: SIGSEGV or SIGBUS ends it at its start"
            explanation.fails(Refusal(0, reason, "get the file again"))
        else:
            explanation.notes.append(
                f"{where}.  SIGSEGV or SIGBUS ends a program that uses a missing part: get the file again"
            )

    def _there(self, path: str) -> bool:
        way = self._programs.resolve(path)
        return way is not None and way.real is not None


def _by_extension(registration: Registration) -> bool:
    return isinstance(registration.match, Extension)


def shown(entry: Entry) -> str:
    """Return an entry's name; a stand-in is shown under the name of its handler."""
    return entry.name.removeprefix(STAND_IN)


def _convert(path: str) -> str:
    return f"remove the carriage returns: sed -i 's/\\r$//' {quote(path)}"


def _bring_libc(elf: ElfFile, *, rooted: bool) -> str:
    """Return the remedy that gives a dynamic program its C library; ``rooted``: the program is in a root tree."""
    libc = libc_of(elf.linker or "")
    same = (elf.bits, elf.byte_order, elf.machine)
    rows = [r for r in CATALOG.values() if (r.header.bits, r.header.byte_order, r.header.e_machine) == same]
    debian = next((name for row in rows for name in row.debian), None)
    if elf.machine == 40 and elf.linker and "armhf" not in elf.linker:
        debian = "armel"
    package = {"glibc": "libc6", "musl": "musl"}.get(libc)
    if rooted:
        named = f" (Debian's package {package}:{debian})" if package and debian else ""
        return f"put {elf.linker} and the libraries of the program into the tree{named}, or link it statically"
    if debian is None or package is None:
        return (
            f"install {elf.linker} and its libraries, run the program in a root tree of its own system, or link it "
            "statically"
        )
    how = ""
    if this_system().family == "debian":
        how = f" (dpkg --add-architecture {debian}; apt-get update; apt-get install {package}:{debian})"
    return f"install its C library{how}, run the program in a root tree of its architecture, or link it statically"
