"""What to type against a fault of an entry: one line for a shell, or one of the config, that ends it.

An entry that the config declares is mended in the config, or the daemon would undo what was typed.
"""

import os
import re
import shlex

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.names import find
from binfmtd.cli.checks.scene import Scene
from binfmtd.errors import FormatError
from binfmtd.files.distribution import install_emulators
from binfmtd.formats.line import encode_line, to_text
from binfmtd.kernel.interpreters import leans_on
from binfmtd.model.entry import Entry
from binfmtd.model.examine import takes_elf
from binfmtd.model.handler import Registration
from binfmtd.model.match import Extension, Match, takes_plain
from binfmtd.model.ownership import equal

_COMMAND = re.compile(r": run (?:`([^`]+)`|([^`]+?)(?:, or .*)?$)")


def architecture_of(match: Match) -> str | None:
    """The architecture whose programs it takes; None if it is for something else."""
    if not takes_elf(match):
        return None
    return next((name for name, row in CATALOG.items() if takes_plain(match, row.match)), None)


def split(message: str) -> tuple[str, str]:
    """Of a message of ours that names a command to run, the text and the command; "" where it names none.

    What a message says after a command in backticks is needed, too: then the text is all of it.
    """
    found = _COMMAND.search(message)
    if found is None:
        return message, ""
    return message if found[1] and message[found.end() :] else message[: found.start()], found[1] or found[2]


def _setting(mended: Registration, registration: Registration) -> str:
    """The key of the config that says what is different."""
    if isinstance(mended.match, Extension) and mended.match != registration.match:
        return f'extension = "{mended.match.text}"'
    return f'flags = "{mended.flags.letters}"'


class Remedies:
    """Remedies for the entries of one instance."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._register = shlex.quote(os.path.join(scene.directory, "register"))

    def control(self, entry: Entry, value: str) -> str:
        """Enable (1), disable (0) or remove (-1) it."""
        if entry.name.isprintable():
            return f"echo {value} >{shlex.quote(os.path.join(self._scene.directory, entry.name))}"
        # A name that cannot be typed is found by its number.
        where = shlex.quote(self._scene.directory)
        return f"find {where} -inum {entry.inode} -exec sh -c 'echo {value} >\"$0\"' {{}} \\;"

    def remove(self, entry: Entry) -> str:
        """Take it away."""
        return self.control(entry, "-1")

    def mend(self, entry: Entry, registration: Registration, mended: Registration) -> str:
        """Have it say this instead."""
        if (line := self._in_config(entry, registration, _setting(mended, registration))) is not None:
            return line
        return self.rewrite(entry, mended)

    def standard(self, entry: Entry, registration: Registration, mended: Registration) -> str:
        """Have what binfmtd would register for its architecture, or for what has none this."""
        if (line := self._in_config(entry, registration, _setting(mended, registration))) is not None:
            return line
        architecture = architecture_of(registration.match)
        if architecture is not None and self._has_static_emulator(architecture):
            return self.renew(entry, architecture)
        return self.rewrite(entry, mended)

    def static(self, entry: Entry, registration: Registration, mended: Registration) -> str:
        """Have an interpreter that needs nothing else."""
        architecture = architecture_of(registration.match)
        if architecture is None:
            return self.mend(entry, registration, mended)
        if self._has_static_emulator(architecture):
            static = self._scene.emulators[architecture]
            line = self._in_config(entry, registration, f'interpreter = "{static}"')
            return line if line is not None else self.renew(entry, architecture)
        return install_emulators(architecture)

    def there(self, entry: Entry, registration: Registration) -> str:
        """Have an interpreter at all, or no entry."""
        architecture = architecture_of(registration.match)
        if architecture is not None and architecture in self._scene.emulators:
            return self.renew(entry, architecture)
        return self.remove(entry)

    def back(self, entry: Entry, registration: Registration) -> str:
        """Have an emulator that is here serve in place of the one that F opened; "" where none is."""
        architecture = architecture_of(registration.match)
        return self.renew(entry, architecture) if architecture in self._scene.emulators else ""

    def renew(self, entry: Entry, architecture: str) -> str:
        """Have binfmtd's own entry for this architecture in its place."""
        if self._scene.pid is not None and any(
            each.architecture == architecture for each in self._scene.declared.values()
        ):
            return self.remove(entry)  # the daemon sees to the rest
        return f"{self.remove(entry)} && {self._scene.again(f'apply --arch {architecture}')}"

    def rewrite(self, entry: Entry, registration: Registration) -> str:
        """Have it say something else."""
        try:
            line = encode_line(entry.name, registration, readable=True)
        except FormatError:
            return self.remove(entry)
        if not line.isascii() or not to_text(line).isprintable():
            return self.remove(entry)
        return f"{self.remove(entry)} && printf %s {shlex.quote(to_text(line))} >{self._register}"

    def match(self, entry: Entry, registration: Registration, mended: Registration) -> str:
        """Have it match what it is meant for, where that can be guessed."""
        if mended.match != registration.match:
            return self.mend(entry, registration, mended)
        try:
            architecture = find(entry.name.removeprefix("qemu-")).name
        except FormatError:
            return self.remove(entry)
        return self.renew(entry, architecture)

    def _in_config(self, entry: Entry, registration: Registration, setting: str) -> str | None:
        """The line of the config, where that is what made the entry so; None where it is not declared."""
        handler = self._scene.desired.by_name.get(entry.name)
        if handler is None:
            return None
        if not equal(registration, handler.registration):
            # Who has no config did not ask for all that "all" means.
            alone = f" --arch {handler.architecture}" if handler.yields and self._scene.pid is None else ""
            return self._scene.again(f"apply{alone}")
        declared = self._scene.declared.get(entry.name)
        if declared is not None and declared.included:
            return f"{setting}, said in {declared.source}"
        files = self._scene.config.sources if self._scene.config else ()
        table = f"emulators.{handler.architecture}" if handler.architecture else f"handlers.{entry.name}"
        return f"{setting} below [{table}] in {files[-1] if files else self._scene.config_path or 'the config'}"

    def _has_static_emulator(self, architecture: str) -> bool:
        path = self._scene.emulators.get(architecture)
        return path is not None and leans_on(path) is None
