"""What systemd says of a unit, where this system was booted with it."""

import shutil
import subprocess

from binfmtd.files.whereabouts import booted_with_systemd

_SECONDS = 5.0


def unit_state(unit: str) -> str | None:
    """``active``, ``inactive``, ``failed`` and so on; None where nobody can tell."""
    if not booted_with_systemd() or (systemctl := shutil.which("systemctl")) is None:
        return None
    try:
        done = subprocess.run(
            [systemctl, "is-active", unit], check=False, capture_output=True, stdin=subprocess.DEVNULL, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("ascii", "replace").strip() or None
