"""Somebody who quarrels with the daemon, as a process of his own: he undoes each of its repairs, or never rests.

``OTHER`` is the handler that he quarrels about, and ``DEEDS`` says what he can do.
"""

import os
import select
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

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


class Adversary:
    """The process, from its first deed to ``stop``."""

    def __init__(self, instance: Instance, deed: str) -> None:
        command = [sys.executable, "-c", "from support.adversary import main; main()", deed, str(instance.directory)]
        self._process: subprocess.Popen[Any] = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(TESTS)},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def stop(self) -> int:
        """End it, and return how often it did its deed."""
        output, _ = self._process.communicate(timeout=30 * SLOWNESS)
        return int(output)


@dataclass(frozen=True)
class _Entries:
    """What he sees and does; his deeds answer whether they changed anything."""

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
    """The proper entry; what stands in for it is left."""
    return entries.write("other", b"-1")


def remove_whatever_serves(entries: _Entries) -> bool:
    """Stand-ins as well."""
    return entries.write("other", b"-1") | entries.write(STAND_IN, b"-1")


def disable(entries: _Entries) -> bool:
    """The proper entry."""
    return entries.says("other", "enabled") and entries.write("other", b"0")


def replace(entries: _Entries) -> bool:
    """Put something else under its name."""
    if entries.says("other", "/usr/bin/false"):
        return False
    entries.write("other", b"-1")
    return entries.write("register", THEIRS % b"other")


def overtake(entries: _Entries) -> bool:
    """Put something else above whatever serves, also above a stand-in."""
    if entries.newest() == "other" and entries.says("other", "/usr/bin/false"):
        return False
    entries.write("other", b"-1")
    return entries.write("register", THEIRS % b"other")


def register_unwanted(entries: _Entries) -> bool:
    """What the config does not want there."""
    return not entries.there("theirs") and entries.write("register", b":theirs:M::theirs::/usr/bin/false:")


def shadow(entries: _Entries) -> bool:
    """Take its files with an entry above it."""
    if entries.newest() == "theirs":
        return False
    entries.write("theirs", b"-1")
    return entries.write("register", THEIRS % b"theirs")


def switch_off(entries: _Entries) -> bool:
    """The instance as a whole."""
    return entries.says("status", "enabled") and entries.write("status", b"0")


def flush(entries: _Entries) -> bool:
    """Remove everything."""
    return entries.newest() != "" and entries.write("status", b"-1")


def touch(entries: _Entries) -> bool:
    """A write that changes nothing."""
    return entries.write("status", b"1")


def come_and_go(entries: _Entries) -> bool:
    """An entry that concerns nobody."""
    return entries.write("register", b":theirs:M::theirs::/usr/bin/false:") and entries.write("theirs", b"-1")


def disable_blindly(entries: _Entries) -> bool:
    """Whether it is enabled or not."""
    return entries.write("other", b"0")


def replace_blindly(entries: _Entries) -> bool:
    """Whatever stands there."""
    entries.write("other", b"-1")
    return entries.write("register", THEIRS % b"other")


def flush_blindly(entries: _Entries) -> bool:
    """Whether anything is there or not."""
    return entries.write("status", b"-1")


def switch_off_blindly(entries: _Entries) -> bool:
    """Whether it is on or not."""
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
    """The process: its deed and the instance are its arguments, and the end of its standard input ends it."""
    deed, entries = DEEDS[sys.argv[1]], _Entries(sys.argv[2])
    with DirectoryWatch(Path(entries.directory)) as watch:
        done = int(deed(entries))
        listening, timeout = ([sys.stdin, watch], None) if deed in EACH_TIME else ([sys.stdin], 0)
        while sys.stdin not in select.select(listening, [], [], timeout)[0]:
            if deed in EACH_TIME:
                watch.pending()
            done += deed(entries)
    sys.stdout.write(str(done))
