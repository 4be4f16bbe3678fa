"""The choice among the files of an image: one static emulator for this host's machine for each architecture."""

import os
from collections.abc import Collection, Mapping
from typing import NamedTuple

from binfmtd.catalog.architectures import CATALOG
from binfmtd.cli.store.layers import Unpacked, architecture_of_file
from binfmtd.formats.elf import ET_DYN, ET_EXEC, parse_elf
from binfmtd.model.guard import NativeHeader

_SECOND = "another file for the same architecture comes first"
_LOST = "a link that leads to no emulator of this source"


class Choice(NamedTuple):
    """The files to take, by architecture, and those that are left out: reason -> paths in the image.

    A file is not listed as unfit if another one is taken for its architecture: Debian has text files of such names.
    """

    files: dict[str, Unpacked]
    left_out: dict[str, list[str]]


def choose(
    found: Mapping[str, Unpacked],
    native: NativeHeader,
    wanted: Collection[str] | None = None,
    lost: Collection[str] = (),
) -> Choice:
    """Judge what ``Unpacker.found`` and ``lost`` returned; ``wanted`` are architectures, None stands for all.

    Of several files for one architecture the first in the order of their paths is taken.  Raises OSError.
    """
    files: dict[str, Unpacked] = {}
    unfit: list[tuple[str, str, str]] = []
    for path, file in found.items():
        architecture = architecture_of_file(path.rpartition("/")[2])
        if architecture is None or (wanted is not None and architecture not in wanted):
            continue
        if reason := why_not(file.path, native):
            unfit.append((architecture, reason, path))
        elif files.setdefault(architecture, file).path != file.path:
            unfit.append(("", _SECOND, path))
    for path in lost:
        architecture = architecture_of_file(path.rpartition("/")[2])
        if architecture is not None and (wanted is None or architecture in wanted):
            unfit.append((architecture, _LOST, path))
    left_out: dict[str, list[str]] = {}
    for architecture, reason, path in unfit:
        if architecture not in files:
            left_out.setdefault(reason, []).append(path)
    return Choice(files, left_out)


def why_not(path: str, native: NativeHeader) -> str | None:
    """Return why a file cannot be an emulator in the store, or None.  Raises OSError."""
    with open(path, "rb", buffering=0) as file:
        elf = parse_elf(lambda offset, size: os.pread(file.fileno(), size, offset) if offset < 1 << 62 else b"")
    if elf is None:
        return "not an ELF program"
    if elf.damage:
        return f"damaged: {elf.damage}"
    if elf.e_type not in (ET_EXEC, ET_DYN):
        return "not a program"
    if (elf.bits == 64, elf.byte_order == "little", elf.machine) != (
        native.elf_class == 2,
        native.byte_order == 1,
        native.machine,
    ):
        return f"for {machine_name(elf.machine, elf.bits, elf.byte_order)}, and this host is {name_of(native)}"
    if elf.linker is not None:
        return f"dynamic (it needs {elf.linker}), so it would not run in containers and chroots"
    return None


def name_of(native: NativeHeader) -> str:
    """Return the name of this host's machine in the catalog."""
    bits, order = 64 if native.elf_class == 2 else 32, "little" if native.byte_order == 1 else "big"
    return machine_name(native.machine, bits, order)


def goarch_of(native: NativeHeader) -> str | None:
    """Return the name of this host's machine in OCI platforms, or None if there are no images for it."""
    architecture = CATALOG.get(name_of(native))
    return architecture.goarch if architecture else None


def machine_name(machine: int, bits: int, order: str) -> str:
    """Return the first architecture of the catalog that has such a header; the machine's number if there is none."""
    rows = (row.name for row in CATALOG.values() if tuple(row.header[:3]) == (bits, order, machine))
    return next(rows, f"machine {machine}")
