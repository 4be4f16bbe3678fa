"""One row of the catalog: an architecture, by what it is told from others and by what it is called.

Names are kept by who uses them, each as its users write it; ``aliases`` gathers them.
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
    goarch: str | None = None  # as in OCI platforms; None where nobody makes images for it
    variants: tuple[str, ...] = ()  # of the OCI platform (Go's GOARM, GOARM64, GOAMD64, GORISCV64)
    debian: tuple[str, ...] = ()
    gnu: tuple[str, ...] = ()  # GNU's CPU and `uname -m`
    other: tuple[str, ...] = ()  # of distributions, languages, container images: understood, never suggested


class Architecture(_Row):
    """A Linux target of QEMU."""

    @cached_property
    def match(self) -> Magic:
        """The magic and mask that take its programs."""
        return derive_match(self.header, self.compared)

    @cached_property
    def oci(self) -> tuple[str, ...]:
        """Its OCI platforms, the one without a variant first; empty where there is none."""
        if self.goarch is None:
            return ()
        platform = f"linux/{self.goarch}"
        return (platform, *(f"{platform}/{variant}" for variant in self.variants))

    @property
    def platform(self) -> str | None:
        """Its OCI platform as one types it for ``docker --platform``, or None."""
        return self.oci[0] if self.oci else None

    @cached_property
    def aliases(self) -> tuple[str, ...]:
        """Every name but its own, each once, plain names before OCI platforms."""
        goarch = () if self.goarch is None else (self.goarch,)
        names = dict.fromkeys((*goarch, *self.debian, *self.gnu, *self.other, *self.oci))
        return tuple(name for name in names if name != self.name)
