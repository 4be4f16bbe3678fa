"""A foreign entry that stops every exec is disabled at once; an entry that only resembles one is left alone.

The instances really are bricked: while the daemon is stopped, nothing can be executed in them. So these tests examine
them from outside.
"""

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support import Times
from support.daemon import StartDaemon
from support.instance import Instance
from support.programs import exits_with, install
from support.waiting import wait_until

from binfmtd.catalog.architectures import CATALOG

CONFIG = r"""
architectures = []
restore = ["WSL*"]
[handlers.one]
magic = '\x00one'
interpreter = "/usr/bin/true"
"""
SETTLE_SECONDS = 1.0
MORE_ROUNDS = 6  # at most, if the machine held up the daemon or this process in each of the few rounds
EVERY = rb":brick:M::\x7fELF::%b:%b"
ESCAPING = 9  # OSABI of FreeBSD; Linux executes such files nevertheless


def itself(instance: Instance, _: Path, flags: bytes) -> None:
    """Register an entry whose interpreter is an ordinary native program, which the entry takes as well."""
    instance.register(EVERY % (b"/usr/bin/env", flags))


def missing(instance: Instance, directory: Path, flags: bytes) -> None:
    """Register an entry and remove its interpreter, which with F the kernel has opened."""
    path = install(directory / "gone", exits_with(1))
    instance.register(EVERY % (os.fsencode(path), flags))
    path.unlink()


def script(instance: Instance, directory: Path, flags: bytes) -> None:
    """Register an entry whose interpreter is a script; the entry takes the script's shell."""
    path = install(directory / "script", b"#!/bin/sh\nexit 0\n")
    instance.register(EVERY % (os.fsencode(path), flags))


def chain(instance: Instance, directory: Path, flags: bytes) -> None:
    """Register two entries, each of which takes the other's interpreter."""
    path = install(directory / "file.odd", b"odd")
    instance.register(b":odd:E::odd::/usr/bin/env:%b" % flags)
    instance.register(EVERY % (os.fsencode(path), flags))


@pytest.mark.parametrize("flags", [b"", b"F", b"OC"])
@pytest.mark.parametrize("way", [itself, missing, script, chain], ids=lambda way: way.__name__)
def test_what_stops_every_exec(
    instance: Instance,
    start_daemon: StartDaemon,
    times: Times,
    bin_directory: Path,
    way: Callable[[Instance, Path, bytes], None],
    flags: bytes,
) -> None:
    """An entry that stops every exec is disabled long before `settle` is over, and logged as an error, 1,000 times."""
    daemon = start_daemon(f'settle = "{SETTLE_SECONDS:g}s"\n{CONFIG}')
    with daemon.stopped():
        way(instance, bin_directory, flags)
        assert true_ends_with(instance) != 0
    disabled = partial(is_disabled, instance)
    wait_until(disabled, what="a disabled entry")
    assert true_ends_with(instance) == 0
    took: list[float] = []
    rounds = times(1000) // 12 + 1
    for number in range(rounds + MORE_ROUNDS):
        if number >= rounds and min(took) < SETTLE_SECONDS / 2:
            break
        if number % 2:
            instance.remove("brick")
            if way is chain:
                instance.remove("odd")
            began = time.monotonic()
            way(instance, bin_directory, flags)
        else:  # an entry that is enabled again is disabled at once as well
            began = time.monotonic()
            instance.write("brick", b"1")
        wait_until(disabled, what="a disabled entry")
        took.append(time.monotonic() - began)
    assert true_ends_with(instance) == 0
    assert min(took) < SETTLE_SECONDS / 2
    line = daemon.wait_for_log("entry_disabled", entry="brick")
    assert (line["level"], "ELOOP" in line["reason"]) == ("error", True)
    print(f"disabled after {sorted(took)[len(took) // 2] * 1000:.1f} ms (median), {max(took) * 1000:.1f} ms (worst)")


def true_ends_with(instance: Instance) -> int | None:
    """Return the exit status of a native program.

    Returns None if it cannot be started: a lent instance is also that of this process.
    """
    try:
        return instance.run(["/usr/bin/true"]).returncode
    except OSError:
        return None


def is_disabled(instance: Instance) -> bool:
    return instance.read("brick").startswith("disabled")


def test_what_matches_loosely_is_left_alone(instance: Instance, start_daemon: StartDaemon, bin_directory: Path) -> None:
    """Entries for AppImages, for i386 on amd64, and for scripts with a script as interpreter stay enabled.

    So do entries whose match includes native programs, but not their own interpreter.
    """
    daemon = start_daemon(CONFIG)
    native = exits_with(7)
    escaping = install(bin_directory / "escaping", native[:7] + bytes((ESCAPING,)) + native[8:])
    itself_a_script = install(bin_directory / "script", b"#!/usr/bin/odd\n")
    instance.register(rb":appimage:M:8:AI\x02::/usr/bin/env:")
    instance.register(rb":appimage-elf:M::\x7fELF\x02\x01\x01\x00AI\x02::/usr/bin/env:")
    instance.register(rb":script:M::#!/usr/bin/odd::%b:" % os.fsencode(itself_a_script))
    own = "i386" if os.uname().machine == "x86_64" else "x86_64"
    instance.add(own, CATALOG[own].match, "/usr/bin/env", "")
    _, _, suffix = os.path.realpath(sys.executable).rpartition(".")
    instance.register(b":extension:E::%b::/nowhere.%b:" % (suffix.encode(), suffix.encode()))
    head = Path(sys.executable).read_bytes()[:8]
    magic = b"".join(b"\\x%02x" % byte for byte in head)
    instance.register(b":all:M::%b::%b:" % (magic, os.fsencode(escaping)))
    names = ["appimage", "appimage-elf", "script", own, "extension", "all"]
    daemon.wait_status(lambda status: {each["name"] for each in status["foreign"]} == set(names), "all of them")
    assert all(instance.read(name).startswith("enabled") for name in names)
    assert true_ends_with(instance) == 7
    instance.remove("all")
    assert daemon.terminate() == 0
    assert not daemon.logs("entry_disabled")


def test_what_would_brick_is_not_restored(instance: Instance, start_daemon: StartDaemon, bin_directory: Path) -> None:
    """A flushed entry that was harmless when it was seen, and would now stop every exec, is not restored."""
    native = exits_with(7)
    path = install(bin_directory / "escaping", native[:7] + bytes((ESCAPING,)) + native[8:])
    daemon = start_daemon(CONFIG)
    magic = b"".join(b"\\x%02x" % byte for byte in Path(sys.executable).read_bytes()[:8])
    instance.register(b":WSL-all:M::%b::%b:" % (magic, os.fsencode(path)))
    instance.register(b":WSL-plain:E::exe::/usr/bin/env:")
    daemon.wait_status(lambda status: len(status["foreign"]) == 2, "both of them")
    daemon.wait_converged()
    with daemon.stopped():
        install(path, native)
        instance.remove("status")
    wait_until(lambda: set(instance.names()) == {"one", "WSL-plain"}, what="the others")
    assert daemon.wait_for_log("entry_restored")["entry"] == "WSL-plain"
    assert true_ends_with(instance) == 0
