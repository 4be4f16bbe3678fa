"""Find the faults of entries, no matter which program registered them, in their registrations and interpreters.

fs/binfmt_misc.c is the source for how the kernel matches an entry.  With flag P an interpreter has to see that argv[0]
was preserved.  There are three ways:

* QEMU from 6.0 on (its commit 6e1c0d7b951e) reads AT_FLAGS, in which Linux reports it from 5.12 on (2347961b11d4).
* Debian's QEMU before that expects the preserved argument if it is called by a name that ends in ``-binfmt-P`` (its
  patch linux-user-binfmt-P.diff).
* openSUSE's wrapper, whose name ends in ``-binfmt``, always expects it, and refuses to work without P.
"""

from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from itertools import product
from typing import NamedTuple

from binfmtd.model.desired import QEMU_SEES_P_FROM
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.guard import NativeHeader, takes_native
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Extension, Magic, Match, same
from binfmtd.model.resolve import P_VISIBLE_FROM
from binfmtd.model.stand_in import is_stand_in

P_BY_NAME = ("-binfmt-P", "-binfmt")  # the ends of names of interpreters that expect flag P
_ELF = Magic(b"\x7fELF")
_IDENT = Magic(b"\x7fELF\0\0\0", b"\xff" * 7).care  # up to EI_VERSION
_E_TYPE = Magic(b"\xff\xff", offset=16).care


class Fault(StrEnum):
    """A kind of fault that an entry can have."""

    NATIVE = "native"  # takes the host's own programs or scripts
    NEVER = "never"  # takes no file at all
    DISABLED = "disabled"
    MISSING = "missing"  # no interpreter: each exec fails
    GONE = "gone"  # no interpreter any more, but with F the kernel still holds the file
    NO_F = "no_f"  # the kernel looks its interpreter up in each chroot and container
    DYNAMIC = "dynamic"  # another file that its interpreter needs, or a script, is looked up in each chroot, container
    SCRIPT = "script"  # O, and its interpreter is a script: each exec fails with ENOEXEC
    CREDENTIALS = "credentials"  # C: set-uid programs that it takes run as their owner, such as root
    P_UNSEEN = "p_unseen"  # P, and its interpreter cannot see that argv[0] was preserved
    P_MISSING = "p_missing"  # no P, and its interpreter expects the preserved argument
    UNTRUSTED = "untrusted"  # another user could change its interpreter
    SHADOWED = "shadowed"  # a newer entry takes its files
    DUPLICATE = "duplicate"  # a newer entry takes exactly the same files
    OPAQUE = "opaque"  # contains something that this version cannot parse


class Sight(NamedTuple):
    """The facts about the file at one interpreter's path."""

    there: bool
    required_loader: str | None = None  # the file that it needs to start: its dynamic linker, or what its #! names
    untrusted: str | None = None
    version: tuple[int, ...] = ()  # QEMU's; empty if it is not QEMU or reports none
    script: bool = False


class Host(NamedTuple):
    """The facts about the host, and the faults that its config asks for."""

    native: NativeHeader
    heads: tuple[bytes, ...]  # the first 256 bytes of each of some of its programs
    kernel: tuple[int, int]
    judges_paths: bool = True  # False: other processes resolve paths in another root than ours
    forced: Collection[str] = frozenset()  # entries that may take native programs
    credentials: Collection[str] = frozenset()  # entries whose C the config asks for
    disabled: Collection[str] = frozenset()  # entries that the config wants disabled


class Verdict(NamedTuple):
    """A fault of one entry.  ``about`` names what it refers to: another entry, a file, or a reason."""

    fault: Fault
    entry: Entry
    about: str = ""


def examine(observed: ObservedState, sights: Mapping[str, Sight], host: Host) -> tuple[Verdict, ...]:
    """Return every fault of every entry but stand-ins, in the kernel's order; SHADOWED and DUPLICATE come last."""
    entries = [entry for entry in observed.entries if not is_stand_in(entry.name)]
    verdicts = []
    for entry in entries:
        if entry.registration is None:
            verdicts.append(Verdict(Fault.OPAQUE, entry))
        else:
            verdicts += _of_one(entry, entry.registration, sights.get(entry.registration.interpreter), host)
    return (*verdicts, *_hidden([entry for entry in entries if entry.enabled]))


def mended(registration: Registration, faults: Collection[Fault]) -> Registration:
    """Return the registration without those ``faults`` that its own fields cause.

    A value that cannot be guessed, such as that of a magic, stays as it is.
    """
    flags, match = registration.flags, registration.match
    if Fault.NO_F in faults:
        flags |= Flags.F
    if Fault.DYNAMIC in faults and not takes_elf(match):
        flags &= ~Flags.F  # its interpreter needs other files of its root, which F does not open
    if Fault.CREDENTIALS in faults:
        flags &= ~Flags.C
    if Fault.SCRIPT in faults:
        flags &= ~(Flags.C | Flags.O)
    if Fault.P_UNSEEN in faults:
        flags &= ~Flags.P
    if Fault.P_MISSING in faults:
        flags |= Flags.P
    if Fault.NEVER in faults and isinstance(match, Extension) and (last := match.text.rpartition(".")[2]):
        match = Extension(last)
    return registration._replace(match=match, flags=flags)


