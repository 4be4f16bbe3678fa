"""Whole builds by a real Docker Engine (`docker build --platform linux/arm64`) beside disturbances, one a second.

dockerd runs with the private instance, so its containers share it.  A build is a RUN line that executes a program for
arm64 several thousand times and ends with the first that fails.  Skipped where Docker or an arm64 busybox is missing.
"""

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.builds import DEFAULT, MODES, SEALED
from benchmarks.contestants import BUILD, Skipped, scratch
from benchmarks.disturbances import Disturbance, Host, disturbances
from benchmarks.figures import Goal, Part
from support.engine import Engine

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


def docker_builds(scale: float) -> Part:
    """Count the builds of twenty that pass beside each group of disturbances."""
    for program in ("dockerd", "docker", "slirp4netns"):
        if shutil.which(program) is None:
            raise Skipped(
                f"{program} is not here: apt-get install docker.io docker-cli docker-buildx iptables slirp4netns"
            )
    root = _root_tree()
    number = max(2, int(BUILDS * scale))
    modes = (NO_DAEMON, DEFAULT, SEALED)
    passed: dict[str, dict[str, int]] = {}
    for mode in modes:
        with _engine() as engine:
            docker = partial(_logged, engine)
            host = Host(engine.instance, scratch())
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
def _engine() -> Iterator[Engine]:
    """Run an engine that starts with no images; its directories go with it."""
    where = scratch() / "docker"
    try:
        with Engine(where / "engine", where / "data") as engine:
            yield engine
    finally:
        shutil.rmtree(where, ignore_errors=True)


def _logged(engine: Engine, *words: str) -> int:
    """Run a command of docker, and return its exit status; its output goes to a file."""
    done = engine.docker(*words)
    with (BUILD / "docker.log").open("a", encoding="utf-8") as log:
        log.write(done.stdout + done.stderr)
    return done.status


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
