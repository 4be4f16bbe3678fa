"""The model of exec(2); tests/kernel/test_explain_oracle.py compares it with the kernel."""

from errno import EACCES, ELOOP, ENOENT, ENOEXEC

import pytest

from binfmtd.model.entry import Entry, ObservedState
from binfmtd.model.execution import REWRITES, Execution, Opened, Passed, Refusal, execute
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Extension, Magic, Match
from binfmtd.model.shebang import Shebang

NATIVE = b"\x7fELF native"
FILES = {
    "/native": NATIVE,
    "/emulator": NATIVE,
    "/foreign": b"F1",
    "/foreign.x": b"F1",
    "/other": b"other",
    "/script": b"#!/native -a b\n",
    "/script-of-foreign": b"#!/foreign\n",
    "/script-emulator": b"#!/emulator\n",
    "/lost": b"#!/nowhere\n",
}


class World:
    """Files by their content; the native loader takes those that begin as native programs do."""

    def open(self, path: str) -> Opened | Refusal:
        return Opened(FILES[path], path) if path in FILES else Refusal(ENOENT, f"{path} is not there")

    def opened_by(self, entry: Entry) -> Opened | Refusal:
        assert entry.registration is not None
        return Opened(NATIVE, f"opened: {entry.registration.interpreter}")

    def load(self, file: Opened) -> Refusal | None:
        return None if file.head.startswith(b"\x7fELF") else Refusal(ENOEXEC, "nothing takes it")


def entry(name: str, match: Match, interpreter: str = "/emulator", flags: str = "", *, enabled: bool = True) -> Entry:
    return Entry(name, 1, enabled, Registration(match, interpreter, Flags.parse(flags)))


def run(path: str, *entries: Entry, argv: tuple[str, ...] = (), on: bool = True) -> Execution:
    return execute(path, ObservedState(entries, switched_on=on), World(), argv)


def takers(execution: Execution) -> list[str | Shebang | None]:
    return [step.taker.name if isinstance(step.taker, Entry) else step.taker for step in execution.steps]


def test_native() -> None:
    """A file that no entry takes goes to the host's own loader, with its arguments as they are."""
    found = run("/native", argv=("name", "one"))
    assert (takers(found), found.argv, found.failure) == ([None], ("name", "one"), None)
    assert found.steps[0].interpreter is None


def test_a_script() -> None:
    """A script's path takes the place of argv[0], after the interpreter and one argument."""
    found = run("/script", argv=("name", "one"))
    assert takers(found) == [Shebang("/native", "-a b"), None]
    assert found.argv == ("/native", "-a b", "/script", "one")


@pytest.mark.parametrize(
    ("flags", "argv"),
    [
        ("", ("/emulator", "/foreign", "one")),
        ("P", ("/emulator", "/foreign", "name", "one")),
        ("O", ("/emulator", "/foreign", "one")),
    ],
)
def test_an_entry(flags: str, argv: tuple[str, ...]) -> None:
    """The path of the file goes before its arguments, in place of argv[0] unless flag P keeps that."""
    found = run("/foreign", entry("e", Magic(b"F1"), flags=flags), argv=("name", "one"))
    assert (takers(found), found.argv, found.failure) == (["e", None], argv, None)


def test_who_would_have_taken_it() -> None:
    """The newest enabled entry takes the file; older ones are shadowed, and disabled ones are listed as disabled."""
    found = run(
        "/foreign.x",
        entry("new-disabled", Magic(b"F"), enabled=False),
        entry("another", Magic(b"Z")),
        entry("taker", Extension("x")),
        entry("old", Magic(b"1", None, 1)),
        entry("old-disabled", Magic(b"F1"), enabled=False),
    )
    assert takers(found) == ["taker", None]
    assert [(other.entry.name, other.passed) for other in found.steps[0].passed_over] == [
        ("new-disabled", Passed.DISABLED),
        ("old", Passed.SHADOWED),
        ("old-disabled", Passed.DISABLED),
    ]


def test_switched_off() -> None:
    """While binfmt_misc is switched off no entry takes a file, and the result lists those that would."""
    found = run("/foreign", entry("e", Magic(b"F1")), on=False)
    assert found.no_handler_takes_it
    assert [other.passed for other in found.steps[0].passed_over] == [Passed.SWITCHED_OFF]


def test_what_cannot_be_known() -> None:
    """An opaque entry above the taker makes the result unclear, since it may take the file; one below does not."""
    opaque, later = (
        Entry("opaque", 1, enabled=True, registration=None),
        Entry("later", 1, enabled=True, registration=None),
    )
    off = Entry("off", 1, enabled=False, registration=None)
    found = run("/foreign", opaque, off, entry("e", Magic(b"F1")), later)
    assert (takers(found), found.steps[0].unclear) == (["e", None], (opaque,))


def test_binfmt_misc_comes_before_scripts_and_native_loaders() -> None:
    """An entry may take scripts and native programs, even its own interpreter: binfmt_misc comes first."""
    assert takers(run("/script", entry("e", Magic(b"#!")))) == ["e", None]
    brick = run("/native", entry("e", Magic(b"\x7fELF")))
    assert (len(brick.steps), brick.failure and brick.failure.errno) == (REWRITES + 1, ELOOP)


def test_an_interpreter_is_executed_itself() -> None:
    """An interpreter is executed in turn: a script's may be foreign, and an entry's may be a script."""
    found = run("/script-of-foreign", entry("e", Magic(b"F1"), "/script-emulator"), argv=("name", "one"))
    assert takers(found) == [Shebang("/foreign"), "e", Shebang("/emulator"), None]
    assert found.argv == ("/emulator", "/script-emulator", "/foreign", "/script-of-foreign", "one")


def test_a_descriptor_can_be_passed_once() -> None:
    """Under flag O or C the interpreter has to be a program: if it is taken itself, the exec fails."""
    for flags in ("O", "C"):
        found = run("/foreign", entry("e", Magic(b"F1"), "/script-emulator", flags))
        assert found.failure is not None
        assert (found.failure.errno, found.no_handler_takes_it) == (ENOEXEC, False)
    assert run("/script-of-foreign", entry("e", Magic(b"F1"), flags="O")).failure is None


def test_what_f_opened_counts() -> None:
    """With F the opened file runs whatever lies at its path; an extension is still compared with that path."""
    found = run("/foreign", entry("e", Magic(b"F1"), "/gone.x", "F"))
    assert (found.failure, found.steps[-1].file.place) == (None, "opened: /gone.x")
    again = run("/foreign", entry("x", Extension("x"), "/native"), entry("e", Magic(b"F1"), "/gone.x", "F"))
    assert takers(again) == ["e", "x", None]


def test_what_is_missing() -> None:
    """If the file, an entry's interpreter or a script's is missing, the exec fails where it is looked for."""
    assert run("/nowhere").steps == ()
    assert run("").failure == Refusal(ENOENT, "an empty path leads to no file", "name a file")
    for found in (run("/nowhere"), run("/lost"), run("/foreign", entry("e", Magic(b"F1"), "/nowhere"))):
        assert found.failure == Refusal(ENOENT, "/nowhere is not there")
        assert not found.no_handler_takes_it


def test_a_file_that_no_handler_takes() -> None:
    """A file that no handler takes gives ENOEXEC."""
    found = run("/other", entry("e", Magic(b"F1")))
    assert found.no_handler_takes_it
    assert not Execution((), (), Refusal(EACCES, "")).no_handler_takes_it
    assert Execution((), ()).steps == ()
