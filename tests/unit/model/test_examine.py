import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.worlds import SMALL_MAGICS

from binfmtd.catalog.architectures import CATALOG
from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.examine import Fault, Host, Sight, examine, mended, never_matches, takes_elf
from binfmtd.model.guard import NativeHeader
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Extension, Magic, Match, takes_plain

NATIVE = NativeHeader(2, 1, 62)
HOST = Host(NATIVE, (), (6, 18))
ARM = CATALOG["arm"].match
STATIC = Sight(there=True)
DYNAMIC = Sight(there=True, required_loader="/lib64/ld.so")
SCRIPT = Sight(there=True, required_loader="/bin/sh", script=True)


def entry(name: str = "one", match: Match = ARM, flags: str = "F", path: str = "/q", *, enabled: bool = True) -> Entry:
    return Entry(name, 1, enabled, Registration(match, path, Flags.parse(flags)))


def faults(*entries: Entry, sight: Sight | None = STATIC, host: Host = HOST) -> list[tuple[str, Fault]]:
    sights = {} if sight is None else {e.registration.interpreter: sight for e in entries if e.registration}
    return [(verdict.entry.name, verdict.fault) for verdict in examine(ObservedState(entries), sights, host)]


def of_one(one: Entry, sight: Sight | None = STATIC, host: Host = HOST) -> set[Fault]:
    return {fault for _, fault in faults(one, sight=sight, host=host)}


def test_an_entry_as_it_should_be() -> None:
    """A static emulator under F has no fault, nor has it with P if its QEMU is new."""
    assert of_one(entry()) == set()
    assert of_one(entry(flags="PF"), Sight(there=True, version=(10, 0, 13))) == set()
    assert of_one(entry(), None) == set()


@pytest.mark.parametrize(
    ("one", "sight", "expected"),
    [
        (entry(flags=""), STATIC, {Fault.NO_F}),
        (entry(flags=""), DYNAMIC, {Fault.NO_F, Fault.DYNAMIC}),
        (entry(flags="F"), DYNAMIC, {Fault.DYNAMIC}),
        (entry(match=Extension("py"), flags=""), DYNAMIC, set()),  # no emulator: its root is needed anyhow
        (entry(match=Extension("py"), flags="F"), DYNAMIC, {Fault.DYNAMIC}),
        (entry(flags="CF"), STATIC, {Fault.CREDENTIALS}),
        (entry(flags="OF"), SCRIPT, {Fault.SCRIPT, Fault.DYNAMIC}),
        (entry(flags="CF"), SCRIPT, {Fault.SCRIPT, Fault.CREDENTIALS, Fault.DYNAMIC}),
        (entry(flags="F"), SCRIPT, {Fault.DYNAMIC}),
        (entry(flags=""), Sight(there=False), {Fault.MISSING}),
        (entry(flags="F"), Sight(there=False), {Fault.GONE}),
        (entry(flags="F"), Sight(there=True, untrusted="why"), {Fault.UNTRUSTED}),
        (entry(enabled=False), Sight(there=False), {Fault.DISABLED}),
        (entry(flags="PF"), Sight(there=True, version=(5, 2, 0)), {Fault.P_UNSEEN}),
        (entry(flags="PF"), Sight(there=True, version=(6, 0)), set()),
        (entry(flags="PF"), Sight(there=True), set()),  # no QEMU, or one that prints no version
        (entry(flags="PF", path="/arm-binfmt-P"), Sight(there=True, version=(5, 2, 0)), set()),
        (entry(flags="F", path="/arm-binfmt-P"), STATIC, {Fault.P_MISSING}),
        (entry(flags="F", path="/qemu-arm-binfmt"), STATIC, {Fault.P_MISSING}),
        (Entry("new", 1, enabled=True, registration=None), STATIC, {Fault.OPAQUE}),
        (entry(match=Extension("a.b")), STATIC, {Fault.NEVER}),
        (entry(match=Magic(b"\x7fELF")), STATIC, {Fault.NATIVE}),
        (entry(match=Magic(b"\x7fELF"), enabled=False), STATIC, {Fault.NATIVE, Fault.DISABLED}),
        (entry(match=Magic(b"#!")), STATIC, {Fault.NATIVE}),
        (entry(name=".binfmtd~one", flags="C"), STATIC, set()),
    ],
)
def test_a_fault(one: Entry, sight: Sight, expected: set[Fault]) -> None:
    """Each fault is found, and no other with it."""
    assert of_one(one, sight) == expected


IN_THE_TEXT = {Fault.NO_F, Fault.SCRIPT, Fault.CREDENTIALS, Fault.P_UNSEEN, Fault.P_MISSING}


