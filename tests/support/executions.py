"""Random entries, files and interpreters, and a process that executes: the kernel as the oracle of ``explain``.

Few bytes, offsets, masks and extensions, so that collisions are the rule.  Interpreters are native programs; some are
scripts, and some are data that an entry may take again.  Nothing is spared: an entry may take native programs, too.
"""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from binfmtd.formats.line import encode_line
from binfmtd.kernel.instance import Instance as Opened
from binfmtd.kernel.instance import Observer
from binfmtd.kernel.mount import Mounted
from binfmtd.model.entry import ObservedState
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import HEAD_SIZE, Extension, Magic, Match
from support.exec_loop import TESTS
from support.instance import Instance
from support.waiting import wait_until

NATIVES = ("1", "2", "3.A", "4.b", "5", "6", "7", "8")  # their place, from one on, is what they exit with
SCRIPTS = {"script": b"#!%s/2\n", "script.A": b"#! \t%s/5 \t arg ument \t\n", "again": b"#!%s/script\n"}
DATA = {"AB": b"AB", "A.b": b"\0A", "empty": b""}
MISSING = "missing"
INTERPRETERS = (*NATIVES, *NATIVES, *SCRIPTS, *DATA, MISSING)
FILE_NAMES = ("x", "x.A", "x.b", "x.a", "A", ".A", "x.", "x.b.A", "x.A.b", "dir.A/x", "dir.A/x.b")
_BYTES = (0, 0, ord("A"), ord("B"), 0x7F, 0xFF)
_OFFSETS = (0, 0, 0, 1, 2, 3, 252, 253, 254, 255)
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
    """One file, and what it is executed with."""

    name: str
    content: bytes
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
    st.sampled_from(("A", "b", "a")).map(Extension),
)
registered = st.lists(
    st.builds(
        Registered,
        matches,
        st.sampled_from(INTERPRETERS),
        st.sampled_from(_FLAGS),
        st.sampled_from((True, True, True, False)),
    ).filter(lambda each: each.interpreter != MISSING or Flags.F not in each.flags),  # which the kernel refuses
    max_size=8,
)


@st.composite
def _contents(draw: st.DrawFn) -> bytes:
    begin = draw(_few)
    if draw(st.booleans()):
        return begin
    middle = draw(st.sampled_from((b"\0", b"B")))
    return begin.ljust(draw(st.integers(250, 256)), middle) + draw(_few)


@st.composite
def _first_lines(draw: st.DrawFn) -> bytes:
    """Scripts, the long ones around the last byte that the kernel reads; %s is the world's directory."""
    blanks = st.text(" \t", max_size=2).map(str.encode)
    word = draw(st.sampled_from((b"%s/1", b"%s/4.b", b"%s/script", b"%s/missing", b"%s/AB", b"", b"\0", b"%s/6\r")))
    argument = draw(st.sampled_from((b"", b"-a", b"-a -b", b"\0-a", b"-a\0b")))
    end = draw(st.sampled_from((b"\n", b"", b"\0\n", b"A")))
    before = draw(blanks)
    if draw(st.integers(0, 3)) == 0:
        before = b" " * draw(st.integers(150, HEAD_SIZE))
    return b"#!" + before + word + draw(blanks) + argument + draw(blanks) + end


contents = st.one_of(_contents(), _first_lines(), st.just(b""), st.just(b"\x7fELF"))
executed = st.lists(
    st.builds(
        Executed,
        st.sampled_from(FILE_NAMES),
        contents,
        st.sampled_from(((), ("argv0",), ("-x", ""), ("argv0", "one", "two"))),
    ),
    min_size=1,
    max_size=4,
)


class World:
    """An instance, interpreters, and a process in there that executes; from its start to ``close``.

    ``contents`` are the native programs' by their place, from one on.
    """

    def __init__(self, directory: Path, programs: Sequence[bytes]) -> None:
        self.directory = str(directory)
        self._instance = Instance()
        (directory / "dir.A").mkdir()
        named = dict(zip(NATIVES, programs, strict=True)) | self._filled(SCRIPTS) | DATA
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
        self.clear()  # with some entries the executor's end would be nobody's, but our own commands could not run
        self._instance.close()

    def native(self, path: str) -> int:
        """The place of a native program, from one on."""
        return NATIVES.index(os.path.basename(path)) + 1

    def register(self, entries: Sequence[Registered], *, switched_on: bool) -> None:
        """Register them one after the other."""
        for number, each in enumerate(entries):
            registration = Registration(each.match, f"{self.directory}/bin/{each.interpreter}", each.flags)
            self._instance.register(encode_line(f"entry{number}", registration))
            if not each.enabled:
                self._instance.write(f"entry{number}", b"0")
        self._instance.write("status", b"1" if switched_on else b"0")

    def clear(self) -> None:
        """Take every entry away."""
        self._instance.write("status", b"1")
        self._instance.remove("status")

    def observe(self) -> ObservedState:
        """What is registered, as binfmtd itself sees it."""
        directory = str(self._instance.directory)
        with Opened(Mounted(directory, os.stat(directory).st_dev, read_only=False)) as opened:
            return Observer().look(opened)

    def put(self, each: Executed) -> str:
        """Make the file, and return its path."""
        return self._put(each.name, each.content.replace(b"%s", f"{self.directory}/bin".encode()))

    def execute(self, paths: Sequence[str], argvs: Sequence[Sequence[str]], *, wait: bool = True) -> list[Any]:
        """What each ends with, an exit status or an errno's name; without ``wait``, its command line and its file."""
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
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        path.chmod(0o755)
        return str(path)


def execute_all() -> None:
    """The process that executes; it needs no other program, so entries that take native ones do not stop it."""
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
    try:
        # posix_spawn comes back in the midst of the exec, when the arguments are not yet where /proc shows them.
        wait_until(line := Path(f"/proc/{pid}/cmdline").read_bytes, 30, "a command line")
        words = line().removesuffix(b"\0").split(b"\0")
        return [os.fsdecode(word) for word in words], os.readlink(f"/proc/{pid}/exe")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
