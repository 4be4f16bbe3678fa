"""The commands of kubectl in docs/kubernetes.md, as they are written there, on a real node."""

from pathlib import Path

import pytest
from support.cluster import Cluster
from support.documents import Fragment, fragments
from support.helm import IMAGE
from support.pods import Pods

pytestmark = pytest.mark.cluster

PAGE = "docs/kubernetes.md"


def lines() -> list[Fragment]:
    """Return the command lines; one that ends with the option -k only names the command."""
    return [fragment for fragment in fragments(PAGE, "kubectl") if not fragment.text.endswith("-k")]


def test_each_command_works(cluster: Cluster, checkout: Path) -> None:
    """Each command exits with 0 in the directory of the page's kustomization.yaml, or is marked with the reason."""
    page = (checkout / PAGE).read_text()
    file = page.partition("```yaml\n")[2].partition("```")[0]
    assert "kind: Kustomization" in file
    (checkout / "kustomization.yaml").write_text(file.replace("registry.internal/binfmtd", IMAGE))
    pods = Pods(cluster, checkout)
    ran = 0
    for fragment in lines():
        if fragment.reason is None:
            line = fragment.text.replace("POD", pods.name) if "POD" in fragment.text else fragment.text
            done = cluster.shell(line, directory=checkout)
            assert done.status == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
            ran += 1
        if "apply" in fragment.text or "restart" in fragment.text:
            pods.wait_ready()
    assert ran
