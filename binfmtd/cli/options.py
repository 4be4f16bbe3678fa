"""The options that commands share, with their environment variables, and functions that read them."""

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from binfmtd.cli.main import COMMANDS
from binfmtd.cli.table import help_width
from binfmtd.config.file_versions import DEFAULT_PATH
from binfmtd.errors import FormatError, UsageError
from binfmtd.host.kernel_module import DEFAULT_DIRECTORY

if TYPE_CHECKING:
    from binfmtd.kernel.mount import Where

ALL = "all"
NONE = "none"
LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("auto", "console", "logfmt", "json")
_OF_BINFMT = {"install", "uninstall", "strict", "dir", "reset"}  # options of the command `binfmt` and other images
_ON = {"1", "true", "yes", "on"}
_OFF = {"0", "false", "no", "off", ""}


class _Formatter(argparse.HelpFormatter):
    """A help formatter that is as wide as the terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=help_width() - 2)


class _Parser(argparse.ArgumentParser):
    """A parser that reports an error as a UsageError, in one line, as every error of binfmtd.

    ``joins``: a list after ``--arch`` may contain blanks, so it ends with the next option.
    """

    def __init__(self, *, joins: bool = True, **options: Any) -> None:
        super().__init__(**options, formatter_class=_Formatter, allow_abbrev=False)
        self._joins = joins

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Join ``--arch`` and its list, then parse as argparse does; each of its methods calls this one."""
        joined = args if args is None or not self._joins else _join_architectures(args)
        return super().parse_known_args(joined, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise UsageError; for an option of the command `binfmt` it names that command."""
        _, _, unknown = message.partition("unrecognized arguments: ")
        if option := next((word for word in unknown.split() if _name(word) in _OF_BINFMT), None):
            whose = f"{option.partition('=')[0]} is an option of the command `binfmt`, which is part of binfmtd"
            raise UsageError(f"{whose}: run `binfmt {unknown}` (in a container, use the image binfmt)")
        raise UsageError(f"{message}: see `{self.prog} --help`")


def _name(option: str) -> str:
    return option.lstrip("-").partition("=")[0] if option.startswith("-") else ""


def parser(command: str, *, epilog: str = "", joins: bool = True) -> argparse.ArgumentParser:
    """Return a parser for one command, with its description from ``binfmtd --help``; it raises UsageError."""
    text = COMMANDS[command]
    return _Parser(prog=f"binfmtd {command}", description=_sentence(text), epilog=epilog or None, joins=joins)


def add_subcommands(to: argparse.ArgumentParser, texts: Mapping[str, str]) -> dict[str, argparse.ArgumentParser]:
    """Return a parser for each subcommand, whose name is then ``given.subcommand``; ``texts`` are their descriptions.

    A list after their ``--arch`` contains no blanks: an argument may follow it.
    """
    group = to.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", required=True)
    return {
        name: group.add_parser(name, help=text, description=_sentence(text), joins=False)
        for name, text in texts.items()
    }


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _absolute(path: str) -> str:
    """Return the absolute path, so that the file can be read again from another working directory."""
    try:
        return os.path.abspath(path)
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f"{path}: the current directory does not exist any more ({error.strerror}): give an absolute path"
        ) from None


def add_config(to: argparse.ArgumentParser) -> None:
    """Add ``--config``; its default is $BINFMTD_CONFIG, else None."""
    to.add_argument(
        "--config",
        metavar="FILE",
        type=_absolute,
        default=os.environ.get("BINFMTD_CONFIG") or None,
        help=f"the config file; conf.d/*.toml in its directory are read as well ($BINFMTD_CONFIG, or {DEFAULT_PATH})",
    )


def add_mount(to: argparse.ArgumentParser) -> None:
    """Add ``--mount``, the directory of binfmt_misc."""
    to.add_argument(
        "--mount", metavar="DIR", help=f"where binfmt_misc is mounted ({DEFAULT_DIRECTORY}, or where it is found)"
    )


def add_state_dir(to: argparse.ArgumentParser) -> None:
    """Add ``--state-dir``, which the functions of ``cli.state`` read."""
    to.add_argument(
        "--state-dir",
        metavar="DIR",
        help="the directory of the daemon's status, ledger and lock ($BINFMTD_STATE_DIR; for root /run/binfmtd, else "
        "$XDG_RUNTIME_DIR/binfmtd)",
    )


def add_json(to: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    to.add_argument("--json", action="store_true", help="print the result as JSON")


def add_log(to: argparse.ArgumentParser, level: str = "info") -> None:
    """Add ``--log-level`` and ``--log-format``.  Raises UsageError if a variable of theirs is invalid."""
    to.add_argument(
        "--log-level",
        choices=LEVELS,
        default=_one_of("BINFMTD_LOG_LEVEL", LEVELS) or level,
        help="the lowest level that is logged ($BINFMTD_LOG_LEVEL; %(default)s)",
    )
    to.add_argument(
        "--log-format",
        choices=FORMATS,
        default=_one_of("BINFMTD_LOG_FORMAT", FORMATS) or "auto",
        help="auto: coloured text on a terminal, JSON in a container without a terminal, else key=value "
        "($BINFMTD_LOG_FORMAT)",
    )


def add_reach(to: argparse.ArgumentParser) -> None:
    """Add ``--no-autoload`` and ``--own-instance``: what may be done to have binfmt_misc.  ``where`` reads them.

    Raises UsageError if a variable of theirs is invalid.
    """
    to.add_argument(
        "--no-autoload",
        action="store_true",
        default=switch("BINFMTD_NO_AUTOLOAD"),
        help="do not load the kernel module binfmt_misc ($BINFMTD_NO_AUTOLOAD)",
    )
    to.add_argument(
        "--own-instance",
        action="store_true",
        default=switch("BINFMTD_OWN_INSTANCE"),
        help="if this user namespace has no binfmt_misc of its own, mount one: from then on, and also after an "
        "unmount, the host's handlers have no effect in this namespace ($BINFMTD_OWN_INSTANCE)",
    )


def add_arch(to: argparse.ArgumentParser) -> None:
    """Add ``--arch``, which ``architectures`` reads."""
    to.add_argument(
        "--arch",
        metavar="LIST",
        action="append",
        help="use these architectures, not the config's: names (any alias) separated by commas or blanks, or all, or "
        "none; -NAME leaves one out (of all, if no other is given) ($BINFMTD_ARCH)",
    )


def add_persistent(to: argparse.ArgumentParser) -> None:
    """Add ``--persistent`` and ``--host-root``.  Raises UsageError if $BINFMTD_PERSISTENT is invalid."""
    to.add_argument(
        "--persistent",
        action="store_true",
        default=switch("BINFMTD_PERSISTENT"),
        help="also write the handlers to the host's binfmt.d, so that they are registered again after a reboot "
        "($BINFMTD_PERSISTENT)",
    )
    add_host_root(to)


def add_host_root(to: argparse.ArgumentParser) -> None:
    """Add ``--host-root``; its default is $BINFMTD_HOST_ROOT, else None."""
    to.add_argument(
        "--host-root",
        metavar="DIR",
        default=os.environ.get("BINFMTD_HOST_ROOT") or None,
        help="in a container, the directory where the host's root is mounted, or its etc/binfmt.d and var/lib/binfmtd "
        "($BINFMTD_HOST_ROOT; /host, or where it is found)",
    )


def where(given: argparse.Namespace) -> "Where":
    """Return what ``--mount``, ``--no-autoload`` and ``--own-instance`` ask for."""
    from binfmtd.kernel.mount import Where

    return Where(given.mount, autoload=not given.no_autoload, own_instance=given.own_instance)


def architectures(given: argparse.Namespace) -> tuple[str, ...] | None:
    """Return what ``--arch``, or else $BINFMTD_ARCH, asks for, in the config's words; None if neither is given.

    "none" is an empty tuple.  A command may have no such option.  Raises UsageError, for an unknown architecture with a
    list of similar names.
    """
    source, texts = "--arch", getattr(given, "arch", None)
    if texts is None:
        source, texts = "$BINFMTD_ARCH", [os.environ.get("BINFMTD_ARCH", "")]
        if not texts[0].strip():
            return None
    words = [word for text in texts for word in re.split(r"[\s,]+", text) if word]
    if not words:
        raise UsageError(f"{source} is empty: name architectures, or write all or none")
    from binfmtd.catalog.names import find

    for place, word in enumerate(words):
        if word.lower() in (ALL, NONE):
            words[place] = word.lower()
            continue
        try:
            find(word.removeprefix("-"))
        except FormatError as error:
            raise UsageError(f"{source}: {error}") from None
    if all(word.startswith("-") for word in words):
        words.insert(0, ALL)  # -NAME alone leaves it out of all
    if NONE in words:
        if len(words) > 1:
            raise UsageError(f"{source}: none cannot be combined with other architectures: remove none, or the others")
        return ()
    return tuple(words)


def _join_architectures(arguments: Sequence[str]) -> list[str]:
    """Join ``--arch`` and its list to one word: argparse would take -NAME for an option, and a blank for the end.

    What follows ``--`` is a command of the user, and stays as it is.
    """
    joined: list[str] = []
    end = arguments.index("--") if "--" in arguments else len(arguments)
    for argument in arguments[:end]:
        if joined and argument not in ("-h", "--help") and not argument.startswith("--"):
            if joined[-1] == "--arch":
                joined[-1] = f"--arch={argument}"
                continue
            if joined[-1].startswith("--arch="):
                joined[-1] += f",{argument}"
                continue
        joined.append(argument)
    return [*joined, *arguments[end:]]


def with_unit(text: str) -> str:
    """Return a duration with its unit: a bare number means seconds, so "10" becomes "10s"."""
    return f"{text}s" if text.isdecimal() else text


def duration(text: str, option: str, example: str) -> float:
    """Return the seconds that the value of an option means.  Raises UsageError, with the ``example``."""
    from binfmtd.formats.duration import parse_duration

    try:
        return parse_duration(text)
    except FormatError as error:
        raise UsageError(f"{option}: {text!r} {error}, like {example}; a number without a unit means seconds") from None


def switch(variable: str) -> bool:
    """Return True if an environment variable is on, False if it is off or unset; else raise UsageError."""
    text = os.environ.get(variable, "").strip().lower()
    if text not in _ON | _OFF:
        raise UsageError(f"${variable} is {text!r}: write 1 or 0")
    return text in _ON


def _one_of(variable: str, choices: Sequence[str]) -> str | None:
    text = os.environ.get(variable, "").strip().lower() or None
    if text is not None and text not in choices:
        raise UsageError(f"${variable} is {text!r}: write one of {', '.join(choices)}")
    return text
