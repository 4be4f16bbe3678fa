"""Check the entries of the instance: an overview, then one finding a fault, with the command that ends it."""

import os
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from binfmtd.cli.context import nothing_there
from binfmtd.cli.doctor.remedies import Remedies, architecture_of, split
from binfmtd.cli.doctor.snapshot import Snapshot
from binfmtd.errors import MountError
from binfmtd.files.distribution import emulators_remedy, in_image
from binfmtd.host.facts import judges_paths, kernel_version
from binfmtd.kernel.instance import Instance
from binfmtd.kernel.mount import Mounted
from binfmtd.model.entry import Entry
from binfmtd.model.examine import Fault, Host, Verdict, examine, mended
from binfmtd.model.finding import Finding, Level, Section
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.stand_in import is_stand_in

_FAILURES = frozenset({Fault.NATIVE, Fault.MISSING, Fault.SCRIPT, Fault.P_UNSEEN, Fault.P_MISSING})


def of_entries(snapshot: Snapshot) -> Iterator[Finding]:
    """Report on all entries but stand-ins; ``model/examine.py`` finds their faults."""
    if snapshot.observed is None:
        yield _finding("overview", Level.UNSEEN, "the entries cannot be read here: see the findings on the mount")
        return
    entries = [entry for entry in snapshot.observed.entries if not is_stand_in(entry.name)]
    if not snapshot.observed.switched_on:
        path = shlex.quote(os.path.join(snapshot.directory, "status"))
        text = "binfmt_misc as a whole is switched off: no entry takes a file"
        yield _finding("switched_off", Level.FAILURE, text, f"echo 1 >{path}")
    if snapshot.mounted is not None and _status_covered(snapshot.mounted):
        text = (
            "a file of another file system is mounted over `status`, as WSL does it: it cannot be seen whether "
            "binfmt_misc as a whole is switched off; `binfmtd probe` tests which programs run"
        )
        yield _finding("status_covered", Level.UNSEEN, text)
    if not entries:
        text, remedy = "no entry is registered: programs of other architectures do not run", snapshot.again("apply")
        if nothing := nothing_there(snapshot.desired):  # `apply` would have nothing to register
            why, remedy = split(nothing)
            text = f"{text}: {why}"
        yield _finding("none", Level.WARNING, text, remedy)
        return
    yield _finding("overview", Level.OK, _overview(entries))
    host = Host(
        snapshot.facts.header,
        snapshot.facts.heads,
        kernel_version(),
        judges_paths(),
        forced=frozenset(name for name, spec in snapshot.declared.items() if spec.force),
        credentials=snapshot.asks_for(Flags.C),
        disabled=frozenset(name for name, spec in snapshot.declared.items() if not spec.enabled),
    )
    verdicts = examine(snapshot.observed, snapshot.sights, host)
    words = _Words(snapshot, Remedies(snapshot), verdicts)
    yield from (words.of(verdict) for verdict in verdicts if not words.is_better_disabled(verdict))
    held = [entry for entry in entries if entry.registration and Flags.F in entry.registration.flags]
    if held and snapshot.pid is None:
        text = "the files that flag F opened cannot be seen; `binfmtd probe` tests whether they work"
        yield _finding("pinned", Level.UNSEEN, text)


def _status_covered(mounted: Mounted) -> bool:
    try:
        with Instance(mounted) as instance:
            return instance.status_covered()
    except MountError:
        return False


def _finding(check: str, level: Level, text: str, remedy: str = "") -> Finding:
    return Finding(Section.ENTRIES, check, level, text, remedy)


def _overview(entries: list[Entry]) -> str:
    known = [entry.registration for entry in entries if entry.registration]
    architectures = sorted({name for registration in known if (name := architecture_of(registration.match))})
    counts = [
        f"{len(entries)} {'entry' if len(entries) == 1 else 'entries'}",
        f"{sum(entry.enabled for entry in entries)} enabled",
        f"{sum(Flags.F in registration.flags for registration in known)} with flag F",
    ]
    serves = f"; architectures: {' '.join(architectures)}" if architectures else ""
    return ", ".join(counts) + serves


_TEXTS = {
    Fault.NATIVE: "takes the {about} of this host: they run through {path}, or fail (ELOOP or ENOEXEC)",
    Fault.NEVER: "can take no file: {about}",
    Fault.DISABLED: "is disabled, so it takes no file",
    Fault.MISSING: "no executable file at {path}: the entry's programs fail with ENOENT",
    Fault.GONE: "no executable file at {path}: the one that flag F opened serves until the entry is registered again",
    Fault.NO_F: "no flag F: in a chroot or container, {path} must exist there, too",
    Fault.DYNAMIC: "{path} is not a static program: in a chroot or container, {about} must exist there, too",
    Fault.SCRIPT: "flag O, but {path} is a script: the entry's programs fail with ENOEXEC",
    Fault.CREDENTIALS: "flag C lets foreign set-uid programs run as root",
    Fault.P_UNSEEN: "flag P is ignored by {about}: each program gets its own name as an extra argument",
    Fault.P_MISSING: "no flag P, but {path} expects it: each program loses its first argument",
    Fault.UNTRUSTED: "its interpreter {about}",
    Fault.SHADOWED: "does not serve ordinary files of its kind: the newer entry {about} takes them",
    Fault.DUPLICATE: "never serves: the newer entry {about} has the same match",
}


