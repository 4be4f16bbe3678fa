"""The privileges of this process, and what a sandbox has taken from it: from proc_pid_status(5), and by trying."""

import os
from typing import NamedTuple

from binfmtd.errors import ProbeError
from binfmtd.host.facts import may_mount
from binfmtd.host.probe import refuse_without_code_memory
from binfmtd.host.security_modules import label_of_process

_FILTERED = "2"  # SECCOMP_MODE_FILTER


class Privileges(NamedTuple):
    """The privileges of this process; ``may_register`` is None if binfmt_misc is not mounted."""

    uid: int
    may_mount: bool
    may_register: bool | None
    filtered: bool  # a seccomp filter is in force
    no_new_privileges: bool  # set-uid and flag C have no effect
    code_memory: bool  # memory may be both writable and executable, as emulators need it
    confined_by: str  # the label of AppArmor or SELinux; empty without one


def privileges(directory: str | None) -> Privileges:
    """Determine them; ``directory`` is where binfmt_misc is mounted, None if it is not mounted."""
    status = _status()
    register = None
    if directory is not None:
        register = os.access(os.path.join(directory, "register"), os.W_OK, effective_ids=True)
    try:
        refuse_without_code_memory()
        code_memory = True
    except ProbeError:
        code_memory = False
    return Privileges(
        os.geteuid(),
        may_mount(),
        register,
        status.get("Seccomp") == _FILTERED,
        status.get("NoNewPrivs") == "1",
        code_memory,
        label_of_process(),
    )


def _status() -> dict[str, str]:
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}
    except OSError:
        return {}
