"""Labels of AppArmor: the profile that confines a process, and its mode, as in ``docker-default (enforce)``."""

_ENFORCED = " (enforce)"
_WITHOUT_LIMITS = (["unconfined_t"], ["spc_t"], ["kernel_t"])


def enforced_profile(label: str) -> str:
    """Return the profile that confines a process with this label; "" if none does, or if it only logs."""
    return label.removesuffix(_ENFORCED) if label.endswith(_ENFORCED) else ""


def confines(label: str) -> bool:
    """Return True unless a label of either security module is that of a process without one, or without limits."""
    domain = label.split(":")[2:3]  # of a context of SELinux
    return bool(label) and domain not in _WITHOUT_LIMITS and not label.endswith(("unconfined", "(unconfined)"))
