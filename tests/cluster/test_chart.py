"""The Helm chart on a real node: installed, upgraded, rolled back, refused, uninstalled, and from a registry.

helm is the program on PATH, or Helm's own code as a library (support.helm_program).
"""

import re
from pathlib import Path

import pytest
from support.cluster import READY_SECONDS, Cluster
from support.helm import CHART, IMAGE, NEXT_TAG, RELEASE, TAG, Helm
from support.instance import MOUNT_POINT
from support.pods import IN_NAMESPACE, SET, Install, Pods, machine_in_a_pod
from support.waiting import wait_until

pytestmark = pytest.mark.cluster

ENTRY = "qemu-aarch64"
HOLD = "/run/binfmtd/binfmt_misc"
WAIT = ("--wait", f"--timeout={READY_SECONDS}s")
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = ("docs/kubernetes.md", f"{CHART}/README.md")
REFUSED = ("seald.enabled=true", "image.digest=sha256:0123", "privileged=true,privateMounts=true")


@pytest.fixture
def pods(cluster: Cluster, checkout: Path) -> Pods:
    """Return the pods of the release, whose names are those of the base."""
    return Pods(cluster, checkout / "config/kubernetes/base")


@pytest.fixture
def config(helm: Helm, checkout: Path) -> Path:
    """Return a file in the work directory with the default config."""
    file = helm.work / "binfmtd.toml"
    file.write_text((checkout / "config/kubernetes/base/binfmtd.toml").read_text())
    return file


def block(checkout: Path, page: str, words: str) -> str:
    """Return the only block of commands in a page that contains these words."""
    (found,) = (code for code in BLOCK.findall((checkout / page).read_text()) if words in code)
    return str(found)


def image(pods: Pods) -> str:
    """Return the image of the daemon's container."""
    name: str = pods.pod()["spec"]["containers"][0]["image"]
    return name


def left(cluster: Cluster) -> list[str]:
    """Return the names of what a release has made in the namespace."""
    kinds = "daemonsets,pods,configmaps,secrets,serviceaccounts,controllerrevisions"
    names = cluster.checked(IN_NAMESPACE, "get", kinds, "--output=name").stdout.split()
    return [name for name in names if "binfmtd" in name.partition("/")[2]]


def test_installed(cluster: Cluster, helm: Helm, pods: Pods, checkout: Path, arm64: Path) -> None:
    """The README's commands install the chart: its pod is ready, and foreign programs run on the node and in a pod."""
    helm.run_block(block(checkout, PAGES[1], "create namespace"))
    assert pods.is_ready()
    assert pods.status()["state"] == "converged"
    assert helm.history() == ["deployed"]
    with cluster.executing(arm64):
        pass
    assert machine_in_a_pod(cluster) == "aarch64\n"


def test_upgraded_and_rolled_back(cluster: Cluster, helm: Helm, pods: Pods, config: Path, arm64: Path) -> None:
    """No execution fails while an upgrade replaces the pod, another one the config only, and a rollback undoes both."""
    installed = helm.install(*WAIT)
    assert "rollout status daemonset/binfmtd" in installed.stdout
    pods.wait_ready()
    entries = cluster.entries()
    with cluster.executing(arm64) as running:
        helm.upgrade(f"--set=image.tag={NEXT_TAG}", *WAIT)
        pods.wait_ready()
        assert image(pods) == f"{IMAGE}:{NEXT_TAG}"
        running.wait_for_more()

        first = pods.container()["containerID"]
        all_of_them = config.read_text()
        config.write_text(all_of_them.replace('["all"]', '["arm64", "riscv64"]'))
        assert config.read_text() != all_of_them
        helm.upgrade("--reuse-values", f"--set-file=config={config}")
        pods.hurry()
        wait_until(lambda: cluster.entries() == {ENTRY, "qemu-riscv64"}, READY_SECONDS, "the new config")
        assert pods.container()["containerID"] == first
        running.wait_for_more()

        helm.checked("rollback", RELEASE, "1", *WAIT)
        pods.wait_ready()
        wait_until(lambda: cluster.entries() == entries, READY_SECONDS, "the first config")
        assert image(pods) == f"{IMAGE}:{TAG}"
    assert helm.history() == ["superseded", "superseded", "superseded", "deployed"]


