"""``binfmtd probe --deep``: the checks of programs that do more than exit (catalog/deep_checks.py).

Each check is one run of a program, in the empty root directory in which the tiny program runs, or in our own root if
the entry lacks flag F.  If one fails under an emulator, the host's own program makes the same check.  If that fails as
well, the host and not the emulator is the reason: its kernel lacks the system call, or a seccomp filter forbids it.
"""

import os
from collections.abc import Collection, Iterator, Sequence
from errno import ENOSYS
from functools import cache
from typing import NamedTuple

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.deep_checks import (
    CHECKS,
    DYNAMIC,
    Check,
    CheckResult,
    DeepProgram,
    Outcome,
    Step,
    can_cause,
    failed_step,
    fault_of_call,
    program_of,
)
from binfmtd.catalog.known_faults import Emulation, known_faults
from binfmtd.cli.fault_texts import about, named, number
from binfmtd.cli.probing import probe, way
from binfmtd.cli.trial import server
from binfmtd.host.deep_files import Tree, deep_program
from binfmtd.host.emulations import emulation, host_conditions
from binfmtd.host.emulator_settings import in_words, settings_in
from binfmtd.host.facts import kernel_version, native_header
from binfmtd.host.probe import NoChrootError, Prober
from binfmtd.host.probe_process import Attempt
from binfmtd.model.entry import ObservedState
from binfmtd.model.probe_result import Tried

_MOST_HANGS = 3  # of one platform; each takes ten seconds, or a minute
_ENVIRONMENT = "the environment"  # a step of the check `start`, in its program (deep_programs/source/checks.c)
_NO_TREE = "no root tree of this platform was named: --root DIR"


class Probed(NamedTuple):
    """The results for one platform; no checks are made if the tiny program does not run."""

    platform: str
    tried: Tried
    checks: tuple[CheckResult, ...] = ()

    @property
    def passes(self) -> bool:
        """True if its programs run, and no check fails."""
        return self.tried.runs and not any(result.outcome.is_failure for result in self.checks)

    @property
    def lacks_dynamic(self) -> bool:
        """True if a tree was named, and its program did not run."""
        return any(
            result.check == DYNAMIC and result.outcome is not Outcome.OK and result.reason != _NO_TREE
            for result in self.checks
        )

    @property
    def score(self) -> tuple[int, int]:
        """How many checks passed, and how many were made."""
        made = [result.outcome for result in self.checks if result.outcome is not Outcome.UNTESTED]
        return made.count(Outcome.OK), len(made)


