"""Check the kernel, its module binfmt_misc, and the privileges of this process: all other checks depend on these."""

import os
from collections.abc import Iterator

from binfmtd.cli.doctor.snapshot import Snapshot
from binfmtd.files.distribution import this_system
from binfmtd.files.environment import shares_root_with_init
from binfmtd.formats.apparmor import confines
from binfmtd.formats.os_release import upgrade
from binfmtd.formats.selinux import is_context
from binfmtd.host.facts import kernel_version
from binfmtd.host.kernel_module import kernel_has_it
from binfmtd.host.privileges import Privileges, privileges
from binfmtd.host.sandbox import forbidding_switch, own_instance_refused
from binfmtd.model.finding import Finding, Level, Section

F_FROM = (4, 8)
OWN_INSTANCES_FROM = (6, 7)
_MODULES = "/lib/modules"
_ALLOW_EXECMEM = "setsebool -P allow_execmem on"


def of_kernel() -> Iterator[Finding]:
    """Report what the release of the running kernel implies."""
    yield from judge_release(os.uname().release, kernel_version())


def judge_release(release: str, version: tuple[int, int]) -> Iterator[Finding]:
    """Report which features of binfmt_misc a kernel of this version has, and nothing uncertain (docs/kernel.md).

    A ``version`` of (0, 0) means that the release could not be read.
    """

    def ok(check: str, text: str) -> Finding:
        return Finding(Section.KERNEL, check, Level.OK, text)

    if version == (0, 0):
        text = f"the kernel's release {release} has no version number that binfmtd can read: its features are unknown"
        yield Finding(Section.KERNEL, "release", Level.UNSEEN, text)
        return
    has_own = version >= OWN_INSTANCES_FROM
    own = (
        "an instance for each user namespace that mounts one (from 6.7 on)"
        if has_own
        else "one instance for the whole host (before 6.7)"
    )
    if version < F_FROM:
        yield Finding(
            Section.KERNEL,
            "release",
            Level.FAILURE,
            f"Linux {release} has no flag F, which came with 4.8: emulators must exist in each chroot and container",
            upgrade(this_system()),
        )
    else:
        yield ok("release", f"Linux {release}: flag F (from 4.8 on), {own}")
    yield ok(
        "lifetime",
        "the kernel removes all entries of an instance when its last mount ends"
        if has_own
        else "early releases of this kernel series keep entries when the last mount ends, later ones remove them; "
        "`binfmtd apply` tests which applies where it matters",
    )


def of_module() -> Iterator[Finding]:
    """Report whether the kernel has the file system binfmt_misc now: built in, or as a loaded module."""
    if kernel_has_it():
        loaded = os.path.isdir("/sys/module/binfmt_misc")  # a built-in module without parameters has no directory
        text = "is loaded" if loaded else "is built in" if os.path.isdir("/sys/module") else "is available"
        yield Finding(Section.MODULE, "module", Level.OK, f"binfmt_misc {text}")
        return
    release = os.uname().release
    directory = os.path.join(_MODULES, release)
    where = "" if os.path.isdir(directory) else f" (no {directory} here; in a container, load it on the host)"
    text = f"the kernel has no binfmt_misc: its module is not loaded{where}"
    yield Finding(Section.MODULE, "module", Level.FAILURE, text, "modprobe binfmt_misc")


def of_privileges(snapshot: Snapshot) -> Iterator[Finding]:
    """Report what this process may do, what a sandbox forbids it, and whether an own instance can be made (tried)."""
    yield from judge(privileges(snapshot.mounted.directory if snapshot.mounted else None))
    yield from _of_namespaces()
    if shares_root_with_init() is None:
        text = "cannot see whether this root directory is the host's: no permission for /proc/1/root"
        yield Finding(Section.PRIVILEGES, "root", Level.UNSEEN, text)


def judge(rights: Privileges) -> Iterator[Finding]:
    """Report the user and its rights in one finding, and forbidden code memory in a second."""
    who = "root" if rights.uid == 0 else f"user {rights.uid}"
    may = {None: "", True: "may register entries", False: "may not register entries"}[rights.may_register]
    if rights.uid == 0 and rights.may_register is False:
        may += " (binfmt_misc is sealed or read-only, or belongs to root of an outer user namespace)"
    mount = "may mount" if rights.may_mount else "may not mount (no CAP_SYS_ADMIN)"
    around = [
        text
        for applies, text in (
            (rights.filtered, "under a seccomp filter"),
            (rights.no_new_privileges, "with no_new_privs (set-uid and flag C have no effect)"),
            (confines(rights.confined_by), f"confined by a security module as {rights.confined_by}"),
        )
        if applies
    ]
    yield Finding(Section.PRIVILEGES, "register", Level.OK, ", ".join([who, *([may] if may else []), mount, *around]))
    if not rights.code_memory:
        yield Finding(
            Section.PRIVILEGES,
            "code_memory",
            Level.WARNING,
            "this process may not have memory that is both writable and executable (systemd's MemoryDenyWriteExecute, "
            "SELinux's execmem), so no emulator runs from it",
            _ALLOW_EXECMEM
            if is_context(rights.confined_by) and not rights.filtered  # systemd forbids it by a seccomp filter
            else "systemd-run -P binfmtd probe",
        )


def _of_namespaces() -> Iterator[Finding]:
    if kernel_version() < OWN_INSTANCES_FROM or not kernel_has_it():
        return
    why = own_instance_refused()
    if why is None:
        text = "a new user namespace can mount its own instance (tested): `binfmtd sandbox` works"
        yield Finding(Section.PRIVILEGES, "own_instance", Level.OK, text)
        return
    text = f"`binfmtd sandbox` does not work here: {why}"
    if (switch := forbidding_switch()) is None:  # the restriction of a container, as intended
        yield Finding(Section.PRIVILEGES, "own_instance", Level.OK, text)
    else:
        path, allowing = switch
        yield Finding(Section.PRIVILEGES, "own_instance", Level.WARNING, text, f"echo {allowing} >{path}")
