"""For tests with a real Kubernetes node: one cluster for all tests, and the manifests as they are in config/kubernetes.

Each test begins on a node without entries, pods and mounts of ours, and with binfmt_misc mounted.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli import CHECKOUT
from support.cluster import Cluster
from support.docker_images import BASE, DATA, NEEDED, build_images, copy_checkout, name_images
from support.docker_images import BUILD as DOCKER
from support.engine import Engine
from support.foreign_tree import arm64_archive
from support.helm import IMAGE, NEXT_TAG, TAG, Helm
from support.kubernetes_programs import programs
from support.pods import FOREIGN, Install, Pods
from support.required import require

BUILD = CHECKOUT / "build" / "cluster"
EMULATORS = f"registry.example.com/binfmtd-emulators:{TAG}"  # of overlays/emulators
PROGRAMS = ("containerd", "ctr", "runc", "go", "dpkg-source", "openssl")
CONTROLLER = Path("/sys/fs/cgroup/memory")  # the kubelet of this suite takes control groups v1


@pytest.fixture(scope="session")
def _kubernetes() -> Path:
    """Return the directory of Kubernetes' programs; skip, or in CI fail, where a node cannot run."""
    require("test-cluster", (*NEEDED, *PROGRAMS), "a node has all users", [CONTROLLER])
    return programs()


@pytest.fixture(scope="session")
def checkout(_kubernetes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the files that a commit would have now."""
    return copy_checkout(tmp_path_factory.mktemp("checkout") / "binfmtd")


@pytest.fixture(scope="session")
def images(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the archive of all images: ours, that of a build, of a sandbox, and one with foreign programs."""
    archive = tmp_path_factory.mktemp("images") / "images.tar"
    with Engine(tmp_path_factory.mktemp("build") / "engine", DATA) as engine:
        build_images(engine, checkout)
        names = [name for tag in (TAG, NEXT_TAG) for name in name_images(engine, os.path.dirname(IMAGE), tag)]
        names += [BASE, "k8s.gcr.io/pause:3.2", FOREIGN, EMULATORS]
        engine.checked("tag", "binfmtd", EMULATORS)
        pause = tmp_path_factory.mktemp("pause")
        (pause / "Dockerfile").write_text(f'FROM {BASE}\nENTRYPOINT ["sleep", "infinity"]\n')
        engine.checked("build", "--tag=k8s.gcr.io/pause:3.2", str(pause))
        # A node asks for images of its own architecture only, so this one claims to be one.
        engine.import_tree(arm64_archive(DOCKER), FOREIGN, "linux/amd64")
        saved = engine.run("sh", "-c", 'archive=$1; shift; docker save "$@" >"$archive"', "sh", "/run/a.tar", *names)
        assert saved.status == 0, saved.stderr
        shutil.copyfile(engine.root / "run" / "a.tar", archive)
    return archive


@pytest.fixture(scope="session")
def _cluster(_kubernetes: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    shutil.rmtree(BUILD / "containerd", ignore_errors=True)
    with Cluster(tmp_path_factory.mktemp("cluster") / "node", _kubernetes, BUILD / "containerd") as cluster:
        shutil.copyfile(images, cluster.directory / "images.tar")
        cluster.import_images(cluster.directory / "images.tar")
        (cluster.directory / "images.tar").unlink()
        yield cluster
    shutil.rmtree(BUILD / "containerd", ignore_errors=True)


@pytest.fixture
def cluster(_cluster: Cluster) -> Iterator[Cluster]:
    """Return the cluster, whose node has binfmt_misc mounted, with nothing in it."""
    yield _cluster
    _cluster.clean()


@pytest.fixture
def install(cluster: Cluster, checkout: Path, tmp_path: Path) -> Install:
    """Return a function that applies a kustomization of config/kubernetes, and waits until its pod is ready."""

    def apply(kustomization: str = "base", *, wait: bool = True) -> Pods:
        manifests = tmp_path / "config" / "kubernetes"
        if not manifests.exists():
            shutil.copytree(checkout / "config" / "kubernetes", manifests)
        pods = Pods(cluster, manifests / kustomization)
        pods.apply()
        if wait:
            pods.wait_ready()
        return pods

    return apply


@pytest.fixture
def helm(cluster: Cluster, checkout: Path, tmp_path: Path) -> Iterator[Helm]:
    """Return helm, with the chart of the checkout, and without the namespace binfmtd."""
    helm = Helm(cluster, tmp_path / "helm", checkout / "packaging" / "helm")
    yield helm
    helm.remove_namespace()


@pytest.fixture(scope="session")
def arm64(_kubernetes: Path) -> Path:
    """Return the archive of a root directory with a static busybox for arm64."""
    return arm64_archive(DOCKER)
