"""One row of the catalog: an architecture's ELF header, the code of its tiny program, and its names.

Names are kept by the projects that use them, each spelt as there; ``aliases`` contains them all.
"""

from functools import cached_property
from typing import NamedTuple

from binfmtd.catalog.elf import GENERAL_RULE, Compared, ElfHeader, derive_match
from binfmtd.model.match import Magic


class _Row(NamedTuple):
    name: str  # QEMU's: its emulator is qemu-NAME
    header: ElfHeader
    exit42: bytes  # machine code of exit(42)
    compared: Compared = GENERAL_RULE
    goarch: str | None = None  # as in OCI platforms; None if there are no images for it
    variants: tuple[str, ...] = ()  # of the OCI platform (Go's GOARM, GOARM64, GOAMD64, GORISCV64)
    debian: tuple[str, ...] = ()
    gnu: tuple[str, ...] = ()  # GNU's CPU and `uname -m`
    other: tuple[str, ...] = ()  # of distributions, languages, container images: accepted, never suggested


class Architecture(_Row):
    """A Linux target of QEMU."""

    @cached_property
    def match(self) -> Magic:
        """The magic and mask that take its programs."""
        return derive_match(self.header, self.compared)

    @cached_property
    def oci(self) -> tuple[str, ...]:
        """Its OCI platforms, the one without a variant first; empty if there is none."""
        if self.goarch is None:
            return ()
        platform = f"linux/{self.goarch}"
        return (platform, *(f"{platform}/{variant}" for variant in self.variants))

    @property
    def platform(self) -> str | None:
        """Its OCI platform as written after ``docker --platform``, or None."""
        return self.oci[0] if self.oci else None

    @cached_property
    def aliases(self) -> tuple[str, ...]:
        """All names except ``name``, each once, plain names before OCI platforms."""
        goarch = () if self.goarch is None else (self.goarch,)
        names = dict.fromkeys((*goarch, *self.debian, *self.gnu, *self.other, *self.oci))
        return tuple(name for name in names if name != self.name)
