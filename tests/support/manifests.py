"""Manifests for Kubernetes: built by kustomize, and the versions of the API whose schemas they are checked against.

Importing this skips a test module where PyYAML or kubernetes-validate is not installed.
"""

import shutil
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from binfmtd.config.load import load
from binfmtd.files.trust import Trust
from binfmtd.model.config import Config
from support.cli import CHECKOUT, run

yaml = pytest.importorskip("yaml", reason="PyYAML is not here: `make test-containers` installs it")
validator = pytest.importorskip(
    "kubernetes_validate.utils", reason="kubernetes-validate is not here: `make test-containers` installs it"
)

KUBERNETES = CHECKOUT / "config/kubernetes"
SINCE = {"sidecar": (1, 33)}
# Its schema comes with its operator, not with Kubernetes.
CUSTOM = {"PodMonitor"}

Documents = list[dict[str, Any]]


def tool(name: str) -> str:
    """Return the path of a program; skip where it is not installed."""
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not here: `make test-containers` installs it where there is one for this machine")
    return found


def build(directory: Path) -> Documents:
    """Return what kustomize builds from a directory."""
    built = run([tool("kubectl"), "kustomize", str(directory)])
    assert (built.status, built.stderr) == (0, "")
    return list(yaml.safe_load_all(built.stdout))


def one(documents: Documents, kind: str) -> dict[str, Any]:
    """Return the only object of a kind."""
    (found,) = (document for document in documents if document["kind"] == kind)
    return found


def load_config(documents: Documents, directory: Path) -> Config:
    """Write the ConfigMap's files to the DaemonSet's paths in a directory, and load them; assert there is no warning.

    Each key of the ConfigMap has a path, and the config says ``reload_on_change``.
    """
    data = one(documents, "ConfigMap")["data"]
    volumes = one(documents, "DaemonSet")["spec"]["template"]["spec"]["volumes"]
    (items,) = (volume["configMap"]["items"] for volume in volumes if volume["name"] == "config")
    assert {item["key"] for item in items} == data.keys()
    for item in items:
        (directory / item["path"]).parent.mkdir(exist_ok=True)
        (directory / item["path"]).write_text(data[item["key"]])
    config = load(str(directory / "binfmtd.toml"), trust=Trust.of_this_process())
    assert config.warnings == ()
    assert config.policy.reload_on_change
    return config


def versions(directory: Path) -> list[str]:
    """Return all versions of the API whose schemas kubernetes-validate has, from the oldest that the manifest needs."""
    minors = {tuple(map(int, version.split(".")[:2])) for version in validator.all_versions()}
    assert len(minors) > 10
    return [
        f"{major}.{minor}" for major, minor in sorted(minors) if (major, minor) >= SINCE.get(directory.name, (1, 0))
    ]
