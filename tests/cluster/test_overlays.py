"""The overlays and examples on a real node."""

import json
from pathlib import Path

import pytest
from support.cluster import READY_SECONDS, Cluster
from support.pods import FOREIGN, Install, machine_in_a_pod
from support.waiting import wait_until

pytestmark = pytest.mark.cluster

ENTRY = "qemu-aarch64"


def test_sealed(cluster: Cluster, install: Install, arm64: Path) -> None:
    """No other program can write, also while the pod is replaced or its daemon killed, and after an unmount."""
    pods = install("overlays/sealed")
    assert pods.status()["seal"]["state"] == "sealed"
    refused = "Read-only file system"
    with cluster.executing(arm64):
        for name, text in ((ENTRY, "-1"), (ENTRY, "0"), ("status", "-1"), ("status", "0")):
            assert refused in cluster.write(name, text)
        pods.kubectl("delete", f"pod/{pods.name}", "--wait=true")
        assert refused in cluster.write(ENTRY, "-1")
        wait_until(pods.is_ready, READY_SECONDS, "the next pod")
        assert refused in cluster.write(ENTRY, "-1")
        first = pods.container()["containerID"]
        cluster.run("sh", "-c", "kill -KILL $(pgrep -f 'binfmtd run')")
        assert refused in cluster.write(ENTRY, "-1")
        wait_until(lambda: pods.container().get("containerID") != first and pods.is_ready(), READY_SECONDS, "a restart")
        cluster.unmount()
        wait_until(lambda: not pods.is_ready(), READY_SECONDS, "a pod that is not ready")
        cluster.mount()
        wait_until(pods.is_ready, READY_SECONDS, "a ready pod")
        assert refused in cluster.write(ENTRY, "-1")
    assert pods.execute("binfmtd", "pause", "--for", "30m").status == 0
    assert cluster.write(ENTRY, "0") == ""
    assert pods.execute("binfmtd", "resume").status == 0
    assert refused in cluster.write(ENTRY, "0")
    unsealed = pods.kustomization / "sealed.toml"
    unsealed.write_text("sealed = false\n")
    pods.apply()
    wait_until(lambda: cluster.write("status", "1") == "", READY_SECONDS, "an instance that is open")


def test_privileged(cluster: Cluster, install: Install, arm64: Path) -> None:
    """The daemon mounts binfmt_misc again after an unmount on the node."""
    pods = install("overlays/privileged")
    with cluster.executing(arm64):
        cluster.unmount()
        wait_until(cluster.is_mounted, READY_SECONDS, "the mount")
    wait_until(pods.is_ready, READY_SECONDS, "a ready pod")


def test_private_mounts(cluster: Cluster, install: Install, arm64: Path) -> None:
    """On a node whose mounts are not shared the base's pod is not created, and says why; the overlay's is."""
    assert cluster.run("mount", "--make-rprivate", "/").status == 0
    try:
        pods = install("base", wait=False)
        message = "is not a shared mount"
        wait_until(lambda: message in pods.kubectl("describe", "pod").stdout, READY_SECONDS, "the reason")
        install("overlays/private-mounts")
        with cluster.executing(arm64):
            pass
        cluster.write(ENTRY, "-1")
        wait_until(lambda: ENTRY in cluster.entries(), READY_SECONDS, "the repair")
    finally:
        assert cluster.run("mount", "--make-rshared", "/").status == 0


def test_labels(cluster: Cluster, install: Install) -> None:
    """The file of labels for node-feature-discovery is on the node, with what was found to run."""
    install("overlays/node-feature-discovery")
    file = "/etc/kubernetes/node-feature-discovery/features.d/binfmtd"
    label = "feature.node.kubernetes.io/binfmt-arm64=true"
    wait_until(lambda: label in cluster.run("cat", file).stdout.splitlines(), READY_SECONDS, "the label")


