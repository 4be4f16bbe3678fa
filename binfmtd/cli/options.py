"""The options that commands share."""

import argparse
import os
from typing import NoReturn

from binfmtd.cli.main import COMMANDS
from binfmtd.config.source import DEFAULT_PATH
from binfmtd.errors import UsageError
from binfmtd.kernel.mount import DEFAULT_DIRECTORY


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every error of ours."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(f"{message}: see `{self.prog} --help`")


def parser(command: str, *, epilog: str = "") -> argparse.ArgumentParser:
    """A parser for one command, described as in ``binfmtd --help``; it raises UsageError."""
    text = COMMANDS[command]
    return _Parser(
        prog=f"binfmtd {command}",
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=epilog or None,
        allow_abbrev=False,
    )


def add_config(to: argparse.ArgumentParser) -> None:
    """``--config``."""
    to.add_argument(
        "--config",
        metavar="FILE",
        default=os.environ.get("BINFMTD_CONFIG") or None,
        help=f"the config, with conf.d/*.toml beside it ($BINFMTD_CONFIG, or {DEFAULT_PATH})",
    )


def add_mount(to: argparse.ArgumentParser) -> None:
    """``--mount``."""
    to.add_argument("--mount", metavar="DIR", help=f"where binfmt_misc is mounted ({DEFAULT_DIRECTORY}, or found)")


def add_state_dir(to: argparse.ArgumentParser) -> None:
    """``--state-dir``."""
    to.add_argument(
        "--state-dir",
        metavar="DIR",
        help="ledger, status and lock ($BINFMTD_STATE_DIR; root: /run/binfmtd; else $XDG_RUNTIME_DIR/binfmtd)",
    )


def add_json(to: argparse.ArgumentParser) -> None:
    """``--json``."""
    to.add_argument("--json", action="store_true", help="print the result as JSON")


def add_log(to: argparse.ArgumentParser, level: str = "info") -> None:
    """``--log-level`` and ``--log-format``."""
    to.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default=level, help="(default: %(default)s)"
    )
    to.add_argument(
        "--log-format",
        choices=("auto", "console", "logfmt", "json"),
        default="auto",
        help="auto: coloured on a terminal, JSON as process 1 of a container, else key=value",
    )
