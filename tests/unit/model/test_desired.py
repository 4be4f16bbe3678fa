"""The desired state, from a config and a host's facts."""

import pytest

from binfmtd.catalog.architectures import CATALOG
from binfmtd.model import desired as desired_state
from binfmtd.model.config import Config, HandlerSpec, Policy, Unmanaged
from binfmtd.model.desired import DesiredState, Facts, FileIdentity, InterpreterFacts, PassedOver, UnavailableReason
from binfmtd.model.handler import Flags
from binfmtd.model.match import Extension, Magic
from binfmtd.model.resolve import resolve

FILE = FileIdentity(1, 2, 3, 4, 5)
THERE = InterpreterFacts(FILE)
HOST = Facts({"/i": THERE, "/j": THERE})
WASM = HandlerSpec("wasm", Magic(b"\0asm"), ("/i",), Flags.F, source="binfmtd.toml [handlers.wasm]")
ARM = HandlerSpec("qemu-arm", CATALOG["arm"].match, ("/i", "/j"), Flags.F | Flags.P, architecture="arm", from_all=True)
NATIVE = WASM._replace(name="native", match=CATALOG["x86_64"].match)


def resolved(*declared: HandlerSpec, facts: Facts = HOST) -> DesiredState:
    return resolve(Config(declared), facts)


def test_the_first_interpreter_that_is_there_is_taken() -> None:
    """The first existing interpreter of a declaration is taken; F is expected to open its file."""
    assert resolved(ARM).by_name["qemu-arm"].registration.interpreter == "/i"
    second = resolved(ARM, facts=Facts({"/i": InterpreterFacts(), "/j": THERE}))
    assert second.by_name["qemu-arm"].registration.interpreter == "/j"
    assert second.file_identities == {"/j": FILE}


@pytest.mark.parametrize(
    ("from_all", "standing"), [(True, UnavailableReason.ABSENT), (False, UnavailableReason.WAITING)]
)
def test_without_an_interpreter_it_is_held(from_all: bool, standing: UnavailableReason) -> None:
    """Without an interpreter a handler waits, or is absent if it comes from "all"; the reason names every path."""
    desired = resolved(ARM._replace(from_all=from_all), facts=Facts({}))
    assert desired.handlers == ()
    (unavailable,) = desired.unavailable
    assert (unavailable.cause, unavailable.reason) == (standing, "no executable file at /i and /j")
    assert desired.unavailable_by_name == {"qemu-arm": unavailable}


@pytest.mark.parametrize(
    ("from_all", "had", "standing"),
    [
        (True, {"qemu-arm"}, UnavailableReason.LOST),
        (True, {"qemu-arm64"}, UnavailableReason.ABSENT),
        (False, {"qemu-arm"}, UnavailableReason.WAITING),
    ],
)
def test_what_had_an_interpreter_has_lost_it(from_all: bool, had: set[str], standing: UnavailableReason) -> None:
    """An architecture from "all" that had an interpreter before is lost, not silently absent."""
    (unavailable,) = resolve(Config((ARM._replace(from_all=from_all),)), Facts({}), had).unavailable
    assert unavailable.cause is standing
    assert resolve(Config((ARM,)), Facts({"/j": THERE}), had).unavailable == ()


@pytest.mark.parametrize(
    ("declared", "registered"),
    [
        (WASM._replace(flags=Flags.NONE), True),
        (WASM, False),  # F opens the file here and now
        (ARM._replace(flags=Flags.NONE), False),  # it comes from "all", not by its own name
        (ARM._replace(flags=Flags.NONE, from_all=False), True),
    ],
)
def test_in_a_container_a_path_without_f_is_not_judged(declared: HandlerSpec, registered: bool) -> None:
    """Without F the kernel looks in the root of the process that calls exec, so a path missing here is no reason."""
    desired = resolved(declared, facts=Facts({}, judges_paths=False))
    assert [h.registration.interpreter for h in desired.handlers] == (["/i"] if registered else [])
    assert desired.unseen == ({declared.name} if registered else set())
    assert not resolved(declared, facts=Facts({"/i": THERE}, judges_paths=False)).unseen


STORED = ARM._replace(interpreters=("/store/9.2.2/qemu-arm",), store="/store")
OTHER = STORED._replace(name="qemu-avr", match=CATALOG["s390x"].match, interpreters=("/store/9.2.2/qemu-s390x",))


