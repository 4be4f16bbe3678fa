"""Lines of the kernel's log about denials, as Linux 6.12 writes them."""

import pytest

from binfmtd.formats.denial import Denial, parse_denial

AUDIT = "audit: type=1400 audit(1764444444.123:45): "


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            (
                'apparmor="DENIED" operation="open" class="file" profile="binfmtd" name="/etc/x" pid=7 comm="binfmtd" '
                'requested_mask="r" denied_mask="r" fsuid=0 ouid=0'
            ),
            Denial("AppArmor", 7, "binfmtd", "binfmtd", "open r", "/etc/x"),
        ),
        (
            (
                'apparmor="DENIED" operation="capable" class="cap" profile="binfmtd" pid=7 comm="binfmtd" '
                'capability=21  capname="sys_admin"'
            ),
            Denial("AppArmor", 7, "binfmtd", "binfmtd", "capable sys_admin", ""),
        ),
        (
            (
                'apparmor="DENIED" operation="open" class="file" profile="binfmtd" name=2F7372762F6120622F pid=7 '
                'comm="python3" requested_mask="r" denied_mask="r" fsuid=0 ouid=0'
            ),
            Denial("AppArmor", 7, "python3", "binfmtd", "open r", "/srv/a b/"),
        ),
        (
            (
                'avc:  denied  { read open } for  pid=7 comm="sh" path="/usr/bin/qemu-aarch64" dev="vda" ino=12 '
                "scontext=system_u:system_r:container_t:s0:c3,c4 tcontext=system_u:object_r:container_file_t:s0:c1,c2 "
                "tclass=file permissive=0"
            ),
            Denial(
                "SELinux",
                7,
                "sh",
                "system_u:system_r:container_t:s0:c3,c4",
                "read open",
                "/usr/bin/qemu-aarch64 file system_u:object_r:container_file_t:s0:c1,c2",
            ),
        ),
    ],
)
def test_denials(line: str, expected: Denial) -> None:
    """A denial names the module, the process, what confines it, the action and the object."""
    assert parse_denial(AUDIT + line) == expected


@pytest.mark.parametrize(
    "line",
    [
        "",
        "usb 1-1: new device",
        'apparmor="ALLOWED" operation="open" profile="binfmtd" name="/etc/x" pid=7 comm="a" denied_mask="r"',
        'apparmor="STATUS" operation="profile_load" profile="unconfined" name="binfmtd" pid=7 comm="apparmor_parser"',
        'avc:  denied  { read } for  pid=7 comm="a" scontext=a:b:c:s0 tcontext=a:b:d:s0 tclass=file permissive=1',
        'avc:  granted  { read } for  pid=7 comm="a" scontext=a:b:c:s0 tcontext=a:b:d:s0 tclass=file',
        'apparmor="DENIED" operation="open" profile="binfmtd" name="/etc/x" pid=x comm="a" denied_mask="r"',
    ],
)
def test_everything_else(line: str) -> None:
    """A line about something else is no denial, nor is one that was only logged (complain mode, permissive)."""
    assert parse_denial(AUDIT + line) is None
