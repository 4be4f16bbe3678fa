"""``binfmtd doctor``: one page about everything that decides whether foreign programs run here.

It registers nothing and repairs nothing.  It runs emulators, to ask for their versions, but only those that no other
user could replace; and tiny programs in a namespace of their own.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence

from binfmtd.cli import options
from binfmtd.cli.doctor import config_and_daemon as keeper
from binfmtd.cli.doctor import emulators, entries, faults, host, managers, security
from binfmtd.cli.doctor import mounts as place
from binfmtd.cli.doctor.snapshot import Snapshot
from binfmtd.cli.output import print_json
from binfmtd.model.finding import Finding, Level, count, exit_status


def parser() -> argparse.ArgumentParser:
    """Return the parser for ``binfmtd doctor``."""
    command = options.parser(
        "doctor",
        epilog="Exit status 1 if there is a failure.  Lines after $ are commands to run, or lines for the config.",
    )
    options.add_config(command)
    options.add_mount(command)
    options.add_state_dir(command)
    options.add_json(command)
    return command


def main(arguments: Sequence[str]) -> int:
    """Print the findings; return 1 if one of them is a failure, else 0."""
    given = parser().parse_args(arguments)
    findings = list(look(Snapshot.gather(given)))
    if given.json:
        print_json(_document(findings))
    else:
        from binfmtd.cli.doctor.render import page
        from binfmtd.cli.table import size_of
        from binfmtd.report.colour import takes_colours

        size = size_of(sys.stdout)
        lines = page(findings, None if size is None else size.columns, coloured=takes_colours(sys.stdout))
        print("\n".join(lines))
    return exit_status(findings)


def look(snapshot: Snapshot) -> Iterator[Finding]:
    """Yield every finding, section by section."""
    yield from host.of_kernel()
    yield from host.of_module()
    yield from place.of_mount(snapshot)
    yield from place.of_user_namespace(snapshot)
    yield from host.of_privileges(snapshot)
    yield from managers.of_managers(snapshot)
    yield from entries.of_entries(snapshot)
    yield from security.of_labels(snapshot)
    yield from emulators.of_emulators(snapshot)
    yield from faults.of_faults(snapshot)
    yield from keeper.of_config(snapshot)
    yield from keeper.of_daemon(snapshot)
    yield from security.of_denials(snapshot)


def _document(findings: Sequence[Finding]) -> dict[str, object]:
    """Return all findings, also those that the page leaves out; ``not_seen`` has those that could not be made."""
    return {
        "failures": count(findings, Level.FAILURE),
        "warnings": count(findings, Level.WARNING),
        "findings": [
            {
                "section": finding.section.value.replace(" ", "_"),
                "check": finding.check,
                "level": finding.level.value,
                "text": finding.text,
                "remedy": finding.remedy or None,
            }
            for finding in findings
            if finding.level is not Level.UNSEEN
        ],
        "not_seen": [
            {"section": finding.section.value.replace(" ", "_"), "check": finding.check, "text": finding.text}
            for finding in findings
            if finding.level is Level.UNSEEN
        ],
    }
