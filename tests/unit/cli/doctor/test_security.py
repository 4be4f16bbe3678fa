"""Findings of `doctor` about denials and labels of AppArmor and SELinux."""

import pytest

from binfmtd.cli.bound_emulators import judge
from binfmtd.cli.doctor.security import judge_denials
from binfmtd.formats.denial import Denial
from binfmtd.model.finding import Level

OURS = Denial("AppArmor", 7, "binfmtd", "binfmtd", "open r", "/etc/x")
PROBES = Denial("AppArmor", 9, "qemu-arm", "binfmtd//probe", "exec x", "/opt/qemu-arm")
ANOTHER = Denial("AppArmor", 8, "cupsd", "/usr/sbin/cupsd", "open r", "/etc/x")
SELINUX = Denial(
    "SELinux", 7, "binfmtd", "system_u:system_r:initrc_t:s0", "write", "register file a:b:binfmt_misc_fs_t:s0"
)


def test_denials_of_the_daemon() -> None:
    """Each denial of the running daemon is one warning, however often the log has it; other programs' are left out."""
    (found,) = judge_denials([OURS, ANOTHER, OURS._replace(pid=6), OURS], "binfmtd (enforce)")
    assert (found.check, found.level) == ("denied", Level.WARNING)
    assert found.text.startswith("AppArmor denied binfmtd: open r /etc/x; ")
    assert found.remedy == "apparmor_parser -r /etc/apparmor.d/binfmtd"


@pytest.mark.parametrize("label", ["", "unconfined", "another (enforce)"])
def test_denials_of_another_profile(label: str) -> None:
    """A daemon that another profile confines, or none, was not denied anything by the profile binfmtd."""
    assert not list(judge_denials([OURS, PROBES], label))


def test_a_denied_probe() -> None:
    """The subprofile of the daemon's probe is part of its profile."""
    (found,) = judge_denials([PROBES], "binfmtd (enforce)")
    assert found.text.startswith("AppArmor denied binfmtd//probe: exec x /opt/qemu-arm; ")


def test_denials_without_a_daemon() -> None:
    """If no daemon runs, it may be a denial that ended it: those of the program and of its profile count."""
    assert [found.text.partition(";")[0] for found in judge_denials([OURS, PROBES, ANOTHER], None)] == [
        "AppArmor denied binfmtd: open r /etc/x",
        "AppArmor denied binfmtd//probe: exec x /opt/qemu-arm",
    ]


def test_a_denied_test_of_ours() -> None:
    """`doctor` itself tries if memory can be writable and executable; that denial is no finding about the daemon."""
    assert not list(judge_denials([SELINUX._replace(action="execmem", target="process a:b:initrc_t:s0")], None))


def test_denials_of_selinux() -> None:
    """The remedy for a denial of SELinux makes a module of the policy."""
    others = [SELINUX._replace(command="cron"), SELINUX._replace(confined_by="a:b:cron_t:s0")]
    (found,) = judge_denials([SELINUX, *others], SELINUX.confined_by)
    assert found.text.startswith("SELinux denied system_u:system_r:initrc_t:s0: write register file ")
    assert "grep -F scontext=system_u:system_r:initrc_t:s0 | audit2allow -M binfmtd" in found.remedy


CONTAINERS = "system_u:object_r:container_file_t:s0:c1,c2"


@pytest.mark.parametrize(
    ("label", "executable", "problem", "remedy"),
    [
        (CONTAINERS, False, f"the SELinux label {CONTAINERS} with the categories c1,c2:", "chcon -l s0 /opt/qemu-arm"),
        (CONTAINERS, None, "with the categories c1,c2:", "chcon -l s0 /opt/qemu-arm"),  # in a container
        # podman gives a privileged container the type container_t if it has an option `label` without a type.
        (CONTAINERS, None, "label=type:spc_t --security-opt label=level:s0", "chcon -l s0 /opt/qemu-arm"),
        ("a:b:var_lib_t:s0", False, "the policy lets no container execute it", "chcon -t bin_t /opt/qemu-arm"),
    ],
)
def test_labels(label: str, executable: bool | None, problem: str, remedy: str) -> None:
    """Categories count in any case, else the policy's answer; the remedy changes only that part of the label."""
    found = judge("/opt/qemu-arm", label, executable)
    assert found is not None
    assert found.problem.startswith(f"/opt/qemu-arm has the SELinux label {label}")
    assert problem in found.problem
    assert found.remedy == remedy


@pytest.mark.parametrize("executable", [True, None])
def test_labels_without_a_problem(executable: bool | None) -> None:
    """If the policy cannot be asked, a label without categories is no problem."""
    assert judge("/opt/qemu-arm", "a:b:bin_t:s0", executable) is None
