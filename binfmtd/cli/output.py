"""What commands print: results on stdout, anything else on stderr."""

import json
import sys
from collections.abc import Sequence

from binfmtd.cli.table import table
from binfmtd.report.printable import printable


def print_json(document: object) -> None:
    """One JSON document on stdout."""
    print(json.dumps(document, indent=2))


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they must be, the first row being the heading."""
    for line in table(rows):
        print(line)


def warn(text: str) -> None:
    """One line on stderr."""
    print(f"binfmtd: {printable(text)}", file=sys.stderr)