def test_a_version_that_is_not_in_the_store() -> None:
    """Each handler of a missing version waits, also one of "all", and the reason has the command that adds it."""
    desired = resolved(STORED, OTHER, facts=Facts({}))
    assert {unavailable.cause for unavailable in desired.unavailable} == {UnavailableReason.WAITING}
    command = "binfmtd emulators pull docker.io/tonistiigi/binfmt:qemu-v9.2.2 --name 9.2.2"
    reasons = {unavailable.reason for unavailable in desired.unavailable}
    assert reasons == {f"version 9.2.2 is not in /store: run `{command}`"}


def test_a_version_without_this_emulator() -> None:
    """An architecture that a version does not have is absent if it is from "all"; the reason names the file."""
    desired = resolved(STORED, OTHER, facts=Facts({"/store/9.2.2/qemu-s390x": THERE}))
    (unavailable,) = desired.unavailable
    assert unavailable.cause is UnavailableReason.ABSENT
    other = 'name another version, or "system", in [emulators.arm]'
    assert unavailable.reason == f"version 9.2.2 has no executable file /store/9.2.2/qemu-arm: {other}"


def test_a_version_without_the_only_emulator_that_is_asked_for() -> None:
    """The reason does not propose to add a version that is in the store."""
    declared = STORED._replace(from_all=False)
    (unavailable,) = resolved(
        declared, facts=Facts({STORED.interpreters[0]: InterpreterFacts(in_version=True)})
    ).unavailable
    assert unavailable.reason.startswith("version 9.2.2 has no executable file /store/9.2.2/qemu-arm: name another")


def test_an_interpreter_that_runs_no_programs() -> None:
    """A handler gets such an interpreter if it has no other one, and the reason is known."""
    empty = InterpreterFacts(FILE, fails="the file is empty")
    assert resolved(ARM, facts=Facts({"/i": empty})).fails == {"qemu-arm": "the file is empty"}
    assert resolved(ARM, facts=Facts({"/i": empty, "/j": THERE})).fails == {}


def test_a_list_of_interpreters() -> None:
    """The first that exists serves, and the missing version before it is reported."""
    several = STORED._replace(interpreters=("/fex", "/store/9.2.2/qemu-arm", "/i", "/j"))
    desired = resolved(several)
    assert desired.by_name["qemu-arm"].registration.interpreter == "/i"
    (passed,) = desired.passed_over["qemu-arm"]
    assert passed.path == "/store/9.2.2/qemu-arm"
    assert passed.reason.startswith("version 9.2.2 is not in /store: run `")
    (unavailable,) = resolved(several, facts=Facts({})).unavailable
    assert unavailable.reason.endswith("--name 9.2.2`; no executable file at /fex and /i and /j")


def test_failover() -> None:
    """An interpreter that a probe saw fail is passed over; if all have failed, the first serves."""
    fails = THERE._replace(fails="exit status 1")
    desired = resolved(ARM, facts=Facts({"/i": fails, "/j": THERE}))
    assert desired.by_name["qemu-arm"].registration.interpreter == "/j"
    assert desired.passed_over["qemu-arm"] == (PassedOver("/i", "it does not run programs: exit status 1"),)
    all_fail = resolved(ARM, facts=Facts({"/i": fails, "/j": fails}))
    assert all_fail.by_name["qemu-arm"].registration.interpreter == "/i"
    assert all_fail.passed_over == {}


def test_an_untrusted_interpreter_is_refused() -> None:
    """An untrusted interpreter is refused with its path, even if a later one is trusted: the first would run."""
    facts = Facts({"/i": InterpreterFacts(FILE, "/i is writable by other users"), "/j": THERE})
    (unavailable,) = resolved(ARM, facts=facts).unavailable
    assert (unavailable.cause, unavailable.reason) == (UnavailableReason.REFUSED, "/i is writable by other users")


def test_what_takes_native_programs_is_refused_unless_forced() -> None:
    """A match that takes native programs is refused unless forced; the reason has what, why, and where to change it."""
    (unavailable,) = resolved(NATIVE).unavailable
    assert unavailable.cause is UnavailableReason.REFUSED
    for word in ("native programs", "ELOOP", "force = true", "binfmtd.toml [handlers.wasm]"):
        assert word in unavailable.reason
    assert resolved(NATIVE._replace(force=True)).unavailable == ()


def test_the_guard_compares_with_this_hosts_header() -> None:
    """The guard compares with this host's header: a match that is refused on one machine is allowed on another."""
    arm64 = HOST._replace(header=HOST.header._replace(machine=183))
    assert resolved(NATIVE, facts=arm64).unavailable == ()


