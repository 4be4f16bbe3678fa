"""Check the emulators: their versions, those that do not start, and architectures without an emulator."""

import os
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain

from binfmtd.catalog.architectures import CATALOG
from binfmtd.cli.doctor.remedies import split
from binfmtd.cli.doctor.snapshot import Snapshot
from binfmtd.files.distribution import emulators_remedy, install_emulators
from binfmtd.host.emulator_settings import in_words, settings_in
from binfmtd.model.finding import Finding, Level, Section


def of_emulators(snapshot: Snapshot) -> Iterator[Finding]:
    """Report QEMU's emulators on this host, used by an entry or not.

    One finding for each version with the settings that its files carry, one for each emulator that does not report its
    version or that another user could change, and one for the architectures without an emulator.
    """
    by_version: defaultdict[tuple[tuple[int, ...], str], list[str]] = defaultdict(list)
    for path, version in snapshot.versions.items():
        if isinstance(version, tuple):
            by_version[version, in_words(settings_in(path))].append(path)
        else:
            remedy = install_emulators(_architecture(path), again=True)
            yield _finding("broken", Level.FAILURE, f"{path}: {version}", remedy)
    for (version, settings), paths in sorted(by_version.items(), reverse=True):
        text = f"QEMU {'.'.join(map(str, version))}{f' with {settings}' if settings else ''}: {_places(paths)}"
        yield _finding("version", Level.OK, text)
    unsafe = sorted(path for path in snapshot.untrusted if path in snapshot.emulators.values())
    for path in unsafe:
        yield _finding("untrusted", Level.WARNING, *split(snapshot.untrusted[path]))
    yield from _missing(snapshot)


def _finding(check: str, level: Level, text: str, remedy: str = "") -> Finding:
    return Finding(Section.EMULATORS, check, level, text, remedy)


def _architecture(path: str) -> str:
    return os.path.basename(path).removeprefix("qemu-").removesuffix("-static")


def _places(paths: list[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{len(paths)} emulators, like {min(paths)}"


def _missing(snapshot: Snapshot) -> Iterator[Finding]:
    native = snapshot.facts.native(snapshot.observed)
    missing = [name for name in CATALOG if name not in snapshot.emulators and name not in native]
    runs = [f"run natively: {' '.join(sorted(native))}"] if native else []
    if not missing:
        yield _finding("missing", Level.OK, "; ".join(["every architecture has an emulator", *runs]))
    elif not snapshot.emulators:
        text = "; ".join(["no architecture has an emulator here", *runs])
        remedy = emulators_remedy(None, chain.from_iterable(snapshot.candidates.values()))
        yield _finding("missing", Level.WARNING, *split(f"{text}: {remedy}"))
    else:
        yield _finding("missing", Level.OK, "; ".join([f"no emulator for: {' '.join(missing)}", *runs]))
