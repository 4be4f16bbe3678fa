"""Interpreters: the file at a path, its version, the reasons not to trust it, and the way it is executed."""

import os
import stat
from collections.abc import Callable, Container, Iterable

from binfmtd.errors import FormatError
from binfmtd.files.atomic import read_regular, read_start, reading
from binfmtd.files.paths import Chain, Seen, resolve
from binfmtd.files.trust import Trust, way_untrusted
from binfmtd.formats.elf import parse_elf
from binfmtd.host.facts import OWN_PROGRAM
from binfmtd.model.desired import FileIdentity, InterpreterFacts
from binfmtd.model.emulator_version import MANIFEST
from binfmtd.model.entry import Entry
from binfmtd.model.guard import NativeHeader
from binfmtd.model.handler import Flags
from binfmtd.model.shebang import parse_shebang

HEAD_BYTES = 256
_ELF = b"\x7fELF"


def file_identity(path: str) -> FileIdentity | None:
    """Return the identity of the file at the path, links followed; None unless it is an executable file.

    Takes about 3 us, or as long as the file system takes to answer.
    """
    try:
        return _of_executable(os.stat(path))
    except (OSError, ValueError):
        return None


def _of_executable(status: os.stat_result | None) -> FileIdentity | None:
    if status is None or not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
        return None
    return FileIdentity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def look_at(
    paths: Iterable[str], trust: Trust, remote_devices: Container[int] = frozenset()
) -> dict[str, InterpreterFacts]:
    """Return the facts about each path, all from one walk, so that they are about the same file.

    ``remote_devices``: the device numbers of the file systems that count as remote (kernel/mount.py).
    """
    seen: Seen = {}
    versions: dict[str, bool] = {}
    facts = {}
    for path in paths:
        way = resolve(path, seen)
        remote = any(step.stat is not None and step.stat.st_dev in remote_devices for step in way.steps)
        facts[path] = _facts(way, trust, versions)._replace(remote=remote)
    return facts


def _facts(way: Chain, trust: Trust, versions: dict[str, bool]) -> InterpreterFacts:
    """Return the facts about one path but ``remote``; ``versions`` has what was found before (``_in_version``)."""
    path = way.path
    if way.magic is not None:
        return InterpreterFacts(file_identity(path), _magic(way.magic))
    identity = _of_executable(way.stat)
    if identity is None:
        return InterpreterFacts(in_version=_in_version(os.path.dirname(path), versions))
    head = read_head(path)
    script = parse_shebang(head) is not None
    fails = "" if script else _no_program(head, identity.size)
    return InterpreterFacts(
        identity, way_untrusted(way, trust), script=script, fails=fails, version=_version_in_store(path)
    )


def _in_version(directory: str, known: dict[str, bool]) -> bool:
    """Return True if a directory is a version in a store; ``known`` has what was found before."""
    if directory not in known:
        known[directory] = os.path.exists(os.path.join(directory, MANIFEST))
    return known[directory]


def _version_in_store(path: str) -> tuple[int, ...]:
    """Return the version of QEMU that the manifest beside an emulator has; () if there is none, as outside a store."""
    directory, name = os.path.split(path)
    if not name.startswith("qemu-"):
        return ()
    try:
        data = read_regular(os.path.join(directory, MANIFEST))
        from binfmtd.formats.store_manifest import parse

        version = parse(data).files[name].version or ""
        return tuple(map(int, version.split(".")))
    except (OSError, FormatError, KeyError, ValueError):
        return ()


def _no_program(head: bytes, size: int) -> str:
    """Return why a file that is no script cannot run programs, by its first bytes; "" if it may, or is unreadable."""
    if size == 0:
        return "the file is empty"
    return "" if not head or head.startswith(_ELF) else "the file is neither an ELF program nor a script"


def _magic(link: str) -> str:
    return (
        f"{link} is a link of the kernel's own (/proc), and binfmtd cannot check where it leads: give the path "
        "that the file has in this root directory"
    )


def watched(paths: Iterable[str]) -> dict[str, set[str]]:
    """Return directory -> names in it to watch, so that each change of what these paths lead to raises an event."""
    by_directory: dict[str, set[str]] = {}
    seen: Seen = {}
    for path in paths:
        for directory, name in resolve(path, seen).watched:
            by_directory.setdefault(directory, set()).add(name)
    return by_directory


def read_head(path: str) -> bytes:
    """Return the first 256 bytes of a file, which the kernel compares with the matches; empty if it cannot be read."""
    try:
        return read_start(path, HEAD_BYTES)
    except (OSError, ValueError, FormatError):
        return b""


def begins_as_script(path: str) -> bool:
    """Return True if the file begins with ``#!``: the kernel executes the program in its first line instead."""
    return parse_shebang(read_head(path)) is not None


def program_heads(native: NativeHeader) -> tuple[bytes, ...]:
    """Return the heads of some programs of this host: our own Python's and the shell's.

    Most programs have the same head even in fields that may differ, such as the offset of the program headers.
    Python's may be an exception.
    """
    heads = (read_head(OWN_PROGRAM), read_head("/bin/sh"))
    return tuple(dict.fromkeys(head for head in heads if native.is_of(head)))


def required_loader(path: str) -> str | None:
    """Return the file without which an interpreter cannot run: its dynamic linker, or the program in its ``#!`` line.

    Returns None if there is no such file, or if the interpreter cannot be read.
    """
    try:
        with reading(path) as read:
            if script := parse_shebang(read(0, HEAD_BYTES)):
                return script.interpreter or None
            elf = parse_elf(read)
    except (OSError, ValueError, FormatError):
        return None
    return elf.linker if elf else None


def is_executable(path: str) -> bool:
    """Return True if an executable file is at the path now."""
    return file_identity(path) is not None


def cannot_run(entry: Entry, there: Callable[[str], bool] = is_executable) -> bool:
    """Return True if a foreign entry is sure to fail: without F its interpreter has to be ``there`` at each exec.

    A relative path counts as a failure: the kernel looks it up in the working directory of each process that executes
    a program.
    """
    registration = entry.registration
    if registration is None or Flags.F in registration.flags:
        return False
    return not registration.interpreter.startswith("/") or not there(registration.interpreter)