def test_emulators(cluster: Cluster, install: Install, arm64: Path) -> None:
    """An init container adds the emulators of an image to the node's store; another version is another rollout."""
    pods = install("overlays/emulators")

    def interpreter() -> str:
        (found,) = (row["interpreter"] for row in pods.status()["handlers"] if row["name"] == ENTRY)
        return str(found)

    assert interpreter() == "/var/lib/binfmtd/emulators/first/qemu-aarch64"
    for file in ("store.yaml", "emulators.toml"):
        path = pods.kustomization / file
        path.write_text(path.read_text().replace("--name, first", "--name, second").replace('"first"', '"second"'))
    with cluster.executing(arm64):
        pods.apply()
        pods.wait_ready()
        wait_until(lambda: interpreter().endswith("/second/qemu-aarch64"), READY_SECONDS, "the second version")
    assert pods.execute("binfmtd", "emulators", "verify").status == 0
    listed = json.loads(pods.execute("binfmtd", "emulators", "list", "--json").stdout)
    assert [version["name"] for version in listed] == ["first", "second"]


def test_job(cluster: Cluster, install: Install, checkout: Path) -> None:
    """The example's build waits for the handlers, and then runs."""
    cluster.checked("label", "node", "--all", "--overwrite", "feature.node.kubernetes.io/binfmt-arm64=true")
    cluster.checked("apply", "-f", str(checkout / "config/kubernetes/examples/job.yaml"))
    container = ["get", "pods", "--selector=job-name=build-for-arm64", "--output=json"]

    def waits() -> bool:
        pods = json.loads(cluster.checked(*container).stdout)["items"]
        return bool(pods) and "running" in json.dumps(pods[0]["status"].get("initContainerStatuses", []))

    wait_until(waits, READY_SECONDS, "the init container")
    install()
    done = ["wait", "--for=condition=complete", "job/build-for-arm64", f"--timeout={READY_SECONDS}s"]
    cluster.checked(*done)
    assert cluster.checked("logs", "job/build-for-arm64").stdout == "the build\n"


@pytest.mark.parametrize("mounted", [True, False], ids=["mounted", "not mounted"])
def test_sidecar(cluster: Cluster, checkout: Path, tmp_path: Path, *, mounted: bool) -> None:
    """A build beside a privileged binfmtd finds the handlers with its first program, on a node that has none."""
    if not mounted:
        cluster.unmount()
    manifest = (checkout / "config/kubernetes/examples/sidecar-pod.yaml").read_text()
    build = manifest.replace("docker.io/library/debian:trixie-slim", FOREIGN)
    build = build.replace("[/bin/sh, -c, ", "[/bin/sh, -ec, ").replace("echo the build", "uname -m; seq 3 | sort -r")
    assert build.count(FOREIGN) == 1
    assert "uname -m" in build
    file = tmp_path / "pod.yaml"
    file.write_text(build)
    cluster.checked("apply", "-f", str(file))

    def ended() -> dict[str, object]:
        pod = cluster.get("pod", "build-beside-binfmtd")
        statuses = {status["name"]: status for status in pod["status"].get("containerStatuses", [])}
        found: dict[str, object] = statuses.get("build", {}).get("state", {}).get("terminated", {})
        return found

    wait_until(ended, READY_SECONDS, "the end of the build")
    assert ended()["exitCode"] == 0, cluster.checked("describe", "pod", "build-beside-binfmtd").stdout
    log = cluster.checked("logs", "build-beside-binfmtd", "--container=build")
    assert log.stdout == "aarch64\n3\n2\n1\n", log


def test_a_sidecar_that_fails(cluster: Cluster, checkout: Path, tmp_path: Path) -> None:
    """If the handlers are not registered in time, an event of the pod has the reason."""
    manifest = (checkout / "config/kubernetes/examples/sidecar-pod.yaml").read_text()
    file = tmp_path / "pod.yaml"
    file.write_text(manifest.replace("[binfmtd, wait, arm64, --timeout, 1m]", "[binfmtd, wait, sh4, --timeout, 2s]"))
    cluster.checked("apply", "-f", str(file))
    described = ["describe", "pod", "build-beside-binfmtd"]
    wait_until(lambda: "FailedPostStartHook" in cluster.checked(*described).stdout, READY_SECONDS, "the event")


def test_an_ordinary_pod(cluster: Cluster, install: Install) -> None:
    """An ordinary pod of the node can run an image of another architecture."""
    install()
    assert machine_in_a_pod(cluster) == "aarch64\n"
