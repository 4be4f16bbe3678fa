"""The output of commands: results on stdout, everything else on stderr."""

import json
import sys
from collections.abc import Sequence

from binfmtd.cli.table import table, width_of, wrapped
from binfmtd.report.printable import printable


def print_json(document: object) -> None:
    """Print one JSON document to stdout."""
    print(json.dumps(document, indent=2))


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print a table that fits the terminal; the first row is the heading."""
    for lines in table(rows, width_of(sys.stdout)):
        print("\n".join(lines))


def warn(text: str) -> None:
    """Print a message to stderr: in one line, or on a terminal wrapped to its width."""
    print("\n".join(wrapped(printable(text), width_of(sys.stderr), "binfmtd: ", "  ")), file=sys.stderr)
