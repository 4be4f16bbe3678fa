"""docs/howto: the kustomization, the files for podman's generator, and the unit for Docker that the pages have."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.cli import CHECKOUT, run
from support.howto import blocks
from support.manifests import KUBERNETES, build, one, validator, versions, yaml
from support.quadlet import generate

from binfmtd import __version__

pytestmark = pytest.mark.container

QUADLETS = "/etc/containers/systemd/"


def configs(page: str) -> list[dict[str, Any]]:
    """Return the YAML blocks of a page."""
    return [yaml.safe_load(block.text) for block in blocks("yaml") if block.page == page]


def butane(variant: str) -> dict[str, Any]:
    (found,) = (config for config in configs("flatcar-coreos.md") if config["variant"] == variant)
    return found


def test_all_yaml() -> None:
    """Each block of YAML can be parsed."""
    assert all(isinstance(yaml.safe_load(block.text), dict) for block in blocks("yaml"))


def test_bottlerocket(tmp_path: Path) -> None:
    """kubectl builds the kustomization; all versions of the API accept the DaemonSet, whose daemon has the label."""
    (kustomization,) = configs("bottlerocket.md")
    shutil.copytree(KUBERNETES, tmp_path / "config" / "kubernetes")
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    daemon_set = one(build(tmp_path), "DaemonSet")
    for version in versions(KUBERNETES):
        validator.validate(daemon_set, version, strict=True)
    (daemon,) = daemon_set["spec"]["template"]["spec"]["containers"]
    assert daemon["securityContext"]["seLinuxOptions"] == {"type": "spc_t", "level": "s0"}
    assert daemon["image"] == f"registry.internal/binfmtd:{__version__}"


def test_fedora_coreos(tmp_path: Path) -> None:
    """podman's generator makes a unit of the files, with their image and their level of SELinux."""
    for file in butane("fcos")["storage"]["files"]:
        path = tmp_path / "source" / file["path"].removeprefix(QUADLETS)
        path.parent.mkdir(parents=True, exist_ok=True)
        contents = file["contents"]
        local = CHECKOUT / "packaging" / "quadlet" / contents.get("local", "")
        path.write_text(contents["inline"] if "inline" in contents else local.read_text())
    made = generate(tmp_path / "source", tmp_path / "units")
    assert (made.status, made.stderr) == (0, "")
    unit = (tmp_path / "units" / "binfmtd.service").read_text()
    (line,) = (line for line in unit.splitlines() if line.startswith("ExecStart="))
    assert "--security-opt label=type:spc_t --security-opt label=level:s0" in line
    assert line.endswith(f" --privileged registry.example.org/binfmtd:{__version__} run")


def verify(text: str, directory: Path) -> str:
    """Return what systemd-analyze says of a unit that runs Docker; the test needs no Docker of its own."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    unit = directory / "binfmtd.service"
    unit.write_text(text.replace("/usr/bin/docker", "/bin/true").replace("Requires=docker.service\n", ""))
    return run(["systemd-analyze", "verify", "--man=no", str(unit)]).stderr


def test_flatcar(tmp_path: Path) -> None:
    """systemd-analyze prints nothing about the unit, and something about one with a wrong setting."""
    (unit,) = butane("flatcar")["systemd"]["units"]
    assert verify(unit["contents"], tmp_path) == ""
    assert "allways" in verify(unit["contents"].replace("Restart=always", "Restart=allways"), tmp_path)