@given(
    match=st.sampled_from([ARM, Extension("py"), Extension("tar.gz"), Magic(b"one")]),
    letters=st.sets(st.sampled_from("POCF")),
    path=st.sampled_from(["/qemu-arm", "/arm-binfmt-P"]),
    sight=st.sampled_from([STATIC, DYNAMIC, SCRIPT, Sight(there=True, version=(5, 2)), Sight(there=False)]),
)
def test_mended_is_without_fault(match: Match, letters: set[str], path: str, sight: Sight) -> None:
    """One corrected registration ends every fault in an entry's text, and brings no new one."""
    before = entry(match=match, flags="".join(letters), path=path)
    assert before.registration is not None
    faults = of_one(before, sight)
    registration = mended(before.registration, faults)
    left = of_one(entry(match=registration.match, flags=registration.flags.letters, path=path), sight)
    assert left <= faults
    assert not left & IN_THE_TEXT
    assert Fault.NEVER not in left
    assert Fault.DYNAMIC not in left or takes_elf(match)


def test_what_depends_on_the_host() -> None:
    """An old kernel does not show P, in a container paths are not judged, and what the config asks for is no fault."""
    assert of_one(entry(flags="PF"), Sight(there=True, version=(8, 0)), Host(NATIVE, (), (5, 10))) == {Fault.P_UNSEEN}
    assert of_one(entry(flags=""), Sight(there=False), Host(NATIVE, (), (6, 1), judges_paths=False)) == set()
    meant = Host(NATIVE, (), (6, 1), forced={"one"}, credentials={"one"}, disabled={"one"})
    assert of_one(entry(match=Magic(b"\x7fELF"), flags="CF"), host=meant) == set()
    assert of_one(entry(enabled=False), host=meant) == set()


def test_who_is_hidden_by_whom() -> None:
    """A newer enabled entry that takes an entry's files shadows it, or makes it a duplicate if their matches equal."""
    newer, older = entry("newer"), entry("older")
    assert faults(newer, older) == [("older", Fault.DUPLICATE)]
    wide = entry("wide", Magic(b"abc"))
    narrow = entry("narrow", Magic(b"abcd"))
    assert faults(wide, narrow) == [("narrow", Fault.SHADOWED)]
    assert faults(narrow, wide) == []
    off = entry("off", Magic(b"abc"), enabled=False)
    assert faults(off, narrow) == [("off", Fault.DISABLED)]
    assert faults(entry("a", Extension("py")), entry("b", Extension("py"))) == [("b", Fault.DUPLICATE)]
    assert faults(entry("a", Extension("abc")), narrow) == []


@given(st.lists(SMALL_MAGICS, max_size=8))
def test_which_entries_are_hidden(matches: list[Magic]) -> None:
    """Exactly those entries are hidden whose plainest file an enabled newer one takes, however many there are."""
    entries = [entry(str(place), match) for place, match in enumerate(matches)]
    found = examine(ObservedState(tuple(entries)), {}, HOST)
    hidden = {v.entry.name: v.about for v in found if v.fault in (Fault.SHADOWED, Fault.DUPLICATE)}
    expected = {
        str(place) for place, match in enumerate(matches) if any(takes_plain(m, match) for m in matches[:place])
    }
    assert hidden.keys() == expected
    assert all(takes_plain(matches[int(by)], matches[int(name)]) for name, by in hidden.items())


def test_the_catalog_can_match() -> None:
    """No match of the catalog is called impossible, and each is for ELF programs."""
    assert [name for name, row in CATALOG.items() if never_matches(row.match) or not takes_elf(row.match)] == []


@pytest.mark.parametrize(
    "match",
    [
        Magic(b"\x7fELF\x03"),  # EI_CLASS
        Magic(b"\x7fELF\x01\x00"),  # EI_DATA
        Magic(b"\x7fELF\x01\x01\x02"),  # EI_VERSION
        Magic(b"\x7fELF\x01\x01\x01" + bytes(9) + b"\x00\x02"),  # e_type in the other byte order
        Magic(b"\x7fELF\x01\x01\x01" + bytes(9) + b"\x01\x00"),  # an object file
        Magic(b"\\\x7fELF\x01"),
        Magic(rb"\x7fELF"),
        Extension("tar.gz"),
    ],
)
def test_what_can_never_match(match: Match) -> None:
    """A match that the kernel accepts, but that no program can have, is found."""
    assert never_matches(match) is not None


@pytest.mark.parametrize("match", [Magic(b"\\document"), Magic(b"\x7fELF\x01\x01"), Extension("gz"), Magic(b"MZ")])
def test_what_can(match: Match) -> None:
    """A match that is odd, or not for ELF at all, is not called impossible."""
    assert never_matches(match) is None
