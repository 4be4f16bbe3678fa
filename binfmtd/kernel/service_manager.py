"""What systemd says of a unit, where this system was booted with it."""

import os
import time

from binfmtd.files.whereabouts import booted_with_systemd

_SECONDS = 5.0


def unit_state(unit: str) -> str | None:
    """``active``, ``inactive``, ``failed`` and so on; None where nobody can tell."""
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
    """Seconds since systemd last started a unit that is active; None where it is not, or there is no systemd.

    systemd keeps a link for each, made anew with each start (unit_export_invocation_id in src/core/unit.c).
    """
    try:
        return time.time() - os.lstat(f"/run/systemd/units/invocation:{unit}").st_mtime
    except OSError:
        return None
