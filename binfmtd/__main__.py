"""The entry point of ``python -m binfmtd``."""

from binfmtd.cli.main import entry

entry()
