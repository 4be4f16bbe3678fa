"""The state of a systemd unit, if systemd manages this system."""

import os
import time

from binfmtd.files.environment import booted_with_systemd

_SECONDS = 5.0


def unit_state(unit: str) -> str | None:
    """Return ``active``, ``inactive``, ``failed`` and so on; None without systemd, or after 5 s without an answer."""
    import shutil
    import subprocess

    if not booted_with_systemd() or (systemctl := shutil.which("systemctl")) is None:
        return None
    try:
        done = subprocess.run(
            [systemctl, "is-active", unit], check=False, capture_output=True, stdin=subprocess.DEVNULL, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("ascii", "replace").strip() or None


def unit_started(unit: str) -> float | None:
    """Return the seconds since systemd last started an active unit; None if it is not active, or without systemd.

    systemd keeps a link for each active unit, which it creates anew at each start (unit_export_invocation_id in
    src/core/unit.c).
    """
    try:
        return time.time() - os.lstat(f"/run/systemd/units/invocation:{unit}").st_mtime
    except OSError:
        return None
