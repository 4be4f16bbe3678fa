"""Contexts of SELinux, the labels that processes and files have: ``user:role:type:level``.

The level of a container's file carries categories: ``system_u:object_r:container_file_t:s0:c1,c2``.  A process of
another container has other categories, and the policy does not let it execute the file.
"""

import re

_CONTEXT = re.compile(r"[^:/\s]+:[^:/\s]+:[^:/\s]+(:\S+)?")


def is_context(label: str) -> bool:
    """Return True if a security module's label is a context of SELinux, and not a profile of AppArmor."""
    return _CONTEXT.fullmatch(label) is not None


def categories(context: str) -> str:
    """Return the categories of a context, such as ``c1,c2``; "" if it carries none.

    Of a range (``s0-s0:c0.c1023``) these are the categories of its higher level, which the policy compares.
    """
    level = "".join(context.split(":", 3)[3:]).rpartition("-")[2]
    return level.partition(":")[2]


def for_all_containers(context: str) -> str:
    """Return the context with which a file may be executed by every container: type bin_t, and no categories.

    That is the label of the emulators that a package installs.  The policies of Debian, Fedora and RHEL have this type.
    """
    user, role, _, *level = context.split(":", 3)
    return ":".join((user, role, "bin_t", *(part.partition(":")[0].partition("-")[0] for part in level)))
