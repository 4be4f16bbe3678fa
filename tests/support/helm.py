"""The program ``helm`` on the node of a test's cluster: the one on PATH, or support.helm_program in its place."""

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from binfmtd import __version__
from support.cli import CHECKOUT, Result
from support.cluster import Cluster
from support.helm_program import LIBRARY
from support.manifests import yaml
from support.pods import IN_NAMESPACE
from support.programs import install
from support.required import unavailable

RELEASE = "binfmtd"
CHART = "packaging/helm/binfmtd"
IMAGE = str(yaml.safe_load((CHECKOUT / CHART / "values.yaml").read_text())["image"]["repository"])
TAG, NEXT_TAG = __version__, "99.0.0"  # of the cluster's images
_PROGRAM = """#!/bin/sh
exec '{python}' -I '{program}' "$@"
"""


class Helm:
    """helm for one cluster, at first without the namespace binfmtd.

    ``work`` is a directory on the node that has the charts, a copy of ``charts``, at their place in a checkout.
    """

    def __init__(self, cluster: Cluster, directory: Path, charts: Path) -> None:
        self._cluster = cluster
        self._programs = directory
        directory.mkdir()
        self.is_program = shutil.which("helm") is not None
        if not self.is_program:
            if importlib.util.find_spec(LIBRARY) is None:
                unavailable("not here: helm, or helm-python-sdk, which `make test-cluster` installs on amd64 hosts")
            program = Path(__file__).with_name("helm_program.py")
            install(directory / "helm", _PROGRAM.format(python=sys.executable, program=program).encode())
        self.work = cluster.directory / "helm"
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(charts, self.work / "packaging" / "helm")
        self.remove_namespace()

    def remove_namespace(self) -> None:
        """Delete the namespace, its pods first: with pods left in it, its end took 55 seconds, without them 9."""
        self._cluster.checked("delete", "daemonsets,pods", IN_NAMESPACE, "--all", "--wait=true", "--timeout=120s")
        self._cluster.checked("delete", "namespace", "binfmtd", "--ignore-not-found", "--wait=true", "--timeout=120s")

    def shell(self, script: str, *arguments: str) -> Result:
        """Run a script in ``work``, as the cluster's administrator, with helm on PATH."""
        script = f'PATH="{self._programs}:$PATH"\n{script}'
        return self._cluster.shell(script, *arguments, directory=self.work)

    def __call__(self, command: str, *arguments: str) -> Result:
        """Run a command of helm in the namespace binfmtd to its end, whatever its exit status."""
        return self.shell('exec helm "$@"', command, IN_NAMESPACE, *arguments)

    def checked(self, command: str, *arguments: str) -> Result:
        """Run a command of helm; AssertionError with its messages if it fails."""
        done = self(command, *arguments)
        assert done.status == 0, f"helm {command} {' '.join(arguments)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done

    def install(self, *options: str) -> Result:
        """Make the namespace, and install the chart."""
        self._cluster.checked("create", "namespace", "binfmtd")
        return self.checked("install", RELEASE, CHART, *options)

    def upgrade(self, *options: str) -> Result:
        """Upgrade the release to the chart with these options."""
        return self.checked("upgrade", RELEASE, CHART, *options)

    def run_block(self, block: str) -> None:
        """Run a block of a document as it is written, but for the names of images and of a registry."""
        script = block.replace("registry.internal/binfmtd", IMAGE)
        script = script.replace("image.digest=sha256:...", f"image.tag={TAG}")
        script = re.sub(r"oci://registry\.internal(\S*)", r"oci://localhost:5000\1 --plain-http", script)
        done = self.shell(f"set -ex\n{script}")
        assert done.status == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"

    def history(self) -> list[str]:
        """Return the status of each revision of the release, from the first one on."""
        revisions: list[dict[str, Any]] = json.loads(self.checked("history", RELEASE, "--output=json").stdout)
        assert [each["revision"] for each in revisions] == list(range(1, len(revisions) + 1))
        return [each["status"] for each in revisions]

    @property
    def major(self) -> int:
        """The first number of helm's version."""
        found = re.search(r"\bv(\d+)\.", self.checked("version").stdout)
        assert found is not None
        return int(found[1])
