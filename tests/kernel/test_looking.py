"""Read-only commands use the host's entries in a privileged container where binfmt_misc is not mounted.

A "container" is a mount and process namespace with its own /proc. binfmtd takes the user namespace of both for the
kernel's first, as in ``support.containers``: in any other nothing is mounted for reading.
"""

import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cli import Result, run
from support.instance import MOUNT_POINT, Instance
from support.programs import foreign_program, install

from binfmtd.catalog.architectures import CATALOG
from binfmtd.formats.register_line import encode_line
from binfmtd.model.handler import Flags, Registration

HOST = ("unshare", "-Urm", "--propagation", "private", "--pid", "--fork", "--mount-proc", "sh", "-euc")
CONTAINER = "unshare -m --pid --fork --mount-proc"
MOUNT = f"mount -t binfmt_misc binfmt_misc {MOUNT_POINT}"
AS_FIRST = """
import os
import binfmtd.files.environment as w
w._INITIAL_USER = os.readlink("/proc/self/ns/user")
from binfmtd.cli.{module} import entry
entry()
"""
CONFIG = 'architectures = ["arm64"]\nunmanaged = "remove"\n'
LINE = encode_line(
    "theirs", Registration(CATALOG["aarch64"].match, "/usr/bin/qemu-aarch64", Flags.P | Flags.F), readable=True
).decode()
REGISTER = f"printf %s {shlex.quote(LINE)} >{MOUNT_POINT}/register"
UNPRIVILEGED = "setpriv --bounding-set -sys_admin --inh-caps -sys_admin"

Host = Callable[[str], Result]


@pytest.fixture
def host(instance: Instance, tmp_path: Path) -> Host:
    """Return a function that runs a script on a "host".

    ``container`` runs a command in a container; ``binfmtd`` and ``binfmt`` are ours. ``program`` is one of aarch64.
    """
    if os.geteuid() != 0:
        pytest.skip("takes root: in what passes for the first user namespace, no user owns this host's directories")
    for name, module in (("binfmtd", "main"), ("binfmt", "compat.main")):
        command = f"exec {shlex.quote(sys.executable)} -c {shlex.quote(AS_FIRST.format(module=module))}"
        install(tmp_path / name, f'#!/bin/sh\n{command} "$@"\n'.encode())
    install(tmp_path / "container", f'#!/bin/sh\n{CONTAINER} "$@"\nstatus=$?\necho status $status\n'.encode())
    foreign_program(tmp_path / "program", CATALOG["aarch64"])
    (tmp_path / "binfmtd.toml").write_text(CONFIG)
    variables = f"export BINFMTD_STATE_DIR={tmp_path}/state BINFMTD_CONFIG={tmp_path}/binfmtd.toml"

    def shell(script: str) -> Result:
        return run(instance.entering([*HOST, f"PATH={tmp_path}:$PATH; {variables}; cd {tmp_path}; {script}"]))

    return shell


@pytest.mark.parametrize(
    ("command", "status", "says"),
    [
        ("plan", 3, "remove    theirs"),
        ("import --kernel", 0, "[handlers.theirs]"),
        ("explain program", 0, "theirs"),
        ("wait arm64 --timeout 0", 0, ""),
    ],
)
def test_the_hosts_entries_are_seen(host: Host, command: str, status: int, says: str) -> None:
    """Read-only commands use the same entries as `apply` there; no mount is left, and the entries are unchanged."""
    leaves = f"container sh -c 'binfmtd {command}; echo status $?; ls -A {MOUNT_POINT}'"
    result = host(f"{MOUNT}; {REGISTER}; {leaves}; ls -A {MOUNT_POINT}")
    assert result.stderr == ""
    assert says in result.stdout
    assert result.stdout.endswith(f"status {status}\nstatus 0\nregister\nstatus\ntheirs\n")


