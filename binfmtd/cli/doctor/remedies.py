"""Remedies for the faults of an entry: a command for a shell, or a setting for the config.

If a flag, interpreter or extension in the config causes the fault, the remedy changes the config: the daemon would undo
a command.
"""

import os
import re
import shlex

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.names import find
from binfmtd.cli.by_hand import control
from binfmtd.cli.doctor.snapshot import Snapshot
from binfmtd.errors import FormatError
from binfmtd.files.distribution import install_emulators
from binfmtd.formats.register_line import encode_line, to_text
from binfmtd.host.interpreters import required_loader
from binfmtd.model.entry import Entry
from binfmtd.model.examine import takes_elf
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Extension, Match, takes_plain
from binfmtd.model.ownership import equal

_COMMAND = re.compile(r": run `([^`]+)`")
_RULE = re.compile(r":\d+$")  # the end of a place in a file of binfmt.d


def architecture_of(match: Match) -> str | None:
    """Return the architecture whose programs ``match`` takes; None if it is not for ELF programs of a known one."""
    if not takes_elf(match):
        return None
    return next((name for name, row in CATALOG.items() if takes_plain(match, row.match)), None)


def split(message: str) -> tuple[str, str]:
    """Return the text and the command of one of binfmtd's messages; the command is "" if it contains none.

    A message has a command in backticks after ": run ".  If it continues after that, the text is the whole message.
    """
    match = _COMMAND.search(message)
    if match is None:
        return message, ""
    return message if message[match.end() :] else message[: match.start()], match[1]


def _setting(mended: Registration, registration: Registration) -> str:
    """Return the line of the config, ``key = "value"``, in which the two registrations differ."""
    if isinstance(mended.match, Extension) and mended.match != registration.match:
        return f'extension = "{mended.match.text}"'
    return f'flags = "{mended.flags.letters}"'


