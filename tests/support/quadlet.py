"""podman's generator of units (quadlet)."""

from pathlib import Path

import pytest

from support.cli import Result, run

GENERATORS = ("/usr/libexec/podman/quadlet", "/usr/lib/podman/quadlet")


def generate(source: Path, units: Path) -> Result:
    """Run podman's generator; its messages are on stderr, and not in the kernel's log."""
    generator = next((path for path in GENERATORS if Path(path).exists()), None)
    if generator is None:
        pytest.skip("podman's generator is not here: `make test-containers` installs podman")
    environment = {"PATH": "/usr/bin:/bin", "QUADLET_UNIT_DIRS": str(source)}
    return run([generator, "-no-kmsg-log", str(units)], env=environment)
