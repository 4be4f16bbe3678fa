"""The Ansible role on a booted Debian 13, run there by Debian's own ansible-core; the package is that of `make deb`.

As on most hosts, an ordinary user logs in and becomes root by sudo.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.booted import ENTRY, PACKAGES, UNIT, Booted
from support.cli import CHECKOUT, Result
from support.make_once import make_once

from binfmtd import __version__

pytestmark = pytest.mark.systemd

ROLES = CHECKOUT / "packaging/ansible/roles"
HOME = "/home/admin"
WRITTEN = "/etc/binfmtd/conf.d/ansible.toml"
PLAY = """
- hosts: localhost
  connection: local
  become: true
  roles:
    - role: binfmtd
      vars:
        binfmtd_package: {home}/binfmtd_{version}_all.deb
        binfmtd_emulators: []
        binfmtd_config: |
          {config}
        binfmtd_wait: [riscv64]
"""


@pytest.fixture(scope="module")
def controlled(booting: type[Booted], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """Yield a machine without binfmtd, with ansible-core, an emulator, the role and the package."""
    package = make_once("deb", f"build/deb/binfmtd_{__version__}_all.deb", tmp_path_factory)
    packages = (*PACKAGES, "ansible-core", "python3-apt", "sudo")
    with booting(tmp_path_factory.mktemp("ansible"), packages=packages, installed=False) as machine:
        machine.install_emulator(0)
        assert machine.run("touch", "/var/lib/apt/lists").status == 0  # as new, so nothing is downloaded
        assert machine.run("useradd", "--create-home", "admin").status == 0
        allow = 'echo "admin ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/admin'
        assert machine.run("sh", "-c", allow).status == 0  # there, since sudo reads no file of another owner than root
        shutil.copytree(ROLES, machine.root / HOME.lstrip("/") / "roles")
        shutil.copy(package, machine.root / HOME.lstrip("/"))
        yield machine


def play(machine: Booted, config: str) -> Result:
    machine.write(f"{HOME}/play.yml", PLAY.format(home=HOME, version=__version__, config=config))
    as_user = ("runuser", "--user", "admin", "--", "env", f"HOME={HOME}", "LC_ALL=C.UTF-8")
    return machine.run(*as_user, "ansible-playbook", "-i", "localhost,", f"{HOME}/play.yml")


def changed(result: Result) -> int:
    """Return how many tasks changed something."""
    (number,) = re.findall(r"changed=(\d+)", result.stdout)
    return int(number)


def test_the_role(controlled: Booted) -> None:
    """The role installs, configures and starts; a second run changes nothing; an invalid config changes nothing."""
    first = play(controlled, 'architectures = ["riscv64"]')
    assert first.status == 0, first.stdout
    assert controlled.systemctl("is-active", UNIT).stdout == "active\n"
    assert ENTRY in controlled.entries()
    assert (controlled.root / WRITTEN.lstrip("/")).read_text() == 'architectures = ["riscv64"]\n'

    again = play(controlled, 'architectures = ["riscv64"]')
    assert (again.status, changed(again)) == (0, 0), again.stdout

    pid = controlled.show("MainPID")
    other = play(controlled, 'architectures = ["arm", "riscv64"]')
    assert (other.status, changed(other)) == (0, 2), other.stdout  # the file, and the reload
    assert controlled.show("MainPID") == pid

    invalid = play(controlled, "architectures = 3")
    assert invalid.status != 0
    assert "architectures" in invalid.stdout
    assert (controlled.root / WRITTEN.lstrip("/")).read_text() == 'architectures = ["arm", "riscv64"]\n'
    assert controlled.systemctl("is-active", UNIT).stdout == "active\n"


def test_the_names_of_the_variables() -> None:
    """The role's README has each variable of its defaults, and no other."""
    defaults = re.findall(r"^(\w+):", (ROLES / "binfmtd/defaults/main.yml").read_text(), re.MULTILINE)
    documented = re.findall(r"^\| `(\w+)`", (ROLES / "binfmtd/README.md").read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(defaults)
    assert Path(ROLES / "binfmtd/tasks/main.yml").read_text().count("binfmtd_") > len(defaults)