def test_a_failed_upgrade(cluster: Cluster, helm: Helm, pods: Pods, arm64: Path) -> None:
    """An image that does not exist leaves the pod not ready; programs run on, and a rollback brings the pod back."""
    helm.install(*WAIT)
    pods.wait_ready()
    with cluster.executing(arm64):
        missing = "--set=image.tag=missing,image.pullPolicy=Never"
        done = helm("upgrade", RELEASE, CHART, missing, "--wait", "--timeout=20s")
        if helm.major > 3:  # earlier ones wait for all pods but maxUnavailable, which here is all of them
            assert done.status != 0, done.stdout
            assert helm.history() == ["deployed", "failed"]
        reason = "ErrImageNeverPull"
        wait_until(lambda: reason in pods.kubectl("describe", "pod").stdout, READY_SECONDS, "the reason")
        assert not pods.is_ready()
        helm.checked("rollback", RELEASE, *WAIT)
        pods.wait_ready()
    assert image(pods) == f"{IMAGE}:{TAG}"
    assert helm.history()[-1] == "deployed"


def test_wrong_values(cluster: Cluster, helm: Helm, pods: Pods) -> None:
    """The chart's schema refuses them before anything is installed or changed."""
    cluster.checked("create", "namespace", "binfmtd")
    for values in REFUSED:
        done = helm("install", RELEASE, CHART, f"--set={values}")
        assert done.status != 0, values
        assert "schema" in done.stderr, done.stderr
    assert left(cluster) == []

    helm.checked("install", RELEASE, CHART, *WAIT)
    pods.wait_ready()
    first = pods.container()["containerID"]
    for values in REFUSED:
        assert helm("upgrade", RELEASE, CHART, f"--set={values}").status != 0, values
    assert helm.history() == ["deployed"]
    assert pods.container()["containerID"] == first


def test_uninstalled(cluster: Cluster, helm: Helm, pods: Pods, arm64: Path) -> None:
    """The namespace then has nothing of the release; the entries and mounts stay on the node, also for another one."""
    helm.install(*WAIT)
    pods.wait_ready()
    entries = cluster.entries()
    with cluster.executing(arm64) as running:
        helm.checked("uninstall", RELEASE, *WAIT)
        wait_until(lambda: not left(cluster), READY_SECONDS, "an empty namespace")
        assert cluster.entries() == entries
        assert cluster.mount_points() == [MOUNT_POINT, HOLD]
        running.wait_for_more()
        helm.checked("install", RELEASE, CHART, *WAIT)
        pods.wait_ready()
    assert pods.status()["state"] == "converged"
    assert cluster.entries() == entries


def test_uninstalled_with_the_handlers(cluster: Cluster, helm: Helm, pods: Pods, config: Path) -> None:
    """With `on_stop = "remove"` the handlers are removed with the release."""
    config.write_text('on_stop = "remove"\n' + config.read_text())
    helm.install(f"--set-file=config={config}", *WAIT)
    pods.wait_ready()
    assert ENTRY in cluster.entries()
    helm.checked("uninstall", RELEASE, *WAIT)
    wait_until(lambda: not cluster.entries(), READY_SECONDS, "no entry")


def test_sealed(cluster: Cluster, helm: Helm, pods: Pods, checkout: Path) -> None:
    """docs/kubernetes.md's command seals the node; with `sealed.value=false` it is open before the release ends."""
    cluster.checked("create", "namespace", "binfmtd")
    helm.run_block(block(checkout, PAGES[0], "helm install"))
    pods.wait_ready()
    assert "Read-only file system" in cluster.write(ENTRY, "-1")
    helm.upgrade("--reuse-values", "--set=sealed.value=false")
    pods.hurry()
    wait_until(lambda: cluster.write("status", "1") == "", READY_SECONDS, "an instance that is open")
    helm.checked("uninstall", RELEASE, *WAIT)
    wait_until(lambda: not left(cluster), READY_SECONDS, "an empty namespace")
    assert cluster.write(ENTRY, "-1") == ""


