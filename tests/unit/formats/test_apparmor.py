"""Labels of AppArmor."""

import pytest

from binfmtd.formats.apparmor import confines, enforced_profile


@pytest.mark.parametrize(
    ("label", "profile", "confined"),
    [
        ("docker-default (enforce)", "docker-default", True),
        ("binfmtd//probe (enforce)", "binfmtd//probe", True),
        ("binfmtd (complain)", "", True),
        ("binfmtd-sandbox (unconfined)", "", False),
        ("unconfined", "", False),
        ("system_u:system_r:init_t:s0", "", True),
        ("unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023", "", False),
        ("", "", False),
    ],
)
def test_labels(label: str, profile: str, confined: bool) -> None:
    """Only a profile in enforce mode is returned; one that exists only to be named in rules confines nothing."""
    assert enforced_profile(label) == profile
    assert confines(label) is confined
