"""Completions for bash, zsh and fish, from the commands' own parsers: ``python docs/completions.py bash``.

``make completions`` writes them to build/completions, and ``make install`` puts them where each shell looks.
"""

import argparse
import importlib
import sys

import shtab

from binfmtd import __version__
from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.deep_checks import CHECK_NAMES
from binfmtd.cli.main import COMMANDS, module_of

_ENTRIES = "/proc/sys/fs/binfmt_misc"
_FISH_ENTRIES = f"(command ls {_ENTRIES} 2>/dev/null | string match -v register | string match -v status)"
# Functions that a shell calls to complete the name of an entry: they list the entries that are registered now.
_PREAMBLE = {
    "bash": f"""
_binfmtd_entries() {{
  local name
  for name in {_ENTRIES}/*; do
    name="${{name##*/}}"
    case "$name" in register | status | '*') ;; *) printf '%s\\n' "$name" ;; esac
  done | {{ local names; names="$(cat)"; compgen -W "$names" -- "$1"; }}
}}
""",
    "zsh": f"""
_binfmtd_entries() {{
  local -a names
  names=({_ENTRIES}/*(N:t))
  compadd -- ${{names:#(register|status)}}
}}
""",
    "fish": "",
}
_COMPLETE = {
    "FILE": shtab.FILE,
    "PATH": shtab.FILE,
    "DIR": shtab.DIRECTORY,
    "NAME": {"bash": "_binfmtd_entries", "zsh": "_binfmtd_entries", "fish": _FISH_ENTRIES},
}
_OF_ARCHITECTURES = {("arch", "NAME"), ("wait", "ARCH"), ("probe", "ARCH")}


def main() -> None:
    """Print the completions for the shell that the argument names."""
    (shell,) = sys.argv[1:]
    sys.stdout.write(shtab.complete(whole_parser(), shell, preamble=_PREAMBLE[shell]) + "\n")


def whole_parser() -> argparse.ArgumentParser:
    """Return all commands as one parser; options without a command are those of apply."""
    whole = argparse.ArgumentParser("binfmtd", parents=[_parser("apply")], add_help=False)
    whole.add_argument("-V", "--version", action="version", version=__version__, help="the version")
    commands = whole.add_subparsers(dest="command")
    for name, text in COMMANDS.items():
        commands.add_parser(name, parents=[_parser(name)], add_help=False, help=text)
    return whole


def _parser(name: str) -> argparse.ArgumentParser:
    """Return the parser of a command, with the kind of completion for each of its arguments."""
    found: argparse.ArgumentParser = importlib.import_module(module_of(name)).parser()
    for action in found._actions:  # noqa: SLF001  argparse has no other way to list them, and shtab takes the same
        if action.choices is None and isinstance(action.metavar, str):
            if (name, action.metavar) in _OF_ARCHITECTURES:
                action.choices = [*CATALOG]
            elif (name, action.metavar) == ("probe", "CHECK"):
                action.choices = [*CHECK_NAMES]
            elif action.metavar in _COMPLETE:
                vars(action)["complete"] = _COMPLETE[action.metavar]  # where shtab looks
    return found


if __name__ == "__main__":
    main()
