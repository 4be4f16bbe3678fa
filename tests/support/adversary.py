"""Another program that keeps undoing the daemon's repairs, as a process of its own.

``OTHER`` is the handler that both write to.  ``DEEDS`` has the actions by name: those of EACH_TIME follow each inotify
event, those of WITHOUT_END repeat without a pause.
"""

import os
import select
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import Closing
from support.instance import CONTROL_FILES, Instance
from support.waiting import SLOWNESS, DirectoryWatch

TESTS = Path(__file__).parents[1]
OTHER = r"""
[handlers.other]
magic = '\x00other'
interpreter = "/usr/bin/true"
"""
THEIRS = rb":%s:M::\x00other::/usr/bin/false:"
STAND_IN = ".binfmtd~other"


class Adversary(Closing):
    """The process, from its start to ``stop``."""

    def __init__(self, instance: Instance, deed: str) -> None:
        command = [sys.executable, "-c", "from support.adversary import main; main()", deed, str(instance.directory)]
        self._process: subprocess.Popen[Any] = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(TESTS)},
        )

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def stop(self) -> int:
        """End the process, and return how often its action changed something."""
        output, _ = self._process.communicate(timeout=30 * SLOWNESS)
        return int(output)


@dataclass(frozen=True)
class _Entries:
    """The entries, as the process reads and writes them; each action below returns True if it changed something."""

    directory: str

    def there(self, name: str) -> bool:
        return os.path.exists(f"{self.directory}/{name}")

    def says(self, name: str, text: str) -> bool:
        try:
            return text in Path(self.directory, name).read_text(errors="replace")
        except FileNotFoundError:
            return False

    def newest(self) -> str:
        return next((name for name in os.listdir(self.directory) if name not in CONTROL_FILES), "")

    def write(self, name: str, data: bytes) -> bool:
        try:
            descriptor = os.open(f"{self.directory}/{name}", os.O_WRONLY)
        except FileNotFoundError:
            return False
        try:
            os.write(descriptor, data)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True


def remove(entries: _Entries) -> bool:
    """Remove the proper entry, and leave its stand-in."""
    return entries.write("other", b"-1")


def remove_whatever_serves(entries: _Entries) -> bool:
    """Remove the proper entry and its stand-in."""
    return entries.write("other", b"-1") | entries.write(STAND_IN, b"-1")


def disable(entries: _Entries) -> bool:
    """Disable the proper entry, unless it is disabled."""
    return entries.says("other", "enabled") and entries.write("other", b"0")


def replace(entries: _Entries) -> bool:
    """Register another interpreter under the name, unless the entry has it already."""
    if entries.says("other", "/usr/bin/false"):
        return False
    entries.write("other", b"-1")
    return entries.write("register", THEIRS % b"other")


def overtake(entries: _Entries) -> bool:
    """Register another interpreter under the name, above all other entries, the stand-in included."""
    if entries.newest() == "other" and entries.says("other", "/usr/bin/false"):
        return False
    entries.write("other", b"-1")
    return entries.write("register", THEIRS % b"other")


def register_unwanted(entries: _Entries) -> bool:
    """Register an entry that the config does not declare."""
    return not entries.there("theirs") and entries.write("register", b":theirs:M::theirs::/usr/bin/false:")


def shadow(entries: _Entries) -> bool:
    """Register a newer entry under another name, which takes the same files."""
    if entries.newest() == "theirs":
        return False
    entries.write("theirs", b"-1")
    return entries.write("register", THEIRS % b"theirs")


def switch_off(entries: _Entries) -> bool:
    """Switch the instance off, unless it is off."""
    return entries.says("status", "enabled") and entries.write("status", b"0")


def flush(entries: _Entries) -> bool:
    """Remove all entries, unless there is none."""
    return entries.newest() != "" and entries.write("status", b"-1")


def touch(entries: _Entries) -> bool:
    """Write 1 to ``status``, which changes nothing."""
    return entries.write("status", b"1")


def come_and_go(entries: _Entries) -> bool:
    """Register an entry that takes no handler's files, and remove it."""
    return entries.write("register", b":theirs:M::theirs::/usr/bin/false:") and entries.write("theirs", b"-1")


def disable_blindly(entries: _Entries) -> bool:
    """Disable the proper entry, even if it is disabled."""
    return entries.write("other", b"0")


def replace_blindly(entries: _Entries) -> bool:
    """Register another interpreter under the name, even if the entry has it already."""
    entries.write("other", b"-1")
    return entries.write("register", THEIRS % b"other")


def flush_blindly(entries: _Entries) -> bool:
    """Remove all entries, even if there is none."""
    return entries.write("status", b"-1")


def switch_off_blindly(entries: _Entries) -> bool:
    """Switch the instance off, even if it is off."""
    return entries.write("status", b"0")


EACH_TIME: list[Callable[[_Entries], bool]] = [
    remove,
    remove_whatever_serves,
    disable,
    replace,
    overtake,
    register_unwanted,
    shadow,
    switch_off,
    flush,
]
WITHOUT_END: list[Callable[[_Entries], bool]] = [
    touch,
    come_and_go,
    disable_blindly,
    replace_blindly,
    flush_blindly,
    switch_off_blindly,
]
DEEDS = {deed.__name__: deed for deed in EACH_TIME + WITHOUT_END}


def main() -> None:
    """Run the process: its arguments are the action and the instance's directory; it ends with its standard input."""
    deed, entries = DEEDS[sys.argv[1]], _Entries(sys.argv[2])
    with DirectoryWatch(Path(entries.directory)) as watch:
        done = int(deed(entries))
        listening, timeout = ([sys.stdin, watch], None) if deed in EACH_TIME else ([sys.stdin], 0)
        while sys.stdin not in select.select(listening, [], [], timeout)[0]:
            if deed in EACH_TIME:
                watch.pending()
            done += deed(entries)
    sys.stdout.write(str(done))
