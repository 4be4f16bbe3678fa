"""The Containerfile and the Compose file, checked by hadolint and by Compose's schema."""

import re
import shutil
import sysconfig
from pathlib import Path

import pytest
from support.cli import CHECKOUT, run

pytestmark = pytest.mark.container


def tool(name: str) -> str:
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not here: `make test-containers` installs it where there is one for this machine")
    return found


def test_hadolint() -> None:
    """hadolint reports nothing about the Containerfile."""
    said = run([tool("hadolint"), str(CHECKOUT / "Containerfile")])
    assert (said.status, said.stdout) == (0, "")


def test_the_containerfile_for_older_engines(tmp_path: Path) -> None:
    """The command of docs/containers.md removes the option that podman before 5.1 rejects, and nothing else."""
    (command,) = re.findall(r"`(sed -i [^`]+ Containerfile)`", (CHECKOUT / "docs/containers.md").read_text())
    text = (CHECKOUT / "Containerfile").read_text()
    (tmp_path / "Containerfile").write_text(text)
    assert run(["sh", "-c", command], cwd=tmp_path).status == 0
    changed = (tmp_path / "Containerfile").read_text()
    assert changed == text.replace(" --start-interval=1s", "") != text
    assert "--start-interval" not in changed


def test_compose_schema() -> None:
    """Compose's own schema allows the Compose file."""
    schema = ["--builtin-schema", "vendor.compose-spec"]
    said = run([tool("check-jsonschema"), *schema, str(CHECKOUT / "config/compose.yaml")])
    assert said.status == 0, said.stdout + said.stderr


def test_compose_builds_from_the_containerfile() -> None:
    """Each service names its build file, which exists: by default Docker looks for a Dockerfile."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not here: `make test-containers` installs it")
    services = yaml.safe_load((CHECKOUT / "config/compose.yaml").read_text())["services"]
    for service in services.values():
        assert (CHECKOUT / "config" / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
