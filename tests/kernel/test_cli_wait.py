"""``binfmtd wait``: returns when everything that a script needs is registered."""

import subprocess
import sys
from collections.abc import Callable

import pytest
from support.cli import Cli
from support.instance import Instance

from binfmtd.catalog.architectures import CATALOG

Start = Callable[..., "subprocess.Popen[str]"]


def register(instance: Instance, name: str) -> None:
    instance.add(f"some-{name}", CATALOG[name].match, "/usr/bin/true")


@pytest.fixture
def start(instance: Instance) -> Start:
    """Return a function that starts the command, and returns while it waits."""

    def start(*arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "binfmtd", "wait", *arguments]
        return instance.popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    return start


def test_what_is_there_is_not_waited_for(instance: Instance, cli: Cli) -> None:
    """`wait` returns at once if any entry takes the programs, foreign or not; a native architecture needs none."""
    register(instance, "aarch64")
    native = "amd64" if cli("arch", "amd64", "--json").json[0]["native"] else "arm64"
    result = cli("wait", "linux/arm64", native)
    assert (result.status, result.stdout, result.stderr) == (0, "", "")


def test_a_native_architecture_without_binfmt_misc(cli: Cli) -> None:
    """A native architecture needs no entry, so it is not waited for where no entry can be read; another one is."""
    native = next(row["name"] for row in cli("arch", "--json").json if row["native"])
    assert cli("wait", native, "--mount", "/nowhere").status == 0
    result = cli("wait", native, "sparc64", "--mount", "/nowhere", "--timeout", "1ms")
    assert (result.status, "/nowhere" in result.stderr) == (1, True)


def test_what_comes_later_is_waited_for(instance: Instance, start: Start) -> None:
    """The command ends when the last of them is registered and enabled."""
    process = start("arm64", "riscv64")
    register(instance, "riscv64")
    register(instance, "aarch64")
    instance.write("some-aarch64", b"0")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    instance.write("some-aarch64", b"1")
    assert process.wait(30) == 0


def test_it_prints_what_it_waits_for(instance: Instance, start: Start) -> None:
    """Missing architectures are printed on stderr, and again each time that they change."""
    process = start("arm64", "riscv64")
    assert process.stderr is not None
    assert process.stderr.readline() == "binfmtd: waiting: aarch64, riscv64: no enabled entry takes such programs\n"
    register(instance, "arm")
    register(instance, "riscv64")
    assert process.stderr.readline() == "binfmtd: waiting: aarch64: no enabled entry takes such programs\n"
    register(instance, "aarch64")
    assert process.stderr.read() == ""
    assert process.wait(30) == 0


def test_a_mount_is_waited_for(instance: Instance, start: Start) -> None:
    """Without a mount the command waits; it mounts nothing, and examines what another process mounts."""
    instance.shell(f"umount {instance.mount_point}", check=True)
    process = start("arm64")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    instance.shell(f"mount -t binfmt_misc binfmt_misc {instance.mount_point}", check=True)
    register(instance, "aarch64")
    assert process.wait(30) == 0


def test_what_cannot_run_is_not_there(instance: Instance, cli: Cli) -> None:
    """An entry with a missing interpreter, and a switched-off instance, do not count: status 1 with the reason."""
    instance.add("some-aarch64", CATALOG["aarch64"].match, "/nowhere/at-all", "")
    result = cli("wait", "arm64", "--timeout", "0")  # a number without a unit means seconds
    assert result.status == 1
    why = "entry some-aarch64 takes such programs, but /nowhere/at-all cannot be executed"
    assert result.message == f"timed out after 0s: aarch64: {why}"
    instance.remove("some-aarch64")
    register(instance, "aarch64")
    assert cli("wait", "arm64", "--timeout", "0s").status == 0
    instance.write("status", b"0")
    off = cli("wait", "arm64", "--timeout", "0s")
    assert (off.status, off.message) == (1, "timed out after 0s: aarch64: binfmt_misc as a whole is switched off")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["arm46"], "arm46"), (["arm64", "--timeout", "soon"], "--timeout: 'soon' is not a duration"), ([], "")],
)
def test_what_is_refused(cli: Cli, arguments: list[str], says: str) -> None:
    """An unknown name, an invalid duration, and no name at all give status 2."""
    result = cli("wait", *arguments)
    assert result.status == 2
    assert says in result.message
