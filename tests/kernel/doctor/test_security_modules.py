"""`doctor` and `check` find an emulator whose label of SELinux lets one container alone execute it.

The label is a real extended attribute, on a file system of the user namespace; only the file that has SELinux's mode is
a copy.  tests/security has real SELinux.
"""

import shlex
import sys
from pathlib import Path

import pytest
from support.doctor import Doctor

CONTAINERS = "system_u:object_r:container_file_t:s0:c1,c2"
HOSTS = "system_u:object_r:bin_t:s0"
SETS = "import os, sys; os.setxattr(sys.argv[1], 'security.selinux', sys.argv[2].encode() + b'\\0')"


@pytest.fixture
def emulator(doctor: Doctor, static: Path) -> str:
    """Return the path of an emulator on a file system that takes labels; only processes in the instance see it."""
    doctor.type(f"mkdir {static}.d && mount -t tmpfs -o mode=755 tmpfs {static}.d && cp {static} {static}.d/emulator")
    return f"{static}.d/emulator"


def label(doctor: Doctor, path: str, context: str) -> None:
    doctor.type(shlex.join([sys.executable, "-c", SETS, path, context]))


def enforce(doctor: Doctor, mode: str) -> None:
    doctor.type(
        f"mount -t tmpfs -o mode=755 tmpfs /sys/fs && mkdir /sys/fs/selinux && echo {mode} >/sys/fs/selinux/enforce"
    )


def register(doctor: Doctor, emulator: str, flags: str = "F") -> None:
    # From inside: with F the kernel opens the emulator as the process that registers sees it.
    line = f":odd:E::odd::{emulator}:{flags}"
    doctor.type(f"printf %s {line} >{doctor.instance.mount_point}/register")


def test_the_emulator_of_a_container(doctor: Doctor, emulator: str) -> None:
    """With SELinux enforcing, categories on the label of an emulator that F opened are a warning."""
    enforce(doctor, "1")
    register(doctor, emulator)
    label(doctor, emulator, CONTAINERS)
    found = doctor.found("entries", "label")
    assert found["level"] == "warning"
    assert f"{emulator} has the SELinux label {CONTAINERS} with the categories c1,c2" in found["text"]
    assert found["remedy"] == f"chcon -l s0 {emulator}"
    label(doctor, emulator, HOSTS)
    assert doctor.find("entries", "label") is None


@pytest.mark.parametrize(("mode", "flags"), [("0", "F"), ("1", "")])
def test_no_harm(doctor: Doctor, emulator: str, mode: str, flags: str) -> None:
    """Categories do no harm if SELinux is permissive, or without F: each container then has its own emulator."""
    enforce(doctor, mode)
    register(doctor, emulator, flags)
    label(doctor, emulator, CONTAINERS)
    assert doctor.find("entries", "label") is None


def test_check(doctor: Doctor, emulator: str) -> None:
    """`check` warns before such an emulator is registered; the config stays valid."""
    enforce(doctor, "1")
    label(doctor, emulator, CONTAINERS)
    config = f"architectures = []\n[handlers.odd]\nextension = 'odd'\ninterpreter = '{emulator}'\nflags = 'F'\n"
    result = doctor("check", "--json", config=config)
    (warning,) = result.json["warnings"]
    assert (result.status, result.json["valid"]) == (0, True)
    assert "with the categories c1,c2" in warning
    assert doctor("check", "--json", config=config.replace("'F'", "''")).json["warnings"] == []
