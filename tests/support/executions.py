"""Random entries, files and interpreters, and a process that executes: the kernel as the oracle of ``explain``.

Few bytes, offsets, masks and extensions, so that collisions are the rule.  Interpreters are native programs; some are
scripts, and some are data that an entry may take again.  Any match is allowed: an entry may take native programs, too.
"""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from binfmtd.kernel.instance import Instance as Opened
from binfmtd.kernel.instance import Observer
from binfmtd.kernel.mount import Mounted
from binfmtd.model.entry import ObservedState
from binfmtd.model.handler import Flags
from binfmtd.model.match import HEAD_SIZE, Extension, Magic, Match
from support.exec_loop import TESTS
from support.instance import Instance
from support.programs import install
from support.waiting import wait_until

NATIVES = ("1", "2", "3.A", "4.b", "5", "6", "7", "8")  # their place, from one on, is what they exit with
DEEP = (
    "deep0",
    "deep1",
    "deep2",
    "deep3",
    "deep4",
    "deep5",
)  # each leads to the one before, and the first to a program
SCRIPTS = {"script": b"#!%s/2\n", "script.A": b"#! \t%s/5 \t arg ument \t\n", "deep0": b"#!%s/7\n"} | {
    name: f"#!%s/{before}\n".encode() for before, name in pairwise(DEEP)
}
DATA = {"AB": b"AB", "A.b": b"\0A", "empty": b""}
MISSING = "missing"
GONE = "gone"  # a native program, which is removed after the registrations
INTERPRETERS = (*NATIVES, *NATIVES, *SCRIPTS, *DATA, GONE, GONE, MISSING)
FILE_NAMES = ("x", "x.A", "x.b", "x.a", "A", ".A", "x.", "x.b.A", "x.A.b", "dir.A/x", "dir.A/x.b")
_BYTES = (0, 0, ord("A"), ord("B"), 0x7F, 0xFF)
_OFFSETS = (0, 0, 0, 1, 2, 3, 252, 253, 254, 255)
_WORDS = (b"%s/1", b"%s/4.b", b"%s/script", b"%s/missing", b"%s/gone", b"%s/AB", b"", b"\0", b"%s/6\r")
_FLAGS = tuple(Flags.parse(letters) for letters in ("", "", "P", "F", "FP", "O", "OF", "C", "POCF"))


@dataclass(frozen=True, slots=True)
class Registered:
    """One entry, in the order of registration; the interpreter is a name in the world's directory."""

    match: Match
    interpreter: str
    flags: Flags
    enabled: bool


@dataclass(frozen=True, slots=True)
class Executed:
    """One file and its arguments; ``size``: blanks after ``#!`` lengthen a script's first line to so many bytes."""

    name: str
    content: bytes
    size: int
    argv: tuple[str, ...]


_few = st.lists(st.sampled_from(_BYTES), min_size=1, max_size=4).map(bytes)


@st.composite
def _magics(draw: st.DrawFn) -> Magic:
    offset = draw(st.sampled_from(_OFFSETS))
    magic = draw(_few)[: HEAD_SIZE - offset]
    masks = st.lists(st.sampled_from((0, 0xFF, 0xFF, 0x80, 0x0F)), min_size=len(magic), max_size=len(magic)).map(bytes)
    return Magic(magic, draw(st.none() | masks), offset)


matches = st.one_of(
    _magics(),
    _magics(),
    st.sampled_from((Magic(b"#!"), Magic(b"\x7fELF"), Magic(b"#", b"\xfc"))),
    st.sampled_from((Magic(b"A", None, 255), Magic(b"BA", None, 254), Magic(b"B", None, 254))),
    st.sampled_from(("A", "b", "a")).map(Extension),
)


def _that_can_be_foreseen(entries: list[Registered]) -> list[Registered]:
    """Keep only matches of the first four bytes if GONE is among the interpreters.

    ``explain`` takes a missing file for a native program, and all native programs share only their first bytes.
    """
    if all(each.interpreter != GONE for each in entries):
        return entries
    return [each for each in entries if isinstance(each.match, Extension) or each.match.offset < 4]


registered = st.lists(
    st.builds(
        Registered,
        matches,
        st.sampled_from(INTERPRETERS),
        st.sampled_from(_FLAGS),
        st.sampled_from((True, True, True, False)),
    ).filter(lambda each: each.interpreter != MISSING or Flags.F not in each.flags),  # which the kernel refuses
    max_size=8,
).map(_that_can_be_foreseen)


@st.composite
def _contents(draw: st.DrawFn) -> bytes:
    begin = draw(_few)
    if draw(st.booleans()):
        return begin
    middle = draw(st.sampled_from((b"\0", b"B")))
    end = draw(st.sampled_from((b"A", b"AA", b"AB"))) if draw(st.booleans()) else draw(_few)
    return begin.ljust(draw(st.integers(253, 256)), middle) + end


@st.composite
def _first_lines(draw: st.DrawFn) -> bytes:
    """Draw the first line of a script; %s is the directory of the world's interpreters."""
    blanks = st.text(" \t", max_size=2).map(str.encode)
    deep = [f"%s/{name}".encode() for name in DEEP]
    word = draw(st.sampled_from((*_WORDS, *deep)))
    argument = draw(st.sampled_from((b"", b"-a", b"-a -b", b"\0-a", b"-a\0b")))
    end = draw(st.sampled_from((b"\n", b"", b"\0\n", b"A")))
    return b"#!" + draw(blanks) + word + draw(blanks) + argument + draw(blanks) + end


