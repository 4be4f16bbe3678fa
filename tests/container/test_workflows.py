"""action.yml and .github/workflows: their schemas, rules for safety, and the shell steps that need no service."""

import re
import shutil
from pathlib import Path

import pytest
from support.cli import CHECKOUT, run
from support.manifests import tool
from support.workflows import ACTION, WORKFLOWS, Step, action, on_path, step, steps, stub, yaml

from binfmtd import __version__

pytestmark = pytest.mark.container

TAG = f"v{__version__}"
MACHINES = ("amd64", "arm64")


def test_the_schemas() -> None:
    """GitHub's schemas allow the action and each workflow."""
    check = tool("check-jsonschema")
    for schema, paths in (("vendor.github-actions", [ACTION]), ("vendor.github-workflows", WORKFLOWS)):
        said = run([check, "--builtin-schema", schema, *map(str, paths)])
        assert said.status == 0, said.stdout + said.stderr


def test_actionlint() -> None:
    """actionlint, which also knows expressions and shell, reports nothing about the workflows."""
    said = run([tool("actionlint"), "-no-color", *map(str, WORKFLOWS)], cwd=CHECKOUT)
    assert (said.status, said.stdout) == (0, "")


def test_zizmor() -> None:
    """zizmor, which looks for ways to attack a workflow, finds none of medium or high severity."""
    options = ["--offline", "--no-config", "--min-severity=medium"]
    said = run([tool("zizmor"), *options, *map(str, (ACTION, *WORKFLOWS))])
    assert said.status == 0, said.stdout + said.stderr


def test_no_expression_in_a_script() -> None:
    """A script gets values by variables: an expression in it would be pasted before the shell reads it."""
    found = steps()
    assert len(found) > 10
    assert [(each.place, each.name) for each in found if "${{" in each.script] == []


@pytest.mark.parametrize("each", steps(), ids=lambda each: f"{each.place}: {each.name}")
def test_the_syntax_of_a_script(each: Step, tmp_path: Path) -> None:
    """bash accepts each script; shellcheck, where it is installed, finds nothing."""
    script = tmp_path / "script"
    script.write_text(f"#!/bin/bash\nset -eo pipefail\n{each.script}")
    assert run(["bash", "-n", str(script)]).status == 0
    if shutil.which("shellcheck"):
        said = run(["shellcheck", str(script)])
        assert said.status == 0, said.stdout


def test_each_action_has_a_digest() -> None:
    """Other actions are named by the digest of a commit, with the version in a comment; our own by their paths."""
    uses = [line.strip().removeprefix("- ") for path in WORKFLOWS for line in path.read_text().splitlines()]
    uses = [line for line in uses if line.startswith("uses:")]
    assert len(uses) > 10
    wanted = re.compile(r"uses: (\./\S*|[\w./-]+@[0-9a-f]{40} # v[\d.]+)")
    assert [line for line in uses if not wanted.fullmatch(line)] == []


def test_permissions() -> None:
    """A workflow may only read; each job that writes has the permission itself."""
    for path in WORKFLOWS:
        document = yaml.safe_load(path.read_text())
        assert document["permissions"] == {"contents": "read"}
        for name, job in document["jobs"].items():
            written = {scope for scope, right in job.get("permissions", {}).items() if right == "write"}
            assert written <= {"contents", "packages", "id-token"}
            assert not written or name in ("images", "manifests", "release")
            assert "timeout-minutes" in job or "uses" in job


def test_the_targets_exist() -> None:
    """Each target of make in the workflows exists, and each image is a target of the Containerfile."""
    makefile = (CHECKOUT / "Makefile").read_text()
    scripts = "\n".join(each.script for each in steps() if each.place != "action.yml")
    for words in re.findall(r"^ *make ([a-z -]+)$", scripts, re.MULTILINE):
        for target in words.split():
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    containerfile = (CHECKOUT / "Containerfile").read_text()
    for words in re.findall(r"for target in ([a-z ]+);", scripts):
        assert len(words.split()) == 3
        for target in words.split():
            assert f" AS {target}\n" in containerfile


def test_the_packages(tmp_path: Path) -> None:
    """A release has the source archive and the Debian package, and not the RPM that was built on Debian."""
    made = ("dist/a.tar.gz", "deb/a.deb", "rpm/RPMS/noarch/a.rpm")
    stub(tmp_path / "bin", "git", "")
    stub(tmp_path / "bin", "make", "\n".join(f"install -D /dev/null build/{name}" for name in made))
    each = step("ci.yml", "Make the packages")
    done = run(each.command(tmp_path), cwd=tmp_path, env=on_path(tmp_path / "bin"))
    assert done.status == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "build/release").iterdir()) == ["a.deb", "a.tar.gz"]


