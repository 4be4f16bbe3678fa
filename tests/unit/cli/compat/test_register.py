"""The handlers that the images without a list of platforms register."""

from pathlib import Path

from binfmtd.catalog.architectures import CATALOG
from binfmtd.cli.compat.register import every_architecture
from binfmtd.model.handler import Flags


def test_every_architecture_with_an_emulator(tmp_path: Path) -> None:
    """A foreign architecture gets a handler if an executable emulator lies at one of the paths."""
    for name, mode in (("qemu-arm-static", 0o755), ("qemu-mips", 0o755), ("qemu-i386", 0o755), ("qemu-alpha", 0o644)):
        (tmp_path / name).touch(mode)
    patterns = [f"{tmp_path}/qemu-{{name}}-static", f"{tmp_path}/qemu-{{name}}"]
    arm, mips = every_architecture({"i386", "x86_64"}, patterns, Flags.F)
    assert (arm.name, arm.match, arm.flags) == ("qemu-arm", CATALOG["arm"].match, Flags.F)
    assert mips.interpreters == (f"{tmp_path}/qemu-mips-static", f"{tmp_path}/qemu-mips")


def test_even_without_emulators() -> None:
    """For other root directories every foreign architecture is declared, and its path is not looked at."""
    declared = list(every_architecture({"x86_64"}, ["/nowhere/qemu-{name}-static"], Flags.NONE, even_without=True))
    assert [each.architecture for each in declared] == [name for name in CATALOG if name != "x86_64"]
    assert {each.interpreters for each in declared} >= {("/nowhere/qemu-arm-static",)}
