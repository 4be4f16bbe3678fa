"""packaging/helm: the chart, rendered, linted and packaged by Helm's own code, and compared with kustomize's objects.

Helm comes as a library in a package of Python (helm-python-sdk), so the program ``helm`` is not needed.
"""

import copy
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from support.cli import CHECKOUT, run
from support.manifests import CUSTOM, KUBERNETES, Documents, build, load_config, one, tool, validator, versions, yaml
from support.registry import PASSWORD, USER, Registry
from support.required import unavailable

from binfmtd import __version__

pytestmark = pytest.mark.container

CHART = CHECKOUT / "packaging/helm/binfmtd"
SCHEMA = CHART / "values.schema.json"
DIGEST = f"sha256:{'0123456789abcdef' * 4}"
# Recommended by Helm, for all objects of a chart. A pod's template and the selector have none of them.
ADDED_LABELS = {
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "helm.sh/chart",
}
STORE = {
    "enabled": True,
    "name": "first",
    "image": {"repository": "registry.example.com/binfmtd-emulators", "tag": __version__},
}
# Overlay -> the values that stand for it.
OVERLAYS: dict[str, dict[str, Any]] = {
    "emulators": {"emulators": STORE},
    "node-feature-discovery": {"nodeFeatureDiscovery": {"enabled": True}},
    "private-mounts": {"privateMounts": True},
    "privileged": {"privileged": True},
    "prometheus": {"prometheus": {"enabled": True}},
    "sealed": {"sealed": {"enabled": True}},
}
EVERYTHING: dict[str, Any] = {
    "image": {"repository": "registry.internal:5000/binfmtd", "digest": DIGEST},
    "imagePullSecrets": [{"name": "registry"}],
    "sealed": {"enabled": True, "value": False},
    "lastValid": True,
    "realTime": True,
    "seLinuxType": "spc_t",
    "emulators": STORE
    | {"use": "before", "path": "/image", "image": {"repository": "docker.io/tonistiigi/binfmt", "digest": DIGEST}},
    "nodeFeatureDiscovery": {"enabled": True, "probe": "after-repair"},
    "prometheus": {"enabled": True, "interval": "30s", "labels": {"release": "kube-prometheus-stack"}},
    "namespace": {"create": True},
    "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
    "nodeSelector": {"pool": "builds"},
    "tolerations": [{"key": "builds", "operator": "Equal", "value": "only", "effect": "NoSchedule"}],
    "affinity": {"nodeAffinity": None},  # null removes a default
    "priorityClassName": "",
    "maxUnavailable": 2,
    "podAnnotations": {"example.com/owner": "builds"},
    "podLabels": {"team": "builds"},
}
CASES = OVERLAYS | {
    "base": {},
    "everything": EVERYTHING,
    "everything private": EVERYTHING | {"privateMounts": True},
    "everything privileged": EVERYTHING | {"privileged": True},
}


@pytest.fixture(scope="session")
def helm() -> Any:
    return pytest.importorskip(
        "helm_python",
        reason="helm-python-sdk is not here: `make test-containers` installs it where there is one for this machine",
    )


def texts(helm: Any, values: dict[str, Any], chart: Path = CHART) -> dict[str, str]:
    """Return what ``helm template`` prints, by the names of the templates."""
    with helm.Chart.load(str(chart)) as loaded:
        loaded.validate_schema(loaded.merge_values(values))
        rendered: dict[str, str] = loaded.render(values, name="release", namespace="binfmtd")
    return {path.rpartition("/")[2]: text for path, text in rendered.items()}


def render(helm: Any, values: dict[str, Any], chart: Path = CHART) -> Documents:
    found: Documents = []
    for name, text in sorted(texts(helm, values, chart).items()):
        if name.endswith(".yaml"):
            found += [document for document in yaml.safe_load_all(text) if document]
    return found


def comparable(documents: Documents) -> dict[str, Any]:
    """Return the objects by kind: without Helm's labels, in any order of what has names, with TOML as it is parsed."""
    found = {}
    for document in copy.deepcopy(documents):
        labels = document["metadata"]["labels"]
        document["metadata"]["labels"] = {key: labels[key] for key in labels if key not in ADDED_LABELS}
        if "data" in document:
            document["data"] = {name: tomllib.loads(text) for name, text in document["data"].items()}
        found[document["kind"]] = _by_name(document)
    assert len(found) == len(documents)
    return found


