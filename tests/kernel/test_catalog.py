"""Every architecture of the catalog runs its tiny program with the real emulator on the real kernel."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.instance import Instance
from support.programs import foreign_program

from binfmtd.catalog.architectures import CATALOG, Architecture
from binfmtd.host.native import EXIT_STATUS, find_native

EMULATORS = {name: f"/usr/bin/qemu-{name}" for name in CATALOG}


@pytest.fixture(scope="module")
def native() -> frozenset[str]:
    """Return the architectures that run here without an emulator, found outside of all instances."""
    return find_native(None)


@pytest.fixture(scope="module")
def registered(module_instance: Instance) -> Iterator[Instance]:
    """Yield an instance with an entry for every architecture that has an emulator and is not native."""
    native = find_native(None)
    for name, architecture in CATALOG.items():
        if name not in native and os.path.exists(EMULATORS[name]):
            module_instance.add(f"qemu-{name}", architecture.match, EMULATORS[name], "PF")
    yield module_instance
    module_instance.remove("status")


@pytest.fixture
def program(tmp_path: Path, architecture: Architecture) -> Path:
    """Return a file with the architecture's tiny program."""
    return foreign_program(tmp_path / "program", architecture)


@pytest.mark.parametrize("architecture", CATALOG.values(), ids=lambda architecture: architecture.name)
def test_runs(registered: Instance, native: frozenset[str], architecture: Architecture, program: Path) -> None:
    """The kernel runs the program natively or through its entry, with exit status 42, also in a chroot."""
    name = architecture.name
    if name not in native and not os.path.exists(EMULATORS[name]):
        pytest.skip(f"{EMULATORS[name]} is not installed: apt-get install qemu-user")
    assert registered.run([str(program)]).returncode == EXIT_STATUS
    root = program.parent / "root"
    root.mkdir()
    shutil.copy(program, root / "program")
    assert registered.run(["chroot", str(root), "/program"]).returncode == EXIT_STATUS


def test_runs_only_through_its_entry(instance: Instance, native: frozenset[str], tmp_path: Path) -> None:
    """Without any entry exactly those architectures run that the test for native ones returns."""
    for name, architecture in CATALOG.items():
        foreign_program(tmp_path / name, architecture)
    # By execve itself: execvp or a shell would try the program as a script.
    script = (
        "import os, sys\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        child = os.posix_spawn(path, [path], {})\n"
        "    except OSError:\n"
        "        continue\n"
        f"    if os.waitpid(child, 0)[1] == {EXIT_STATUS} << 8: print(os.path.basename(path))\n"
    )
    result = instance.run([sys.executable, "-c", script, *(str(tmp_path / name) for name in CATALOG)])
    assert result.stderr == ""
    assert set(result.stdout.split()) == native


def test_native_is_found_behind_entries(registered: Instance, native: frozenset[str]) -> None:
    """An emulator's answer is not mistaken for the host's: the test then uses its own instance."""
    script = (
        "from binfmtd.kernel.instance import *; from binfmtd.kernel.mount import find;"
        "from binfmtd.host.native import find_native;"
        "print(*sorted(find_native(Observer().observe(Instance(find())))))"
    )
    result = registered.run([sys.executable, "-c", script])
    assert result.stderr == ""
    assert result.stdout.split() == sorted(native)