class _Words:
    """Findings for faults: text, level and command."""

    def __init__(self, snapshot: Snapshot, remedies: Remedies, verdicts: Sequence[Verdict]) -> None:
        self._snapshot = snapshot
        self._remedies = remedies
        self._faults: defaultdict[str, set[Fault]] = defaultdict(set)
        for verdict in verdicts:
            self._faults[verdict.entry.name].add(verdict.fault)

    def is_better_disabled(self, verdict: Verdict) -> bool:
        """Return True if an entry is disabled that would do harm or be of no use: then its other fault is reported."""
        others = {Fault.NATIVE, Fault.NEVER, Fault.MISSING}
        return verdict.fault is Fault.DISABLED and bool(self._faults[verdict.entry.name] & others)

    def of(self, verdict: Verdict) -> Finding:
        entry, fault = verdict.entry, verdict.fault
        registration = entry.registration
        if registration is None:
            text = f"{entry.name}: this version of binfmtd cannot parse the entry, so it was not checked"
            return _finding(fault.value, Level.UNSEEN, text)
        about, remedy = verdict.about, self._remedy(verdict, entry, registration)
        if fault is Fault.UNTRUSTED:
            about, command = split(about)
            remedy = command or remedy
        text = _TEXTS[fault].format(about=about, path=registration.interpreter)
        if fault is Fault.NATIVE and not entry.enabled:
            text = f"is disabled; if enabled, it {text}"
        level = Level.FAILURE if fault in _FAILURES and entry.enabled else Level.WARNING
        if fault is Fault.GONE and in_image():
            level, remedy = Level.OK, ""  # registered outside of this container: its path means nothing here
        elif fault is Fault.GONE and not remedy:  # the entry still serves: never propose its removal
            architecture, again = architecture_of(registration.match), "put the file there again"
            if architecture is not None:
                again = emulators_remedy(architecture, [registration.interpreter])
            text, remedy = split(f"{text}: {again}")
        return _finding(fault.value, level, f"{entry.name}: {text}", remedy)

    def _remedy(self, verdict: Verdict, entry: Entry, registration: Registration) -> str:
        remedies = self._remedies
        # One command ends all faults of an entry: a second command, for another fault, would bring back the first.
        better = mended(registration, self._faults[entry.name])
        script = self._snapshot.sights[registration.interpreter].script  # of no use with F: no flag mends it
        of_fault: dict[Fault, Callable[[], str]] = {
            Fault.NEVER: lambda: remedies.match(entry, registration, better),
            Fault.DISABLED: lambda: remedies.control(entry, "1"),
            Fault.MISSING: lambda: remedies.there(entry, registration),
            Fault.GONE: lambda: remedies.back(entry, registration),
            Fault.NO_F: lambda: (remedies.static if script else remedies.standard)(entry, registration, better),
            Fault.DYNAMIC: lambda: remedies.static(entry, registration, better),
            Fault.SCRIPT: lambda: remedies.static(entry, registration, better),
            Fault.CREDENTIALS: lambda: remedies.standard(entry, registration, better),
            Fault.P_UNSEEN: lambda: remedies.mend(entry, registration, better),
            Fault.P_MISSING: lambda: remedies.mend(entry, registration, better),
            Fault.SHADOWED: lambda: remedies.leave_out(self._too_many(verdict)),
            Fault.DUPLICATE: lambda: remedies.leave_out(self._too_many(verdict)),
        }
        return of_fault.get(verdict.fault, lambda: remedies.remove(entry))()

    def _too_many(self, verdict: Verdict) -> Entry:
        """Return which entry to remove when a newer one takes the files of an older one.

        Of two with equal matches (DUPLICATE) that is the older one, which never serves; but it is the newer one if that
        is broken, or if the config declares only the older one.  If the matches differ (SHADOWED), it is the newer one,
        unless the config asks only for that: it would be registered again.
        """
        older, above = verdict.entry, verdict.about
        broken = bool(self._faults[above] & {Fault.MISSING, Fault.NATIVE})
        declared = self._snapshot.declared
        wanted = older.name in declared and above not in declared
        asked = older.name not in declared and above in declared and not declared[above].from_all
        hides = verdict.fault is Fault.SHADOWED and not asked
        if self._snapshot.observed is not None and (broken or wanted or hides):
            return self._snapshot.observed.by_name[above]
        return older
