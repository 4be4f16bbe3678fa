"""Settings inside of an emulator (formats/elf_settings.py): what the kernel and the emulators make of them."""

import os
import resource
import sys
from pathlib import Path

import pytest
from support.instance import Instance
from support.programs import install
from support.starts import AT_PHDR, AT_PHNUM, EXIT_STATUS, KINDS, Start, program, start, with_settings

from binfmtd.catalog.architectures import CATALOG

pytestmark = pytest.mark.skipif(
    os.uname().machine not in ("x86_64", "aarch64"), reason="settings are for x86_64 and aarch64 hosts"
)
# The other of the two machines that start.c is for, and two of its processors.
FOREIGN, *PROCESSORS = {
    "aarch64": ("x86_64", "Nehalem", "max"),
}.get(os.uname().machine, ("aarch64", "cortex-a53", "max"))
EMULATOR = Path(f"/usr/bin/qemu-{FOREIGN}")
CROSS = f"{FOREIGN}-linux-gnu-gcc"
RELEASE = "9.8.7-of-the-settings"
SETTINGS = {"QEMU_UNAME": RELEASE, "QEMU_CPU": "max"}
AT_HWCAP, AT_SECURE = 16, 23


@pytest.fixture(params=KINDS)
def native(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a program of this machine that prints what it finds when it starts."""
    return program(tmp_path, request.param)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Return such a program of another machine, in a directory where nothing else is."""
    made = program(tmp_path, compiler=CROSS)
    (tmp_path / "root").mkdir()
    return made.rename(tmp_path / "root" / "program")


@pytest.fixture
def emulator(tmp_path: Path) -> Path:
    """Return a copy of the distribution's emulator with settings."""
    if not EMULATOR.exists():
        pytest.skip(f"{EMULATOR} is not installed: apt-get install qemu-user")
    return install(tmp_path / "emulator", with_settings(copy(EMULATOR, tmp_path), SETTINGS).read_bytes())


def copy(path: Path, directory: Path) -> Path:
    return install(directory / path.name, path.read_bytes())


def register(instance: Instance, interpreter: Path, flags: str) -> None:
    instance.add("foreign", CATALOG[FOREIGN].match, interpreter, flags)


def in_a_chroot(instance: Instance, root: Path, *arguments: str, **variables: str) -> Start:
    """Run the program in a root where nothing else is, with this environment alone."""
    code = f"import os, sys; os.chroot(sys.argv[1]); os.execve('/program', sys.argv[2:], {variables!r})"
    done = instance.run([sys.executable, "-c", code, str(root), *arguments])
    assert done.returncode == EXIT_STATUS, (done.stdout, done.stderr)
    return Start.parse(done.stdout)


@pytest.mark.parametrize("settings", [1, 2, 3, 4])
@pytest.mark.parametrize("arguments", [0, 1])
def test_the_start_of_a_program(native: Path, settings: int, arguments: int) -> None:
    """A program with settings starts as without them, and with those variables: nothing else on its stack differs.

    Registers, the stack's alignment, bss and the brk area are as before, and AT_PHDR leads to the program headers.
    """
    added = {f"SETTING{number}": "x" * number for number in range(settings)}
    carrying = with_settings(native, added)
    caller = {"FIRST": "1", "SETTING": "no setting", "EMPTY": ""}
    words = ["name", *["argument"] * arguments]
    found = start(words, caller, carrying)
    expected = start(words, caller | added, native)
    as_called = [("executed", str(native)) if word == ("executed", str(carrying)) else word for word in found.lines]
    assert found._replace(lines=tuple(as_called)).compared() == expected.compared()
    assert found.auxiliary[AT_PHNUM] == expected.auxiliary[AT_PHNUM] + 1
    assert [int(count) for count in found.all("loads")] == [int(count) + 1 for count in expected.all("loads")]
    assert found.auxiliary[AT_PHDR] != expected.auxiliary[AT_PHDR]


def test_the_caller_wins(native: Path) -> None:
    """A variable that the caller has set stays, also an empty one; a longer name is another variable."""
    carrying = with_settings(native, {"A": "1", "B": "2", "C": "3"})
    assert start(["x"], {"B": "", "AA": "4", "C": "5"}, carrying).variables == ["B=", "AA=4", "C=5", "A=1"]
    assert start(["x"], {}, carrying).variables == ["A=1", "B=2", "C=3"]
    assert start(["x"], {"A": "", "B": "", "C": ""}, carrying).variables == ["A=", "B=", "C="]


def test_more_settings(native: Path) -> None:
    """A program that has settings can get more of them, and the later ones win."""
    once = with_settings(native, {"A": "1", "B": "2"})
    twice = with_settings(once, {"B": "3", "C": "4"})
    assert start(["x"], {}, twice).variables == ["B=3", "C=4", "A=1"]
    assert start(["x"], {"C": "5"}, twice).variables == ["C=5", "B=3", "A=1"]


@pytest.mark.parametrize("stack", [256 << 10, 8 << 20])
def test_a_large_environment(native: Path, stack: int) -> None:
    """Settings need no room that the kernel counts: an environment that fits without them fits with them.

    With a small stack (RLIMIT_STACK, in bytes) the kernel takes a quarter of it.
    """
    carrying = with_settings(native, {f"S{number:02}": "x" * 1000 for number in range(60)})

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_STACK, (stack, resource.getrlimit(resource.RLIMIT_STACK)[1]))

    def variables(count: int) -> dict[str, str]:
        return {f"V{number:07}": "x" * 100 for number in range(count)}

    low, high = 0, stack // 100
    while high - low > 1:  # the most variables that the kernel takes
        middle = (low + high) // 2
        try:
            start(["x"], variables(middle), native, preexec_fn=limit)
            low = middle
        except OSError:
            high = middle
    found = start(["x"], variables(low), carrying, preexec_fn=limit)
    assert len(found.variables) == low + 60


