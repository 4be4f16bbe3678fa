"""``binfmtd export``: write what the config declares in the format of another program.

For each thing that the format cannot express, a line on stderr names the entries.
"""

import argparse
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import combinations

from binfmtd.cli import options
from binfmtd.cli.context import load_config, natively, nothing_there, observe
from binfmtd.cli.output import print_json, warn
from binfmtd.cli.state import state_dir_or_none
from binfmtd.daemon.interpreters.host_facts import HostFacts
from binfmtd.errors import FormatError, UsageError
from binfmtd.files.atomic import read_regular, write_atomically
from binfmtd.formats import debian
from binfmtd.formats.binfmt_d import is_generated, render_conf
from binfmtd.formats.nixos import render_nixos
from binfmtd.formats.register_line import to_text
from binfmtd.formats.shell import render_script
from binfmtd.model.config import Config, HandlerSpec
from binfmtd.model.desired import DesiredState, UnavailableReason
from binfmtd.model.handler import Flags, Handler, Registration
from binfmtd.model.precedence import order_matters
from binfmtd.model.resolve import resolve
from binfmtd.report.printable import printable
from binfmtd.report.status import unavailable_reason

DONE = 0
FAILED = 1

Entry = tuple[str, Registration]
DEBIAN, NIXOS = "debian", "nixos"
_COMMENT = "by `binfmtd export`: change binfmtd's config, and export again"
_WHOLE: dict[str, tuple[str, Callable[[Iterable[Entry]], bytes]]] = {
    "binfmt.d": ("binfmtd.conf", partial(render_conf, comments=[_COMMENT])),
    NIXOS: ("binfmtd.nix", render_nixos),
    "shell": ("binfmtd.sh", render_script),
}
FORMATS = ("binfmt.d", DEBIAN, NIXOS, "shell")


def parser() -> argparse.ArgumentParser:
    """Return the parser for ``binfmtd export``."""
    command = options.parser(
        "export", epilog="Exit status 1 if a guard refused a handler, or if the format cannot contain it."
    )
    command.add_argument("--format", choices=FORMATS, help="the format to write")
    command.add_argument("--output", metavar="DIR", help="for debian: the directory to write a file for each entry to")
    options.add_config(command)
    options.add_arch(command)
    options.add_mount(command)
    options.add_state_dir(command)
    options.add_json(command)
    command.add_argument(
        "--remove",
        action="store_true",
        help="instead, undo what --persistent did: remove its file in binfmt.d, the copies of emulators, and their "
        "entries",
    )
    options.add_host_root(command)
    options.add_reach(command)
    return command


def main(arguments: Sequence[str]) -> int:
    """Return 0, or 1 if an entry that the config wants had to be left out."""
    given = parser().parse_args(arguments)
    if given.remove == (given.format is not None):
        raise UsageError(f"give either --format ({', '.join(FORMATS)}) or --remove")
    if given.remove:
        from binfmtd.cli.take_back import take_back

        return take_back(given)
    if given.output is not None and (given.format != DEBIAN or given.json):
        raise UsageError("--output works only with --format debian and without --json: redirect the standard output")
    config = load_config(given, options.architectures(given))
    desired = resolve(config, HostFacts(state_dir_or_none(given)).gather(config, observe(given.mount)))
    exported = _Exported()
    handlers = list(_handlers(config, desired, given.format, exported))
    if given.format == DEBIAN:
        handlers = _without_twins(handlers, exported)
    if given.format in (DEBIAN, NIXOS):
        _note_order(handlers, given.format, exported)
    files = _files([(handler.name, handler.registration) for handler in handlers], given.format)
    if given.json:
        notes = [{"entry": entry, "reason": reason} for entry, reason in exported.notes]
        documents = [{"name": name, "text": to_text(text)} for name, text in files]
        print_json({"format": given.format, "files": documents, "notes": notes})
    else:
        _print(files, given.output)
    for text in (*natively(config, desired), *config.warnings, nothing_there(desired)):
        if text:
            warn(text)
    alike: dict[str, list[str]] = {}  # one line per reason: all architectures may lose the same flag
    for entry, reason in exported.notes:
        alike.setdefault(reason, []).append(entry)
    for reason, entries in alike.items():
        warn(f"{', '.join(entries)}: {reason}")
    return FAILED if exported.failed else DONE