def test_a_native_architecture_gets_no_handler_from_all() -> None:
    """A native architecture from "all" gets no handler; asked for by name, or forced, it gets one."""
    facts = HOST._replace(native=frozenset({"arm"}))
    assert resolved(ARM, facts=facts) == resolved()
    assert resolved(ARM._replace(from_all=False), facts=facts).handlers
    assert resolved(ARM._replace(force=True), facts=facts).handlers


def test_what_is_declared_as_disabled_needs_nothing() -> None:
    """A handler declared as disabled needs no interpreter, trust or guard: we never register it."""
    facts = Facts({"/j": InterpreterFacts(FILE, "untrusted")})
    off = NATIVE._replace(enabled=False)
    assert [h.enabled for h in resolved(off, off._replace(name="b", interpreters=("/j",)), facts=facts).handlers] == [
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("kernel", "architecture", "letters"),
    [((5, 11), "arm", "F"), ((5, 12), "arm", "PF"), ((4, 19), "arm", "F"), ((6, 0), "arm", "PF"), ((5, 4), None, "PF")],
)
def test_p_is_left_out_where_qemu_cannot_see_it(
    kernel: tuple[int, int], architecture: str | None, letters: str
) -> None:
    """Below Linux 5.12 an architecture has no flag P; what else an administrator declares is taken as it is."""
    declared = ARM._replace(architecture=architecture, from_all=False)
    desired = resolved(declared, facts=HOST._replace(kernel=kernel))
    assert desired.handlers[0].registration.flags.letters == letters


@pytest.mark.parametrize(("version", "letters"), [((), "PF"), ((5, 2, 0), "F"), ((6, 0, 0), "PF"), ((11, 1), "PF")])
@pytest.mark.parametrize("architecture", ["arm", None])
def test_p_is_left_out_for_a_qemu_that_cannot_see_it(
    version: tuple[int, ...], letters: str, architecture: str | None
) -> None:
    """A version in the store before 6.0 has no flag P, in whatever handler; of other files the version is not known."""
    declared = ARM._replace(architecture=architecture, from_all=False)
    files = {path: InterpreterFacts(FILE, version=version) for path in declared.interpreters}
    desired = resolved(declared, facts=HOST._replace(interpreters=files))
    assert desired.handlers[0].registration.flags.letters == letters


@pytest.mark.parametrize(
    ("architecture", "flags", "letters"),
    [
        ("arm", "PO", "P"),
        ("arm", "O", ""),
        ("arm", "P", "P"),
        ("arm", "POC", None),
        ("arm", "POF", None),
        ("arm", "F", None),
        (None, "O", None),
        (None, "P", "P"),
        (None, "F", None),
    ],
)
def test_a_script_as_interpreter(architecture: str | None, flags: str, letters: str | None) -> None:
    """With a script as interpreter an architecture does without O, and another handler with O is refused.

    Exec would fail with ENOEXEC.  With F each is refused, since F does not carry a script into a chroot.
    """
    declared = ARM._replace(architecture=architecture, from_all=False, flags=Flags.parse(flags))
    facts = HOST._replace(interpreters={"/i": InterpreterFacts(FILE, script=True)})
    desired = resolved(declared, facts=facts)
    assert [handler.registration.flags.letters for handler in desired.handlers] == (
        [] if letters is None else [letters]
    )
    assert all("/i is a script" in unavailable.reason for unavailable in desired.unavailable)
    (forced,) = resolved(declared._replace(force=True), facts=facts).handlers
    assert forced.registration.flags == Flags.parse(flags)


def test_rank_is_priority_and_then_the_order_of_declaration() -> None:
    """Handlers are in order of priority, lowest first; of equal ones the later declared ranks higher."""
    names = [("a", 0), ("b", 1), ("c", -1), ("d", 0)]
    desired = resolved(*(WASM._replace(name=name, priority=priority) for name, priority in names))
    assert [handler.name for handler in desired.handlers] == ["c", "a", "d", "b"]
    assert [high.name for high in desired.higher["a"]] == ["d", "b"]