def test_another_machine(tmp_path: Path) -> None:
    """A program of another machine with settings starts in an emulator as it does here."""
    if not EMULATOR.exists():
        pytest.skip(f"{EMULATOR} is not installed: apt-get install qemu-user")
    for kind in KINDS:
        plain = program(tmp_path, kind, CROSS)
        carrying = with_settings(plain, {"A": "1", "B": "2", "C": "3"})
        found = start([EMULATOR, carrying, "argument"], {"B": "4"})
        expected = start([EMULATOR, plain, "argument"], {"B": "4", "A": "1", "C": "3"})
        assert found.variables == ["B=4", "A=1", "C=3"]
        assert found.all("registers") == found.all("alignment") == ["0"]
        for word in ("argument", "type", "zeros", "data", "release", "user"):
            one, other = found.all(word), expected.all(word)
            assert one[1:] == other[1:] if word == "argument" else one == other, word
        assert [int(count) for count in found.all("loads")] == [int(count) + 1 for count in expected.all("loads")]


def test_in_a_chroot(instance: Instance, emulator: Path, foreign: Path) -> None:
    """With F an emulator's settings serve in a root where nothing but the program is; the caller's variables win."""
    register(instance, emulator, "POF")
    found = in_a_chroot(instance, foreign.parent, "name", "argument", HOME="/")
    assert found.all("release") == [RELEASE]
    assert found.all("argument") == ["name", "argument"]
    assert found.variables == ["HOME=/", *(f"{name}={value}" for name, value in SETTINGS.items())]
    own = in_a_chroot(instance, foreign.parent, "name", QEMU_UNAME="1.2.3")
    assert own.all("release") == ["1.2.3"]


def test_what_the_guest_sees(instance: Instance, emulator: Path, foreign: Path) -> None:
    """A program in the emulator finds the same as if its caller had set the variables: argv, auxv, registers, brk."""
    register(instance, emulator, "POF")
    found = in_a_chroot(instance, foreign.parent, "name", "argument")
    instance.remove("foreign")
    register(instance, EMULATOR, "POF")
    expected = in_a_chroot(instance, foreign.parent, "name", "argument", **SETTINGS)
    assert found.compared() == expected.compared()


def test_the_processor(instance: Instance, foreign: Path, tmp_path: Path) -> None:
    """QEMU_CPU as a setting changes the processor that the program sees, without a trace in its environment."""
    if not EMULATOR.exists():
        pytest.skip(f"{EMULATOR} is not installed: apt-get install qemu-user")
    features = {}
    for cpu in PROCESSORS:
        hidden = {"QEMU_CPU": cpu, "QEMU_UNSET_ENV": "QEMU_CPU,QEMU_UNSET_ENV"}
        carrying = with_settings(copy(EMULATOR, tmp_path), hidden, f"emulator-{cpu}")
        register(instance, carrying, "OF")
        found = in_a_chroot(instance, foreign.parent, "name", HOME="/")
        assert found.variables == ["HOME=/"]
        features[cpu] = found.auxiliary[AT_HWCAP]
        instance.remove("foreign")
    fewer, more = (features[cpu] for cpu in PROCESSORS)
    assert fewer != more
    assert fewer & more == fewer


@pytest.mark.usefixtures("private_instances")
@pytest.mark.parametrize(("flags", "user"), [("OF", 65534), ("OCF", 0)])
def test_set_uid(everybody: Instance, open_directory: Path, flags: str, user: int) -> None:
    """A set-uid program runs as its owner with C, and as its user without, as in an emulator without settings."""
    foreign = program(open_directory, compiler=CROSS)
    foreign.chmod(0o4755)
    found = {}
    for name, interpreter in (("plain", EMULATOR), ("set", with_settings(copy(EMULATOR, open_directory), SETTINGS))):
        register(everybody, interpreter, flags)
        command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", str(foreign)]
        done = everybody.run(["env", *(f"{key}={value}" for key, value in SETTINGS.items()), *command])
        assert done.returncode == EXIT_STATUS, (done.stdout, done.stderr)
        found[name] = Start.parse(done.stdout)
        everybody.remove("foreign")
    assert found["set"].all("user") == [f"{user:x}"]
    assert found["set"].auxiliary[AT_SECURE] == found["plain"].auxiliary[AT_SECURE]
    assert sorted(found["set"].variables) == sorted(found["plain"].variables)
