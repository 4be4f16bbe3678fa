"""The distribution, and its commands that install a package."""

import pytest

from binfmtd.formats.os_release import EMULATORS, System, install, install_program, parse_os_release, upgrade

DEBIAN = """PRETTY_NAME="Debian GNU/Linux 13 (trixie)"
VERSION_ID="13"
ID=debian
# a comment
HOME_URL="https://www.debian.org/"
"""
DEBIAN_12 = System("debian", (), (12,))
UBUNTU = 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n'
ROCKY = 'ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n'
LEAP = 'ID="opensuse-leap"\nID_LIKE="suse opensuse"\nVERSION_ID="15.6"\n'


@pytest.mark.parametrize(
    ("text", "system", "family"),
    [
        (DEBIAN, System("debian", (), (13,)), "debian"),
        (UBUNTU, System("ubuntu", ("debian",), (24, 4)), "debian"),
        ("ID=fedora\nVERSION_ID=42", System("fedora", (), (42,)), "fedora"),
        (ROCKY, System("rocky", ("rhel", "centos", "fedora"), (9, 4)), "fedora"),
        (LEAP, System("opensuse-leap", ("suse", "opensuse"), (15, 6)), "suse"),
        ("ID='arch'\nBUILD_ID=rolling\n", System("arch"), "arch"),
        ("ID=alpine\nVERSION_ID=3.22.0\n", System("alpine", (), (3, 22, 0)), "alpine"),
        ("ID=nixos\nVERSION_ID='25.05'\n", System("nixos", (), (25, 5)), ""),
        ("", System(), ""),
        ("ID\nID=\nVERSION_ID=rolling\n=x\n", System(), ""),
    ],
)
def test_reading(text: str, system: System, family: str) -> None:
    """Values may be quoted; a system that is like another one has that one's package manager."""
    assert parse_os_release(text) == system
    assert system.family == family


@pytest.mark.parametrize(
    ("system", "command"),
    [
        (System("debian", (), (13,)), "apt-get install qemu-user"),
        (System("debian"), "apt-get install qemu-user"),  # testing
        (DEBIAN_12, "apt-get install qemu-user-static"),  # whose qemu-user is dynamic
        (System("ubuntu", ("debian",), (24, 4)), "apt-get install qemu-user-static"),
        (System("ubuntu", ("debian",), (25, 4)), "apt-get install qemu-user"),
        (System("linuxmint", ("ubuntu", "debian"), (22,)), "apt-get install qemu-user-static"),
        (System("fedora"), "dnf install qemu-user-static"),
        (System("rocky", ("rhel", "centos", "fedora")), ""),
        (System("opensuse-tumbleweed", ("opensuse", "suse")), "zypper install qemu-linux-user"),
        (System("arch"), "pacman -S qemu-user-static"),
        (System("manjaro", ("arch",)), "pacman -S qemu-user-static"),
        (System("alpine"), "apk add qemu-riscv64"),
        (System("nixos"), ""),
        (System(), ""),
    ],
)
def test_emulators(system: System, command: str) -> None:
    """The package is the one with static emulators, which serve in containers as well."""
    assert install(system, EMULATORS, "riscv64") == command


@pytest.mark.parametrize(
    ("system", "command"),
    [
        (DEBIAN_12, "apt-get install python3-prometheus-client"),
        (System("rocky", ("fedora",)), "dnf install python3-prometheus_client"),
        (System("arch"), "pacman -S python-prometheus_client"),
        (System("alpine"), "apk add py3-prometheus-client"),
        (System("nixos"), ""),
    ],
)
def test_a_python_module(system: System, command: str) -> None:
    """Each distribution has its own names for packages of Python modules."""
    assert install(system, "prometheus_client") == command


def test_again_and_newer() -> None:
    """A damaged package is installed over itself; a newer kernel comes with an upgrade of the whole system."""
    assert install(DEBIAN_12, EMULATORS, again=True) == "apt-get install --reinstall qemu-user-static"
    assert install(System("fedora"), "pyinotify") == "dnf install python3-inotify"
    assert (upgrade(DEBIAN_12), upgrade(System())) == ("apt-get full-upgrade", "")


def test_programs() -> None:
    """A program's package has one name everywhere; on an unknown system there is no command."""
    assert install_program(DEBIAN_12, "skopeo") == "apt-get install skopeo"
    assert install_program(System("fedora"), "skopeo") == "dnf install skopeo"
    assert install_program(System("nixos"), "skopeo") == ""
