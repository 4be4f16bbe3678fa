"""packaging/quadlet: the unit that podman's generator makes, checked by systemd, and its container run by podman."""

import configparser
import re
import shlex
import shutil
import socket
from pathlib import Path

import pytest
from support.cli import CHECKOUT, run
from support.containers import Machine
from support.quadlet import generate
from support.waiting import SLOWNESS, wait_until

pytestmark = pytest.mark.container

SOURCE = CHECKOUT / "packaging/quadlet"
# The generator's own: a new container at each start, which ends with the unit.
GENERATED = ["--cidfile=%t/%N.cid", "--replace", "--rm", "--cgroups=split"]
# Which the document describes apart from its command: how systemd learns of the start, the config, the state directory.
OURS = ["--sdnotify=container", "-v", "/etc/binfmtd:/etc/binfmtd:ro", "-v", "/run/binfmtd:/run/binfmtd"]
# And for SELinux.
OURS += ["--security-opt", "label=type:spc_t", "--security-opt", "label=level:s0"]
IMAGES = {"localhost/binfmtd:latest", "binfmtd"}


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the unit that the generator makes, without a message."""
    units = tmp_path_factory.mktemp("units")
    made = generate(SOURCE, units)
    assert (made.status, made.stderr) == (0, "")
    return units / "binfmtd.service"


def settings(unit: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names of settings have capitals
    parser.read(unit)
    return parser


def command(unit: Path) -> list[str]:
    return shlex.split(settings(unit)["Service"]["ExecStart"])


def words(line: list[str]) -> list[str]:
    """Return the options and arguments in an order of their own, with one name for the image."""
    return sorted("IMAGE" if word in IMAGES and line[at - 1] != "--name" else word for at, word in enumerate(line))


def test_the_options_are_the_documented_ones(unit: Path) -> None:
    """Its command is the document's for the daemon; in the place of ``--restart always`` systemd restarts it."""
    text = (CHECKOUT / "docs/containers.md").read_text()
    section = text.partition("\n## The daemon\n")[2]
    (documented,) = re.findall(r"^docker (run -d .* binfmtd run)$", section.partition("```\n\n")[0], re.MULTILINE)
    podman, *line = command(unit)
    assert podman == "/usr/bin/podman"
    for word in GENERATED + OURS:
        line.remove(word)
    assert words([*line, "--restart", "always"]) == words(shlex.split(documented))
    assert settings(unit)["Service"]["Restart"] == "always"


def test_an_unknown_key(tmp_path: Path) -> None:
    """The generator makes no unit of a file with an unknown key, so it knows each of ours."""
    text = (SOURCE / "binfmtd.container").read_text()
    (tmp_path / "binfmtd.container").write_text(text.replace("Network=none", "Networks=none"))
    made = generate(tmp_path, tmp_path / "units")
    assert "Networks" in made.stderr
    assert not (tmp_path / "units/binfmtd.service").exists()


def test_systemd_analyze(unit: Path, tmp_path: Path) -> None:
    """``systemd-analyze verify`` prints nothing about the unit, and something about one with a wrong setting."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    said = run(["systemd-analyze", "verify", "--man=no", str(unit)])
    assert (said.status, said.stdout, said.stderr) == (0, "", "")
    wrong = tmp_path / unit.name
    wrong.write_text(unit.read_text().replace("Restart=always", "Restart=allways"))
    assert "allways" in run(["systemd-analyze", "verify", "--man=no", str(wrong)]).stderr


def test_its_order_is_the_unit_s(unit: Path) -> None:
    """It starts before the services that the installed unit starts before, and after the same ones."""

    def values(path: Path, key: str) -> set[str]:
        return {word for line in re.findall(rf"^{key}=(.*)$", path.read_text(), re.MULTILINE) for word in line.split()}

    for key in ("Before", "After"):
        assert values(unit, key) == values(CHECKOUT / "systemd/binfmtd.service", key)


def test_it_runs(unit: Path, machine: Machine, image: str) -> None:
    """podman runs the unit's command: the daemon registers, notifies systemd itself, and reloads its config."""
    host = machine.directory / "host"
    line = [word for word in command(unit) if word not in ("--cidfile=%t/%N.cid", "--cgroups=split")]
    for directory in ("/etc/binfmtd", "/run/binfmtd"):
        (host / directory.lstrip("/")).mkdir(parents=True)
        line = [re.sub(rf"^{directory}:", f"{host}{directory}:", word) for word in line]
    at = line.index("localhost/binfmtd:latest")
    line[at : at + 1] = [*machine.as_first_namespace, image]
    path = machine.directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(path))
        notify.settimeout(120 * SLOWNESS)
        started = machine.run("env", f"NOTIFY_SOCKET={path}", *line)
        assert started.status == 0, started.stderr
        received = b""
        while b"READY=1" not in received.splitlines():
            received += notify.recv(4096) + b"\n"
    assert "qemu-aarch64" in machine.names()
    (host / "etc/binfmtd/binfmtd.toml").write_text('architectures = ["riscv64"]\n')
    _, *reload = shlex.split(settings(unit)["Service"]["ExecReload"])
    reloaded = machine.podman(*reload)
    assert reloaded.status == 0, reloaded.stderr
    assert "qemu-aarch64" not in machine.names()
    assert machine.podman("stop", "--time=30", "binfmtd").status == 0
    wait_until(lambda: machine.containers == [], what="the container was removed")
