"""Check the mount of binfmt_misc, and which user namespace owns its instance."""

import os
import shlex
from collections.abc import Iterator, Sequence
from functools import partial

from binfmtd.cli.doctor.remedies import split
from binfmtd.cli.doctor.snapshot import Snapshot
from binfmtd.errors import MountError, ProbeError
from binfmtd.files.environment import in_container, in_pod, in_user_namespace, owns_mount_namespace
from binfmtd.host.facts import may_mount
from binfmtd.host.kernel_module import DEFAULT_DIRECTORY, FS_TYPE, why_no_directory
from binfmtd.kernel.mount import AUTOFS, find, why_not_mounted_here
from binfmtd.kernel.mount_layers import Layers, Owner, layers, owner_of
from binfmtd.model.finding import Finding, Level, Section

_AUTOMOUNT = "proc-sys-fs-binfmt_misc.automount"


# How to start a container that may not mount (docs/containers.md).
_PRIVILEGED = "docker run --rm --privileged binfmtd"
_BOUND_IN = f"docker run --rm -v {DEFAULT_DIRECTORY}:/binfmt_misc binfmtd"
# In a pod: where to make a change, and which (docs/kubernetes.md).
_MOUNTED = ("run this on the node", f"mount -t {FS_TYPE} {FS_TYPE} {DEFAULT_DIRECTORY}")
_WRITABLE = ("run this on the node", f"mount -o remount,rw {DEFAULT_DIRECTORY}")
_NOT_READ_ONLY = ("write this in the pod's volumeMounts", "readOnly: false")


def of_mount(snapshot: Snapshot) -> Iterator[Finding]:
    """Report what is mounted at the path, what covers it, and whether entries can be written and listed there."""
    mounts = layers(snapshot.directory)
    if snapshot.mounted is None:
        own = snapshot.again("run --own-instance")
        missing = not_mounted(snapshot.directory, mounts, snapshot.mount_error, own)
        running = _running(snapshot) if missing.check == "mounted" else []
        yield (
            served_all_the_same(snapshot.directory, running)
            if running
            else _from_outside(missing, _BOUND_IN if in_user_namespace() else _PRIVILEGED, _MOUNTED)
        )
        return
    if snapshot.mounted.sealed:
        judged, writable = [of_seal(snapshot)], _WRITABLE
    else:
        judged = list(judge_mounted(snapshot.directory, mounts, read_only=snapshot.mounted.read_only))
        writable = _NOT_READ_ONLY
    for finding in judged:
        yield _from_outside(finding, _BOUND_IN, writable) if finding.remedy else finding
    if snapshot.given.mount is None and snapshot.directory != DEFAULT_DIRECTORY:
        yield _of_usual_place(layers(DEFAULT_DIRECTORY))
    if snapshot.observed is None:
        text = f"{snapshot.mount_error}"
        yield Finding(Section.MOUNT, "listing", Level.FAILURE, text, "dmesg | tail")


def _from_outside(finding: Finding, outside: str, in_a_pod: tuple[str, str]) -> Finding:
    """Return the finding, in a container that may not mount with a command to run outside of it.

    ``in_a_pod`` is the place and the command for a pod, ``outside`` the command for any other container.
    """
    if may_mount() or not in_container():
        return finding
    if in_pod():
        where, remedy = in_a_pod
        return finding._replace(text=f"{finding.text}; this container may not mount, so {where}:", remedy=remedy)
    return finding._replace(
        text=f"{finding.text}; this container may not mount, so run this outside of it:", remedy=outside
    )


def _of_usual_place(usual: Layers) -> Finding:
    """Report what is mounted at the usual place, where other programs expect binfmt_misc; it was found elsewhere."""
    if usual.covered and usual.top is not None:
        text = (
            f"{DEFAULT_DIRECTORY}: a file system of type {usual.top.fs_type} is mounted over binfmt_misc and hides it"
        )
        return Finding(Section.MOUNT, "over_mounted", Level.WARNING, text, f"umount {DEFAULT_DIRECTORY}")
    return Finding(
        Section.MOUNT, "place", Level.OK, f"binfmt_misc is not mounted at its usual place, {DEFAULT_DIRECTORY}"
    )