def test_which_stand_ins_are_temporary() -> None:
    """Handlers that take some of the same files have temporary stand-ins, and so has each one that belongs below them.

    A magic and an extension of different priority have permanent ones.
    """
    low, high = WASM._replace(name="low"), WASM._replace(name="high", priority=1)
    jar = WASM._replace(name="jar", match=Extension("jar"), priority=-1)
    py = WASM._replace(name="py", match=Extension("py"), priority=2)
    assert resolved(high, jar, py).kept_temporary == {}
    assert resolved(low, high, jar, py).kept_temporary == {"low": "high", "high": "low", "jar": "low"}
    assert resolved(low, high, jar, py).permanent.keys() == {"py"}


def test_all_that_belong_above() -> None:
    """Above a handler belong those that share its files, and those that belong above these."""
    low, high = WASM._replace(name="low"), WASM._replace(name="high", priority=1)
    jar = WASM._replace(name="jar", match=Extension("jar"), priority=2)
    apart = WASM._replace(name="apart", match=Extension("py"), priority=2)
    found = resolved(low, high, jar, apart).all_higher
    assert found == {
        "low": {"high", "jar", "apart"},
        "high": {"jar", "apart"},
        "jar": frozenset(),
        "apart": frozenset(),
    }


def test_the_stand_in_of_one_below_a_missing_interpreter() -> None:
    """A handler that shares files with one whose interpreter is missing has a temporary stand-in.

    With F the entry of that one still serves, and a new stand-in would lie above it.
    """
    low, high = (
        WASM._replace(name="low"),
        WASM._replace(name="high", priority=1, interpreters=("/gone",), flags=Flags.F),
    )
    jar = WASM._replace(name="jar", match=Extension("jar"))
    above = jar._replace(name="above", match=Extension("py"), priority=2)
    desired = resolved(low, high, jar, above)
    assert [unavailable.name for unavailable in desired.unavailable] == ["high"]
    assert desired.kept_temporary == {"low": "high"}
    assert resolved(low, high._replace(flags=Flags.NONE)).kept_temporary == {}
    assert resolved(low._replace(priority=2), high).kept_temporary == {}


def test_a_handler_has_what_was_declared() -> None:
    """A handler has all values of its declaration."""
    (handler,) = resolved(ARM._replace(priority=7)).handlers
    assert (handler.name, handler.priority, handler.enabled, handler.architecture, handler.yields) == (
        "qemu-arm",
        7,
        True,
        "arm",
        True,
    )
    policy = Policy(unmanaged=Unmanaged.REMOVE)
    assert resolve(Config((), policy), HOST).policy == policy


def test_who_overlaps_a_foreign_match() -> None:
    """The handlers that overlap a match are enabled, of its kind, and share a file with it, also if asked again."""
    magic = WASM._replace(name="magic")
    off = WASM._replace(name="off", enabled=False)
    jar = WASM._replace(name="jar", match=Extension("jar"))
    desired = resolved(magic, off, jar)
    for _ in range(2):
        assert [h.name for h in desired.overlapping(Magic(b"\0"))] == ["magic"]
        assert [h.name for h in desired.overlapping(Extension("jar"))] == ["jar"]
        assert desired.overlapping(Magic(b"X")) == ()


def test_what_is_disabled_has_no_rank() -> None:
    """A handler that is kept disabled is in no order with any other handler."""
    desired = resolved(WASM, WASM._replace(name="off", enabled=False))
    assert desired.higher == {"wasm": ()}


def test_what_has_changed_since() -> None:
    """Changed are the names that came or went, or whose handler or interpreter's file is another one."""
    before = resolved(ARM, WASM)
    assert before.changed_since(before) == resolved(ARM, WASM).changed_since(before) == frozenset()
    assert resolved(ARM).changed_since(before) == {"wasm"}
    assert resolved(ARM, WASM._replace(flags=Flags.NONE)).changed_since(before) == {"wasm"}
    other = Facts({"/i": InterpreterFacts(FILE._replace(inode=9)), "/j": THERE})
    assert resolved(ARM, WASM, facts=other).changed_since(before) == {"qemu-arm", "wasm"}


def test_what_overlaps_is_not_kept_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handlers that overlap are found for any number of matches, and only some of the results are kept."""
    monkeypatch.setattr(desired_state, "_MOST_MATCHES", 10)
    wanted = resolved(WASM)
    for number in range(100):
        assert wanted.overlapping(Extension(f"x{number}")) == ()
        assert [handler.name for handler in wanted.overlapping(Magic(b"\0asm", offset=0))] == ["wasm"]
    assert len(wanted._overlapping) <= 10  # noqa: SLF001  nothing else shows how many are kept
