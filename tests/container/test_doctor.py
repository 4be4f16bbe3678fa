"""``binfmtd doctor`` in containers: what it says of the host's handlers, and what is to be typed outside."""

from typing import Any

import pytest
from support.containers import Machine
from support.instance import MOUNT_POINT

pytestmark = pytest.mark.container


def doctor(machine: Machine, image: str, *options: str) -> dict[tuple[str, str], dict[str, Any]]:
    result = machine.podman("run", "--rm", *machine.as_first_namespace, *options, image, "doctor", "--json")
    assert result.stderr == ""
    assert result.status == (1 if result.json["failures"] else 0)
    return {(found["section"], found["check"]): found for found in result.json["findings"]}


def test_an_ordinary_container(machine: Machine, image: str) -> None:
    """It has nothing mounted, and may not mount: a failure, with what brings handlers from outside; then none."""
    found = doctor(machine, image)["mount", "mounted"]
    assert found["level"] == "failure"
    assert found["remedy"] == "docker run --rm --privileged binfmtd"
    assert machine.container(*machine.as_first_namespace, image, "apply", "--arch", "arm64").status == 0
    found = doctor(machine, image)["mount", "mounted"]
    assert found["level"] == "ok"
    assert found["text"].endswith("handlers serve all the same: aarch64 run (tried)")


def test_bound_in(machine: Machine, image: str) -> None:
    """Bound in read-only it is a failure, with what to bind instead; bound in as that says, there is none."""
    found = doctor(machine, image, f"--volume={MOUNT_POINT}:/binfmt_misc:ro")["mount", "read_only"]
    assert found["level"] == "failure"
    assert found["remedy"] == f"docker run --rm -v {MOUNT_POINT}:/binfmt_misc binfmtd"
    findings = doctor(machine, image, "--cap-drop=all", f"--volume={MOUNT_POINT}:/binfmt_misc")
    assert not [each for each in findings.values() if each["level"] == "failure"]
    assert "root, may register entries, may not mount" in findings["privileges", "register"]["text"]
