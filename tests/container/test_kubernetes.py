"""config/kubernetes: built by kustomize, checked against the API's schemas, and the DaemonSet's pod run by podman."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cli import CHECKOUT
from support.config_map import ConfigMap
from support.containers import Container, Machine
from support.instance import MOUNT_POINT
from support.manifests import CUSTOM, KUBERNETES, build, load_config, one, validator, versions, yaml
from support.programs import foreign_program
from support.waiting import wait_until

from binfmtd import __version__
from binfmtd.catalog.architectures import CATALOG

pytestmark = pytest.mark.container

KUSTOMIZATIONS = sorted(path.parent for path in KUBERNETES.rglob("kustomization.yaml"))


@pytest.mark.parametrize("directory", [*KUSTOMIZATIONS, KUBERNETES / "examples"], ids=lambda path: path.name)
def test_schemas(directory: Path) -> None:
    """The API's schemas of all versions accept everything that kustomize builds: no unknown key, no wrong type."""
    if directory in KUSTOMIZATIONS:
        documents = build(directory)
    else:
        documents = [yaml.safe_load(path.read_text()) for path in sorted(directory.glob("*.yaml"))]
    assert documents
    for version in versions(directory):
        for document in documents:
            if document["kind"] not in CUSTOM:
                validator.validate(document, version, strict=True)


def test_the_quota() -> None:
    """The API's schemas of all versions accept the ResourceQuota of docs/kubernetes.md, which names the pod's class."""
    blocks = (CHECKOUT / "docs/kubernetes.md").read_text().split("```yaml\n")[1:]
    (quota,) = (yaml.safe_load(each.partition("```")[0]) for each in blocks if "kind: ResourceQuota" in each)
    for version in versions(KUBERNETES):
        validator.validate(quota, version, strict=True)
    pod = one(build(KUBERNETES / "base"), "DaemonSet")["spec"]["template"]["spec"]
    assert quota["spec"]["scopeSelector"]["matchExpressions"][0]["values"] == [pod["priorityClassName"]]


def test_combined_overlays(tmp_path: Path) -> None:
    """The example of docs/kubernetes.md combines three overlays: the nodes are sealed, labelled and monitored."""
    blocks = (CHECKOUT / "docs/kubernetes.md").read_text().split("```yaml\n")[1:]
    first, *others = (each.partition("```")[0] for each in blocks)
    (combined,) = (each for each in others if "configMapGenerator:" in each)
    shutil.copytree(KUBERNETES, tmp_path / "config" / "kubernetes")
    kustomization = yaml.safe_load(first) | yaml.safe_load(combined)
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    documents = build(tmp_path)
    for version in versions(KUBERNETES):
        for document in documents:
            if document["kind"] not in CUSTOM:
                validator.validate(document, version, strict=True)
    assert one(documents, "PodMonitor")["metadata"]["namespace"] == "binfmtd"
    (tmp_path / "pod").mkdir()
    config = load_config(documents, tmp_path / "pod")
    assert config.policy.sealed
    assert config.labels is not None
    (daemon,) = one(documents, "DaemonSet")["spec"]["template"]["spec"]["containers"]
    assert "SYS_ADMIN" in daemon["securityContext"]["capabilities"]["add"]
    assert config.labels.startswith(tuple(mount["mountPath"] for mount in daemon["volumeMounts"]))
    assert daemon["image"] == f"registry.internal/binfmtd:{__version__}"


def test_a_schema_can_reject() -> None:
    """An unknown key is an error in each version."""
    (pod,) = build(KUBERNETES / "overlays" / "sidecar")
    pod["spec"]["unknown"] = True
    for version in versions(KUBERNETES):
        with pytest.raises(validator.ValidationError):
            validator.validate(pod, version, strict=True)


@pytest.mark.parametrize("directory", [path for path in KUSTOMIZATIONS if path.name != "sidecar"], ids=lambda p: p.name)
def test_the_config_is_valid(directory: Path, tmp_path: Path) -> None:
    """The ConfigMap's files, at the DaemonSet's paths, are a config without a warning, with ``reload_on_change``."""
    config = load_config(build(directory), tmp_path)
    assert (config.labels is not None) == (directory.name == "node-feature-discovery")
    assert config.policy.sealed == (True if directory.name == "sealed" else None)


