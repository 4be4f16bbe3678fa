"""What is wrong with entries, whoever registered them: judged by what they say and by what their interpreters are.

Sources: fs/binfmt_misc.c for how an entry is matched; for P, QEMU's commit 6e1c0d7b951e, which came with 6.0, and the
kernel's 2347961b11d4, with 5.12.  Debian's QEMU had a way of its own before: called by a name that ends in
``-binfmt-P`` it takes the preserved argument for granted (its patch linux-user-binfmt-P.diff).  openSUSE's wrapper,
whose name ends in ``-binfmt``, refuses to work without.
"""

from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from itertools import product
from typing import NamedTuple

from binfmtd.model.desired import P_VISIBLE_FROM
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.guard import NativeHeader, takes_native
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Extension, Magic, Match, same
from binfmtd.model.standin import is_stand_in

QEMU_SEES_P_FROM = (6, 0)
_P_BY_NAME = ("-binfmt-P", "-binfmt")
_ELF = Magic(b"\x7fELF")
_IDENT = Magic(b"\x7fELF\0\0\0", b"\xff" * 7).care  # up to EI_VERSION
_E_TYPE = Magic(b"\xff\xff", offset=16).care


class Fault(StrEnum):
    """One thing that can be wrong with an entry."""

    NATIVE = "native"  # takes the host's own programs or scripts
    NEVER = "never"  # no file is ever taken by it
    DISABLED = "disabled"
    MISSING = "missing"  # no interpreter: each exec fails
    GONE = "gone"  # the same, but F holds the file that was there
    NO_F = "no_f"  # its interpreter is looked for in each chroot and container
    DYNAMIC = "dynamic"  # what its interpreter needs is looked for in each chroot and container
    SCRIPT = "script"  # O, with an interpreter that is a script: each exec fails with ENOEXEC
    CREDENTIALS = "credentials"  # C: foreign set-uid programs become root
    P_UNSEEN = "p_unseen"  # P, and who gets the argument does not know of it
    P_MISSING = "p_missing"  # no P, and who gets the arguments counts on it
    UNTRUSTED = "untrusted"  # others could change its interpreter
    SHADOWED = "shadowed"  # a newer entry takes its files
    DUPLICATE = "duplicate"  # ... and is for just the same files
    OPAQUE = "opaque"  # says what this version cannot read


class Sight(NamedTuple):
    """What is known of one interpreter, by its path."""

    there: bool
    leans_on: str | None = None  # the file that it needs to start: a dynamic linker, or what its #! names
    untrusted: str | None = None
    version: tuple[int, ...] = ()  # QEMU's, empty if it is none or does not tell
    script: bool = False


class Host(NamedTuple):
    """What the host is, and what its admin wants in spite of all."""

    native: NativeHeader
    heads: tuple[bytes, ...]  # of some of its programs
    kernel: tuple[int, int]
    judges_paths: bool = True  # False: others look up paths in another root than ours
    forced: Collection[str] = frozenset()  # entries that take native programs on purpose
    credentials: Collection[str] = frozenset()  # entries whose C the config asks for
    disabled: Collection[str] = frozenset()  # entries that the config wants disabled


class Verdict(NamedTuple):
    """A fault of one entry; ``about`` is whom or what it is about: another entry, a file, a reason."""

    fault: Fault
    entry: Entry
    about: str = ""


def examine(observed: ObservedState, sights: Mapping[str, Sight], host: Host) -> tuple[Verdict, ...]:
    """Every fault of every entry, in the kernel's order; stand-ins are another matter."""
    entries = [entry for entry in observed.entries if not is_stand_in(entry.name)]
    found = []
    for entry in entries:
        if entry.registration is None:
            found.append(Verdict(Fault.OPAQUE, entry))
        else:
            found += _of_one(entry, entry.registration, sights.get(entry.registration.interpreter), host)
    return (*found, *_hidden([entry for entry in entries if entry.enabled]))


def mended(registration: Registration, faults: Collection[Fault]) -> Registration:
    """What it should say instead: without every fault that lies in what it says, as far as can be guessed."""
    flags, match = registration.flags, registration.match
    if Fault.NO_F in faults:
        flags |= Flags.F
    if Fault.DYNAMIC in faults and not takes_elf(match):
        flags &= ~Flags.F  # it needs the rest of its own root, which F does not bring
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
    # Who is no emulator (a script's or a class file's interpreter) needs the rest of its own root anyhow.
    if not holds and (sight.leans_on is None or takes_elf(registration.match)):
        yield Verdict(Fault.NO_F, entry)
    if sight.leans_on is not None and (holds or takes_elf(registration.match)):
        yield Verdict(Fault.DYNAMIC, entry, sight.leans_on)
    if sight.untrusted is not None:
        yield Verdict(Fault.UNTRUSTED, entry, sight.untrusted)


def _of_p(entry: Entry, registration: Registration, sight: Sight, host: Host) -> Iterator[Verdict]:
    by_name = registration.interpreter.endswith(_P_BY_NAME)
    if Flags.P not in registration.flags:
        if by_name:
            yield Verdict(Fault.P_MISSING, entry)
    elif sight.version and not by_name:
        if sight.version < QEMU_SEES_P_FROM:
            yield Verdict(Fault.P_UNSEEN, entry, f"QEMU {'.'.join(map(str, sight.version))}: it can from 6.0 on")
        elif host.kernel < P_VISIBLE_FROM:
            yield Verdict(Fault.P_UNSEEN, entry, "this kernel: it tells from Linux 5.12 on")


def _hidden(entries: list[Entry]) -> Iterator[Verdict]:
    """The entries whose plainest file a newer one takes.  Costs one look for each kind of mask, not for each pair."""
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
    """Whether it is for ELF programs, as an emulator's is."""
    return isinstance(match, Magic) and not (_ELF.care & ~match.care or (match.bits ^ _ELF.bits) & _ELF.care)


def never_matches(match: Match) -> str | None:
    """Why no file is ever taken, though the kernel accepted the match; None if one could be.

    A magic can be met by some file always, so what is asked is whether it can be what it is meant for.
    """
    if isinstance(match, Extension):
        return "an extension is what follows the last dot, and has none in it" if "." in match.text else None
    if match.magic.startswith(b"\\") and b"ELF" in match.magic[:8]:
        return "its magic begins with a backslash: the escapes were escaped once more, by a shell say"
    if takes_elf(match) and not any(_could_be(match, head) for head in _elf_heads()):
        return "no ELF program has this class, byte order, version and type (the masks say which bits count)"
    return None


def _could_be(match: Magic, head: Magic) -> bool:
    return not (match.bits ^ head.bits) & match.care & (_IDENT | _E_TYPE)


def _elf_heads() -> Iterator[Magic]:
    """What programs begin with: EI_CLASS, EI_DATA, EI_VERSION, and e_type in the byte order that EI_DATA says."""
    for bits, (data, order), e_type in product((1, 2), ((1, "little"), (2, "big")), (2, 3)):
        ident = b"\x7fELF" + bytes((bits, data, 1)) + bytes(9)
        yield Magic(ident + e_type.to_bytes(2, order))  # type: ignore[arg-type]  # mypy widens the literal to str
