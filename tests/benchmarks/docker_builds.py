"""Whole builds by a real Docker Engine (`docker build --platform linux/arm64`) beside disturbances, one a second.

dockerd runs in the private instance, so its containers share it.  A build is a RUN line that executes a program for
arm64 several thousand times and ends with the first that fails.  Skipped where Docker or an arm64 busybox is missing.
"""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.builds import DEFAULT, MODES, SEALED
from benchmarks.contestants import BUILD, Skipped, process, scratch
from benchmarks.disturbances import Disturbance, Host, disturbances
from benchmarks.figures import Goal, Part
from support.instance import Instance
from support.waiting import wait_until

BUILDS = 20
EXECUTIONS = 3000
EVERY = 1.0  # seconds from one disturbance to the next
NO_DAEMON = "no daemon"
NAMED = "what works by name"
PACKAGE = "busybox-static:arm64"
CONTEXT = BUILD / "context"
DOCKERFILE = f"""
FROM arm64base
RUN i=0; while [ $i -lt {EXECUTIONS} ]; do /bin/true || exit 1; i=$((i+1)); done
"""
# No network, and a /run of its own.
DOCKERD = (
    "mount -t tmpfs run /run && echo ready && exec dockerd --data-root {0}/data --exec-root /run/docker "
    "--host unix://{0}/socket --pidfile {0}/pid --bridge=none --iptables=false --ip6tables=false --ip-forward=false "
    ">{0}/dockerd 2>&1"
)
UNSHARE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c")


def docker_builds(scale: float) -> Part:
    """Count the builds of twenty that pass beside each group of disturbances."""
    for program in ("dockerd", "docker"):
        if shutil.which(program) is None:
            raise Skipped(f"{program} is not here: apt-get install docker.io docker-cli docker-buildx")
    root = _root_tree()
    number = max(2, int(BUILDS * scale))
    modes = (NO_DAEMON, DEFAULT, SEALED)
    passed: dict[str, dict[str, int]] = {}
    for mode in modes:
        with Instance(everybody=True) as instance, _dockerd(instance) as docker:
            host = Host(instance, scratch())
            host.restore()
            _import(docker, root)
            kinds = disturbances(host)
            for what, chosen in _groups(kinds):
                if mode == SEALED and what == NAMED:
                    continue  # among all
                with MODES[mode].start(host):
                    done = [_builds(docker, host, chosen, keeps=MODES[mode].keeps) for _ in range(number)]
                passed.setdefault(what, {})[mode] = sum(done)
    rows = [
        [what, *(f"{found[mode]} of {number}" if mode in found else "" for mode in modes)]
        for what, found in passed.items()
    ]
    sealed = sum(number - found[SEALED] for found in passed.values() if SEALED in found)
    goals = [
        Goal("sealed, builds that fail", sealed, 0, "builds"),
        Goal("default, beside what works by name, builds that fail", number - passed[NAMED][DEFAULT], 0, "builds"),
    ]
    samples = {f"{mode}: {what}": [n / number] for what, found in passed.items() for mode, n in found.items()}
    return Part((f"{EXECUTIONS} executions, beside", *modes), rows, goals, samples)


def _groups(kinds: Sequence[Disturbance]) -> list[tuple[str, list[Disturbance]]]:
    return [(NAMED, [kind for kind in kinds if kind.limit == 0]), ("all of them", list(kinds))]


def _builds(docker: Callable[..., int], host: Host, kinds: Sequence[Disturbance], *, keeps: bool) -> bool:
    """Build once beside these, one after the other; return True if it passed."""
    ended = threading.Event()

    def disturb() -> None:
        turn = 0
        while not ended.wait(EVERY):
            kinds[turn % len(kinds)].do(host)
            turn += 1
            if not keeps:
                ended.wait(EVERY / 10)
                host.restore()
            host.mount()

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        return docker("build", "--no-cache", "--network", "none", "--platform", "linux/arm64", str(CONTEXT)) == 0
    finally:
        ended.set()
        thread.join()
        if not keeps:
            host.restore()


@contextmanager
def _dockerd(instance: Instance) -> Iterator[Callable[..., int]]:
    """Run an engine; yield a function that runs a command of docker and returns its exit status."""
    where = scratch() / "docker"
    where.mkdir(exist_ok=True)
    environment = os.environ | {"DOCKER_HOST": f"unix://{where}/socket", "DOCKER_BUILDKIT": "1"}

    def docker(*words: str) -> int:
        with (BUILD / "docker.log").open("ab") as log:
            return subprocess.run(["docker", *words], env=environment, stdout=log, stderr=log, check=False).returncode

    try:
        with process(instance, [*UNSHARE, DOCKERD.format(where)]):
            wait_until(lambda: (where / "socket").exists() and docker("version") == 0, 60, "dockerd")
            yield docker
    finally:
        time.sleep(0.5)  # what it had mounted goes with its mount namespace
        shutil.rmtree(where, ignore_errors=True)


def _root_tree() -> Path:
    """Return a tree with an arm64 busybox, from Debian's package."""
    tree = BUILD / "arm64"
    if (tree / "bin" / "busybox").exists():
        return tree
    package = BUILD / "package"
    package.mkdir(exist_ok=True)
    got = subprocess.run(["apt-get", "download", PACKAGE], cwd=package, check=False, capture_output=True, text=True)
    deb = next(package.glob("busybox-static*.deb"), None)
    if deb is None:
        raise Skipped(
            f"apt-get download {PACKAGE}: {got.stderr.strip()} (dpkg --add-architecture arm64; apt-get update)"
        )
    subprocess.run(["dpkg-deb", "-x", str(deb), str(package / "tree")], check=True)
    (tree / "bin").mkdir(parents=True)
    (tree / "tmp").mkdir()
    shutil.copy(package / "tree" / "usr" / "bin" / "busybox", tree / "bin" / "busybox")
    for name in ("sh", "true"):
        (tree / "bin" / name).symlink_to("busybox")
    return tree


def _import(docker: Callable[..., int], root: Path) -> None:
    CONTEXT.mkdir(exist_ok=True)
    (CONTEXT / "Dockerfile").write_text(DOCKERFILE)
    archive = scratch() / "arm64.tar"
    subprocess.run(["tar", "-C", str(root), "-cf", str(archive), "."], check=True)
    if docker("import", "--platform", "linux/arm64", str(archive), "arm64base") != 0:
        raise Skipped(f"docker import failed: see {BUILD}/docker.log")