def test_the_notes(tmp_path: Path) -> None:
    """The release's first step writes the notes of a tag whose section has a date."""
    checkout = tmp_path / "checkout"
    (checkout / "binfmtd").mkdir(parents=True)
    shutil.copytree(CHECKOUT / "packaging", checkout / "packaging")
    shutil.copy(CHECKOUT / "binfmtd/__init__.py", checkout / "binfmtd")
    changelog = (CHECKOUT / "CHANGELOG.md").read_text()
    heading = re.compile(rf"^## {re.escape(__version__)} \(.*\)$", re.MULTILINE)
    dated = heading.sub(f"## {__version__} (2026-12-01)", changelog)
    (checkout / "CHANGELOG.md").write_text(dated)
    write = step("release.yml", "Write the notes")
    values = {
        "github.server_url": "https://example.org",
        "github.repository": "owner/binfmtd",
        "github.ref_name": TAG,
    }
    environment = write.environment(values) | on_path(tmp_path) | {"GITHUB_REF_NAME": TAG}
    done = run(write.command(tmp_path), cwd=checkout, env=environment)
    assert done.status == 0, done.stderr
    notes = (checkout / "build/notes.md").read_text()
    assert f"](https://example.org/owner/binfmtd/blob/{TAG}/docs/" in notes


def test_the_checksums(tmp_path: Path) -> None:
    """The release's files have checksums that sha256sum verifies, and the signature is of the checksums."""
    names = ("packages/binfmtd.deb", "packages/binfmtd.tar.gz", "chart/binfmtd.tgz", "images/images.txt")
    for name in (*names, "sbom-amd64/slim-amd64.cdx.json", "sbom-arm64/slim-arm64.cdx.json"):
        path = tmp_path / "artifacts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    stub(tmp_path / "bin", "cosign", 'echo "$@" >cosign')
    write = step("release.yml", "Write checksums and sign them")
    done = run(write.command(tmp_path), cwd=tmp_path, env=on_path(tmp_path / "bin"))
    assert done.status == 0, done.stderr
    release = tmp_path / "release"
    assert run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=release).stdout.count(": OK\n") == 6
    assert (release / "cosign").read_text().split()[-1] == "SHA256SUMS"


def test_the_images(tmp_path: Path) -> None:
    """Each image is built with version and labels, pushed, joined for both machines, and signed by its digest."""
    log, digest = tmp_path / "log", f"sha256:{'0' * 64}"
    say = f'echo "$0 $@" >>{log}'
    stub(tmp_path / "bin", "docker", f'{say}\n[ "$3" != inspect ] || echo {digest}')
    stub(tmp_path / "bin", "cosign", say)
    values = {
        "github.server_url": "https://example.org",
        "github.repository": "Owner/binfmtd",
        "matrix.machine": "arm64",
    }
    facts = {"GITHUB_REF_NAME": TAG, "GITHUB_REPOSITORY": "Owner/binfmtd", "GITHUB_REPOSITORY_OWNER": "Owner"}
    for name in ("Build and push", "Join the machines and sign"):
        each = step("release.yml", name)
        environment = each.environment(values) | on_path(tmp_path / "bin") | facts | {"HOME": str(tmp_path)}
        directory = CHECKOUT if name == "Build and push" else tmp_path
        done = run(each.command(tmp_path), cwd=directory, env=environment)
        assert done.status == 0, done.stderr
    lines = [line.removeprefix(f"{tmp_path}/bin/") for line in log.read_text().splitlines()]
    image = f"ghcr.io/owner/binfmtd:{__version__}"
    targets = ("binfmtd", "slim", "binfmt")
    built = [line for line in lines if line.startswith("docker buildx build ")]
    assert [re.findall(r"--target (\S+)", line) for line in built] == [[target] for target in targets]
    assert [re.findall(r"name=([^,]+),push=true", line) for line in built] == [
        [f"{image}-{target}-arm64"] for target in targets
    ]
    commit = run(["git", "rev-parse", "HEAD"], cwd=CHECKOUT).stdout.strip()
    arguments = {"VERSION": __version__, "REVISION": commit, "BASE_DIGEST": digest, "VENDOR": "Owner"}
    arguments["SOURCE"] = "https://example.org/Owner/binfmtd"
    arguments["BASE"] = f"docker.io/library/debian:trixie-slim@{digest}"
    for line in built:
        assert arguments.items() <= dict(re.findall(r"--build-arg (\w+)=(\S+)", line)).items()
    joined = [line.split()[5:] for line in lines if "imagetools create" in line]
    assert joined == [
        [f"{image}{name}", f"{image}-{target}-amd64", f"{image}-{target}-arm64"]
        for name, target in (("", "binfmtd"), ("-slim", "slim"), ("-binfmt", "binfmt"))
    ]
    signed = [line for line in lines if line.startswith("cosign sign ")]
    assert signed == [f"cosign sign --yes --recursive ghcr.io/owner/binfmtd@{digest}"] * 3
    names = (tmp_path / "build/images.txt").read_text().splitlines()
    assert names == [f"{image}{name}@{digest}" for name in ("", "-slim", "-binfmt")]
    lists = [re.findall(r"--predicate artifacts/(\S+)", line) for line in lines if line.startswith("cosign attest ")]
    assert lists == [[f"{target}-{__version__}-{machine}.cdx.json"] for target in targets for machine in MACHINES]


