"""binfmtd's DaemonSet on the node of a test's cluster."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.cli import Result
from support.cluster import READY_SECONDS, Cluster
from support.waiting import wait_until

SET = "daemonset/binfmtd"
IN_NAMESPACE = "--namespace=binfmtd"
FOREIGN = "registry.example.com/foreign:1"  # an image with programs for arm64


class Pods:
    """The pods of one kustomization."""

    def __init__(self, cluster: Cluster, kustomization: Path) -> None:
        self.cluster = cluster
        self.kustomization = kustomization
        self._changes = 0

    def apply(self) -> None:
        """Apply the kustomization as it is now."""
        self.cluster.checked("apply", "-k", str(self.kustomization))

    def write_config(self, text: str, *, hurry: bool = True) -> None:
        """Write the base's config, apply it, and by default ``hurry``."""
        (self.kustomization / "binfmtd.toml").write_text(text)
        self.apply()
        if hurry and self.pods():
            self.hurry()

    def hurry(self) -> None:
        """Change the pod's annotations, so that the kubelet brings a new config at once, not in a minute."""
        self._changes += 1
        self.kubectl("annotate", "pods", "--all", "--overwrite", f"change={self._changes}")

    def kubectl(self, *arguments: str) -> Result:
        """Run kubectl in binfmtd's namespace; AssertionError with its messages if it fails."""
        return self.cluster.checked(IN_NAMESPACE, *arguments)

    def wait_ready(self) -> None:
        """Wait until the rollout is complete, so a pod is ready; AssertionError with the pods' events if it is not."""
        done = self.cluster.kubectl(IN_NAMESPACE, "rollout", "status", SET, f"--timeout={READY_SECONDS}s")
        assert done.status == 0, self.describe()

    def describe(self) -> str:
        """Return what an administrator would look at first."""
        log = self.cluster.kubectl(IN_NAMESPACE, "logs", SET, "--all-containers", "--tail=30")
        return self.cluster.kubectl(IN_NAMESPACE, "describe", "pod").stdout[-6000:] + log.stdout + log.stderr

    def pods(self) -> list[dict[str, Any]]:
        """Return the pods that are not being deleted."""
        items = self.cluster.get(IN_NAMESPACE, "pods")["items"]
        return [item for item in items if "deletionTimestamp" not in item["metadata"]]

    def pod(self) -> dict[str, Any]:
        """Return the only pod."""
        (pod,) = self.pods()
        return pod

    @property
    def name(self) -> str:
        """The name of the only pod."""
        name: str = self.pod()["metadata"]["name"]
        return name

    def is_ready(self) -> bool:
        """Return True if the kubelet calls the only pod ready."""
        pods = self.pods()
        conditions = {c["type"]: c["status"] for pod in pods for c in pod["status"].get("conditions", ())}
        return len(pods) == 1 and conditions.get("Ready") == "True"

    def container(self) -> dict[str, Any]:
        """Return the status of the daemon's container."""
        statuses: list[dict[str, Any]] = self.pod()["status"].get("containerStatuses", [{}])
        return statuses[0]

    def execute(self, *command: str) -> Result:
        """Run a command in the daemon's container."""
        return self.cluster.kubectl(IN_NAMESPACE, "exec", self.name, "--container=binfmtd", "--", *command)

    def status(self) -> dict[str, Any]:
        """Return the daemon's status, once it has written one: it may serve HTTP, and so be ready, earlier."""
        status = ("binfmtd", "status", "--json")
        text = wait_until(lambda: self.execute(*status).stdout, READY_SECONDS, "a status file")
        document: dict[str, Any] = json.loads(text)
        return document

    def wait_for_state(self, state: str) -> None:
        """Wait until the daemon reports this state."""
        wait_until(lambda: self.status()["state"] == state, READY_SECONDS, f"the state {state}")

    def log(self) -> list[dict[str, Any]]:
        """Return the lines that the daemon has logged, in their order."""
        lines = self.kubectl("logs", self.name, "--container=binfmtd").stdout.splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


Install = Callable[..., Pods]  # the fixture ``install``


def machine_in_a_pod(cluster: Cluster) -> str:
    """Run ``uname -m`` of an image for arm64 in an ordinary pod, and return its output."""
    overrides = {"apiVersion": "v1", "spec": {"automountServiceAccountToken": False}}
    run = ["run", "build", f"--image={FOREIGN}", "--restart=Never", f"--overrides={json.dumps(overrides)}"]
    cluster.checked(*run, "--", "/bin/uname", "-m")
    ended = ("Succeeded", "Failed")
    wait_until(lambda: cluster.get("pod", "build")["status"]["phase"] in ended, READY_SECONDS, "the end of the pod")
    return cluster.checked("logs", "build").stdout