def pod_specs() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each pod's spec, as kustomize builds it, after the name of its source."""
    for directory in KUSTOMIZATIONS:
        for document in build(directory):
            if document["kind"] in ("DaemonSet", "Pod"):
                spec = document["spec"]
                yield directory.name, spec["template"]["spec"] if "template" in spec else spec
    for path in sorted((KUBERNETES / "examples").glob("*.yaml")):
        spec = yaml.safe_load(path.read_text())["spec"]
        yield path.name, spec["template"]["spec"] if "template" in spec else spec


def test_the_reason_of_a_failure_in_the_pod() -> None:
    """The last lines of each of our containers are in the pod's status, where `kubectl describe` shows them."""
    ours = [
        (place, container["name"], container.get("terminationMessagePolicy"))
        for place, spec in pod_specs()
        for container in (*spec.get("initContainers", ()), *spec["containers"])
        if "binfmtd" in container["image"]
    ]
    assert len({place for place, _, _ in ours}) == len(KUSTOMIZATIONS) + 2
    assert {policy for _, _, policy in ours} == {"FallbackToLogsOnError"}


def test_the_sidecar_is_waited_for() -> None:
    """binfmtd is the first container, and its postStart waits for the handler: the kubelet then starts the next."""
    first, build = yaml.safe_load((KUBERNETES / "examples/sidecar-pod.yaml").read_text())["spec"]["containers"]
    *_, architecture = first["args"]
    assert first["lifecycle"]["postStart"]["exec"]["command"][:3] == ["binfmtd", "wait", architecture]
    assert "securityContext" not in build


def test_without_propagation_nothing_is_mounted() -> None:
    """The overlay for private mounts has no propagation: there Kubernetes refuses Bidirectional and HostToContainer."""
    pod = one(build(KUBERNETES / "overlays/private-mounts"), "DaemonSet")["spec"]["template"]["spec"]
    assert not pod["initContainers"]
    asked = {mount.get("mountPropagation", "None") for each in pod["containers"] for mount in each["volumeMounts"]}
    assert asked == {"None"}


def test_only_the_mounting_is_privileged() -> None:
    """The daemon itself has one capability, no new privileges, and a root that it cannot write to."""
    pod = one(build(KUBERNETES / "base"), "DaemonSet")["spec"]["template"]["spec"]
    (mount,) = pod["initContainers"]
    (daemon,) = pod["containers"]
    assert mount["securityContext"]["privileged"]
    assert daemon["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["SYS_CHROOT"]}
    assert not daemon["securityContext"]["allowPrivilegeEscalation"]
    assert "privileged" not in daemon["securityContext"]
    assert all(each["securityContext"]["readOnlyRootFilesystem"] for each in (mount, daemon))
    assert not pod["automountServiceAccountToken"]


def test_an_upgrade_leaves_the_emulators(tmp_path: Path) -> None:
    """A kustomization that names another image of binfmtd changes the daemon, and not the emulators of the store."""
    shutil.copytree(KUBERNETES, tmp_path / "config" / "kubernetes")
    base = yaml.safe_load((KUBERNETES / "base/kustomization.yaml").read_text())
    images = [{"name": base["images"][0]["newName"], "newName": "registry.internal/binfmtd", "newTag": "99.0.0"}]
    kustomization = {"resources": ["config/kubernetes/overlays/emulators"], "images": images}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    pod = one(build(tmp_path), "DaemonSet")["spec"]["template"]["spec"]
    found = {each["name"]: each["image"] for each in (*pod["initContainers"], *pod["containers"])}
    ours = dict.fromkeys(("mount", "binfmtd"), "registry.internal/binfmtd:99.0.0")
    assert found == ours | {"emulators": f"registry.example.com/binfmtd-emulators:{__version__}"}


def test_nodes_that_run_no_daemon_set() -> None:
    """The pod tolerates each taint, so its affinity leaves out nodes on which it would stay pending."""
    spec = one(build(KUBERNETES / "base"), "DaemonSet")["spec"]["template"]["spec"]
    assert spec["tolerations"] == [{"operator": "Exists"}]
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    left_out = {each["key"]: each["values"] for each in term["matchExpressions"] if each["operator"] == "NotIn"}
    assert left_out == {"type": ["virtual-kubelet"], "eks.amazonaws.com/compute-type": ["fargate"]}


def test_a_node_stays_one_instance_for_prometheus() -> None:
    """The PodMonitor names the instance after the node: alerts group by it, and BinfmtdGone compares it over time."""
    assert "count by (instance, job)" in (CHECKOUT / "config/prometheus/alerts.yaml").read_text()
    (endpoint,) = one(build(KUBERNETES / "overlays/prometheus"), "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert [(each["targetLabel"], each["sourceLabels"]) for each in endpoint["relabelings"]] == [
        ("instance", ["__meta_kubernetes_pod_node_name"]),
        ("node", ["__meta_kubernetes_pod_node_name"]),
    ]


def test_sealing_takes_one_capability() -> None:
    """The sealed overlay adds one capability, and drops the key that Kubernetes does not allow beside it."""
    base, sealed = (
        one(build(KUBERNETES / directory), "DaemonSet")["spec"]["template"]["spec"]["containers"][0]["securityContext"]
        for directory in ("base", "overlays/sealed")
    )
    assert sealed["capabilities"] == {"drop": ["ALL"], "add": ["SYS_CHROOT", "SYS_ADMIN"]}
    kept = base.keys() - {"capabilities", "allowPrivilegeEscalation"}
    assert {key: sealed.get(key) for key in base} == {key: base[key] for key in kept} | {
        "capabilities": sealed["capabilities"],
        "allowPrivilegeEscalation": None,
    }


# The pod, run by podman


Play = Callable[..., Container]


@pytest.fixture
def play(image: str) -> Iterator[Play]:
    """Yield a function that runs an overlay's pod by podman, by default the one with labels, and returns the daemon."""
    played: list[tuple[Machine, Path]] = []

    def play(machine: Machine, overlay: str = "node-feature-discovery") -> Container:
        documents = build(KUBERNETES / "overlays" / overlay)
        template = one(documents, "DaemonSet")["spec"]["template"]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "binfmtd"}, "spec": template["spec"]}
        _adapt(pod["spec"], machine, image)
        _lay_out(pod["spec"], one(documents, "ConfigMap")["data"], machine)
        file = machine.directory / "pod.yaml"
        file.write_text(yaml.safe_dump(pod))
        done = machine.podman("kube", "play", "--network=none", str(file))
        assert done.status == 0, done.stderr + machine.podman("pod", "logs", "binfmtd").stderr
        played.append((machine, file))
        return Container(machine, "binfmtd-binfmtd")

    yield play
    for machine, file in played:
        machine.podman("kube", "down", str(file))


