"""Which state directory a command line means."""

import argparse
import os

from binfmtd.daemon.state_dir import ROOT_STATE_DIR, default_state_dir
from binfmtd.errors import StateError


def state_dir(arguments: argparse.Namespace) -> str:
    """The state directory that ``--state-dir`` names, or the usual one.  Raises StateError."""
    named: str | None = arguments.state_dir
    return named or default_state_dir()


def state_dir_to_read(arguments: argparse.Namespace) -> str:
    """The same for reading: without one of one's own, root's daemon is the one that is meant.  Raises StateError."""
    if arguments.state_dir or os.environ.get("BINFMTD_STATE_DIR"):
        return state_dir(arguments)
    own = state_dir_or_none(arguments)
    if own is None or not os.path.exists(own):
        return own if own and not os.path.exists(ROOT_STATE_DIR) else ROOT_STATE_DIR
    return own


def state_dir_or_none(arguments: argparse.Namespace) -> str | None:
    """The same for commands that only read, and do without."""
    try:
        return state_dir(arguments)
    except StateError:
        return None
