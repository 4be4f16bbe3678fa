"""The Debian package on an arm64 host: install, use, remove and purge it.

Runs in the virtual machine of `make test-deb-arm64`.  Its packages are unpacked and not configured, so dpkg runs with
--force-depends.  systemd is not process 1, so the maintainer scripts start no service.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli import CHECKOUT, run
from support.confined import CONFIG, Machine, starting
from support.instance import made_for_tests
from support.programs import foreign_program
from support.waiting import wait_until

from binfmtd import __version__
from binfmtd.catalog.architectures import CATALOG

PACKAGE = CHECKOUT / f"build/deb/binfmtd_{__version__}_all.deb"
COMMAND = "/usr/bin/binfmtd"
NAMES = {"qemu-x86_64", "qemu-riscv64"}
DIRECTORIES = ("/etc", "/usr", "/var", "/opt", "/srv", "/home")
THEIR_OWN = ("/var/lib/dpkg/", "/var/log/", "/var/cache/", "/var/lib/systemd/")  # dpkg's and systemd's state


def files() -> set[str]:
    """Return the paths of the files that a package could have made."""
    listed = run(["find", *DIRECTORIES]).stdout.splitlines()
    return {path for path in listed if not path.startswith(THEIR_OWN) and "/__pycache__" not in path}


def dpkg(*arguments: str) -> None:
    done = run(["dpkg", "--force-depends", *arguments])
    assert done.status == 0, done.stderr


@pytest.fixture(scope="module")
def before() -> set[str]:
    """Take off what `make install` has installed, and return the files that are left."""
    if not made_for_tests() or os.uname().machine != "aarch64":
        pytest.skip("takes the virtual machine of `make test-deb-arm64`")
    done = run(["make", "-C", str(CHECKOUT), "uninstall"])
    assert done.status == 0, done.stderr
    shutil.rmtree(CONFIG.parent, ignore_errors=True)  # `make uninstall` leaves the config
    return files()


@pytest.fixture(scope="module")
def installed(before: set[str]) -> Iterator[None]:
    """Install the package; it is purged at the end, and leaves nothing."""
    dpkg("--install", str(PACKAGE))
    yield
    dpkg("--purge", "binfmtd")
    assert files() == before


@pytest.mark.usefixtures("installed")
def test_it_is_installed() -> None:
    """The commands run, dpkg knows each file of the package, and Python finds its version."""
    assert run(["dpkg", "--verify", "binfmtd"]).stdout == ""
    for command in ("binfmtd", "binfmt"):
        assert Path("/usr/bin", command).read_text().splitlines()[0] == "#!/usr/bin/python3 -I"
    assert run([COMMAND, "--version"]).stdout == f"binfmtd {__version__}\n"
    arch = {row["name"]: row for row in run([COMMAND, "arch", "--json"]).json}
    assert (arch["aarch64"]["native"], arch["x86_64"]["native"]) == (True, False)


@pytest.mark.usefixtures("installed")
def test_it_keeps_its_handlers(tmp_path: Path) -> None:
    """A program of amd64 runs, also after its entry was removed, and the daemon registers that again."""
    machine = Machine(binfmtd=COMMAND)
    program = foreign_program(tmp_path / "program", CATALOG["x86_64"])
    with starting(machine) as start:
        daemon = start('architectures = ["amd64", "riscv64"]\n')
        assert set(machine.names()) == NAMES
        assert subprocess.run([program], check=False).returncode == 42
        old = machine.inode("qemu-x86_64")
        machine.remove("qemu-x86_64")
        assert subprocess.run([program], check=False).returncode == 42
        machine.wait_registered_anew("qemu-x86_64", old)
        machine.remove("status")
        wait_until(lambda: set(machine.names()) == NAMES, what="a repair after a flush")
        daemon.wait_converged()
        assert daemon.terminate() == 0


@pytest.mark.usefixtures("installed")
def test_removed_and_installed_again() -> None:
    """A removal leaves the config alone."""
    mine = 'architectures = ["riscv64"]  # mine\n'
    CONFIG.write_text(mine)
    dpkg("--remove", "binfmtd")
    assert not Path(COMMAND).exists()
    assert CONFIG.read_text() == mine
    dpkg("--force-confold", "--install", str(PACKAGE))
    assert CONFIG.read_text() == mine
