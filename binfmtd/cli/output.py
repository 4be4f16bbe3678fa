"""What commands print: results on stdout, anything else on stderr."""

import json
import sys
from collections.abc import Sequence

from binfmtd.cli.table import table, width_of, wrapped
from binfmtd.report.printable import printable


def print_json(document: object) -> None:
    """One JSON document on stdout."""
    print(json.dumps(document, indent=2))


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """A table that fits the terminal, the first row being the heading."""
    for lines in table(rows, width_of(sys.stdout)):
        print("\n".join(lines))


def warn(text: str) -> None:
    """One line on stderr, on a terminal as many as it takes."""
    print("\n".join(wrapped(printable(text), width_of(sys.stderr), "binfmtd: ", "  ")), file=sys.stderr)
