"""Labels of AppArmor."""

import pytest

from binfmtd.formats.apparmor import confines, enforced_profile


@pytest.mark.parametrize(
    ("label", "profile"),
    [
        ("docker-default (enforce)", "docker-default"),
        ("binfmtd//probe (enforce)", "binfmtd//probe"),
        ("binfmtd (complain)", ""),
        ("binfmtd-sandbox (unconfined)", ""),
        ("unconfined", ""),
        ("system_u:system_r:init_t:s0", ""),
        ("", ""),
    ],
)
def test_profiles(label: str, profile: str) -> None:
    """Only a profile in enforce mode confines a process."""
    assert enforced_profile(label) == profile


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("docker-default (enforce)", True),
        ("binfmtd (complain)", True),
        ("system_u:system_r:init_t:s0", True),
        ("unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023", False),
        ("binfmtd-sandbox (unconfined)", False),
        ("unconfined", False),
        ("", False),
    ],
)
def test_confinement(label: str, expected: bool) -> None:
    """A profile that exists only to be named in rules confines nothing."""
    assert confines(label) is expected