class DeepProbe:
    """The checks of one run of the command; ``skipped`` are the names of checks that are left out."""

    def __init__(
        self, observed: ObservedState | None, trees: Sequence[Tree], skipped: Collection[str], patience: float
    ) -> None:
        self._observed = observed
        self._trees = trees
        self._skipped = skipped
        self._patience = patience
        self._host = host_conditions()
        self._alone = Prober(patience=patience)
        self._here = Prober(in_chroot=False, patience=patience)
        self._passes_natively = cache(self._try_natively)

    def __call__(self, programs: Sequence[DeepProgram]) -> Iterator[Probed]:
        """Yield the result of each platform.  Raises ProbeError if no program can be tried here."""
        with self._alone, self._here:
            for program in programs:
                (tried,) = probe([CATALOG[program.architecture]], self._observed, self._patience)
                results = tuple(self._results(program, tried, programs)) if tried.runs else ()
                yield Probed(program.platform, tried, results)

    def _results(self, program: DeepProgram, tried: Tried, among: Sequence[DeepProgram]) -> Iterator[CheckResult]:
        prober = self._here if tried.in_chroot is False else self._alone
        emulator = None if tried.natively else self._emulation(program.architecture)
        hung = 0
        for check in CHECKS:
            if check.name in self._skipped:
                continue
            if hung == _MOST_HANGS:
                yield CheckResult(check.name, Outcome.UNTESTED, f"{hung} checks before it did not end")
                continue
            attempt = _attempt(prober, program, check)
            hung += attempt.hung
            yield self._judge(check, program, attempt, emulator, natively=bool(tried.natively))
        if DYNAMIC not in self._skipped:
            yield from self._dynamic(program, among, emulator)

    def _judge(
        self, check: Check, program: DeepProgram, attempt: Attempt, emulator: Emulation | None, *, natively: bool
    ) -> CheckResult:
        duration = round(attempt.duration * 1e6)
        if attempt.runs:
            return CheckResult(check.name, Outcome.OK, "", duration)
        step = failed_step(attempt.output)
        lacks = bool(check.system_call and step is not None and step.errno == ENOSYS)
        if reason := self._untested(check, program, attempt, natively=natively, lacks=lacks):
            return CheckResult(check.name, Outcome.UNTESTED, reason, duration)
        if not lacks:
            reason = _text(attempt, step) + self._known(check, program, attempt, emulator)
            return CheckResult(check.name, Outcome.FAILS, reason, duration)
        reason = f"{named(emulator) if emulator else 'the emulator'} lacks this system call"
        if fault := fault_of_call(check.system_call, program.architecture):
            return CheckResult(check.name, Outcome.MISSING, f"{reason}. {about(fault)}", duration)
        reason = f"{reason}; no program is known to fail without it"
        return CheckResult(check.name, Outcome.UNNEEDED, reason, duration)

    def _untested(self, check: Check, program: DeepProgram, attempt: Attempt, *, natively: bool, lacks: bool) -> str:
        """Return why a check that did not pass says nothing about the emulator; "" if it does."""
        step = failed_step(attempt.output)
        if lacks and (natively or kernel_version() < check.since or self._passes_natively(check) is False):
            since = f"Linux {number(check.since)}"
            return f"this host's kernel lacks this system call, which {since} has, or a seccomp filter forbids it"
        if not natively and self._passes_natively(check) is False:
            return f"a native program fails in the same check on this host: {_text(attempt, step)}"
        if step is not None and step.text == _ENVIRONMENT and (settings := self._settings(program.architecture)):
            return f"the emulator's settings ({settings}) are in the environment, which the check expects to be its own"
        return ""

    def _dynamic(
        self, program: DeepProgram, among: Sequence[DeepProgram], emulator: Emulation | None
    ) -> Iterator[CheckResult]:
        """Run the dynamic program of each tree of this platform's architecture; of 32-bit Arm, for its first program.

        The header of a file does not show which version of the instructions it takes.
        """
        first = next(each for each in among if each.architecture == program.architecture)
        trees = [tree for tree in self._trees if tree.program.architecture == program.architecture and first is program]
        for tree in trees:
            try:
                attempt = self._alone.in_tree(program.architecture, tree.root, tree.words, tree.file)
            except NoChrootError as error:
                yield CheckResult(DYNAMIC, Outcome.UNTESTED, str(error))
                continue
            duration = round(attempt.duration * 1e6)
            if attempt.runs:
                yield CheckResult(DYNAMIC, Outcome.OK, "", duration)
                continue
            known = self._known(Check(DYNAMIC), program, attempt, emulator)
            reason = f"{' '.join(tree.words)} in {tree.root}: {attempt.reason}{known}"
            yield CheckResult(DYNAMIC, Outcome.FAILS, reason, duration)
        if not trees:
            yield CheckResult(DYNAMIC, Outcome.UNTESTED, _NO_TREE)

    def _try_natively(self, check: Check) -> bool | None:
        """Make the check with the host's own program; None if it has none, or if an emulator runs that."""
        header = native_header()
        program = program_of(
            32 if header.elf_class == 1 else 64, "little" if header.byte_order == 1 else "big", header.machine
        )
        if program is None:
            return None
        attempt = self._alone.check(program.architecture, deep_program(program, check.build), check.name)
        return attempt.runs if attempt.natively else None

    def _settings(self, architecture: str) -> str:
        """Return the settings in the file of an architecture's emulator, in words."""
        serving = None if self._observed is None else server(self._observed, architecture)
        if serving is None or serving.registration is None:
            return ""
        return in_words(settings_in(serving.registration.interpreter))

    def _emulation(self, architecture: str) -> Emulation | None:
        serving = None if self._observed is None else server(self._observed, architecture)
        if serving is None or serving.registration is None:
            return None
        return emulation(serving.registration.interpreter, serving.registration.flags)

    def _known(self, check: Check, program: DeepProgram, attempt: Attempt, emulator: Emulation | None) -> str:
        """Return the emulator's known faults that can be the reason, to follow another one; "" if there is none."""
        if emulator is None:
            return ""
        return "".join(
            f"; a known fault of {named(emulator)}: {about(fault)}"
            for fault in known_faults(emulator, program.architecture, self._host)
            if can_cause(fault, check, crashed=attempt.crashed)
        )


def _attempt(prober: Prober, program: DeepProgram, check: Check) -> Attempt:
    """Return the first try that passes or hangs, or the last one."""
    binary = deep_program(program, check.build)
    attempt = prober.check(program.architecture, binary, check.name)
    for _ in range(check.tries - 1):
        if attempt.runs or attempt.hung:
            break
        attempt = prober.check(program.architecture, binary, check.name)
    return attempt


def _text(attempt: Attempt, step: Step | None) -> str:
    """Return why a check failed: the step that its program named, or how the program ended."""
    if step is None:
        return attempt.reason
    return f"{step.text}: {os.strerror(step.errno)}" if step.errno else f"failed: {step.text}"


def document(results: Sequence[Probed]) -> dict[str, object]:
    """Return the results as ``probe --deep --json`` prints them."""
    return {
        "platforms": [
            {
                "platform": result.platform,
                **result.tried._asdict(),
                "passes": result.passes,
                "checks": [check._asdict() for check in result.checks],
            }
            for result in results
        ]
    }


def summary(results: Sequence[Probed]) -> list[tuple[str, ...]]:
    """Return a table with one row for each platform."""
    rows: list[tuple[str, ...]] = [("PLATFORM", "RUNS", "CHECKS", "REASON")]
    for result in results:
        checks = "{} of {}".format(*result.score) if result.checks else "-"
        rows.append((result.platform, way(result.tried), checks, result.tried.reason))
    return rows


def exceptions(results: Sequence[Probed]) -> list[tuple[str, ...]]:
    """Return a table of the checks that do not pass; empty if all do.  Platforms with the same reason share a row."""
    platforms: dict[CheckResult, list[str]] = {}
    for result in results:
        for check in result.checks:
            if check.outcome is not Outcome.OK:
                platforms.setdefault(check._replace(duration_us=0), []).append(result.platform.removeprefix("linux/"))
    order = list(Outcome)
    rows = sorted(platforms.items(), key=lambda item: order.index(item[0].outcome))  # what fails comes first
    heading = ("CHECK", "RESULT", "PLATFORMS", "REASON")
    return [heading, *((row.check, row.outcome, ", ".join(names), row.reason) for row, names in rows)] if rows else []
