"""Contexts of SELinux: which labels are contexts, and which categories they carry."""

import pytest

from binfmtd.formats.selinux import categories, for_all_containers, is_context


@pytest.mark.parametrize(
    ("context", "carried"),
    [
        ("system_u:object_r:container_file_t:s0:c1,c2", "c1,c2"),
        ("system_u:object_r:container_file_t:s0:c268,c932", "c268,c932"),
        ("system_u:object_r:container_file_t:s0", ""),
        ("system_u:object_r:bin_t:s0", ""),
        ("system_u:object_r:bin_t:s0-s0:c0.c1023", "c0.c1023"),  # a range: its higher level counts
        ("system_u:object_r:bin_t:s0:c1.c3-s0:c1.c5,c9", "c1.c5,c9"),
        ("system_u:object_r:bin_t:s3-s5", ""),
        ("system_u:object_r:bin_t", ""),  # a policy without levels
        ("unlabeled", ""),
        ("", ""),
    ],
)
def test_categories(context: str, carried: str) -> None:
    """The categories are those of the level, of a range those of its higher level."""
    assert categories(context) == carried


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ("system_u:object_r:var_lib_t:s0", "system_u:object_r:bin_t:s0"),
        ("unconfined_u:object_r:container_file_t:s0:c1,c2", "unconfined_u:object_r:bin_t:s0"),
        ("system_u:object_r:var_lib_t:s3-s5:c1.c3", "system_u:object_r:bin_t:s3"),
        ("system_u:object_r:bin_t", "system_u:object_r:bin_t"),
    ],
)
def test_for_all_containers(context: str, expected: str) -> None:
    """Every container may execute the type bin_t without categories; user, role and lower level stay."""
    assert for_all_containers(context) == expected


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("system_u:system_r:initrc_t:s0", True),
        ("unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023", True),
        ("system_u:system_r:init_t", True),
        ("unconfined", False),
        ("docker-default (enforce)", False),
        (":lxc-1://unconfined", False),  # a profile of AppArmor in a namespace
        ("kernel", False),  # SELinux without a policy
        ("", False),
    ],
)
def test_contexts(label: str, expected: bool) -> None:
    """A context has a user, a role and a type; a profile of AppArmor is none."""
    assert is_context(label) is expected
