"""Check what AppArmor and SELinux forbid: other containers an emulator, and the daemon anything at all."""

from collections.abc import Iterator, Sequence

from binfmtd.cli.bound_emulators import bound_emulators
from binfmtd.cli.doctor.snapshot import Snapshot
from binfmtd.formats.apparmor import confines
from binfmtd.formats.denial import Denial
from binfmtd.host.security_modules import denials, label_of_process
from binfmtd.model.finding import Finding, Level, Section

_COMMAND = "binfmtd"  # the program's name, and that of the profile in config/apparmor
_EXECMEM = "execmem"  # a test of ours; the check `code_memory` has its result
_LOAD = "apparmor_parser -r /etc/apparmor.d/binfmtd"
_ALLOW = f"ausearch -m avc -c {_COMMAND} --raw | audit2allow -M {_COMMAND} && semodule -i {_COMMAND}.pp"


def of_labels(snapshot: Snapshot) -> Iterator[Finding]:
    """Report the emulators of entries that SELinux does not let every container execute."""
    entries = () if snapshot.observed is None else snapshot.observed.entries
    for bound in bound_emulators(entry.registration for entry in entries if entry.registration):
        yield Finding(Section.ENTRIES, "label", Level.WARNING, bound.problem, bound.remedy)


def of_denials(snapshot: Snapshot) -> Iterator[Finding]:
    """Report what the kernel's log has about a running daemon, or about any daemon if none runs."""
    try:
        found = denials()
    except OSError as error:
        if snapshot.pid and confines(label_of_process(snapshot.pid)):
            text = f"what a security module denied the daemon cannot be seen: the kernel's log: {error.strerror}"
            yield Finding(Section.DAEMON, "denied", Level.UNSEEN, text)
        return
    yield from judge_denials(found, snapshot.pid)


def judge_denials(found: Sequence[Denial], pid: int | None) -> Iterator[Finding]:
    """Report each denial of the daemon once: of process ``pid``, or of the program binfmtd if no daemon runs."""
    ours = (
        denial
        for denial in found
        if denial.action != _EXECMEM and (denial.pid == pid if pid else _of_any_daemon(denial))
    )
    for denial in dict.fromkeys(denial._replace(pid=0, command="") for denial in ours):
        what = f"{denial.module} denied {denial.confined_by}: {denial.action} {denial.target}".rstrip()
        if denial.module == "AppArmor":
            text = f"{what}; if the daemon needs that, allow it in /etc/apparmor.d/local/binfmtd, and load the profile"
            yield Finding(Section.DAEMON, "denied", Level.WARNING, text, _LOAD)
        else:
            text = f"{what}; if the daemon needs that, allow it with a module of the policy"
            yield Finding(Section.DAEMON, "denied", Level.WARNING, text, _ALLOW)


def _of_any_daemon(denial: Denial) -> bool:
    return denial.command == _COMMAND or denial.confined_by.partition("//")[0] == _COMMAND