def _by_name(value: Any) -> Any:
    """Turn each list of objects with unique names, mount paths or keys into a dictionary, and drop empty lists."""
    if isinstance(value, dict):
        return {key: _by_name(each) for key, each in value.items() if each not in ([], None)}
    if isinstance(value, list) and all(isinstance(each, dict) for each in value):
        for key in ("mountPath", "name", "key"):
            if len({each.get(key) for each in value} - {None}) == len(value):
                return {each[key]: _by_name(each) for each in value}
    return [_by_name(each) for each in value] if isinstance(value, list) else value


def test_the_default_is_the_base(helm: Any) -> None:
    """With default values the objects are those of the base, except for its namespace, which ``create`` adds."""
    base = comparable(build(KUBERNETES / "base"))
    assert comparable(render(helm, {"namespace": {"create": True}})) == base
    without = {kind: each for kind, each in base.items() if kind != "Namespace"}
    assert comparable(render(helm, {})) == without


def test_the_config_is_the_base(helm: Any) -> None:
    """The default config is the base's file, with its comments."""
    assert one(render(helm, {}), "ConfigMap")["data"] == one(build(KUBERNETES / "base"), "ConfigMap")["data"]


def test_a_config_that_begins_with_blanks(helm: Any) -> None:
    """Blanks at the begin of a config, which TOML allows, stay in the ConfigMap."""
    config = "\n  # ours\nmetrics.listen = '[::]:9427'\n"
    assert one(render(helm, {"config": config}), "ConfigMap")["data"]["binfmtd.toml"] == config


def test_a_label_of_the_chart(helm: Any) -> None:
    """A label of the PodMonitor replaces that of the chart: a key that is there twice is no YAML."""
    labels = {"app.kubernetes.io/instance": "monitoring"}
    text = texts(helm, {"prometheus": {"enabled": True, "labels": labels}})["pod-monitor.yaml"]
    assert text.count("app.kubernetes.io/instance") == 1
    assert yaml.safe_load(text)["metadata"]["labels"]["app.kubernetes.io/instance"] == "monitoring"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_values_are_the_overlays(helm: Any, overlay: str) -> None:
    """The values for an overlay give its objects."""
    wanted = comparable(build(KUBERNETES / "overlays" / overlay))
    assert wanted != comparable(build(KUBERNETES / "base"))
    assert comparable(render(helm, OVERLAYS[overlay] | {"namespace": {"create": True}})) == wanted


def test_each_overlay_has_values() -> None:
    """Each overlay of the DaemonSet has values; the sidecar is another pod, in another chart."""
    assert OVERLAYS.keys() == {path.name for path in (KUBERNETES / "overlays").iterdir()} - {"sidecar"}


def test_only_objects_have_helm_s_labels(helm: Any) -> None:
    """Each object has Helm's labels; the selector and the pods have none, so that a new chart replaces no pod."""
    documents = render(helm, EVERYTHING)
    assert all(document["metadata"]["labels"].keys() >= ADDED_LABELS for document in documents)
    spec = one(documents, "DaemonSet")["spec"]
    assert spec["selector"]["matchLabels"] == {"app.kubernetes.io/name": "binfmtd"}
    assert spec["template"]["metadata"]["labels"] == {"app.kubernetes.io/name": "binfmtd", "team": "builds"}


@pytest.mark.parametrize("case", CASES)
def test_schemas(helm: Any, case: str) -> None:
    """The API's schemas of all versions accept what the chart renders: no unknown key, no wrong type."""
    documents = render(helm, CASES[case])
    for version in versions(CHART):
        for document in documents:
            if document["kind"] not in CUSTOM:
                validator.validate(document, version, strict=True)


