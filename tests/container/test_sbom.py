"""The list of an image's packages (SBOM), compared with what the image's own dpkg and Python say."""

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from support import images
from support.cli import CHECKOUT
from support.containers import Machine

from binfmtd import __version__

pytestmark = pytest.mark.container

SBOM = CHECKOUT / "packaging/image/sbom.py"
PYTHON = """
import importlib.metadata as m, json
print(json.dumps({d.name: d.version for d in m.distributions()}))
"""

Components = dict[str, dict[str, Any]]


def write(archive: Path) -> str:
    tools = {"PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}", "SOURCE_DATE_EPOCH": "1796083200"}
    with archive.open("rb") as tar:
        command = [sys.executable, str(SBOM), "binfmtd", __version__]
        done = subprocess.run(command, stdin=tar, capture_output=True, text=True, check=False, env=os.environ | tools)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def name(_podman: None) -> str:
    """Return the name of an image with three emulators."""
    return images.build("binfmtd", emulators="aarch64,armhf riscv64")


@pytest.fixture(scope="module")
def text(name: str) -> str:
    """Return the image's list, made twice: the second has to be the same."""
    pytest.importorskip("debsbom", reason="debsbom is not here: `make test-containers` installs it")
    with images.exported(name) as archive:
        first = write(archive)
        assert first == write(archive)
    return first


@pytest.fixture(scope="module")
def debian(text: str) -> Components:
    """Return the binary packages of Debian."""
    found = json.loads(text)["components"]
    return {each["name"]: each for each in found if re.match(r"pkg:deb/(?!.*arch=source)", each.get("purl", ""))}


@pytest.fixture(scope="module")
def python(text: str) -> Components:
    """Return Python's packages."""
    found = json.loads(text)["components"]
    return {each["name"]: each for each in found if not each.get("purl", "").startswith("pkg:deb/")}


def versions(components: Components) -> dict[str, str]:
    return {name: each["version"] for name, each in components.items()}


def licensed(component: dict[str, Any]) -> list[str]:
    found = [each.get("expression") or each["license"] for each in component["licenses"]]
    return [each if isinstance(each, str) else each.get("id") or each["name"] for each in found]


def test_debian_packages(debian: Components, name: str, machine: Machine) -> None:
    """Each package that dpkg lists is in the list with its version, and so is qemu-user, which dpkg does not know."""
    listed = machine.container("--entrypoint=dpkg-query", name, "--show", "-f", "${Package} ${Version}\\n")
    assert listed.status == 0, listed.stderr
    found = versions(debian)
    qemu = found.pop("qemu-user")
    assert found == dict(line.split() for line in listed.stdout.splitlines())
    status = machine.container("--entrypoint=cat", name, "/var/lib/dpkg/status.d/qemu-user")
    assert f"\nVersion: {qemu}\n" in status.stdout


def test_python_packages(python: Components, name: str, machine: Machine) -> None:
    """Each package that the image's Python finds is in the list with its version, binfmtd among them."""
    listed = machine.container("--entrypoint=/opt/binfmtd/bin/python", name, "-c", PYTHON)
    assert listed.status == 0, listed.stderr
    assert versions(python) == json.loads(listed.stdout)
    assert python["binfmtd"]["version"] == __version__
    assert {"pydantic", "structlog", "pyinotify", "pyasyncore", "prometheus_client"} <= python.keys()


def test_licences(debian: Components, python: Components) -> None:
    """Each package has a licence: QEMU's from a text without names of licences, that of Python's from metadata."""
    components = [*debian.values(), *python.values()]
    assert [each["name"] for each in components if not each.get("licenses")] == []
    assert "GPL-2" in licensed(debian["qemu-user"])
    assert any("GPL-2" in name for name in licensed(debian["dpkg"]))
    assert licensed(python["binfmtd"]) == licensed(python["pydantic"]) == ["MIT"]


def test_what_qemu_was_built_of(text: str, debian: Components) -> None:
    """QEMU's static programs contain other packages, such as glibc: the list has their sources."""
    dependencies = {each["ref"]: each.get("dependsOn", []) for each in json.loads(text)["dependencies"]}
    parts = " ".join(dependencies[debian["qemu-user"]["bom-ref"]])
    assert "/qemu@" in parts
    assert "/glibc@" in parts


def test_the_document(text: str) -> None:
    """The list is valid by CycloneDX's schema, names the image, and no path of the build."""
    document = json.loads(text)
    validation = pytest.importorskip("cyclonedx.validation.json")
    schema = pytest.importorskip("cyclonedx.schema")
    validator = validation.JsonStrictValidator(schema.SchemaVersion.from_version(document["specVersion"]))
    assert validator.validate_str(text) is None
    image = document["metadata"]["component"]
    assert (image["type"], image["name"], image["version"]) == ("container", "binfmtd", __version__)
    assert document["metadata"]["timestamp"] == "2026-12-01T00:00:00+00:00"
    references = [each["bom-ref"] for each in document["components"]]
    assert len(references) == len(set(references))
    assert "file:" not in text
