"""Levels of an architecture: real emulators with several CPUs show that the programs distinguish the levels."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest
from support.programs import install

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.levels import LEVELS

# CPU as its emulator calls it -> the levels that it has.
CPUS = {
    ("x86_64", "qemu64"): (),
    ("x86_64", "Conroe-v1"): (),
    ("x86_64", "Westmere"): ("v2",),
    ("x86_64", "Opteron_G4-v1,+avx2,+bmi1,+bmi2,+fma,+f16c"): ("v2",),  # no MOVBE
    ("x86_64", "Haswell,-rtm,-hle,-invpcid,-pcid,-x2apic,-tsc-deadline"): ("v2", "v3"),
    ("x86_64", "max"): ("v2", "v3"),  # QEMU's emulator has no AVX-512
    ("arm", "arm926"): (),
    ("arm", "arm1176"): ("v6",),
    ("arm", "cortex-a7"): ("v6", "v7"),
    ("arm", "max"): ("v6", "v7"),
}


def running(name: str, directory: Path, *emulator: str) -> list[str]:
    """Return the levels of an architecture whose programs exit with 42; those of other levels fail, and in time."""
    found = []
    for level, program in LEVELS[name].items():
        command = [*emulator, str(install(directory / level, program))]
        if subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 42:
            found.append(level)
    return found


@pytest.mark.parametrize(("name", "cpu"), CPUS)
def test_exactly_the_levels_of_a_cpu_run(name: str, cpu: str, tmp_path: Path) -> None:
    """On each CPU exactly the programs of its levels exit with 42; those of other levels fail, and in time."""
    emulator = shutil.which(f"qemu-{name}") or shutil.which(f"qemu-{name}-static")
    if emulator is None:
        pytest.skip(f"qemu-{name} is not installed: apt-get install qemu-user")
    assert sorted(running(name, tmp_path, emulator, "-cpu", cpu)) == list(CPUS[name, cpu])


def test_levels_are_variants_of_the_platform() -> None:
    """Each level is a variant of its architecture's OCI platform, and has its own program."""
    for name, levels in LEVELS.items():
        assert set(levels) <= set(CATALOG[name].variants)
        assert len({*levels.values()}) == len(levels)


def test_the_kernel_agrees(tmp_path: Path) -> None:
    """On an x86-64 host the levels that run are those whose features Linux lists in /proc/cpuinfo."""
    if platform.machine() != "x86_64":
        pytest.skip("not an x86-64 host")
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = set(next(line for line in lines if line.startswith("flags")).split())
    features = {
        "v2": "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3",
        "v3": "avx avx2 bmi1 bmi2 f16c fma abm movbe xsave",
        "v4": "avx512f avx512bw avx512cd avx512dq avx512vl",
    }
    expected = []
    for level, words in features.items():
        if not set(words.split()) <= flags:
            break
        expected.append(level)
    assert running("x86_64", tmp_path) == expected
