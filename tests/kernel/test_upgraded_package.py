"""The daemon goes on while the package's files are replaced, as in an upgrade."""

import importlib.metadata
import shutil
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol
from urllib.request import Request

import pytest
from support.cli import CHECKOUT, Cli, fake_emulators
from support.daemon import Daemon
from support.instance import MOUNT_POINT, Instance
from support.programs import install
from support.waiting import wait_until

from binfmtd.daemon.preload import REMEDY

pytestmark = pytest.mark.usefixtures("_cli_of_daemon")
# All run-time dependencies on some version of Python; with `python -S` there is no other place to find them.
DISTRIBUTIONS = (
    *("pyinotify", "pyasyncore", "structlog", "prometheus_client"),
    *("pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"),
)
HANDLER = "[handlers.{0}]\nmagic = '\\x00{0}'\ninterpreter = '/usr/bin/true'\nflags = 'F'\n"
NO_ARCHITECTURE = "architectures = []\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a directory with a copy of the package and of all its dependencies except the standard library."""
    tree = tmp_path / "tree"
    shutil.copytree(CHECKOUT / "binfmtd", tree / "binfmtd", ignore=shutil.ignore_patterns("__pycache__"))
    for name in DISTRIBUTIONS:
        for file in (file for found in importlib.metadata.distributions(name=name) for file in found.files or ()):
            source = Path(str(file.locate()))
            if source.is_file() and ".." not in file.parts:
                (tree / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, tree / file)
    return tree


class StartFromTree(Protocol):
    def __call__(self, config: str | None, used: Callable[[Daemon], object] = lambda _: None) -> Daemon: ...


@pytest.fixture
def start_from_tree(instance: Instance, tree: Path, tmp_path: Path) -> Iterator[StartFromTree]:
    """Yield a function that starts a daemon with its modules from the tree, and moves the tree away when ready.

    ``used`` is called before, so that the daemon loads what it loads at the first use.
    """
    python = install(tmp_path / "python", f'#!/bin/sh\nexec {sys.executable} -S -P "$@"\n'.encode())
    started: list[Daemon] = []

    def start(config: str | None, used: Callable[[Daemon], object] = lambda _: None) -> Daemon:
        options, environment = ("--log-level", "debug"), {"PYTHONPATH": str(tree)}
        daemon = Daemon(instance, tmp_path / "daemon", config, options, environment, str(python))
        started.append(daemon)
        daemon.wait_for_log("modules_loaded")
        used(daemon)
        tree.rename(tmp_path / "moved")
        return daemon

    yield start
    for daemon in started:
        daemon.close()
        print(daemon.log_text())  # noqa: T201  pytest shows it where the test failed


def reloaded(cli: Cli, daemon: Daemon, config: str) -> None:
    daemon.config.write_text(config)
    result = cli("reload")
    assert (result.status, result.stderr) == (0, "")


def read_all(daemon: Daemon) -> None:
    """Read all that the daemon serves, from the address that it has logged last."""
    daemon.wait_for_log("listening")
    address = daemon.logs("listening")[-1]["address"]
    for path in ("metrics", "healthz", "readyz", "status"):
        for accept in ("text/html", "*/*"):
            with urllib.request.urlopen(Request(f"http://{address}/{path}", headers={"Accept": accept})) as answer:
                assert answer.status == 200


def test_all_that_a_daemon_does(
    instance: Instance, start_from_tree: StartFromTree, cli: Cli, port: int, tmp_path: Path
) -> None:
    """Reloads with every table, repairs, pauses, probes, mounts and the end load no file of the package any more."""
    daemon = start_from_tree(f"{NO_ARCHITECTURE}[metrics]\nlisten = '127.0.0.1:{port}'\n", read_all)
    reloaded(cli, daemon, NO_ARCHITECTURE + HANDLER.format("one"))

    daemon.config.write_text("architecturez = []\n")
    rejected = cli("reload")
    assert rejected.status == 1
    assert "did you mean" in rejected.message

    emulators = fake_emulators(tmp_path / "bin", ["arm", "s390x"])
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "a.conf").write_text(":included:M::included::/usr/bin/true:\n")
    textfile, labels = tmp_path / "binfmtd.prom", tmp_path / "labels"
    config = f"architectures = ['arm', 's390x']\ninclude = ['{tmp_path}/rules']\nprobe = 'after-repair'\n"
    config += emulators + f"[metrics]\nlisten = '127.0.0.1:{port}'\ntextfile = '{textfile}'\n"
    config += f"[labels]\nfile = '{labels}'\n" + HANDLER.format("l" + "o" * 249)  # its stand-in's name has a hash
    config += HANDLER.format("two")
    reloaded(cli, daemon, config)
    assert {"included", "two", "qemu-arm", "qemu-s390x"} <= set(instance.names())
    wait_until(textfile.exists, what="the textfile")
    wait_until(lambda: len(daemon.logs("listening")) == 2, what="the HTTP server of the last config")
    read_all(daemon)

    instance.remove("two")
    wait_until(lambda: "two" in instance.names(), what="a repair")
    instance.remove("status")
    daemon.wait_status(lambda status: status["repairs"] > 4, "the repair of a flush")
    assert cli("pause", "two").status == 0
    assert cli("resume").status == 0
    daemon.wait_for_log("probed")  # by another process, which uses the package that is installed by then
    instance.run(["umount", MOUNT_POINT], check=True)
    daemon.wait_for_log("trouble")
    instance.run(["mount", "-t", "binfmt_misc", "binfmt_misc", MOUNT_POINT], check=True)
    daemon.wait_for_log("trouble_over")
    wait_until(lambda: "two" in instance.names(), what="a repair after another mount")
    assert daemon.terminate() == 0
    assert daemon.logs("restart_needed") == []
    assert daemon.logs(None, text="Traceback (most recent call last):") == []


