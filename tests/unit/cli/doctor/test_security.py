"""Findings of `doctor` about denials and labels of AppArmor and SELinux."""

from binfmtd.cli.bound_emulators import problem
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
    (found,) = judge_denials([OURS, ANOTHER, OURS._replace(pid=6, target="/old"), OURS], 7)
    assert (found.check, found.level) == ("denied", Level.WARNING)
    assert found.text.startswith("AppArmor denied binfmtd: open r /etc/x; ")
    assert found.remedy == "apparmor_parser -r /etc/apparmor.d/binfmtd"


def test_denials_without_a_daemon() -> None:
    """If no daemon runs, it may be a denial that ended it: those of the program and of its profile count."""
    assert [found.text.partition(";")[0] for found in judge_denials([OURS, PROBES, ANOTHER], None)] == [
        "AppArmor denied binfmtd: open r /etc/x",
        "AppArmor denied binfmtd//probe: exec x /opt/qemu-arm",
    ]


def test_denials_of_selinux() -> None:
    """The remedy for a denial of SELinux makes a module of the policy."""
    (found,) = judge_denials([SELINUX], 7)
    assert found.text.startswith("SELinux denied system_u:system_r:initrc_t:s0: write register file ")
    assert "audit2allow" in found.remedy


def test_the_problem_names_the_label_and_its_categories() -> None:
    """The text about an emulator of a container names the file, its label and the categories."""
    text = problem("/usr/bin/qemu-arm", "system_u:object_r:container_file_t:s0:c1,c2")
    assert "/usr/bin/qemu-arm has the SELinux label system_u:object_r:container_file_t:s0:c1,c2" in text
    assert "the categories c1,c2:" in text