def _of_one(entry: Entry, registration: Registration, sight: Sight | None, host: Host) -> Iterator[Verdict]:
    taken = takes_native(registration.match, host.native, host.heads)
    if taken and entry.name not in host.forced:
        yield Verdict(Fault.NATIVE, entry, taken)
    if why := never_matches(registration.match):
        yield Verdict(Fault.NEVER, entry, why)
    if not entry.enabled:
        if entry.name not in host.disabled:
            yield Verdict(Fault.DISABLED, entry)
        return
    flags = registration.flags
    if Flags.C in flags and entry.name not in host.credentials:
        yield Verdict(Fault.CREDENTIALS, entry)
    if sight is None:
        return
    if not sight.there:
        if Flags.F in flags:
            yield Verdict(Fault.GONE, entry)
        elif host.judges_paths:
            yield Verdict(Fault.MISSING, entry)
    else:
        yield from _of_its_interpreter(entry, registration, sight)
    yield from _of_p(entry, registration, sight, host)


def _of_its_interpreter(entry: Entry, registration: Registration, sight: Sight) -> Iterator[Verdict]:
    holds = Flags.F in registration.flags
    if sight.script and Flags.O in registration.flags:
        yield Verdict(Fault.SCRIPT, entry)
    # An interpreter that is not an emulator (of scripts, of class files) needs other files of its root anyway.
    if not holds and (sight.required_loader is None or takes_elf(registration.match)):
        yield Verdict(Fault.NO_F, entry)
    if sight.required_loader is not None and (holds or takes_elf(registration.match)):
        yield Verdict(
            Fault.DYNAMIC, entry, f"it and {sight.required_loader}" if sight.script else sight.required_loader
        )
    if sight.untrusted is not None:
        yield Verdict(Fault.UNTRUSTED, entry, sight.untrusted)


def _of_p(entry: Entry, registration: Registration, sight: Sight, host: Host) -> Iterator[Verdict]:
    by_name = registration.interpreter.endswith(P_BY_NAME)
    if Flags.P not in registration.flags:
        if by_name:
            yield Verdict(Fault.P_MISSING, entry)
    elif sight.version and not by_name:
        if sight.version < QEMU_SEES_P_FROM:
            yield Verdict(Fault.P_UNSEEN, entry, f"QEMU {'.'.join(map(str, sight.version))} (support begins with 6.0)")
        elif host.kernel < P_VISIBLE_FROM:
            yield Verdict(Fault.P_UNSEEN, entry, "QEMU on this kernel (Linux reports flag P from 5.12 on)")


def _hidden(entries: list[Entry]) -> Iterator[Verdict]:
    """Yield a fault for each entry whose plainest file (its magic, then zeros) a newer entry takes.

    Costs one look-up for each distinct mask, not one comparison for each pair.
    """
    by_care: dict[int, dict[int, Entry]] = {}
    by_extension: dict[str, Entry] = {}
    for entry in entries:
        if entry.registration is None:
            continue
        match = entry.registration.match
        if isinstance(match, Extension):
            newer = by_extension.setdefault(match.text, entry)
            if newer is not entry:
                yield Verdict(Fault.DUPLICATE, entry, newer.name)
            continue
        for care, of_bits in by_care.items():
            if (above := of_bits.get(match.bits & care)) is not None and above.registration is not None:
                twin = same(above.registration.match, match)
                yield Verdict(Fault.DUPLICATE if twin else Fault.SHADOWED, entry, above.name)
                break
        by_care.setdefault(match.care, {}).setdefault(match.bits, entry)


def takes_elf(match: Match) -> bool:
    """Return True if the match takes only ELF files, as an emulator's match does."""
    return isinstance(match, Magic) and not (_ELF.care & ~match.care or (match.bits ^ _ELF.bits) & _ELF.care)


def never_matches(match: Match) -> str | None:
    """Return the reason why the match takes no file, though the kernel accepts it; None if it can take one.

    Some file always matches a magic.  So this checks if a file of the kind that the magic is meant for can match it.
    """
    if isinstance(match, Extension):
        reason = "its extension contains a dot; the kernel compares only the text after the last dot of a file's name"
        return reason if "." in match.text else None
    if match.magic.startswith(b"\\") and b"ELF" in match.magic[:8]:
        return "its magic begins with a backslash: the escapes were escaped twice, for example by a shell"
    if takes_elf(match) and not any(_could_be(match, head) for head in _elf_heads()):
        return "no ELF program has this combination of class, byte order, version and type (in the compared bits)"
    return None


def _could_be(match: Magic, head: Magic) -> bool:
    return not (match.bits ^ head.bits) & match.care & (_IDENT | _E_TYPE)


def _elf_heads() -> Iterator[Magic]:
    """Yield what ELF programs begin with: EI_CLASS, EI_DATA, EI_VERSION, and e_type in the byte order of EI_DATA."""
    for bits, (data, order), e_type in product((1, 2), ((1, "little"), (2, "big")), (2, 3)):
        ident = b"\x7fELF" + bytes((bits, data, 1)) + bytes(9)
        yield Magic(ident + e_type.to_bytes(2, order))  # type: ignore[arg-type]  # mypy widens the literal to str