contents = st.one_of(
    _contents(),
    _first_lines(),
    st.sampled_from((b"", b"\x7fELF")),
    st.sampled_from((b"B" * 255 + b"A", b"\0" * 254 + b"BAB", b"#" * 255 + b"A")),  # the last bytes that are compared
)
executed = st.lists(
    st.builds(
        Executed,
        st.sampled_from(FILE_NAMES),
        contents,
        st.sampled_from((0, 0, 0, *range(HEAD_SIZE - 6, HEAD_SIZE + 4))),
        st.sampled_from(((), ("argv0",), ("-x", ""), ("argv0", "one", "two"))),
    ),
    min_size=1,
    max_size=4,
)


class World:
    """An instance, interpreters, and a process in there that executes; from its start to ``close``.

    ``programs`` are the native ones' contents, those of NATIVES and GONE.
    """

    def __init__(self, directory: Path, programs: Sequence[bytes]) -> None:
        self.directory = str(directory)
        self._instance = Instance()
        (directory / "dir.A").mkdir()
        *others, self._gone = programs
        named = dict(zip(NATIVES, others, strict=True)) | self._filled(SCRIPTS) | DATA
        for name, content in named.items():
            self._put(f"bin/{name}", content)
        self._executor = self._instance.popen(
            [sys.executable, "-c", "from support.executions import execute_all; execute_all()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(TESTS)},
        )

    def close(self) -> None:
        self.clear()  # while an entry takes native programs, our own commands cannot run
        self._instance.close()

    def native(self, path: str) -> int:
        """Return the place of a native program, counted from one."""
        return (*NATIVES, GONE).index(os.path.basename(path)) + 1

    def register(self, entries: Sequence[Registered], *, switched_on: bool) -> None:
        """Register them one after the other."""
        gone = self._put(f"bin/{GONE}", self._gone)
        for number, each in enumerate(entries):
            self._instance.add(f"entry{number}", each.match, f"{self.directory}/bin/{each.interpreter}", each.flags)
            if not each.enabled:
                self._instance.write(f"entry{number}", b"0")
        self._instance.write("status", b"1" if switched_on else b"0")
        os.unlink(gone)

    def clear(self) -> None:
        """Switch the instance on, and remove all entries."""
        self._instance.write("status", b"1")
        self._instance.remove("status")

    def observe(self) -> ObservedState:
        """Return the entries as binfmtd's own code reads them."""
        directory = str(self._instance.directory)
        with Opened(Mounted(directory, os.stat(directory).st_dev, read_only=False)) as opened:
            return Observer().observe(opened)

    def put(self, each: Executed) -> str:
        """Make the file, and return its path."""
        content = each.content.replace(b"%s", f"{self.directory}/bin".encode())
        if content.startswith(b"#!"):
            line = content.rstrip(b"\n")
            content = b"#!" + b" " * (each.size - len(line)) + content[2:]
        return self._put(each.name, content)

    def execute(self, paths: Sequence[str], argvs: Sequence[Sequence[str]], *, wait: bool = True) -> list[Any]:
        """Return each exit status or errno's name; without ``wait`` each command line and the file that runs."""
        assert self._executor.stdin is not None
        assert self._executor.stdout is not None
        self._executor.stdin.write(json.dumps([list(paths), [list(argv) for argv in argvs], wait]) + "\n")
        self._executor.stdin.flush()
        found: list[Any] = json.loads(self._executor.stdout.readline())
        return found

    def _filled(self, contents: dict[str, bytes]) -> dict[str, bytes]:
        bin_directory = f"{self.directory}/bin".encode()
        return {name: content.replace(b"%s", bin_directory) for name, content in contents.items()}

    def _put(self, name: str, content: bytes) -> str:
        path = Path(self.directory, name)
        path.parent.mkdir(exist_ok=True)
        return str(install(path, content))


def execute_all() -> None:
    """Run the process that executes; it needs no other program, so entries that take native ones do not stop it."""
    for request in sys.stdin:
        paths, argvs, wait = json.loads(request)
        found = [_execute(path, argv, wait=wait) for path, argv in zip(paths, argvs, strict=True)]
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


def _execute(path: str, argv: list[str], *, wait: bool) -> int | str | tuple[list[str], str]:
    try:
        pid = os.posix_spawn(path, argv, {})
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    if wait:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    process = Path(f"/proc/{pid}")
    own = os.readlink("/proc/self/exe")

    def executed() -> bool:
        # posix_spawn returns during the exec: /proc shows our own file and arguments at first, then no arguments.
        return os.readlink(process / "exe") != own and process.joinpath("cmdline").read_bytes() != b""

    try:
        wait_until(executed, 30, "the program's command line")
        words = process.joinpath("cmdline").read_bytes().removesuffix(b"\0").split(b"\0")
        return [os.fsdecode(word) for word in words], os.readlink(process / "exe").removesuffix(" (deleted)")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
