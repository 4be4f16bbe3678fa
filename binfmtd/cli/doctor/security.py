"""Check what AppArmor and SELinux forbid: other containers an emulator, and the daemon anything at all."""

import shlex
from collections.abc import Iterator, Sequence

from binfmtd.cli.bound_emulators import bound_emulators
from binfmtd.cli.doctor.snapshot import Snapshot
from binfmtd.formats.apparmor import confines, enforced_profile
from binfmtd.formats.denial import Denial
from binfmtd.host.kernel_log import denials
from binfmtd.host.security_modules import label_of_process
from binfmtd.model.finding import Finding, Level, Section

_COMMAND = "binfmtd"  # the program's name, and that of the profile in config/apparmor
_EXECMEM = "execmem"  # a test of ours; the check `code_memory` has its result
_LOAD = "apparmor_parser -r /etc/apparmor.d/binfmtd"
_ALLOW = "dmesg | grep -F 'comm=\"binfmtd\"' | grep -F {} | audit2allow -M binfmtd && cat binfmtd.te"


def of_labels(snapshot: Snapshot) -> Iterator[Finding]:
    """Report the emulators of entries that SELinux does not let every container execute."""
    entries = () if snapshot.observed is None else snapshot.observed.entries
    for bound in bound_emulators(entry.registration for entry in entries if entry.registration):
        yield Finding(Section.ENTRIES, "label", Level.WARNING, bound.problem, bound.remedy)


def of_denials(snapshot: Snapshot) -> Iterator[Finding]:
    """Report what the kernel's log has about a running daemon, or about any daemon if none runs."""
    label = label_of_process(snapshot.pid) if snapshot.pid else None
    try:
        found = denials()
    except OSError as error:
        if label and confines(label):
            text = f"what a security module denied the daemon cannot be seen: the kernel's log: {error.strerror}"
            yield Finding(Section.DAEMON, "denied", Level.UNSEEN, text)
        return
    yield from judge_denials(found, label)


def judge_denials(found: Sequence[Denial], label: str | None) -> Iterator[Finding]:
    """Report each denial of the daemon once: of the one with this ``label``, or of any if none runs (None).

    A denial names the process by its id in the first pid namespace, which a container does not know.  So it counts as
    the daemon's by what confines the process: the daemon's profile of AppArmor with its subprofiles, or its context of
    SELinux if the program is binfmtd.
    """
    profile = _COMMAND if label is None else enforced_profile(label)
    ours = (denial for denial in found if denial.action != _EXECMEM and _is_of(denial, profile, label))
    for denial in dict.fromkeys(denial._replace(pid=0, command="") for denial in ours):
        what = f"{denial.module} denied {denial.confined_by}: {denial.action} {denial.target}".rstrip()
        if denial.module == "AppArmor":
            text = f"{what}; if the daemon needs that, allow it in /etc/apparmor.d/local/binfmtd, and load the profile"
            yield Finding(Section.DAEMON, "denied", Level.WARNING, text, _LOAD)
        else:
            text = (
                f"{what}; if the daemon needs that, read the rules in binfmtd.te, and load them: semodule -i binfmtd.pp"
            )
            remedy = _ALLOW.format(shlex.quote(f"scontext={denial.confined_by}"))
            yield Finding(Section.DAEMON, "denied", Level.WARNING, text, remedy)


def _is_of(denial: Denial, profile: str, label: str | None) -> bool:
    if denial.module == "AppArmor":
        return bool(profile) and denial.confined_by.partition("//")[0] == profile.partition("//")[0]
    return denial.command == _COMMAND and label in (None, denial.confined_by)