class _Exported:
    """The notes about an export, and True in ``failed`` if an entry that the config wants is not in it."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, str]] = []
        self.failed = False

    def note(self, entry: str, reason: str) -> None:
        """Record something that the format cannot express, or that concerns this entry otherwise."""
        self.notes.append((entry, reason))

    def fail(self, entry: str, reason: object) -> None:
        """Record that an entry that the config wants is not in the output."""
        self.note(entry, f"left out: {reason}")
        self.failed = True


def _handlers(config: Config, desired: DesiredState, kind: str, exported: _Exported) -> Iterator[Handler]:
    """Yield what to write, lowest rank first: the order in which to register, since the newest entry wins."""
    for declared in sorted(config.specs, key=lambda declared: declared.priority):
        if handler := desired.by_name.get(declared.name):
            registration = handler.registration
        else:
            unavailable = desired.unavailable_by_name.get(declared.name)
            if unavailable is None or unavailable.cause is UnavailableReason.ABSENT:
                continue  # it runs natively; or it is from "all", without an emulator
            if unavailable.cause is UnavailableReason.REFUSED:
                exported.fail(declared.name, f"refused: {unavailable.reason}")
                continue
            exported.note(declared.name, f"{unavailable.cause.value}: {unavailable_reason(unavailable)}")
            registration = Registration(declared.match, declared.interpreters[0], unavailable.flags)
        if not declared.enabled:
            exported.note(declared.name, f"left out: the {kind} format cannot express enabled = false")
            continue
        if _holds(declared.name, registration, kind, exported):
            _note_losses(declared, registration, kind, exported)
            yield Handler(declared.name, registration, declared.priority)


def _holds(name: str, registration: Registration, kind: str, exported: _Exported) -> bool:
    try:
        if kind == DEBIAN:
            debian.render_format(name, registration)
        else:
            _WHOLE[kind][1]([(name, registration)])
    except FormatError as error:
        exported.fail(name, str(error).removeprefix(f"entry {name!r}: "))
        return False
    return True


def _note_losses(declared: HandlerSpec, registration: Registration, kind: str, exported: _Exported) -> None:
    if declared.priority and kind in (DEBIAN, NIXOS):
        exported.note(declared.name, f"the {kind} format cannot express priority = {declared.priority}")
    elif declared.priority:
        exported.note(declared.name, f"priority = {declared.priority} is expressed only by the order of the lines")
    if declared.force:
        exported.note(
            declared.name,
            f"the {kind} format cannot express force = true; it has no guard that would refuse this handler",
        )
    if kind == DEBIAN and Flags.O in registration.flags and Flags.C not in registration.flags:
        exported.note(
            declared.name,
            "the debian format cannot express flag O, so users who may execute but not read a program cannot run it",
        )


def _without_twins(handlers: Sequence[Handler], exported: _Exported) -> list[Handler]:
    """Leave out handlers whose match a higher one has, too.

    For two formats with the same match update-binfmts registers its own wrapper as the interpreter, and refuses F.
    """
    winners = {handler.registration.match: handler.name for handler in handlers}  # the last is the highest
    for handler in handlers:
        if (winner := winners[handler.registration.match]) != handler.name:
            reason = f"left out: {winner} takes the same files first, and the debian format cannot express this order"
            exported.note(handler.name, reason)
    return [handler for handler in handlers if winners[handler.registration.match] == handler.name]


def _note_order(handlers: Sequence[Handler], kind: str, exported: _Exported) -> None:
    """Note where the order of two handlers matters and cannot be expressed.

    NixOS registers in the order of the names, and update-binfmts in none that can be relied on.
    """
    lower: dict[str, list[str]] = {}
    for low, high in combinations(handlers, 2):
        if order_matters(low, high) and (kind == DEBIAN or high.name < low.name):
            lower.setdefault(high.name, []).append(low.name)
    for name, names in lower.items():
        exported.note(
            name,
            f"should win over {', '.join(names)} where both match, but the {kind} format cannot express this order",
        )


def _files(entries: Sequence[Entry], kind: str) -> list[tuple[str, bytes]]:
    if kind != DEBIAN:
        name, render = _WHOLE[kind]
        return [(name, render(entries))]
    return [(name, debian.render_format(name, registration)) for name, registration in entries]


def _print(files: Sequence[tuple[str, bytes]], output: str | None) -> None:
    if output is None and len(files) > 1:
        raise UsageError(
            f"the debian format has a file for each of these {len(files)} entries: name a directory with --output"
        )
    for name, text in files:
        if output is None:
            sys.stdout.flush()
            sys.stdout.buffer.write(_shown(text) if sys.stdout.isatty() else text)
        else:
            _write(os.path.join(output, name), text)
    if output is not None and os.path.isdir(output):
        for path in _of_earlier_exports(output, {name for name, _ in files}):
            warn(f"{path}: an earlier export wrote this file, and it is not in this one: remove it")


def _shown(text: bytes) -> bytes:
    """Escape what could control a terminal: names are bytes, and a file has to contain them unchanged."""
    return "\n".join(map(printable, to_text(text).split("\n"))).encode()


def _of_earlier_exports(directory: str, written: Collection[str]) -> Iterator[str]:
    """Yield the other files there that an export has written: they would still be registered."""
    for name in sorted(set(os.listdir(directory)).difference(written)):
        path = os.path.join(directory, name)
        with suppress(OSError, FormatError):  # no file of ours
            if is_generated(read_regular(path)):
                yield path


def _write(path: str, text: bytes) -> None:
    """Write the file.  Raises UsageError if one exists that ``export`` did not write, or if it cannot be written."""
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        if os.path.lexists(path) and not is_generated(read_regular(path)):
            raise UsageError(
                f"{path}: this file exists and was not written by `binfmtd export`: choose another directory, or "
                "rename the handler"
            )
        write_atomically(path, text)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}: name another directory") from error
    except FormatError as error:
        raise UsageError(f"{path}: {error}") from error