def test_what_comes_later_is_waited_for(host: Host) -> None:
    """An entry that the host registers while `wait` runs in the container ends it."""
    elsewhere = "mount -t tmpfs t /mnt && mkdir /mnt/m && mount -t binfmt_misc binfmt_misc /mnt/m"
    waits = "container sh -c 'umount /mnt/m; exec binfmtd wait arm64 --timeout 30'"
    looks = f"timeout 30 sh -c 'until grep -qs \" {MOUNT_POINT} .* binfmt_misc \" /proc/[0-9]*/mountinfo; do :; done'"
    result = host(f"{elsewhere}; {waits} & {looks}; printf %s {shlex.quote(LINE)} >/mnt/m/register; wait $!")
    assert (result.stdout, result.stderr) == ("status 0\n", "")


@pytest.mark.parametrize(
    ("command", "status"), [("plan", 3), ("probe arm64", 1), ("probe --deep arm64", 1), ("wait arm64 --timeout 0", 1)]
)
def test_nothing_is_mounted_anywhere(host: Host, command: str, status: int) -> None:
    """The message says so, and names a command that mounts it; the look itself leaves no mount."""
    result = host(f"binfmtd {command} >/dev/null || echo status $?; ls -A {MOUNT_POINT}")
    assert result.stdout == f"status {status}\n"
    assert f"{MOUNT_POINT}: binfmt_misc is not mounted, so there are no entries: run `binfmtd " in result.message
    (remedy,) = re.findall("run `([^`]+)`", result.message)
    after = f"binfmtd wait arm64 --timeout 30 2>/dev/null; binfmtd {command} >/dev/null || true"
    result = host(f"{remedy} >/dev/null 2>&1 & daemon=$!; {after}; kill $daemon || true; wait")
    assert (result.status, result.stderr) == (0, "")


def test_an_empty_instance_of_the_host(host: Host) -> None:
    """An instance without entries that the host has mounted is not reported as missing."""
    result = host(f"{MOUNT}; container binfmtd plan; container binfmtd probe arm64")
    assert result.stderr == ""
    assert "register  qemu-aarch64" in result.stdout


def test_a_mount_while_wait_waits(host: Host) -> None:
    """`wait` no longer reports the mount as missing once the host has one; it still waits for the entry."""
    waits = "binfmtd wait arm64 --timeout 30 2>log & waiting=$!"
    first = "timeout 30 sh -c 'until grep -q mounted log; do :; done'"
    then = "timeout 30 sh -c 'until tail -n 1 log | grep -q programs$; do :; done'"
    result = host(f"{waits}; {first}; {MOUNT}; {then}; {REGISTER}; wait $waiting; cat log")
    assert (result.status, result.stderr) == (0, "")
    first_line, *lines = result.stdout.splitlines()
    assert first_line.endswith("which mounts it and registers handlers")
    assert lines == ["binfmtd: waiting: aarch64: no enabled entry takes such programs"]


def test_without_privileges_they_are_named(host: Host) -> None:
    """An error names --privileged only if the container may not mount."""
    result = host(f"{MOUNT}; container {UNPRIVILEGED} binfmtd plan")
    assert (result.status, result.stdout) == (0, "status 1\n")
    assert "start the container with --privileged, or bind the host's into it (-v " in result.message
    result = host(f"{MOUNT}; container binfmtd plan --mount /nowhere")
    assert result.stdout == "status 1\n"
    assert "--privileged" not in result.message


def test_binfmt_beside_the_daemon(host: Host) -> None:
    """`binfmt` in a container that shares the daemon's state directory has nothing to do if the entries exist."""
    daemon = f"{MOUNT}; binfmtd run --log-level error & binfmtd wait arm64 --timeout 30"
    result = host(f"{daemon}; container binfmt --install arm64; kill $!; wait $!")
    assert "status 0\n" in result.stdout
    assert '"qemu-aarch64"' in result.stdout
    assert "error" not in result.stderr
