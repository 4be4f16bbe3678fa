"""The platforms of tonistiigi/binfmt: their order, their names, and which of them run."""

from collections.abc import Callable, Mapping

from binfmtd.catalog.architectures import CATALOG, Architecture
from binfmtd.catalog.levels import LEVELS
from binfmtd.catalog.names import find
from binfmtd.catalog.program import tiny_program
from binfmtd.errors import FormatError
from binfmtd.host.probe_process import Attempt
from binfmtd.model.match import takes

Probe = Callable[[str, bytes], Attempt]

ORDER = (
    "x86_64",
    "aarch64",
    "riscv64",
    "ppc64",
    "ppc64le",
    "s390x",
    "i386",
    "mips64el",
    "mips64",
    "loongarch64",
    "arm",
)
"""The architectures (QEMU's names) that ``--install all`` considers, and that ``supported`` may list."""


def architecture_of(token: str) -> Architecture | None:
    """Return the architecture of a platform, in any spelling (catalog/names.py); None for an unknown name."""
    try:
        return find(token)
    except FormatError:
        return None


def go_name(architecture: Architecture) -> str:
    """Return Go's name of an architecture, as the log lines have it; QEMU's name if Go has none."""
    return architecture.goarch or architecture.name


def native_architecture(own_head: bytes) -> str | None:
    """Return QEMU's name of the architecture of this process, from the first bytes of its program; None if unknown."""
    return next((name for name, row in CATALOG.items() if takes(row.match, own_head)), None)


def survey(native: str | None, probe: Probe) -> dict[str, Attempt]:
    """Try each platform and the levels of those that run; return name, ``name/level`` -> result.  Raises ProbeError."""
    attempts: dict[str, Attempt] = {}
    for name in dict.fromkeys(name for name in (native, *ORDER) if name):
        attempts[name] = probe(name, tiny_program(CATALOG[name]))
        if attempts[name].runs:
            attempts |= {f"{name}/{level}": probe(level, program) for level, program in LEVELS.get(name, {}).items()}
    return attempts


def supported(native: str | None, attempts: Mapping[str, Attempt]) -> list[str]:
    """Return the list ``supported`` from ``survey``'s results: our own platform first, even if its trial failed."""

    def runs(name: str) -> bool:
        return name in attempts and attempts[name].runs

    platforms: list[str] = []
    for name in dict.fromkeys(name for name in (native, *ORDER) if name):
        if name != native and not runs(name):
            continue
        platform = CATALOG[name].platform or f"linux/{name}"
        levels = [f"{platform}/{level}" for level in LEVELS.get(name, {}) if runs(f"{name}/{level}")]
        if name == "arm":  # listed only with a version; below v6 it is v5, Go's oldest
            platforms += levels or [f"{platform}/v5"]
        else:
            platforms += [platform, *levels]
    return platforms