def test_from_a_registry(cluster: Cluster, helm: Helm, pods: Pods, checkout: Path, arm64: Path) -> None:
    """The README's commands push the chart to a registry and install it from there; a newer chart upgrades it."""
    cluster.checked("create", "namespace", "binfmtd")
    remote, newer = "oci://localhost:5000/charts", NEXT_TAG
    with cluster.registry():
        helm.run_block(block(checkout, PAGES[1], "helm push"))
        pods.wait_ready()
        archive = next(helm.work.glob("binfmtd-*.tgz"))
        (helm.work / "pulled").mkdir()
        helm.checked("pull", f"{remote}/binfmtd", f"--version={TAG}", "--plain-http", "--destination=pulled")
        assert (helm.work / "pulled" / archive.name).read_bytes() == archive.read_bytes()

        with cluster.executing(arm64):
            helm.checked("package", CHART, f"--version={newer}")
            helm.checked("push", f"binfmtd-{newer}.tgz", remote, "--plain-http")
            options = ("--plain-http", "--reuse-values", f"--set=image.tag={NEXT_TAG}", *WAIT)
            helm.checked("upgrade", RELEASE, f"{remote}/binfmtd", f"--version={newer}", *options)
            pods.wait_ready()
    assert image(pods) == f"{IMAGE}:{NEXT_TAG}"
    chart = cluster.get(IN_NAMESPACE, SET)["metadata"]["labels"]["helm.sh/chart"]
    assert chart == f"binfmtd-{newer}"
    assert helm.history() == ["superseded", "deployed"]


def test_taken_over_from_kustomize(cluster: Cluster, install: Install, helm: Helm, checkout: Path, arm64: Path) -> None:
    """The README's commands give the objects of the base to a release; the pod stays, and no execution fails.

    Helm 4 then refuses to change what kubectl has set, unless it is to force that.
    """
    pods = install()
    first = pods.container()["containerID"]
    with cluster.executing(arm64):
        helm.run_block(block(checkout, PAGES[1], "kubectl -n binfmtd annotate"))
        pods.wait_ready()
        assert helm.history() == ["deployed"]
        assert pods.container()["containerID"] == first
        other = (f"--set=image.tag={NEXT_TAG}", *WAIT)
        if helm.major > 3:
            refused = helm("upgrade", RELEASE, CHART, *other)
            assert refused.status != 0
            assert 'conflicts with "kubectl-client-side-apply"' in refused.stderr
        if helm.is_program:  # the library has no such option
            helm.upgrade("--force-conflicts", *other)
            pods.wait_ready()
            assert image(pods) == f"{IMAGE}:{NEXT_TAG}"


def test_the_other_commands(cluster: Cluster, helm: Helm, config: Path, checkout: Path) -> None:
    """The README's commands that upgrade, roll back and uninstall exit with 0."""
    assert config.exists()
    helm.install(*WAIT)
    helm.run_block(block(checkout, PAGES[1], "helm rollback"))
    wait_until(lambda: not left(cluster), READY_SECONDS, "an empty namespace")


def test_each_block_is_run(checkout: Path) -> None:
    """The tests above run each block of the two pages that has a command of helm."""
    run = {PAGES[0]: ["helm install"], PAGES[1]: ["create namespace", "helm push", "helm rollback", "annotate"]}
    for page, words in run.items():
        blocks = [code for code in BLOCK.findall((checkout / page).read_text()) if "helm " in code]
        assert len(blocks) == len(words), page
        assert [word for word in words if not any(word in code for code in blocks)] == []