@pytest.mark.parametrize("case", CASES)
def test_the_config_is_valid(helm: Any, case: str, tmp_path: Path) -> None:
    """The ConfigMap's files, at the DaemonSet's paths, are a config without a warning; the values can be combined."""
    values = CASES[case]
    config = load_config(render(helm, values), tmp_path)
    assert (config.labels is not None) == ("nodeFeatureDiscovery" in values)
    assert config.policy.sealed == (values["sealed"].get("value", True) if "sealed" in values else None)


def test_each_value_has_an_effect(helm: Any) -> None:
    """The values that no overlay has are in the pod."""
    documents = render(helm, EVERYTHING)
    assert 'version = "before"' in one(documents, "ConfigMap")["data"]["emulators.toml"]
    pod = one(documents, "DaemonSet")["spec"]
    assert pod["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": 2}
    assert pod["template"]["metadata"]["annotations"] == {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "true",
        "example.com/owner": "builds",
    }
    spec = pod["template"]["spec"]
    for key in ("imagePullSecrets", "nodeSelector", "tolerations"):
        assert spec[key] == EVERYTHING[key]
    assert not spec.keys() & {"affinity", "priorityClassName"}
    mount, emulators = spec["initContainers"]
    (daemon,) = spec["containers"]
    assert daemon["image"] == mount["image"] == f"registry.internal:5000/binfmtd@{DIGEST}"
    assert emulators["image"] == f"docker.io/tonistiigi/binfmt@{DIGEST}"
    assert emulators["args"] == ["emulators", "import", "/image", "--name", "first"]
    assert [each["resources"] for each in (mount, emulators, daemon)] == [EVERYTHING["resources"]] * 3
    assert daemon["env"] == [
        {"name": "BINFMTD_LAST_VALID", "value": "1"},
        {"name": "BINFMTD_REAL_TIME", "value": "1"},
    ]
    assert daemon["securityContext"]["capabilities"]["add"] == ["SYS_CHROOT", "SYS_ADMIN", "SYS_NICE"]
    assert "allowPrivilegeEscalation" not in daemon["securityContext"]
    for each in (emulators, daemon):
        assert each["securityContext"]["seLinuxOptions"] == {"type": "spc_t", "level": "s0"}


@pytest.mark.parametrize(
    "values",
    [
        {"seald": {"enabled": True}},
        {"image": {"digest": "sha256:0123"}},
        {"image": {"repository": "registry.internal/binfmtd:0.1.0"}},
        {"config": 'architectures = ["all"]\n'},
        {"resources": {"memory": "256Mi"}},
        {"affinity": {"nodeAfinity": {}}},
        {"privileged": True, "privateMounts": True},
        {"emulators": {"enabled": True, "name": "first"}},
        {"emulators": {"enabled": True, "image": {"tag": "0.1.0"}}},
        {"emulators": STORE | {"name": "-first"}},
        {"emulators": STORE | {"name": "system"}},
        {"nodeFeatureDiscovery": {"enabled": True, "probe": "off"}},
        {"maxUnavailable": "ten"},
        {"maxUnavailable": "0%"},
        {"podLabels": {"app.kubernetes.io/name": "another"}},
        {"tolerations": {"operator": "Exists"}},
    ],
    ids=str,
)
def test_wrong_values(helm: Any, values: dict[str, Any]) -> None:
    """The schema rejects unknown values, wrong types, and values that exclude each other."""
    with pytest.raises(helm.HelmValuesError):
        render(helm, values)


