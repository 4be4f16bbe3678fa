"""Programs that a user may execute, but not read, run under our entries, and so do all that run under foreign ones."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.cli import AS_ORDINARY_USER, NOBODY, Cli
from support.drop_in import DropIn
from support.instance import Instance
from support.programs import install

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.program import tiny_program

AARCH64 = CATALOG["aarch64"]
EMULATOR = "/usr/bin/qemu-aarch64"
NAME = "qemu-aarch64"
OPTIONS = ("--arch", "arm64")
# Root without any capability has the rights of the file's owner, and no more.
POWERLESS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")


class Programs:
    """Programs for aarch64, which all exit with 42, and the ways to run each."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._make("plain", 0o755)
        self._make("only-executable", 0o711)
        self._make("set-uid", 0o4711)
        install(directory / "script", f"#!{directory}/plain\n".encode())
        (directory / "root").mkdir()
        (directory / "root").chmod(0o755)
        self._make("root/program", 0o711)

    def _make(self, name: str, mode: int) -> None:
        (self.directory / name).write_bytes(tiny_program(AARCH64))
        (self.directory / name).chmod(mode)

    def ways(self) -> dict[str, list[str]]:
        """Return command lines by their description."""
        found = {f"root {name}": [f"{self.directory}/{name}"] for name in ("plain", "only-executable", "script")}
        for name in ("plain", "only-executable", "set-uid", "script"):
            found[f"a user {name}"] = [*AS_ORDINARY_USER, f"{self.directory}/{name}"]
        chroot = ["chroot", f"--userspec={NOBODY}:{NOBODY}", str(self.directory / "root"), "/program"]
        return found | {"a user in a chroot": chroot}

    def that_run(self, instance: Instance) -> set[str]:
        return {name for name, command in self.ways().items() if instance.run(command).returncode == 42}


@pytest.fixture
def programs(open_directory: Path) -> Programs:
    return Programs(open_directory)


def test_what_the_owner_may_only_execute(instance: Instance, cli: Cli, programs: Programs) -> None:
    """With flag O the emulator gets the program opened; without O it may not open a program that is only executable."""
    program = programs.directory / "plain"
    program.chmod(0o111)
    assert cli("apply", *OPTIONS).status == 0
    assert "OF\n" in instance.read(NAME)
    assert instance.run([*POWERLESS, str(program)]).returncode == 42
    assert cli("apply", *OPTIONS, config="[emulators]\nflags = 'PF'\n").status == 0
    assert instance.run([*POWERLESS, str(program)]).returncode != 42


# The flags that each registers, from its own sources (catalog/tools.py, docs/drop-ins.md), as the kernel shows them.
PEERS = {
    "Debian's qemu-user-binfmt": "POF",
    "tonistiigi/binfmt": "OCF",
    "tonistiigi/binfmt, its image": "POCF",
    "linuxkit/binfmt": "OCF",
    "multiarch/qemu-user-static": "",
    "multiarch/qemu-user-static -p yes": "F",
    "multiarch/qemu-user-static -p yes -c yes": "OCF",
}


def by_apply(instance: Instance, directory: Path) -> None:
    assert Cli(instance, directory)("apply", *OPTIONS).status == 0


def by_drop_in(name: str, *arguments: str) -> Callable[[Instance, Path], None]:
    def register(instance: Instance, directory: Path) -> None:
        binfmt = DropIn(instance, directory)
        result = binfmt(" ".join(arguments), QEMU_BINARY_PATH="", QEMU_BIN_DIR="", BINFMTD_COMPAT=name)
        assert result.status == 0, result.stderr

    return register


@pytest.mark.usefixtures("private_instances")
@pytest.mark.parametrize(
    ("register", "peers"),
    [
        pytest.param(by_apply, PEERS, id="binfmtd"),
        pytest.param(by_drop_in("tonistiigi", "--install", "arm64"), PEERS, id="tonistiigi"),
        pytest.param(by_drop_in("vicamo"), PEERS, id="vicamo"),
        pytest.param(by_drop_in("linuxkit"), PEERS, id="linuxkit"),
        pytest.param(
            by_drop_in("multiarch", "-p", "yes"),
            {name: flags for name, flags in PEERS.items() if flags in ("", "F")},
            id="multiarch",
        ),
    ],
)
def test_whatever_runs_elsewhere(
    everybody: Instance,
    tmp_path: Path,
    programs: Programs,
    register: Callable[[Instance, Path], None],
    peers: dict[str, str],
) -> None:
    """A program that runs under a peer's flags runs under ours as well.

    This holds for root and for users, for scripts, set-uid programs and in a chroot.
    """
    elsewhere: set[str] = set()
    for flags in sorted(set(peers.values())):
        everybody.add(NAME, AARCH64.match, EMULATOR, flags)
        elsewhere |= programs.that_run(everybody)
        everybody.remove(NAME)
    assert {"root plain", "a user plain", "a user script"} <= elsewhere
    register(everybody, tmp_path)
    assert "C" not in everybody.read(NAME).splitlines()[2].removeprefix("flags: ")
    assert elsewhere <= programs.that_run(everybody)


def test_an_emulator_that_is_a_script(instance: Instance, cli: Cli, tmp_path: Path, programs: Programs) -> None:
    """A script as emulator is registered without O, which fails with ENOEXEC, and runs; O in the config is refused."""
    wrapper = install(tmp_path / "qemu-aarch64", f'#!/bin/sh\nshift\nexec {EMULATOR} "$@"\n'.encode())
    config = f"architectures = ['arm64']\n[emulators]\npaths = ['{tmp_path}/qemu-{{name}}']\nflags = 'PO'\n"
    assert cli("apply", config=config).status == 0
    assert "flags: P\n" in instance.read(NAME)
    assert instance.run([f"{programs.directory}/plain"]).returncode == 42
    assert cli("plan", config=config).status == 0
    handler = f"{config}[handlers.one]\nmagic = '\\x00one'\ninterpreter = '{wrapper}'\nflags = "
    assert cli("check", config=f"{handler}''\n").status == 0
    refused = cli("check", config=f"{handler}'O'\n")
    assert refused.status == 78
    assert "is a script, and with flag O or C every exec through it fails with ENOEXEC" in refused.stderr
    instance.add("one", AARCH64.match, wrapper, "POF")
    assert instance.run([f"{programs.directory}/plain"], errors="replace").returncode != 42, "ENOEXEC, as is said"


def test_explain(cli: Cli, programs: Programs) -> None:
    """`explain` names the users that cannot run such a program if the entry has no flag O."""
    program = f"{programs.directory}/only-executable"
    assert cli("apply", *OPTIONS).status == 0
    assert "not read it" not in cli("explain", program).stdout
    assert cli("apply", *OPTIONS, config="[emulators]\nflags = 'PF'\n").status == 0
    said = " ".join(cli("explain", program).stdout.split())
    assert "fails for users who may execute but not read it: entry qemu-aarch64 has no flag O" in said
