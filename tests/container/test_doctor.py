"""``binfmtd doctor`` in containers: its findings about the host's handlers, and its remedies for the host."""

from typing import Any

import pytest
from support.containers import Container, Machine
from support.instance import MOUNT_POINT
from support.waiting import wait_until

pytestmark = pytest.mark.container


def doctor(machine: Machine, image: str, *options: str) -> dict[tuple[str, str], dict[str, Any]]:
    result = machine.podman("run", "--rm", *machine.as_first_namespace, *options, image, "doctor", "--json")
    assert result.stderr == ""
    assert result.status == (1 if result.json["failures"] else 0)
    return {(found["section"], found["check"]): found for found in result.json["findings"]}


def test_an_ordinary_container(machine: Machine, image: str) -> None:
    """A container that may not mount gets a failure, with a command for the host; after that command it gets none."""
    found = doctor(machine, image)["mount", "mounted"]
    assert found["level"] == "failure"
    assert found["remedy"] == "docker run --rm --privileged binfmtd"
    assert machine.container(*machine.as_first_namespace, image, "apply", "--arch", "arm64").status == 0
    found = doctor(machine, image)["mount", "mounted"]
    assert found["level"] == "ok"
    assert found["text"].endswith("handlers still work: programs of aarch64 run (tested)")


IN_A_POD = "--env=KUBERNETES_SERVICE_HOST=10.96.0.1"


def test_an_ordinary_container_of_a_pod(machine: Machine, image: str) -> None:
    """In a pod the remedies are a command for its node or a line for its manifest, and no docker command."""
    found = doctor(machine, image, IN_A_POD)["mount", "mounted"]
    assert found["text"].endswith("so run this on the node:")
    assert found["remedy"] == f"mount -t binfmt_misc binfmt_misc {MOUNT_POINT}"
    found = doctor(machine, image, IN_A_POD, f"--volume={MOUNT_POINT}:/binfmt_misc:ro")["mount", "read_only"]
    assert found["text"].endswith("so write this in the pod's volumeMounts:")
    assert found["remedy"] == "readOnly: false"


def test_a_daemon_in_a_pod_that_has_no_mount(machine: Machine, image: str) -> None:
    """Doctor reports the daemon's problem in a pod with a complete remedy, for the node."""
    options = ("--cap-drop=all", "--detach", "--name=pod", "--env=BINFMTD_STATE_DIR=/dev/shm/binfmtd")
    arguments = ("run", *options, *machine.as_first_namespace, IN_A_POD, image, "run")
    assert machine.podman(*arguments).status == 0
    Container(machine, "pod").wait_for_log("trouble")

    def problems() -> list[dict[str, Any]]:
        findings = Container(machine, "pod").execute("binfmtd", "doctor", "--json").json["findings"]
        return [each for each in findings if each["check"] == "problem"]

    (found,) = wait_until(problems, 30, "a status with the problem, which is written after the log")
    assert found["remedy"] == f"mount -t binfmt_misc binfmt_misc {MOUNT_POINT}"
    assert "on the node" in found["text"]
    assert "--privileged" not in found["text"]


def test_bound_in(machine: Machine, image: str) -> None:
    """A read-only bind of binfmt_misc is a failure, with the bind to use instead; that bind gives no failure."""
    found = doctor(machine, image, f"--volume={MOUNT_POINT}:/binfmt_misc:ro")["mount", "read_only"]
    assert found["level"] == "failure"
    assert found["remedy"] == f"docker run --rm -v {MOUNT_POINT}:/binfmt_misc binfmtd"
    findings = doctor(machine, image, "--cap-drop=all", f"--volume={MOUNT_POINT}:/binfmt_misc")
    assert not [each for each in findings.values() if each["level"] == "failure"]
    assert "root, may register entries, may not mount" in findings["privileges", "register"]["text"]