def _adapt(pod: dict[str, Any], machine: Machine, image: str) -> None:
    """Adapt a pod to our machine: image, host directories and namespace; drop the keys that podman lacks."""
    first = "first-namespace.pth"
    place = machine.as_first_namespace[1].split(":")[1]
    for container in (*pod["initContainers"], *pod["containers"]):
        container["image"] = image
        container["volumeMounts"].append({"name": "first", "mountPath": place, "readOnly": True})
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            container.pop(probe, None)
    pod["volumes"].append({"name": "first", "hostPath": {"path": str(machine.directory / first), "type": "File"}})
    for volume in pod["volumes"]:
        host = volume.get("hostPath")
        if host is not None and host["type"] == "DirectoryOrCreate":
            directory = machine.directory / "host" / host["path"].lstrip("/")
            directory.mkdir(parents=True)
            host["path"] = str(directory)
    for key in ("priorityClassName", "affinity", "tolerations", "serviceAccountName"):
        pod.pop(key)


def _lay_out(pod: dict[str, Any], data: dict[str, str], machine: Machine) -> None:
    """Lay out the config as the kubelet does; podman cannot place a file in a directory (conf.d)."""
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == "config")
    directory = machine.directory / "config-map"
    ConfigMap(directory).write({item["path"]: data[item["key"]] for item in volume.pop("configMap")["items"]})
    volume["hostPath"] = {"path": str(directory), "type": "Directory"}


def in_chroot(machine: Machine) -> int:
    root = machine.directory / "root"
    root.mkdir(exist_ok=True)
    foreign_program(root / "program", CATALOG["aarch64"])
    return machine.run("chroot", str(root), "/program").status


def get(daemon: Container, path: str) -> str:
    ask = f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:9427{path}').status)"
    return daemon.execute("/opt/binfmtd/bin/python", "-c", ask).stdout.strip()


def status(daemon: Container) -> dict[str, Any]:
    """Return the daemon's status, once it has written one: a thread writes the file, and another one serves HTTP."""
    text = wait_until(lambda: daemon.execute("binfmtd", "status", "--json").stdout, 120, "a status file")
    found: dict[str, Any] = json.loads(text)
    return found


def labels(machine: Machine) -> list[str]:
    path = machine.directory / "host/etc/kubernetes/node-feature-discovery/features.d/binfmtd"
    return path.read_text().splitlines() if path.exists() else []


