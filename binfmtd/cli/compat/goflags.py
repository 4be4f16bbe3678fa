"""Parse command lines as Go programs do (the package ``flag`` of Go's standard library, parseOne in flag.go).

* ``-x`` and ``--x`` are equal.  The value follows ``=`` or is the next word; that of a switch can only follow ``=``.
* The first word that is no flag ends the flags, and so do ``-`` and ``--``; all words after that are ignored.
* ``-h`` and ``-help`` print the usage on stderr, and so does every error.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from binfmtd.errors import UsageError
from binfmtd.report.printable import printable

_TRUE = {"1", "t", "T", "true", "TRUE", "True"}
_FALSE = {"0", "f", "F", "false", "FALSE", "False"}


class HelpWanted(UsageError):  # noqa: N818  it is not an error
    """``-h`` or ``-help`` was given; the message is the usage."""

    exit_code = 0


class Flag(NamedTuple):
    """One flag.  ``default`` appears only in the usage; a bool marks a switch."""

    name: str
    usage: str
    default: str | bool = ""


class Given(NamedTuple):
    """The flags on the command line, by name: those with a text, and the switches."""

    texts: dict[str, str]
    switches: dict[str, bool]


def parse(arguments: Sequence[str], program: str, flags: Iterable[Flag]) -> Given:
    """Parse the arguments.  Raises UsageError, whose message ends with the usage, and HelpWanted for ``-h``."""
    known = {flag.name: flag for flag in flags}
    usage = _usage(program, known.values())
    given = Given({}, {})
    words = iter(arguments)
    for word in words:
        if len(word) < 2 or not word.startswith("-") or word == "--":
            break
        name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
        if not name or name.startswith("-"):
            raise UsageError(f"bad flag syntax: {printable(word)}\n{usage}")
        flag = known.get(name)
        if flag is None:
            if name in ("h", "help"):
                raise HelpWanted(usage)
            raise UsageError(f"flag provided but not defined: -{printable(name)}\n{usage}")
        if isinstance(flag.default, bool):
            if equals and value not in _TRUE | _FALSE:
                raise UsageError(f'invalid boolean value "{printable(value)}" for -{name}: parse error\n{usage}')
            given.switches[name] = not equals or value in _TRUE
            continue
        if not equals:
            try:
                value = next(words)
            except StopIteration:
                raise UsageError(f"flag needs an argument: -{name}\n{usage}") from None
        given.texts[name] = value
    return given


def _usage(program: str, flags: Iterable[Flag]) -> str:
    lines = [f"Usage of {program}:"]
    for flag in sorted(flags, key=lambda flag: flag.name):
        lines.append(f"  -{flag.name}" if isinstance(flag.default, bool) else f"  -{flag.name} string")
        lines.append(f"        {flag.usage}" + (f' (default "{flag.default}")' if flag.default else ""))
    return "\n".join(lines)
