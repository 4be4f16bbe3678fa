"""The system calls that Python's os module lacks.

mount(2), umount2(2), fsopen(2), fspick(2), fsconfig(2), open_tree(2), mount_setattr(2), prctl(2), ptrace(2);
unshare(2) and setns(2), which os has from 3.12.

The import of ctypes takes 10 ms, so callers import this module only where they use it.  Each function raises OSError
with the kernel's errno.
"""

import ctypes
import errno
import os
import struct

MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

# These numbers are equal on all architectures (include/uapi/asm-generic/unistd.h) but Alpha, which adds 110.
_OPEN_TREE = 428
_FSOPEN = 430
_FSCONFIG = 431
_FSPICK = 433
_MOUNT_SETATTR = 442
_MOUNT_ATTR_RDONLY = 1
_OPEN_TREE_CLONE = 1
_FSOPEN_CLOEXEC = 1
_FSPICK_CLOEXEC = 1
_FSPICK_EMPTY_PATH = 8
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_CMD_RECONFIGURE = 7

_AT_FDCWD = -100
_AT_NO_AUTOMOUNT = 0x800  # to fail where an automount would have to mount something first

_PTRACE_TRACEME = 0
_PTRACE_DETACH = 17

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, fs_type: str | None, flags: int = 0, data: str | None = None) -> None:
    """Mount a file system, bind a directory, or change the propagation of a mount."""
    fs = None if fs_type is None else fs_type.encode()
    options = None if data is None else data.encode()
    _check(_libc.mount(os.fsencode(source), os.fsencode(target), fs, ctypes.c_ulong(flags), options), target)


def make_mount_writable(directory: str) -> None:
    """Remove the read-only flag from the mount at a directory, and only from it; its other flags stay."""
    attributes = struct.pack("4Q", 0, _MOUNT_ATTR_RDONLY, 0, 0)  # to set, to clear, propagation, user namespace
    where = (_AT_FDCWD, os.fsencode(directory), _AT_NO_AUTOMOUNT)
    if _libc.syscall(_MOUNT_SETATTR, *where, attributes, len(attributes)) == 0:
        return
    if ctypes.get_errno() != errno.ENOSYS:
        _check(-1, directory)
    # Before Linux 5.12.
    kept = os.statvfs(directory).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)  # ST_* have the same values
    mount("", directory, None, MS_REMOUNT | MS_BIND | kept)


def unmount(target: str) -> None:
    """Remove the topmost mount at a path; EBUSY while a process has a file of it open."""
    _check(_libc.umount2(os.fsencode(target), 0), target)


def make_kernel_know(fs_type: str) -> None:
    """Make the kernel look for a file system type, and load its module if needed (get_fs_type in fs/filesystems.c)."""
    descriptor = _libc.syscall(_FSOPEN, fs_type.encode(), _FSOPEN_CLOEXEC)
    if descriptor >= 0:
        os.close(descriptor)
    else:
        _check(-1, fs_type)


def clone_mount(path: str) -> int:
    """Open a copy of the mount at a path that is attached nowhere; it lasts as long as the descriptor (Linux 5.2).

    Needs CAP_SYS_ADMIN.  The descriptor has O_PATH and O_CLOEXEC.
    """
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_NO_AUTOMOUNT
    descriptor: int = _libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags)
    _check(0 if descriptor >= 0 else -1, path)
    return descriptor


def set_read_only(mount: int, read_only: bool) -> None:  # noqa: FBT001
    """Make the superblock under an open mount read-only or writable (Linux 5.2).

    EBUSY while a process has a file of it open for writing; needs CAP_SYS_ADMIN in the user namespace that owns it.
    Unlike mount(2) with MS_REMOUNT, this does not wake processes that poll the mount table.
    """
    context = _libc.syscall(_FSPICK, mount, b"", _FSPICK_CLOEXEC | _FSPICK_EMPTY_PATH)
    _check(0 if context >= 0 else -1)
    try:
        _check(_libc.syscall(_FSCONFIG, context, _FSCONFIG_SET_FLAG, b"ro" if read_only else b"rw", None, 0))
        _check(_libc.syscall(_FSCONFIG, context, _FSCONFIG_CMD_RECONFIGURE, None, None, 0))
    finally:
        os.close(context)


def unshare(flags: int) -> None:
    """Move this process into new namespaces; ``flags`` are CLONE_NEW*."""
    _check(_libc.unshare(flags))


def enter_mount_namespace(of: int) -> None:
    """Move this process into the mount namespace of process ``of``; needs CAP_SYS_ADMIN and CAP_SYS_CHROOT."""
    descriptor = os.open(f"/proc/{of}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(descriptor, CLONE_NEWNS), f"/proc/{of}/ns/mnt")
    finally:
        os.close(descriptor)


def signal_when_parent_dies(signal: int) -> None:
    """Make the kernel send ``signal`` to this process when the thread that created it ends, also after execve."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal), 0, 0, 0))


def adopt_orphans() -> None:
    """Make each descendant whose parent ends a child of this process; child processes do not inherit this."""
    _check(_libc.prctl(PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0))


def stop_at_exec() -> None:
    """Make this process stop with SIGTRAP in its next execve, before the new program's first instruction."""
    _check(_libc.ptrace(_PTRACE_TRACEME, 0, None, None))


def go_on(child: int) -> None:
    """Continue a child that ``stop_at_exec`` stopped, and end the tracing."""
    _check(_libc.ptrace(_PTRACE_DETACH, child, None, None))


def _check(result: int, path: str | None = None) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