@pytest.mark.parametrize("upgraded", [False, True], ids=["removed", "upgraded"])
def test_the_first_config_after_an_upgrade(
    instance: Instance, start_from_tree: StartFromTree, cli: Cli, tree: Path, tmp_path: Path, *, upgraded: bool
) -> None:
    """The first config file of a daemon whose package is replaced is rejected, and the daemon goes on."""
    instance.shell("mount -t tmpfs -o mode=755 tmpfs /etc; mkdir /etc/binfmtd", check=True)
    daemon = start_from_tree(None)  # without a config file it has not loaded pydantic
    if upgraded:
        shutil.copytree(tmp_path / "moved", tree)
    instance.shell("echo 'architectures = []' >/etc/binfmtd/binfmtd.toml", check=True)
    result = cli("reload")
    assert result.status == 1
    assert f"binfmtd.config.parse is of another version of binfmtd: {REMEDY}" in result.message
    instance.remove("qemu-aarch64")
    wait_until(lambda: "qemu-aarch64" in instance.names(), what="a repair")
    assert daemon.terminate() == 0
    assert daemon.logs(None, text="Traceback (most recent call last):") == []


def test_a_half_replaced_package(
    instance: Instance, start_from_tree: StartFromTree, cli: Cli, tree: Path, port: int
) -> None:
    """If pydantic or prometheus_client raises anything when it is loaded, that is reported, and repairs go on."""
    (tree / "prometheus_client" / "registry.py").write_text("raise AttributeError('no such thing')")
    (tree / "pydantic" / "__init__.py").rename(tree / "whole.py")
    (tree / "pydantic" / "__init__.py").write_text("raise AttributeError('no such thing')")
    instance.shell("mount -t tmpfs -o mode=755 tmpfs /etc; mkdir /etc/binfmtd", check=True)
    metrics = f'[metrics]\nlisten = "127.0.0.1:{port}"'

    def reload_twice(daemon: Daemon) -> None:
        instance.shell(f"echo '{NO_ARCHITECTURE}{metrics}' >/etc/binfmtd/binfmtd.toml", check=True)
        result = cli("reload")
        assert result.status == 1
        assert f"no such thing: {REMEDY}" in result.message
        (tree / "whole.py").rename(tree / "pydantic" / "__init__.py")
        assert cli("reload").status == 0
        assert f"no such thing: {REMEDY}" in daemon.wait_for_log("metrics_failed")["reason"]

    daemon = start_from_tree(None, reload_twice)
    assert daemon.terminate() == 0
    assert daemon.logs(None, text="Traceback (most recent call last):") == []


def test_a_repair_that_needs_a_missing_module(
    instance: Instance, start_from_tree: StartFromTree, port: int, tree: Path, tmp_path: Path
) -> None:
    """If a repair needs a missing module, a log line asks for a restart, and everything else goes on."""
    for missing in ("daemon/metrics/http_server.py", "host/syscalls.py"):
        (tree / "binfmtd" / missing).unlink()
    textfile = tmp_path / "binfmtd.prom"
    config = f"{NO_ARCHITECTURE}{HANDLER.format('one')}[metrics]\ntextfile = '{textfile}'\n"
    daemon = start_from_tree(config, lambda _: wait_until(textfile.exists, what="the textfile"))
    daemon.config.write_text(f"{config}listen = '127.0.0.1:{port}'\n")
    daemon.reload()
    assert "restart the daemon" in daemon.wait_for_log("metrics_failed")["reason"]
    instance.run(["umount", MOUNT_POINT], check=True)  # mounting needs the other module
    daemon.wait_for_log("restart_needed", reason=f"No module named 'binfmtd.host.syscalls': {REMEDY}")
    instance.run(["mount", "-t", "binfmt_misc", "binfmt_misc", MOUNT_POINT], check=True)
    wait_until(lambda: instance.names() == ["one"], what="a repair")
    assert daemon.terminate() == 0
    assert daemon.logs(None, text="Traceback (most recent call last):") == []
