"""``binfmtd probe --deep`` with QEMU of four Debian suites, and dynamic programs of six architectures."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.cli import Cli
from support.debian_qemu import PACKAGES, emulator, version
from support.deep import expected, outcomes, platforms, reason
from support.dynamic_programs import LIBRARIES, dynamic_tree
from support.instance import Instance

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.deep_checks import DEEP_PROGRAMS, DYNAMIC
from binfmtd.model.handler import Flags

EMULATED = [name for name in dict.fromkeys(each.architecture for each in DEEP_PROGRAMS) if name != "x86_64"]
# System calls that QEMU lacks, without which no program is known to fail.
UNNEEDED = {"bullseye": ("faccessat2", "close_range")}

Register = Callable[..., str]


@pytest.fixture
def cli(instance: Instance, tmp_path: Path) -> Cli:
    return Cli(instance, tmp_path)


@pytest.fixture
def register(instance: Instance) -> Register:
    """Return a function that registers a suite's emulator for an architecture, and returns its path."""

    def register(suite: str, name: str, flags: Flags = Flags.F) -> str:
        path = emulator(suite, name)
        instance.add(f"my-{name}", CATALOG[name].match, path, flags)
        return str(path)

    return register


@pytest.mark.parametrize("suite", PACKAGES)
def test_all_platforms(cli: Cli, register: Register, suite: str) -> None:
    """Each platform passes all checks but those that the known faults of the version let fail."""
    paths = {name: register(suite, name) for name in EMULATED}
    done = cli("probe", "--deep", "--json", *EMULATED)
    assert done.status == 1  # of each version some check fails
    rows = platforms(done)
    assert len(rows) == len(EMULATED) + 1  # two of Arm
    for row in rows.values():
        wanted = expected(row["name"], paths[row["name"]])
        assert outcomes(row) == dict.fromkeys(UNNEEDED.get(suite, ()), "unneeded") | wanted, row["checks"]
        if wanted.get("openat2") == "missing":
            text = reason(row, "openat2")
            assert text.startswith(f"QEMU {version(suite)}")
            assert "Use QEMU 9.2 or later." in text


def test_flag_p_unseen(cli: Cli, register: Register) -> None:
    """QEMU 5.2 does not see flag P: the check of the arguments fails, and names the fault."""
    path = register("bullseye", "s390x", Flags.P | Flags.F)
    done = cli("probe", "--deep", "--json", "s390x")
    (row,) = platforms(done).values()
    assert outcomes(row) == dict.fromkeys(UNNEEDED["bullseye"], "unneeded") | expected("s390x", path, Flags.P | Flags.F)
    assert reason(row, "start").startswith("failed: the number of arguments: flag P of the entry does not suit")
    assert "a known fault of QEMU 5.2.0: QEMU does not see the entry's flag P" in reason(row, "start")


@pytest.mark.parametrize("machine", LIBRARIES)
def test_dynamic_programs(cli: Cli, register: Register, tmp_path: Path, machine: str) -> None:
    """A dynamic program runs in a root tree of each architecture, but not through an entry without F."""
    tree = dynamic_tree(machine, tmp_path / "tree")
    (architecture,) = {each.architecture for each in DEEP_PROGRAMS if each.file == machine}
    register("trixie", architecture)
    done = cli("probe", "--deep", "--json", "--root", str(tree), architecture)
    row = next(iter(platforms(done).values()))
    assert DYNAMIC not in outcomes(row), reason(row, DYNAMIC)
    cli.instance.remove(f"my-{architecture}")
    register("trixie", architecture, Flags.NONE)
    done = cli("probe", "--deep", "--json", "--root", str(tree), architecture)
    row = next(iter(platforms(done).values()))
    assert outcomes(row)[DYNAMIC] == "fails"
    assert "then its entry lacks flag F" in reason(row, DYNAMIC)