def not_mounted(directory: str, mounts: Layers, why: str, own: str = "binfmtd run --own-instance") -> Finding:
    """Report why binfmt_misc is not visible at ``directory``, and what mounts it; ``why`` is the error of ``find``.

    ``own`` is the command that mounts an instance for this user namespace alone.
    """
    place = shlex.quote(directory)
    top = mounts.top
    if directory == DEFAULT_DIRECTORY and not os.path.isdir("/proc/sys"):
        return _no_directory(directory, mounts, own)  # what is mounted there is below another /proc
    if top is not None and top.fs_type == AUTOFS:
        text = f"{directory}: an automount is configured, but did not mount binfmt_misc on access"
        return Finding(Section.MOUNT, "automount", Level.FAILURE, text, f"systemctl restart {_AUTOMOUNT}")
    if top is not None and top.fs_type not in (FS_TYPE, "proc"):
        beneath = "over binfmt_misc and hides it" if mounts.covered else "there instead of binfmt_misc"
        text = f"{directory}: a file system of type {top.fs_type} is mounted {beneath}"
        return Finding(Section.MOUNT, "over_mounted", Level.FAILURE, text, f"umount {place}")
    if not os.path.isdir(directory):
        return _no_directory(directory, mounts, own)
    if in_user_namespace():
        text = _in_user_namespace(directory, mounts)
    else:
        text = f"{directory}: binfmt_misc is not mounted there" if "not mounted" in why else why
    return Finding(Section.MOUNT, "mounted", Level.FAILURE, text, _mounting(directory, mounts, own))


def _in_user_namespace(directory: str, mounts: Layers) -> str:
    if point := _own_instance(mounts):
        return f"{directory}: binfmt_misc is not mounted there; this user namespace's own instance is at {point}"
    return why_not_mounted_here(directory)


def _own_instance(mounts: Layers) -> str | None:
    """Return where this user namespace's own instance is mounted, if that can be seen: another mount hides no more."""
    for line in mounts.elsewhere:
        try:
            if owner_of(find(line.point)) is Owner.OWN:
                return line.point
        except MountError:
            continue
    return None


def _mounting(directory: str, mounts: Layers, own: str) -> str:
    """Return the command that mounts binfmt_misc at ``directory``.

    In a user namespace without an instance of its own, a mount hides the host's handlers for good.  There the command
    is ``own``, which names that choice.  It is the daemon's, whose mount keeps the instance while it runs; `apply`
    mounts nothing that would end with it.
    """
    if in_user_namespace() and _own_instance(mounts) is None:
        return own if owns_mount_namespace() else f"unshare --mount {own}"
    return f"mount -t {FS_TYPE} {FS_TYPE} {shlex.quote(directory)}"


def _no_directory(directory: str, mounts: Layers, own: str) -> Finding:
    if directory == DEFAULT_DIRECTORY and os.path.isdir("/proc/sys"):
        text = f"{directory} does not exist: the module binfmt_misc creates it"
        return Finding(Section.MOUNT, "mounted", Level.FAILURE, text, "modprobe binfmt_misc")
    text = f"{directory} does not exist, or is not a directory"
    if directory == DEFAULT_DIRECTORY:
        text, remedy = split(f"{directory} does not exist: {why_no_directory()}")
        if remedy:  # without /proc no mount of binfmt_misc could be found
            return Finding(Section.MOUNT, "mounted", Level.FAILURE, text, remedy)
        directory = "/run/binfmt_misc"
        own = f"{own} --mount {directory}"
    if in_user_namespace():
        text = f"{text}; {_in_user_namespace(directory, mounts).removeprefix(f'{directory}: ')}"
    mount = f"mkdir -p {shlex.quote(directory)} && {_mounting(directory, mounts, own)}"
    return Finding(Section.MOUNT, "mounted", Level.FAILURE, text, mount)