class Remedies:
    """Remedies for the entries of one instance.

    The methods return one command for a shell, or one setting with its place in the config.  ``registration`` is the
    present one, ``mended`` the one without the faults that a registration can have.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._register = shlex.quote(os.path.join(snapshot.directory, "register"))

    def control(self, entry: Entry, value: str) -> str:
        """Return the command that writes ``value`` to the entry: 1 enables, 0 disables, -1 removes it."""
        return control(self._snapshot.directory, entry, value)

    def remove(self, entry: Entry) -> str:
        """Return the command that removes the entry."""
        return self.control(entry, "-1")

    def mend(self, entry: Entry, registration: Registration, mended: Registration) -> str:
        """Return the remedy that changes the entry to ``mended``."""
        if (line := self._in_config(entry, registration, _setting(mended, registration))) is not None:
            return line
        return self.rewrite(entry, mended)

    def standard(self, entry: Entry, registration: Registration, mended: Registration) -> str:
        """Return the remedy that registers binfmtd's own entry for the architecture, or changes this one to ``mended``.

        The latter if the entry is for no architecture, or if there is no static emulator for it.
        """
        if (line := self._in_config(entry, registration, _setting(mended, registration))) is not None:
            return line
        architecture = architecture_of(registration.match)
        if architecture is not None and self._has_static_emulator(architecture):
            return self.renew(entry, architecture)
        return self.rewrite(entry, mended)

    def static(self, entry: Entry, registration: Registration, mended: Registration) -> str:
        """Return the remedy that uses or installs a static emulator; for no architecture, that of ``mend``."""
        architecture = architecture_of(registration.match)
        if architecture is None:
            return self.mend(entry, registration, mended)
        if self._has_static_emulator(architecture):
            static = self._snapshot.emulators[architecture]
            line = self._in_config(entry, registration, f'interpreter = "{static}"')
            return line if line is not None else self.renew(entry, architecture)
        return install_emulators(architecture)

    def there(self, entry: Entry, registration: Registration) -> str:
        """Return the command that registers the entry with an emulator that exists here, or else removes it."""
        architecture = architecture_of(registration.match)
        if architecture is not None and architecture in self._snapshot.emulators:
            return self.renew(entry, architecture)
        return self.remove(entry)

    def back(self, entry: Entry, registration: Registration) -> str:
        """Return the command that replaces the emulator that F opened by one that exists here; "" if there is none."""
        architecture = architecture_of(registration.match)
        return self.renew(entry, architecture) if architecture in self._snapshot.emulators else ""

    def renew(self, entry: Entry, architecture: str) -> str:
        """Return the command that replaces the entry by binfmtd's own, or one like that, for this architecture."""
        if self._snapshot.pid is None:
            return f"{self.remove(entry)} && {self._snapshot.again(f'apply --arch {architecture}')}"
        path = self._snapshot.emulators.get(architecture)
        if path is None or any(spec.architecture == architecture for spec in self._snapshot.declared.values()):
            return self.remove(entry)  # the daemon registers its own
        # Beside a daemon `apply` registers nothing.
        flags = entry.registration.flags if entry.registration else Flags.NONE
        return self.rewrite(entry, Registration(CATALOG[architecture].match, path, (flags | Flags.F) & ~Flags.C))

    def leave_out(self, entry: Entry) -> str:
        """Return what removes the entry for good: beside a daemon that declares it, a change of the config."""
        declared = self._snapshot.declared.get(entry.name)
        if self._snapshot.pid is None or declared is None or entry.name not in self._snapshot.desired.by_name:
            return self.remove(entry)
        return f"in {declared.source}: leave this out"

    def rewrite(self, entry: Entry, registration: Registration) -> str:
        """Return the command that registers this under the entry's name; if it cannot be typed, that of ``remove``."""
        try:
            line = encode_line(entry.name, registration, readable=True)
        except FormatError:
            return self.remove(entry)
        if not line.isascii() or not to_text(line).isprintable():
            return self.remove(entry)
        return f"{self.remove(entry)} && printf %s {shlex.quote(to_text(line))} >{self._register}"

    def match(self, entry: Entry, registration: Registration, mended: Registration) -> str:
        """Return the remedy for a match that takes no file.

        It changes the match to that of ``mended`` if the two differ.  Else it registers binfmtd's own entry for the
        architecture in the entry's name, or removes an entry whose name contains none.
        """
        if mended.match != registration.match:
            return self.mend(entry, registration, mended)
        try:
            architecture = find(entry.name.removeprefix("qemu-")).name
        except FormatError:
            return self.remove(entry)
        return self.renew(entry, architecture)

    def _in_config(self, entry: Entry, registration: Registration, setting: str) -> str | None:
        """Return ``setting`` with its place in the config, if the entry is as the config declares it.

        If the entry differs from that, return the command that registers it as declared: beside a daemon, which keeps
        it from ``apply``, that is a reload.  Return None if this host has no declared handler of that name.
        """
        handler = self._snapshot.desired.by_name.get(entry.name)
        if handler is None:
            return None
        if not equal(registration, handler.registration):
            if self._snapshot.pid is not None:
                return self._snapshot.again("reload")
            # Without a config "all" is the default, not a request: apply only this architecture.
            alone = f" --arch {handler.architecture}" if handler.yields else ""
            return self._snapshot.again(f"apply{alone}")
        declared = self._snapshot.declared.get(entry.name)
        if declared is not None and (declared.included or _RULE.search(declared.source)):
            return f"in {declared.source}: {setting}"
        files = self._snapshot.config.sources if self._snapshot.config else ()
        table = f"emulators.{handler.architecture}" if handler.architecture else f"handlers.{entry.name}"
        return f"in {files[-1] if files else self._snapshot.config_path or 'the config'}, under [{table}]: {setting}"

    def _has_static_emulator(self, architecture: str) -> bool:
        path = self._snapshot.emulators.get(architecture)
        return path is not None and required_loader(path) is None
