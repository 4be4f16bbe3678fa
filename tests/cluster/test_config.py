"""A change of the ConfigMap, which the kubelet brings: it writes a new directory, and switches the link ``..data``."""

import json
from typing import Any

import pytest
from support.cluster import READY_SECONDS, Cluster
from support.pods import IN_NAMESPACE, SET, Install, Pods
from support.waiting import wait_until

pytestmark = pytest.mark.cluster

ADDED = """
[handlers.added]
extension = "added"
interpreter = "/bin/true"
"""
INVALID = """
[handlers.added]
extension = "added/with/slashes"
interpreter = "/bin/true"
"""


def config(pods: Pods) -> str:
    """Return the base's config, as it is now."""
    return (pods.kustomization / "binfmtd.toml").read_text()


def events(pods: Pods, name: str) -> list[dict[str, Any]]:
    """Return the lines of the daemon's log with this event."""
    return [line for line in pods.log() if line["event"] == name]


def test_a_valid_config(cluster: Cluster, install: Install) -> None:
    """The new handler is registered without a restart, and removed again with the old config."""
    pods = install()
    before, first = cluster.entries(), pods.container()["containerID"]
    old = config(pods)
    pods.write_config(old + ADDED, hurry=False)
    wait_until(lambda: "added" in cluster.entries(), READY_SECONDS, "the new handler")
    pods.write_config(old, hurry=False)
    wait_until(lambda: cluster.entries() == before, READY_SECONDS, "the old handlers")
    assert pods.container()["containerID"] == first
    assert pods.is_ready()


def test_an_invalid_config(cluster: Cluster, install: Install) -> None:
    """It is rejected and reported, the pod stays ready, and the handlers are repaired; a new pod does not start."""
    pods = install()
    old = config(pods)
    pods.write_config(old + INVALID)
    wait_until(lambda: events(pods, "config_rejected"), READY_SECONDS, "the rejection")
    assert pods.is_ready()
    cluster.write("qemu-aarch64", "-1")
    wait_until(lambda: "qemu-aarch64" in cluster.entries(), READY_SECONDS, "the repair")
    pods.kubectl("delete", f"pod/{pods.name}", "--wait=true")

    def ended() -> dict[str, Any]:
        status = pods.container() if pods.pods() else {}
        states = [status.get(state, {}).get("terminated") for state in ("state", "lastState")]
        return next(filter(None, states), {})

    wait_until(lambda: ended().get("exitCode") == 78, READY_SECONDS, "exit status 78")
    message = ended()["message"]
    assert "/etc/binfmtd/binfmtd.toml" in message
    assert "added" in message
    assert "qemu-aarch64" in cluster.entries()
    pods.write_config(old)
    wait_until(pods.is_ready, 2 * READY_SECONDS, "a ready pod with the old config")


def test_the_last_valid_config(cluster: Cluster, install: Install) -> None:
    """With BINFMTD_LAST_VALID a new pod starts with the copy; it registers handlers, and is not ready."""
    pods = install()
    variable = {"name": "BINFMTD_LAST_VALID", "value": "1"}
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "binfmtd", "env": [variable]}]}}}}
    pods.kubectl("patch", SET, "--patch", json.dumps(patch))
    pods.wait_ready()
    pods.write_config(config(pods) + INVALID)
    wait_until(lambda: events(pods, "config_rejected"), READY_SECONDS, "the rejection")
    cluster.write("status", "-1")
    pods.kubectl("delete", f"pod/{pods.name}", "--wait=true")
    wait_until(lambda: pods.pods() and "running" in pods.container().get("state", {}), READY_SECONDS, "the next pod")
    wait_until(lambda: "qemu-aarch64" in cluster.entries(), READY_SECONDS, "a handler")
    pods.wait_for_state("degraded")
    assert not pods.is_ready()


def test_a_config_for_each_rollout(cluster: Cluster, install: Install) -> None:
    """With the hash in the ConfigMap's name an invalid config stops the rollout, and ``rollout undo`` goes back."""
    pods = install()
    file = pods.kustomization / "kustomization.yaml"
    file.write_text(file.read_text().replace("disableNameSuffixHash: true", "disableNameSuffixHash: false"))
    pods.apply()
    pods.wait_ready()
    entries = cluster.entries()
    pods.write_config(config(pods) + INVALID)
    wait_until(lambda: "78" in json.dumps(pods.pods()), READY_SECONDS, "exit status 78")
    assert cluster.kubectl(IN_NAMESPACE, "rollout", "status", SET, "--timeout=5s").status != 0
    assert cluster.entries() == entries
    pods.kubectl("rollout", "undo", SET)
    pods.wait_ready()
    assert cluster.entries() == entries
