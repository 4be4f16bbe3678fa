"""``binfmtd sandbox --emulators`` with QEMU of several Debian suites: a program that needs a recent one."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support import debian_qemu
from support.cli import BINFMTD, Cli, Result, run
from support.instance import Instance
from support.programs import install
from support.required import unavailable
from support.stores import StoreCli

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.program import tiny_program

pytestmark = pytest.mark.emulators

SUITES = {"5.2": "bullseye", "7.2": "bookworm", "newest": "sid"}
ARCHITECTURES = ("aarch64", "riscv64")
ENOSYS = 38
OPENAT2 = bytes.fromhex(
    "600c8092"  # mov x0, AT_FDCWD
    "41010010"  # adr x1, path
    "42010010"  # adr x2, how
    "030380d2"  # mov x3, 24: the size of struct open_how
    "a83680d2"  # mov x8, 437: openat2, of Linux 5.6
    "010000d4"  # svc 0
    "e00300cb"  # neg x0, x0: the error number
    "1f0000f1"  # cmp x0, 0
    "00c09f9a"  # csel x0, x0, xzr, gt: or 0, if it is a file descriptor
    "a80b80d2"  # mov x8, 93: exit
    "010000d4"  # svc 0
    "2e000000"  # path: "."
    "0040000000000000 0000000000000000 0800000000000000"  # how: O_DIRECTORY, no mode, RESOLVE_BENEATH
)

ARGUMENTS = bytes.fromhex(
    "e00340f9"  # ldr x0, [sp]: the number of arguments, with argv[0]
    "a80b80d2"  # mov x8, 93: exit
    "010000d4"  # svc 0
)

VECTORS = bytes.fromhex(
    "577002cc"  # vsetivli zero, 4, e8, m1, ta, ma: an instruction of RISC-V's vector extension
    "13050000"  # li a0, 0
    "9308d005"  # li a7, 93: exit
    "73000000"  # ecall
)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with one version of each suite, from its package."""
    if os.uname().machine == "aarch64":
        pytest.skip("programs for arm64 run natively here")
    place = tmp_path_factory.mktemp("store")
    for version, suite in SUITES.items():
        (place / version).mkdir(mode=0o755)
        for name in ARCHITECTURES:
            install(place / version / f"qemu-{name}", debian_qemu.emulator(suite, name).read_bytes())
    return place


Compare = Callable[[str, bytes], Result]


@pytest.fixture
def compare(store: Path, instance: Instance, tmp_path: Path) -> Compare:
    """Return ``compare(architecture, code)``, which runs a program of this machine code with each version."""
    command = [*BINFMTD, "sandbox", "--store", str(store), "--emulators", "5.2,7.2,system,newest"]

    def runs(name: str, code: bytes) -> Result:
        program = install(tmp_path / "program", tiny_program(CATALOG[name]._replace(exit42=code)))
        return run(instance.entering([*command, "--arch", name, "--", str(program)]))

    return runs


def systems() -> tuple[int, ...]:
    """Return the version of this machine's own QEMU."""
    for name in ("qemu-aarch64-static", "qemu-aarch64"):
        if shutil.which(name):
            return tuple(map(int, run([name, "--version"]).stdout.split()[2].split(".")[:2]))
    unavailable("this machine has no QEMU: apt-get install qemu-user")
    return ()


def statuses(result: Result) -> list[list[str]]:
    return [row[:-2] for row in result.rows[1:]]


def test_a_system_call_that_older_versions_lack(compare: Compare) -> None:
    """QEMU 5.2 and 7.2 have no openat2, and later versions have it: the table shows which version runs the program."""
    if systems() < (9, 2):
        pytest.skip("this machine's own QEMU has no openat2, either")
    result = compare("aarch64", OPENAT2)
    assert statuses(result) == [["5.2", f"{ENOSYS}"], ["7.2", f"{ENOSYS}"], ["system", "0"], ["newest", "0"]]
    assert result.status == 0


def test_instructions_that_older_versions_lack(compare: Compare) -> None:
    """QEMU 5.2 and 7.2 end a program with vector instructions, and later versions run it."""
    if systems() < (10, 0):
        pytest.skip("the default processor of this machine's own QEMU may have no vector instructions, either")
    result = compare("riscv64", VECTORS)
    assert statuses(result) == [
        ["5.2", "132", "(SIGILL)"],
        ["7.2", "132", "(SIGILL)"],
        ["system", "0"],
        ["newest", "0"],
    ]
    assert result.status == 0


def test_arguments(compare: Compare) -> None:
    """A program gets its arguments also from QEMU before 6.0, which would see one more with flag P."""
    assert statuses(compare("aarch64", ARGUMENTS)) == [["5.2", "1"], ["7.2", "1"], ["system", "1"], ["newest", "1"]]


def test_an_old_version_has_no_p(instance: Instance, tmp_path: Path) -> None:
    """A handler whose version in the store is before 6.0 is registered without P, so arguments are right as well."""
    store = StoreCli(tmp_path / "store")
    store.checked("import", str(debian_qemu.package("bullseye")), "--arch", "aarch64", "--name", "old")
    config = f'architectures = ["arm64"]\n[emulators]\nversion = "old"\nstore = "{store.path}"\n'
    assert Cli(instance, tmp_path)("apply", config=config).status == 0
    assert "flags: OF\n" in instance.read("qemu-aarch64")
    program = install(tmp_path / "program", tiny_program(CATALOG["aarch64"]._replace(exit42=ARGUMENTS)))
    assert instance.run([str(program)]).returncode == 1
    assert instance.run([str(program), "one", "two"]).returncode == 3
