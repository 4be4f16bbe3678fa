"""``binfmt --install`` with an existing entry of the name: one that works is left, a broken or stale one replaced."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cli import state
from support.drop_in import DropIn
from support.instance import Instance

from binfmtd.model.handler import Flags

EMULATOR = Path("/usr/bin/qemu-s390x")
LEFT = "installing: s390x qemu-s390x already registered\n"
REPLACED = "installing: s390x OK\n"


@pytest.fixture
def binfmt(instance: Instance, tmp_path: Path) -> DropIn:
    made = DropIn(instance, tmp_path)
    made.add("s390x")
    return made


def equal(binfmt: DropIn) -> None:
    binfmt.register("s390x")


def same_content(binfmt: DropIn) -> None:
    """Register it, then put another file with the same content there, as in another container of the same image."""
    binfmt.register("s390x")
    binfmt.add("s390x")


def debians_own(binfmt: DropIn) -> None:
    binfmt.register("s390x", str(EMULATOR), Flags.F | Flags.P)


def tonistiigis(binfmt: DropIn) -> None:
    binfmt.register("s390x", flags=Flags.C | Flags.O | Flags.F)


def below_one_that_works(binfmt: DropIn) -> None:
    binfmt.register("s390x")
    binfmt.register("s390x", str(EMULATOR), entry="newer")


@pytest.mark.parametrize("there", [equal, same_content, debians_own, tonistiigis, below_one_that_works])
def test_what_works_is_left(binfmt: DropIn, instance: Instance, there: Callable[[DropIn], None]) -> None:
    """An entry of the name through which programs run stays, whatever its interpreter and flags."""
    there(binfmt)
    before = state(instance)
    result = binfmt("--strict --install s390x")
    assert (result.status, result.stderr) == (0, LEFT)
    assert state(instance) == before
    assert "linux/s390x" in result.json["supported"]


def stale(binfmt: DropIn) -> None:
    """Register it with F, then upgrade the emulator: the entry has the old one open."""
    binfmt.register("s390x")
    binfmt.put("s390x", EMULATOR.read_bytes() + b"newer")


def stale_of_equal_size(binfmt: DropIn) -> None:
    """Register it with F, then put an emulator of equal size there: the size is no proof."""
    binfmt.put("s390x", EMULATOR.read_bytes() + b"older")
    binfmt.register("s390x")
    binfmt.put("s390x", EMULATOR.read_bytes() + b"newer")


def disabled(binfmt: DropIn) -> None:
    binfmt.register("s390x")
    binfmt.instance.write("qemu-s390x", b"0")


def not_in_containers(binfmt: DropIn) -> None:
    """Register it without F: the emulator would have to be in each container."""
    binfmt.register("s390x", flags=Flags.NONE)


def lost_interpreter(binfmt: DropIn) -> None:
    binfmt.register("s390x", "/nowhere/qemu-s390x", Flags.NONE)


def no_emulator(binfmt: DropIn) -> None:
    binfmt.register("s390x", "/usr/bin/true")


def of_another_architecture(binfmt: DropIn) -> None:
    binfmt.register("s390x", "/usr/bin/qemu-riscv64")


def broken_file(binfmt: DropIn) -> None:
    """Register the wanted path while the file there is no emulator, then put the emulator there."""
    binfmt.put("s390x", Path("/usr/bin/false").read_bytes())
    binfmt.register("s390x")
    binfmt.add("s390x")


@pytest.mark.parametrize(
    "there",
    [
        stale,
        stale_of_equal_size,
        disabled,
        not_in_containers,
        lost_interpreter,
        no_emulator,
        of_another_architecture,
        broken_file,
    ],
)
def test_what_is_broken_or_stale_is_replaced(
    binfmt: DropIn, instance: Instance, there: Callable[[DropIn], None]
) -> None:
    """Every other entry of the name is replaced by one that works."""
    there(binfmt)
    result = binfmt("--strict --install s390x")
    assert (result.status, result.stderr) == (0, REPLACED)
    assert instance.names() == ["qemu-s390x"]
    assert instance.read("qemu-s390x").startswith(f"enabled\ninterpreter {binfmt.emulators}/qemu-s390x\nflags: OF\n")
    assert binfmt.runs("s390x")


def test_all_replaces_what_is_stale(binfmt: DropIn, instance: Instance) -> None:
    """``all`` is about architectures that do not run, and also replaces a stale entry of its own name."""
    stale(binfmt)
    assert binfmt("--install all").stderr == REPLACED
    before = state(instance)
    assert binfmt("--install all").stderr == ""
    assert binfmt("--install s390x").stderr == LEFT
    assert state(instance) == before


def test_the_trial_outlives_the_ledger(binfmt: DropIn, instance: Instance) -> None:
    """The ledger has the result of a trial; without it (another container) the next trial has the same result."""
    assert binfmt("--install s390x").stderr == REPLACED
    before = state(instance)
    ledger = binfmt.state_directory / "ledger.json"
    written = json.loads(ledger.read_text())["entries"]
    ledger.unlink()
    assert binfmt("--install s390x").stderr == LEFT
    assert json.loads(ledger.read_text())["entries"] == written
    assert state(instance) == before


def test_an_entry_under_a_broken_one(binfmt: DropIn, instance: Instance) -> None:
    """If a broken foreign entry takes the programs, ours is registered above it, and the foreign one stays."""
    binfmt.register("s390x")
    binfmt.register("s390x", "/usr/bin/qemu-riscv64", entry="newer")
    other = state(instance)["newer"]
    result = binfmt("--strict --install s390x")
    assert (result.status, result.stderr) == (0, REPLACED)
    assert instance.names() == ["qemu-s390x", "newer"]
    assert state(instance)["newer"] == other
    assert "linux/s390x" in result.json["supported"]


def test_an_emulator_that_is_another_ones(binfmt: DropIn, instance: Instance) -> None:
    """An entry that is registered, but cannot run its programs, is a failure, the first time and the next."""
    binfmt.put("s390x", Path("/usr/bin/qemu-riscv64").read_bytes())
    for _ in range(2):
        result = binfmt("--strict --install s390x")
        assert result.status == 1
        assert result.stderr.startswith("installing: s390x cannot register ")
        assert "it is registered, but its programs do not run: its exit status is" in result.stderr
        assert instance.names() == ["qemu-s390x"]
    assert binfmt("--install s390x").status == 0


def test_served_by_another_name(binfmt: DropIn, instance: Instance) -> None:
    """``all`` leaves out an architecture that an entry of another name runs; asked for by name it is installed."""
    binfmt.register("s390x", entry="other")
    assert binfmt("--install all").stderr == ""
    assert binfmt("--install s390x").stderr == REPLACED
    assert instance.names() == ["qemu-s390x", "other"]


def test_replacing_leaves_no_gap(binfmt: DropIn, instance: Instance) -> None:
    """An emulator without flag F that serves outside of containers serves on until its successor stands."""
    not_in_containers(binfmt)
    program = binfmt.program("s390x")
    with (binfmt.emulators / "fails").open("w+") as fails:
        loop = f"while [ -e {program} ]; do {program} || [ $? = 42 ] || [ ! -e {program} ] || echo failed; done"
        runner = instance.popen(["sh", "-c", loop], stdout=fails, stderr=fails)
        assert binfmt("--install s390x").stderr == REPLACED
        program.unlink()
        runner.wait(30)
        fails.seek(0)
        assert "failed" not in fails.read()
