"""``binfmtd arch``: list the architectures of the catalog, and how this host runs the programs of each."""

import argparse
from collections.abc import Sequence

from binfmtd.catalog.architectures import CATALOG, Architecture
from binfmtd.catalog.names import find as find_architecture
from binfmtd.cli import options
from binfmtd.cli.context import load_config, observe
from binfmtd.cli.output import print_json, print_table
from binfmtd.cli.state import state_dir, state_dir_or_none
from binfmtd.daemon.interpreters.host_facts import HostFacts
from binfmtd.daemon.state_files.state_dir import make_state_dir
from binfmtd.errors import FormatError, UsageError
from binfmtd.files.trust import Trust
from binfmtd.host.emulations import version_text
from binfmtd.host.emulator_settings import described, settings_in
from binfmtd.host.interpreters import look_at
from binfmtd.model.resolve import first_to_use


def parser() -> argparse.ArgumentParser:
    """Return the parser for ``binfmtd arch``."""
    command = options.parser("arch")
    command.add_argument("names", metavar="NAME", nargs="*", help="only these architectures (any alias)")
    command.add_argument(
        "--record",
        action="store_true",
        help="print nothing: only find out which architectures run natively, and store that in the state directory for "
        "this boot, for a daemon whose sandbox does not allow this test",
    )
    options.add_config(command)
    options.add_mount(command)
    options.add_state_dir(command)
    options.add_json(command)
    return command


def main(arguments: Sequence[str]) -> int:
    """List the architectures and return 0.

    Raises UsageError for a name that the catalog does not have, and StateError if ``--record`` cannot store anything.
    """
    given = parser().parse_args(arguments)
    if given.record:
        make_state_dir(directory := state_dir(given))
        HostFacts(directory).record(observe(given.mount))
        return 0
    try:
        wanted = [find_architecture(name) for name in given.names] or list(CATALOG.values())
    except FormatError as error:
        raise UsageError(str(error)) from None
    config = load_config(given, architectures=("all",))
    native = HostFacts(state_dir_or_none(given)).native(observe(given.mount))
    candidates = {declared.architecture: declared.interpreters for declared in config.specs}
    known = look_at({path for a in wanted for path in candidates.get(a.name, ())}, Trust.of_this_process())
    emulators = {a.name: first_to_use(candidates.get(a.name, ()), known) for a in wanted}
    if given.json:
        print_json([_document(a, emulators[a.name], native=a.name in native) for a in wanted])
    else:
        rows = [
            (
                a.name,
                "natively" if a.name in native else "",
                emulators[a.name] or "-",
                described(emulators[a.name] or "") or "-",
                " ".join(a.aliases),
            )
            for a in wanted
        ]
        print_table([("NAME", "RUNS", "EMULATOR", "VERSION", "ALSO KNOWN AS"), *rows])
    return 0


def _document(architecture: Architecture, emulator: str | None, *, native: bool) -> dict[str, object]:
    match = architecture.match
    return {
        "name": architecture.name,
        "aliases": list(architecture.aliases),
        "interpreter": emulator,
        "version": version_text(emulator or "") or None,
        "settings": settings_in(emulator or ""),
        "native": native,
        "magic": match.magic.hex(),
        "mask": (match.mask or b"\xff" * len(match.magic)).hex(),
    }
