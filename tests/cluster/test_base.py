"""The DaemonSet on a real node: start, drift, upgrade, restarts of all kinds, and removal."""

from pathlib import Path

import pytest
from support.cluster import NODE, READY_SECONDS, Cluster
from support.helm import IMAGE, NEXT_TAG
from support.instance import MOUNT_POINT
from support.pods import IN_NAMESPACE, SET, Install
from support.waiting import wait_until

pytestmark = pytest.mark.cluster

ENTRY = "qemu-aarch64"
HOLD = "/run/binfmtd/binfmt_misc"
MEBIBYTE = 2**20


@pytest.mark.parametrize("mounted", [True, False], ids=["mounted", "not mounted"])
def test_ready(cluster: Cluster, install: Install, arm64: Path, *, mounted: bool) -> None:
    """The pod gets ready with and without binfmt_misc on the node, mounts it there, and programs run."""
    if not mounted:
        cluster.unmount()
    pods = install()
    assert pods.status()["state"] == "converged"
    assert cluster.is_mounted()
    assert HOLD in cluster.mount_points()
    with cluster.executing(arm64):
        pass


@pytest.mark.parametrize("how", ["removed", "disabled", "flushed", "replaced"])
def test_drift(cluster: Cluster, install: Install, arm64: Path, how: str) -> None:
    """The daemon repairs the changes of other programs on the node, and the pod stays ready."""
    pods = install()
    before = cluster.entries()
    if how == "removed":
        cluster.write(ENTRY, "-1")
    elif how == "disabled":
        cluster.write(ENTRY, "0")
    elif how == "flushed":
        cluster.write("status", "-1")
    else:
        cluster.write(ENTRY, "-1")
        cluster.write("register", f"':{ENTRY}:E::of-another-program::/usr/bin/true:'")
    wait_until(
        lambda: cluster.entries() >= before and pods.status()["state"] == "converged", READY_SECONDS, "the repair"
    )
    with cluster.executing(arm64):
        pass
    assert pods.is_ready()


def test_a_program_runs_all_the_while(cluster: Cluster, install: Install, arm64: Path) -> None:
    """No execution fails while the pod is replaced, the node drained, and its kubelet and containerd are restarted."""
    pods = install()
    with cluster.executing(arm64) as running:
        pods.kubectl("set", "image", SET, f"*={IMAGE}:{NEXT_TAG}")
        pods.wait_ready()
        running.wait_for_more()

        pods.kubectl("delete", f"pod/{pods.name}", "--wait=true")
        wait_until(pods.is_ready, READY_SECONDS, "the next pod")
        running.wait_for_more()

        cluster.stop_kubelet()
        cluster.write(ENTRY, "-1")
        wait_until(lambda: ENTRY in cluster.entries(), READY_SECONDS, "a repair without a kubelet")
        cluster.start_kubelet()
        wait_until(pods.is_ready, READY_SECONDS, "a ready pod after a restart of the kubelet")
        running.wait_for_more()

        cluster.checked("drain", NODE, "--ignore-daemonsets", "--force", "--delete-emptydir-data", "--timeout=60s")
        assert pods.is_ready()
        cluster.checked("uncordon", NODE)

        cluster.stop_kubelet()
        cluster.stop_containerd()
        running.wait_for_more()
        cluster.start_node()
        wait_until(pods.is_ready, READY_SECONDS, "a ready pod after a restart of containerd")
        running.wait_for_more()

        first = pods.container()["containerID"]
        cluster.run("sh", "-c", "kill -KILL $(pgrep -f 'binfmtd run')")
        wait_until(lambda: pods.container().get("containerID") != first and pods.is_ready(), READY_SECONDS, "a restart")


def test_boot(cluster: Cluster, install: Install, arm64: Path) -> None:
    """After a boot of the node, which ends all containers, entries and mounts, the pod brings everything back."""
    pods = install()
    cluster.stop_kubelet()
    for task in cluster.ctr("task", "list", "--quiet").stdout.split():
        cluster.ctr("task", "kill", "--signal=KILL", "--all", task)
    cluster.stop_containerd()
    cluster.unmount_everywhere()
    cluster.run("rm", "-rf", "/run/binfmtd")
    cluster.mount()
    assert cluster.entries() == set()
    cluster.unmount()
    cluster.start_node()
    wait_until(lambda: ENTRY in cluster.entries(), READY_SECONDS, "a handler")
    wait_until(pods.is_ready, READY_SECONDS, "a ready pod")
    with cluster.executing(arm64):
        pass


def test_probes(cluster: Cluster, install: Install, arm64: Path) -> None:
    """The kubelet sees an unmount on the node by the readiness probe, and the mount after it; nothing is restarted."""
    pods = install()
    started = pods.container()["containerID"]
    with cluster.executing(arm64):
        cluster.unmount()
        wait_until(lambda: not pods.is_ready(), READY_SECONDS, "a pod that is not ready")
        failed = "Readiness probe failed: HTTP probe failed with statuscode: 503"
        wait_until(lambda: failed in pods.kubectl("describe", "pod").stdout, READY_SECONDS, "the event")
        cluster.mount()
        wait_until(pods.is_ready, READY_SECONDS, "a ready pod")
    assert pods.container()["containerID"] == started
    assert pods.container()["restartCount"] == 0


def test_memory_limit(cluster: Cluster, install: Install) -> None:
    """The limit is in force, and the daemon with a probe of all architectures stays below half of it."""
    pods = install()
    done = pods.execute("binfmtd", "probe")
    assert done.status == 0, done.stdout + done.stderr
    pod = pods.pod()["metadata"]["uid"]
    container = pods.container()["containerID"].removeprefix("containerd://")
    group = f"/sys/fs/cgroup/memory/kubepods/burstable/pod{pod}/{container}"
    limit = int(cluster.run("cat", f"{group}/memory.limit_in_bytes").stdout)
    statistics = dict(line.split() for line in cluster.run("cat", f"{group}/memory.stat").stdout.splitlines())
    assert limit == 128 * MEBIBYTE
    assert 0 < int(statistics["rss"]) < limit // 2
    assert int(cluster.run("cat", f"{group}/memory.failcnt").stdout) == 0


def test_removed(cluster: Cluster, install: Install, arm64: Path) -> None:
    """After ``kubectl delete -k`` the node has the entries and mounts that docs/kubernetes.md names, and no others."""
    pods = install()
    entries = cluster.entries()
    with cluster.executing(arm64):
        cluster.checked("delete", "-k", str(pods.kustomization), "--wait=true")
    assert cluster.entries() == entries
    assert cluster.mount_points() == [MOUNT_POINT, HOLD]
    assert cluster.kubectl(IN_NAMESPACE, "get", "all").stdout == ""


def test_removed_with_the_handlers(cluster: Cluster, install: Install) -> None:
    """With `on_stop = "remove"` the handlers are removed with the pod."""
    pods = install()
    config = (pods.kustomization / "binfmtd.toml").read_text()
    pods.write_config('on_stop = "remove"\n' + config)
    wait_until(lambda: "config_reloaded" in [line["event"] for line in pods.log()], READY_SECONDS, "the new config")
    cluster.checked("delete", "-k", str(pods.kustomization), "--wait=true")
    wait_until(lambda: not cluster.entries(), READY_SECONDS, "no entry")