def _running(snapshot: Snapshot) -> list[str]:
    """Return the names of the usual foreign architectures (those that Go has) whose programs run here, by trying.

    The host's handlers serve in a container even if binfmt_misc is not mounted there.
    """
    from binfmtd.catalog.architectures import CATALOG
    from binfmtd.cli.probing import probe

    native = snapshot.facts.native(None)
    usual = [row for row in CATALOG.values() if row.goarch is not None and row.name not in native]
    try:
        return [tried.name for tried in probe(usual, None) if tried.runs and not tried.natively]
    except ProbeError:
        return []


def served_all_the_same(directory: str, running: Sequence[str]) -> Finding:
    """Report that handlers serve although binfmt_misc is not mounted here: the programs of ``running`` do run."""
    text = f"{directory}: binfmt_misc is not mounted there, so entries are not visible; handlers still work"
    return Finding(Section.MOUNT, "mounted", Level.OK, f"{text}: programs of {' '.join(running)} run (tested)")


def judge_mounted(directory: str, mounts: Layers, *, read_only: bool) -> Iterator[Finding]:
    """Report where binfmt_misc is mounted, and a failure if that mount is read-only."""
    place = shlex.quote(directory)
    beneath = ", over an automount" if mounts.automounted else ""
    beyond = [line.point for line in mounts.elsewhere if mounts.top is None or line.device == mounts.top.device]
    also = f"; also at {', '.join(dict.fromkeys(beyond))}" if beyond else ""
    if not read_only:
        yield Finding(Section.MOUNT, "mounted", Level.OK, f"binfmt_misc is mounted at {directory}{beneath}{also}")
        return
    yield Finding(
        Section.MOUNT,
        "read_only",
        Level.FAILURE,
        f"{directory} is mounted read-only{beneath}: entries serve, but no program can register or repair any through "
        f"this mount{also}",
        f"mount -o remount,bind,rw {place}",
    )


def of_seal(snapshot: Snapshot) -> Finding:
    """Report that binfmt_misc is sealed, and how to open it unless a running daemon sealed it."""
    seal = snapshot.status["seal"] if snapshot.pid is not None and snapshot.status is not None else {}
    what = f"{snapshot.directory} is sealed (its file system is read-only): entries serve"
    if seal.get("state") == "sealed" and not seal["reason"]:
        return Finding(Section.MOUNT, "sealed", Level.OK, f"{what}, and only the daemon that sealed it can change them")
    text = (
        f"{what}. If no daemon keeps it sealed, entries can be neither repaired nor registered: open it with this "
        "command, or with `binfmtd apply` and `sealed = false` in the config"
    )
    return Finding(
        Section.MOUNT, "sealed", Level.WARNING, text, f"mount -o remount,rw {shlex.quote(snapshot.directory)}"
    )


def of_user_namespace(snapshot: Snapshot) -> Iterator[Finding]:
    """Report whether the host's handlers serve here, or this user namespace's own instance hides them."""
    finding = partial(Finding, Section.USER_NAMESPACE, "owner")
    if not in_user_namespace():
        yield finding(Level.OK, "this is the first user namespace: the host's instance serves here")
        return
    name = os.readlink("/proc/self/ns/user")
    if snapshot.mounted is None:
        text = f"{name}: if an instance was ever mounted in this user namespace, the host's is hidden for good"
        yield finding(Level.UNSEEN, f"{text}; `binfmtd probe` tests which programs run")
        return
    owner = owner_of(snapshot.mounted)
    if owner is Owner.OUTSIDE:
        text = f"{name}: this is the instance of an outer user namespace: changes to it affect all its users"
        yield finding(Level.OK, text)
    elif owner is Owner.UNKNOWN:
        yield finding(Level.UNSEEN, f"{name}: the owner of this instance cannot be determined inside this container")
    elif snapshot.observed is not None and not snapshot.observed.entries:
        yield finding(
            Level.WARNING,
            f"{name} has an instance of its own, which hides the host's: the host's handlers do not serve here, and "
            "this instance has no entries",
            snapshot.again("apply"),
        )
    else:
        text = f"{name} has an instance of its own: its entries serve only this namespace, and the host's is hidden"
        yield finding(Level.OK, text)
