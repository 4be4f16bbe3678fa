"""Signatures: the release's own step with a real cosign, registry and buildx; a key is in the place of an identity.

What needs Sigstore's services is not tested: the certificate for the workflow, and the transparency log.
"""

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cli import Result, run
from support.layouts import Layout
from support.registry import Registry
from support.required import unavailable
from support.tars import Member
from support.workflows import on_path, step, stub

from binfmtd import __version__

pytestmark = pytest.mark.container

NEEDED = ("cosign", "docker-registry", "skopeo", "docker")
REPOSITORY = "owner/binfmtd"
TARGETS = ("binfmtd", "slim", "binfmt")
MACHINES = ("amd64", "arm64")
ENVIRONMENT = {"COSIGN_PASSWORD": "secret", "PATH": os.environ["PATH"]}
# A key needs no transparency log.
STUB = 'command=$1\nshift\nexec {cosign} "$command" --key={key} --tlog-upload=false --allow-http-registry "$@"'


def sbom(target: str, machine: str) -> dict[str, Any]:
    image = {"type": "container", "name": f"{target}-{machine}"}
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "metadata": {"component": image}}


class Released:
    """A registry with a signed release, and keys of which one signed it."""

    def __init__(self, directory: Path, registry: Registry) -> None:
        self.directory = directory
        self.image = f"{registry.address}/{REPOSITORY}"
        self.environment = ENVIRONMENT | {"HOME": str(directory)}
        for name in ("ours", "foreign"):
            command = ["cosign", "generate-key-pair", f"--output-key-prefix={name}"]
            made = run(command, cwd=directory, env=self.environment)
            assert made.status == 0, made.stderr

    def cosign(self, command: str, key: str, *arguments: str) -> Result:
        options = [f"--key={self.directory}/{key}.pub", "--insecure-ignore-tlog=true", "--allow-http-registry"]
        return run(["cosign", command, *options, *arguments], cwd=self.directory, env=self.environment)

    def digest(self, tag: str) -> str:
        asked = run(["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{self.image}:{tag}"])
        assert asked.status == 0, asked.stderr
        return f"sha256:{hashlib.sha256(asked.stdout.encode()).hexdigest()}"


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Released]:
    """Push images for two machines, run the release's step, and yield what it made."""
    if missing := [program for program in NEEDED if shutil.which(program) is None]:
        unavailable(f"not here: {', '.join(missing)}; `make test-containers` installs them")
    if run(["docker", "buildx", "version"]).status != 0:
        unavailable("docker buildx is not here: `make test-containers` installs it")
    directory = tmp_path_factory.mktemp("release")
    layout = Layout(directory / "layout")
    with Registry(directory / "registry") as registry:
        made = Released(directory, registry)
        (directory / "artifacts").mkdir()
        for target in TARGETS:
            for machine in MACHINES:
                name = f"{target}-{machine}"
                layout.add(name, [Member("file", name.encode())], platform=f"linux/{machine}")
                registry.push(layout, name, f"{REPOSITORY}:{__version__}-{name}")
                (directory / f"artifacts/{target}-{__version__}-{machine}.cdx.json").write_text(
                    json.dumps(sbom(target, machine))
                )
        cosign = shutil.which("cosign")
        stub(directory / "bin", "cosign", STUB.format(cosign=cosign, key=directory / "ours.key"))
        each = step("release.yml", "Join the machines and sign")
        facts = {"GITHUB_REF_NAME": f"v{__version__}", "GITHUB_REPOSITORY": REPOSITORY, "REGISTRY": registry.address}
        environment = each.environment({}) | made.environment | facts | on_path(directory / "bin")
        done = run(each.command(directory), cwd=directory, env=environment)
        assert done.status == 0, done.stderr
        yield made


@pytest.mark.parametrize("tag", ["", "-slim", "-binfmt"])
def test_each_image_is_signed(released: Released, tag: str) -> None:
    """The image of each target is signed by its digest, for both machines together and for each of them."""
    listed = (released.directory / "build/images.txt").read_text().splitlines()
    (signed,) = (line.partition("@")[2] for line in listed if line.startswith(f"{released.image}:{__version__}{tag}@"))
    assert signed == released.digest(f"{__version__}{tag}")
    singles = [released.digest(f"{__version__}{tag or '-binfmtd'}-{machine}") for machine in MACHINES]
    for digest in (signed, *singles):
        verified = released.cosign("verify", "ours", f"{released.image}@{digest}")
        assert verified.status == 0, verified.stderr
        assert json.loads(verified.stdout)[0]["critical"]["image"]["docker-manifest-digest"] == digest


def test_another_key_is_refused(released: Released) -> None:
    """A signature by another key is none."""
    verified = released.cosign("verify", "foreign", f"{released.image}:{__version__}")
    assert verified.status != 0
    assert "no matching signatures" in verified.stderr


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("machine", MACHINES)
def test_each_list_of_packages_is_signed(released: Released, target: str, machine: str) -> None:
    """The image of each machine has a signed list of packages, which is its own."""
    digest = released.digest(f"{__version__}-{target}-{machine}")
    verified = released.cosign("verify-attestation", "ours", "--type=cyclonedx", f"{released.image}@{digest}")
    assert verified.status == 0, verified.stderr
    statement = json.loads(base64.b64decode(json.loads(verified.stdout.splitlines()[-1])["payload"]))
    assert statement["subject"][0]["digest"] == {"sha256": digest.removeprefix("sha256:")}
    assert statement["predicate"] == sbom(target, machine)


def test_checksums(tmp_path: Path) -> None:
    """A signature of the checksums is valid for them, and for no changed file."""
    if shutil.which("cosign") is None:
        unavailable("cosign is not here: `make test-containers` installs it")
    environment = ENVIRONMENT | {"HOME": str(tmp_path)}
    for name in ("packages", "chart", "images", "sbom-amd64"):
        (tmp_path / "artifacts" / name).mkdir(parents=True)
        (tmp_path / "artifacts" / name / f"{name}.txt").write_text(name)
    made = run(["cosign", "generate-key-pair"], cwd=tmp_path, env=environment)
    assert made.status == 0, made.stderr
    options = f"--key={tmp_path}/cosign.key --tlog-upload=false"
    stub(tmp_path / "bin", "cosign", f'command=$1\nshift\nexec {shutil.which("cosign")} "$command" {options} "$@"')
    each = step("release.yml", "Write checksums and sign them")
    done = run(each.command(tmp_path), cwd=tmp_path, env=environment | on_path(tmp_path / "bin"))
    assert done.status == 0, done.stderr
    verify = ["cosign", "verify-blob", f"--key={tmp_path}/cosign.pub", "--insecure-ignore-tlog=true"]
    verify += ["--bundle=SHA256SUMS.sigstore.json", "SHA256SUMS"]
    assert run(verify, cwd=tmp_path / "release", env=environment).status == 0
    with (tmp_path / "release/SHA256SUMS").open("a") as file:
        file.write("0  other\n")
    assert run(verify, cwd=tmp_path / "release", env=environment).status != 0
