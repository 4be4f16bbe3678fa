"""The catalog's table: it is complete, has a fixed order, and no name in it means two architectures."""

from collections import Counter

import pytest

from binfmtd.catalog.architectures import CATALOG, Architecture
from binfmtd.catalog.elf import ElfHeader

# Every Linux target of QEMU 10.
TARGETS = """
aarch64 aarch64_be alpha arm armeb hexagon hppa i386 x86_64 loongarch64 m68k microblaze microblazeel mips mipsel mips64
mips64el mipsn32 mipsn32el or1k ppc ppc64 ppc64le riscv32 riscv64 s390x sh4 sh4eb sparc sparc32plus sparc64 xtensa
xtensaeb
""".split()  # noqa: SIM905  33 quoted words are harder to read


def test_all_targets_in_a_fixed_order() -> None:
    """The catalog has QEMU's 33 targets, each under its own name, always in the same order."""
    assert list(CATALOG) == TARGETS
    assert [row.name for row in CATALOG.values()] == TARGETS


def test_no_name_belongs_to_two() -> None:
    """Each name means one architecture, in any case and with or without ``linux/``."""
    names = Counter(
        spelling
        for row in CATALOG.values()
        for spelling in {name.lower().removeprefix("linux/") for name in (row.name, *row.aliases)}
    )
    assert [name for name, owners in names.items() if owners > 1] == []


@pytest.mark.parametrize("row", CATALOG.values(), ids=CATALOG)
def test_aliases_are_distinct_and_other_than_the_name(row: Architecture) -> None:
    """Aliases differ from the name and from each other, and are in lower case without blanks."""
    assert row.name not in row.aliases
    assert len(set(row.aliases)) == len(row.aliases)
    assert all(name == name.strip().lower() and name for name in row.aliases)


def test_aliases_have_a_stable_order() -> None:
    """Aliases come in a fixed order: short names by their users, then OCI platforms; none comes twice."""
    row = Architecture(
        "own",
        ElfHeader(64, "little", 1),
        b"",
        goarch="go",
        variants=("v1",),
        debian=("deb", "own"),
        gnu=("gnu", "deb"),
        other=("x",),
    )
    assert row.aliases == ("go", "deb", "gnu", "x", "linux/go", "linux/go/v1")


@pytest.mark.parametrize(
    ("name", "platform"),
    [
        ("aarch64", "linux/arm64"),
        ("arm", "linux/arm"),
        ("i386", "linux/386"),
        ("x86_64", "linux/amd64"),
        ("loongarch64", "linux/loong64"),
        ("mips64el", "linux/mips64le"),
        ("ppc64le", "linux/ppc64le"),
        ("riscv64", "linux/riscv64"),
        ("s390x", "linux/s390x"),
        ("alpha", None),
    ],
)
def test_platform(name: str, platform: str | None) -> None:
    """The OCI platform is the argument of ``docker --platform``, without a variant, or None if there is none."""
    assert CATALOG[name].platform == platform
    assert CATALOG[name].oci[:1] == (() if platform is None else (platform,))


def test_catalog_cannot_be_changed() -> None:
    """The table cannot be changed at run time."""
    with pytest.raises(TypeError):
        CATALOG["x"] = CATALOG["arm"]  # type: ignore[index]
