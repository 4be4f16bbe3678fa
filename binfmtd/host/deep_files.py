"""The programs of ``binfmtd probe --deep``: those that come with binfmtd, and the dynamic ones of a root tree."""

import os
from typing import NamedTuple

from binfmtd.catalog.deep_checks import DeepProgram, program_of
from binfmtd.errors import ProbeError, UsageError
from binfmtd.files.packaged import read_packaged
from binfmtd.host.exec_files import Programs
from binfmtd.model.execution import Refusal

_DIRECTORY = "host/deep_programs"
# Programs that do nothing, with their arguments; the first one that exists and is dynamic is run.
_DO_NOTHING = (("/bin/true",), ("/usr/bin/true",), ("/bin/sh", "-c", ":"))


class Tree(NamedTuple):
    """A root tree: ``words`` are the argv of its dynamic program, and ``file`` is that program's path as we see it."""

    root: str
    program: DeepProgram
    words: tuple[str, ...]
    file: str


def deep_program(program: DeepProgram, build: str) -> bytes:
    """Return the content of a program.  Raises ProbeError if its file cannot be read."""
    try:
        return read_packaged(f"{_DIRECTORY}/{program.file}-{build}")
    except OSError as error:
        raise ProbeError(f"{error.filename}: {error.strerror}: install binfmtd again") from None


def tree_at(root: str) -> Tree:
    """Find a dynamic program that does nothing in a root tree.

    Raises UsageError if there is none, or if it is for an architecture that has no deep checks.
    """
    programs = Programs(os.path.realpath(root), frozenset)
    for words in _DO_NOTHING:
        opened = programs.open(words[0])
        elf = None if isinstance(opened, Refusal) else programs.elf(opened.place)
        if isinstance(opened, Refusal) or elf is None or elf.linker is None:
            continue
        program = program_of(elf.bits, elf.byte_order, elf.machine)
        if program is None:
            raise UsageError(
                f"--root {root}: its {words[0]} is for the ELF machine {elf.machine}, which has no deep checks: name "
                "the tree of another architecture"
            )
        return Tree(os.path.realpath(root), program, words, opened.place)
    names = ", ".join(words[0] for words in _DO_NOTHING[:-1])
    raise UsageError(
        f"--root {root}: it has no dynamic program {names} or {_DO_NOTHING[-1][0]} that may be executed: name the root "
        "directory of a system"
    )