@pytest.mark.parametrize(
    ("values", "beginning", "end"),
    [
        ({"config": 'architectures = ["all"]\n'}, "at '/config': ", " does not match pattern "),
        ({"privileged": True, "privateMounts": True}, "at '': 'not' failed", ""),
        ({"image": {"repository": "r/binfmtd:0.1.0"}}, "at '/image/repository': ", " does not match pattern "),
        ({"emulators": {"enabled": True, "name": "first"}}, "at '/emulators/image': 'anyOf' failed", ""),
        ({"image": {"tag": 1}}, "at '/image/tag': got number, want string", ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_messages_of_the_readme(helm: Any, values: dict[str, Any], beginning: str, end: str) -> None:
    """Helm refuses these values with the messages that the README explains; ``...`` stands for what is between."""
    quoted = f"`{beginning}...{end}...`" if end else f"`{beginning}`"
    assert f"| {quoted} | " in (CHART / "README.md").read_text(encoding="utf-8")
    with pytest.raises(helm.HelmValuesError) as refused:
        render(helm, values)
    assert beginning in str(refused.value)
    assert end in str(refused.value).partition(beginning)[2]


@pytest.mark.parametrize("case", CASES)
def test_lint(helm: Any, case: str) -> None:
    """``helm lint --strict`` reports no error and no warning."""
    report = helm.lint(str(CHART), CASES[case], strict=True, namespace="binfmtd")
    assert report["errors"] == []
    info = 1
    assert [message for message in report["messages"] if message["severity"] > info] == []


def test_lint_can_fail(helm: Any, tmp_path: Path) -> None:
    """A template that renders no YAML is an error."""
    broken = tmp_path / "binfmtd"
    shutil.copytree(CHART, broken)
    with (broken / "templates/config-map.yaml").open("a") as file:
        file.write("  {{ .Values.config }}\n")
    assert helm.lint(str(broken), {}, strict=True, namespace="binfmtd")["errors"]


def test_package(helm: Any, tmp_path: Path) -> None:
    """``helm package`` makes an archive, which renders as the directory does."""
    archive = Path(helm.package(str(CHART), destination=str(tmp_path)))
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    assert archive.name == f"binfmtd-{version}.tgz"
    assert render(helm, EVERYTHING, archive) == render(helm, EVERYTHING)


def test_a_registry(helm: Any, tmp_path: Path) -> None:
    """A registry with a password takes the chart as an OCI artefact, and gives back the archive byte by byte."""
    if shutil.which("docker-registry") is None:
        unavailable("not here: docker-registry; `make test-containers` installs it")
    archive = Path(helm.package(str(CHART), destination=str(tmp_path)))
    version = archive.stem.removeprefix("binfmtd-")
    pulled = tmp_path / "pulled"
    pulled.mkdir()
    with (
        Registry(tmp_path / "registry", credentials=True) as registry,
        helm.RegistryClient(plain_http=True, credentials_file=tmp_path / "credentials.json") as client,
    ):
        remote = f"oci://{registry.address}/charts"
        with pytest.raises(helm.HelmRegistryError):
            client.push(archive, remote, plain_http=True)
        client.login(registry.address, USER, PASSWORD, plain_http=True)
        client.push(archive, remote, plain_http=True)
        assert client.tags(f"{remote}/binfmtd") == [version]
        client.pull(f"{remote}/binfmtd", version=version, destination=pulled, plain_http=True)
    assert (pulled / archive.name).read_bytes() == archive.read_bytes()


def test_the_notes(helm: Any) -> None:
    """After an installation Helm prints what to run, names a missing image, and how to leave a sealed node."""
    placeholder = {"image": {"repository": "registry.example.com/a-name"}}
    notes = texts(helm, placeholder)["NOTES.txt"]
    assert "kubectl -n binfmtd rollout status daemonset/binfmtd" in notes
    assert "image.repository" in notes
    assert "sealed" not in notes
    named = {"image": {"repository": "registry.internal/binfmtd"}}
    assert "emulators.image.repository" in texts(helm, named | {"emulators": STORE})["NOTES.txt"]
    notes = texts(helm, EVERYTHING)["NOTES.txt"]
    assert "image.repository" not in notes
    assert "sealed.value=false" in notes


def test_the_schema_is_one() -> None:
    """values.schema.json is a valid schema, and values.yaml agrees with it."""
    check = tool("check-jsonschema")
    for arguments in (["--check-metaschema", str(SCHEMA)], ["--schemafile", str(SCHEMA), str(CHART / "values.yaml")]):
        said = run([check, *arguments])
        assert said.status == 0, said.stdout + said.stderr


def test_the_defaults_of_the_schema() -> None:
    """Each default in the schema, and so in the README, is that of values.yaml."""

    def defaults(schema: dict[str, Any]) -> Any:
        if "properties" not in schema:
            return schema["default"]
        return {name: defaults(value) for name, value in schema["properties"].items() if name != "global"}

    assert defaults(yaml.safe_load(SCHEMA.read_text())) == yaml.safe_load((CHART / "values.yaml").read_text())
