"""Find out by running a tiny program of an architecture whether its programs run here, and through which entry.

Its root is first a directory that contains nothing else: so only an interpreter that the kernel has opened (flag F) can
run it, as in any container.  If that fails with ENOENT, it is run again in our own root.
"""

import errno
import os
from collections.abc import Iterator, Mapping, Sequence

from binfmtd.catalog.architectures import CATALOG, Architecture
from binfmtd.catalog.program import tiny_program
from binfmtd.cli.trial import server
from binfmtd.host.interpreters import file_identity
from binfmtd.host.probe import PATIENCE, Prober
from binfmtd.model.entry import ObservedState
from binfmtd.model.handler import Registration
from binfmtd.model.probe_result import Tried, TriedInterpreter
from binfmtd.model.stand_in import PREFIX as STAND_IN


def probe(
    wanted: Sequence[Architecture], observed: ObservedState | None, patience: float = PATIENCE
) -> Iterator[Tried]:
    """Run the program of each architecture and yield the result; ``observed`` shows which entry takes it.

    A program that does nothing for ``patience`` seconds is killed.  Raises ProbeError.
    """
    with Prober(patience=patience) as alone, Prober(in_chroot=False, patience=patience) as here:
        for architecture in wanted:
            name, program = architecture.name, tiny_program(architecture)
            attempt = alone(name, program)
            in_chroot = attempt.runs if attempt.in_chroot else None
            reason = attempt.reason
            if attempt.in_chroot and attempt.errno == errno.ENOENT:
                attempt = here(name, program)
                reason = f"not in a chroot: {reason}" if attempt.runs else attempt.reason
            natively, serving = attempt.natively, None
            if observed is not None and observed.switched_on and not natively:
                serving = server(observed, name)
            if natively is None and attempt.runs and observed is not None:  # ptrace is forbidden
                natively = serving is None
            entry = serving.name.removeprefix(STAND_IN) if serving else None  # a stand-in's handler
            if attempt.errno == errno.ENOEXEC and serving is not None and serving.registration is not None:
                interpreter = serving.registration.interpreter
                reason = f"its entry's interpreter, {interpreter}, cannot be executed: {os.strerror(errno.ENOEXEC)}"
            if attempt.crashed and serving is not None and serving.registration is not None:
                reason += _known(name, serving.registration)
            yield Tried(name, attempt.runs, natively, entry, in_chroot, reason, round(attempt.duration * 1e6))


def probe_candidates(interpreters: Mapping[str, Sequence[str]], patience: float) -> Iterator[TriedInterpreter]:
    """Execute each of these interpreters with the program of its architecture.  Raises ProbeError."""
    with Prober(in_chroot=False, patience=patience) as run:
        for name, paths in interpreters.items():
            for path in paths:
                if (identity := file_identity(path)) is not None:
                    attempt = run(name, tiny_program(CATALOG[name]), through=path)
                    yield TriedInterpreter(path, identity.text, attempt.reason)


def way(tried: Tried) -> str:
    """Return in words what runs an architecture's programs, or "no"."""
    if not tried.runs:
        return "no"
    through = f"through {tried.entry or 'an entry that cannot be seen from here'}"
    return "natively" if tried.natively else f"natively or {through}" if tried.natively is None else through


def _known(architecture: str, registration: Registration) -> str:
    """Return the known faults that can crash such a program in this emulator, to follow a reason; "" if there is none.

    The program is neither position-independent nor written in a language with its own demands.
    """
    from binfmtd.catalog.known_faults import Effect, known_faults
    from binfmtd.cli.fault_texts import about, named
    from binfmtd.host.emulations import emulation, host_conditions

    found = emulation(registration.interpreter, registration.flags)
    if found is None:
        return ""
    faults = [
        about(fault)
        for fault in known_faults(found, architecture, host_conditions())
        if fault.effect is Effect.CRASH and not fault.pie and not fault.special
    ]
    return "".join(f"; a known fault of {named(found)}: {text}" for text in faults)
