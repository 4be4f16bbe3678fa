"""The state directory that a command line means, and another command line that means the same places."""

import argparse
import os

from binfmtd.daemon.state_files.state_dir import ROOT_STATE_DIR, default_state_dir
from binfmtd.errors import StateError


def state_dir(arguments: argparse.Namespace) -> str:
    """Return the absolute path of the state directory that ``--state-dir`` names, or of the default one.

    Raises StateError.
    """
    named: str | None = arguments.state_dir
    return os.path.abspath(named or default_state_dir())


def state_dir_to_read(arguments: argparse.Namespace) -> str:
    """Return the state directory of the daemon that a command asks about.

    It is the one that is named; else the user's own, if it exists; else root's, if it exists or the user has none.
    """
    if arguments.state_dir or os.environ.get("BINFMTD_STATE_DIR"):
        return state_dir(arguments)
    own = state_dir_or_none(arguments)
    if own is None or not os.path.exists(own):
        return own if own and not os.path.exists(ROOT_STATE_DIR) else ROOT_STATE_DIR
    return own


def state_dir_or_none(arguments: argparse.Namespace) -> str | None:
    """Return the state directory; None where there is no default, for a command that works without one."""
    try:
        return state_dir(arguments)
    except StateError:
        return None


def again(given: argparse.Namespace, command: str) -> str:
    """Return a command of binfmtd with the --config, --mount and --state-dir of the command line ``given``."""
    import shlex

    words = ["binfmtd", *command.split()]
    for option in ("config", "mount", "state_dir"):
        if (value := getattr(given, option)) is not None:
            words += [f"--{option.replace('_', '-')}", value]
    return shlex.join(words)


def for_another_daemon() -> str:
    """Return how a command reaches a daemon that has another state directory."""
    from binfmtd.files.distribution import in_image

    there = ", or run this command in its container, as by `docker exec`" if in_image() else ""
    return f"name its own with --state-dir{there}"
