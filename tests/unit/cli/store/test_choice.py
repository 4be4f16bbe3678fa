"""The choice of one static emulator for this machine for each architecture."""

from pathlib import Path

import pytest
from support.elf_files import made

from binfmtd.cli.store.choice import choose, goarch_of, machine_name, name_of, why_not
from binfmtd.cli.store.layers import Unpacked
from binfmtd.model.guard import NativeHeader

X86_64 = NativeHeader(2, 1, 62)
STATIC = made((1, b"code"), machine=62)
DYNAMIC = made((3, b"/lib64/ld-linux-x86-64.so.2\0"), machine=62)


def files(directory: Path, contents: dict[str, bytes]) -> dict[str, Unpacked]:
    found = {}
    for number, (path, content) in enumerate(contents.items()):
        (directory / str(number)).write_bytes(content)
        found[path] = Unpacked(str(directory / str(number)), len(content))
    return found


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (STATIC, None),
        (made((1, b"code"), machine=62, e_type=2), None),
        (b"#!/bin/sh\n", "not an ELF program"),
        (b"", "not an ELF program"),
        (DYNAMIC, "dynamic (it needs /lib64/ld-linux-x86-64.so.2), so it would not run in containers and chroots"),
        (made((1, b"code"), machine=183), "for aarch64, and this host is x86_64"),
        (made((1, b"code"), machine=3, bits=32), "for i386, and this host is x86_64"),
        (made((1, b"code"), machine=22, order=">"), "for s390x, and this host is x86_64"),
        (made((1, b"code"), machine=9999), "for machine 9999, and this host is x86_64"),
        (made((1, b"code"), machine=62, e_type=1), "not a program"),
        (STATIC[:70], "damaged: it is cut off within its program headers"),
        (STATIC[:32] + b"\xff" * 8 + STATIC[40:], "damaged: it is cut off within its program headers"),  # e_phoff
    ],
)
def test_why_not(tmp_path: Path, content: bytes, reason: str | None) -> None:
    """A file has to be a static program for this machine; each other kind has its own reason."""
    (tmp_path / "file").write_bytes(content)
    assert why_not(str(tmp_path / "file"), X86_64) == reason


def test_of_several(tmp_path: Path) -> None:
    """The first fit file in the order of paths is taken; another fit one is listed, an unfit one is not."""
    found = files(
        tmp_path,
        {
            "usr/bin/qemu-arm": DYNAMIC,
            "usr/bin/qemu-arm-static": STATIC,
            "usr/bin/qemu-mips": DYNAMIC,
            "usr/bin/qemu-ppc": b"text",
            "usr/bin/qemu-sh4": STATIC + b"1",
            "usr/local/bin/qemu-sh4": STATIC + b"2",
        },
    )
    found["usr/bin/qemu-sh4-static"] = found["usr/bin/qemu-sh4"]  # a link
    choice = choose(found, X86_64)
    assert {name: file.path for name, file in choice.files.items()} == {
        "arm": found["usr/bin/qemu-arm-static"].path,
        "sh4": found["usr/bin/qemu-sh4"].path,
    }
    assert list(choice.left_out.values()) == [["usr/bin/qemu-mips"], ["usr/bin/qemu-ppc"], ["usr/local/bin/qemu-sh4"]]
    assert choose(found, X86_64, ["sh4"]).files.keys() == {"sh4"}
    assert choose(found, X86_64, ["mips"]).left_out == {
        "dynamic (it needs /lib64/ld-linux-x86-64.so.2), so it would not run in containers and chroots": [
            "usr/bin/qemu-mips"
        ]
    }


def test_names_of_machines() -> None:
    """A host has a name in the catalog, and another one in OCI platforms; without images it has none."""
    assert (name_of(X86_64), goarch_of(X86_64)) == ("x86_64", "amd64")
    assert goarch_of(NativeHeader(2, 1, 0x9026)) is None
    assert machine_name(40, 32, "little") == "arm"