def test_played(machine: Machine, play: Play) -> None:
    """The pod registers handlers, answers its probes, and labels what it found to run, with its own privileges."""
    daemon = play(machine)
    wait_until(lambda: in_chroot(machine) == 42, 120, "a handler")
    wait_until(lambda: get(daemon, "/readyz") == "200", 120, "readiness")
    assert get(daemon, "/healthz") == "200"
    wait_until(lambda: "feature.node.kubernetes.io/binfmt-arm64=true" in labels(machine), 120, "a label")

    def probed() -> dict[str, Any]:
        return next((row for row in status(daemon)["probed"]["architectures"] if row["name"] == "aarch64"), {})

    wait_until(lambda: probed() != {}, 120, "the result in the status, which has another thread than the labels")
    assert probed()["in_chroot"] is True


def test_an_unmount_on_the_node(bare_machine: Machine, play: Play) -> None:
    """After an unmount on the node no program fails, but the pod is not ready until the node mounts it again."""
    assert bare_machine.run("mount", "--make-rshared", "/").status == 0
    daemon = play(bare_machine)
    wait_until(lambda: get(daemon, "/readyz") == "200", 120, "readiness")
    bare_machine.unmount()
    wait_until(lambda: get(daemon, "/readyz") != "200", 120, "the daemon not to be ready")
    assert in_chroot(bare_machine) == 42
    assert bare_machine.run("mount", "-t", "binfmt_misc", "binfmt_misc", MOUNT_POINT).status == 0
    wait_until(lambda: get(daemon, "/readyz") == "200", 120, "readiness after the mount")
    assert in_chroot(bare_machine) == 42


def test_played_where_it_is_not_mounted(bare_machine: Machine, play: Play) -> None:
    """Without a mount on the machine the pod mounts it there, and its entries serve on when the pod is gone."""
    assert bare_machine.run("mount", "--make-rshared", "/").status == 0
    play(bare_machine)
    wait_until(lambda: in_chroot(bare_machine) == 42, 120, "a handler")
    assert bare_machine.run("mountpoint", "--quiet", MOUNT_POINT).status == 0
    assert bare_machine.podman("kube", "down", str(bare_machine.directory / "pod.yaml")).status == 0
    assert bare_machine.containers == []
    assert in_chroot(bare_machine) == 42


def write(machine: Machine, entry: str, command: str) -> str:
    """Write to an entry as root of the machine, and return the shell's error message."""
    return machine.run("sh", "-c", f"echo {command} >{MOUNT_POINT}/{entry}").stderr


def test_sealed(machine: Machine, play: Play) -> None:
    """The pod keeps the node's instance read-only for every process, and is ready; so does a restarted container."""
    assert machine.run("mount", "--make-rshared", "/").status == 0
    daemon = play(machine, "sealed")
    wait_until(lambda: get(daemon, "/readyz") == "200", 120, "readiness")
    wait_until(lambda: status(daemon)["seal"]["state"] == "sealed", 120, "the status file")
    for entry, command in (("qemu-aarch64", "-1"), ("qemu-aarch64", "0"), ("status", "-1"), ("status", "0")):
        assert "Read-only file system" in write(machine, entry, command)
    assert in_chroot(machine) == 42
    assert daemon.execute("binfmtd", "pause").status == 0
    assert write(machine, "qemu-aarch64", "-1") == ""
    assert daemon.execute("binfmtd", "resume").status == 0
    assert "Read-only file system" in write(machine, "qemu-aarch64", "-1")
    assert daemon.podman("restart").status == 0
    wait_until(lambda: get(daemon, "/readyz") == "200", 120, "readiness after a restart")
    assert "Read-only file system" in write(machine, "qemu-aarch64", "-1")
    assert in_chroot(machine) == 42


def test_sealed_and_unmounted_on_the_node(bare_machine: Machine, play: Play) -> None:
    """After an unmount on the node no program fails, and the next mount is sealed as well."""
    assert bare_machine.run("mount", "--make-rshared", "/").status == 0
    daemon = play(bare_machine, "sealed")
    wait_until(lambda: get(daemon, "/readyz") == "200", 120, "readiness")
    bare_machine.unmount()
    wait_until(lambda: get(daemon, "/readyz") != "200", 120, "the daemon not to be ready")
    assert in_chroot(bare_machine) == 42
    assert bare_machine.run("mount", "-t", "binfmt_misc", "binfmt_misc", MOUNT_POINT).status == 0
    wait_until(lambda: get(daemon, "/readyz") == "200", 120, "readiness after the mount")
    assert "Read-only file system" in write(bare_machine, "qemu-aarch64", "-1")
    assert in_chroot(bare_machine) == 42