def test_the_lists_of_packages(tmp_path: Path) -> None:
    """The list of each image is made of what docker exports of it, and has the name that is signed."""
    log = tmp_path / "log"
    stub(tmp_path / "bin", "docker", f'echo "$@" >>{log}\ncase $1 in create) echo made ;; export) echo tar ;; esac')
    stub(tmp_path / "bin", "python3", 'read -r tar\necho "$* $tar $SOURCE_DATE_EPOCH"')
    each = step("release.yml", "List the packages")
    facts = {"GITHUB_REF_NAME": TAG, "GITHUB_REPOSITORY": "Owner/binfmtd", "HOME": str(tmp_path)}
    environment = each.environment({"matrix.machine": "arm64"}) | on_path(tmp_path / "bin") | facts
    checkout = tmp_path / "checkout"
    assert run(["git", "clone", "-q", str(CHECKOUT), str(checkout)]).status == 0
    done = run(each.command(tmp_path), cwd=checkout, env=environment)
    assert done.status == 0, done.stderr
    time = run(["git", "log", "-1", "--format=%ct"], cwd=CHECKOUT).stdout.strip()
    for target in ("binfmtd", "slim", "binfmt"):
        listed = (checkout / f"build/sbom/{target}-{__version__}-arm64.cdx.json").read_text()
        assert listed == f"packaging/image/sbom.py {target} {__version__} tar {time}\n"
        assert f"create --pull always ghcr.io/owner/binfmtd:{__version__}-{target}-arm64\n" in log.read_text()


def test_the_chart(tmp_path: Path) -> None:
    """The chart is pushed as an OCI artefact, signed by the digest that helm prints, and named in images.txt."""
    log, digest = tmp_path / "log", f"sha256:{'1' * 64}"
    charts = "ghcr.io/owner/binfmtd/charts"
    pushed = f"Pushed: {charts}/binfmtd:{__version__}\nDigest: {digest}\n"  # what `helm push` prints, to stderr
    stub(tmp_path / "bin", "cosign", f'echo "$@" >>{log}')
    stub(tmp_path / "bin", "helm", f"echo \"$@\" >>{log}\n[ $1 != push ] || printf '%s' '{pushed}' >&2")
    (tmp_path / "build/chart").mkdir(parents=True)
    (tmp_path / f"build/chart/binfmtd-{__version__}.tgz").touch()
    push = step("release.yml", "Push the chart and sign it")
    facts = {"GITHUB_ACTOR": "owner", "GITHUB_REPOSITORY": "Owner/binfmtd", "HOME": str(tmp_path)}
    environment = push.environment({"github.token": "secret"}) | on_path(tmp_path / "bin") | facts
    done = run(push.command(tmp_path), cwd=tmp_path, env=environment)
    assert done.status == 0, done.stderr
    assert log.read_text().splitlines() == [
        "registry login ghcr.io --username owner --password-stdin",
        f"push build/chart/binfmtd-{__version__}.tgz oci://{charts}",
        f"sign --yes {charts}/binfmtd@{digest}",
    ]
    assert (tmp_path / "build/images.txt").read_text() == f"{charts}/binfmtd:{__version__}@{digest}\n"


def test_the_component(tmp_path: Path) -> None:
    """GitLab's schema allows the component's job, and docs/ci.md's use of it; the job uses each input."""
    text = (CHECKOUT / "packaging/gitlab/binfmtd.yml").read_text()
    header, _, job = text.partition("\n---\n")
    inputs = yaml.safe_load(header)["spec"]["inputs"]
    assert set(re.findall(r"\$\[\[ inputs\.(\w+) \]\]", job)) == inputs.keys()
    for name, each in inputs.items():
        job = job.replace(f"$[[ inputs.{name} ]]", each.get("default", "registry.example.org/binfmtd@sha256:0123"))
    blocks = re.findall(r"```yaml\n(.*?)```", (CHECKOUT / "docs/ci.md").read_text(), re.DOTALL)
    (component,) = (block for block in blocks if "component:" in block)
    assert yaml.safe_load(component)["include"][0]["inputs"].keys() <= inputs.keys()
    example, ours = tmp_path / "example.yml", tmp_path / "component.yml"
    ours.write_text(f"{job}\nbuild:\n  extends: .binfmtd\n  script: [uname]\n")
    example.write_text(component)
    said = run([tool("check-jsonschema"), "--builtin-schema", "vendor.gitlab-ci", str(ours), str(example)])
    assert said.status == 0, said.stdout + said.stderr


def test_the_document_names_each_input() -> None:
    """docs/ci.md has a row for each input and each output of the action."""
    rows = re.findall(r"^\| `(\w+)` \|", (CHECKOUT / "docs/ci.md").read_text(), re.MULTILINE)
    assert rows == [*action()["inputs"], *action()["outputs"]]
