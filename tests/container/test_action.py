"""action.yml, run as GitHub's runner runs it, on a private instance: only apt-get is a stub.

pip installs binfmtd from the checkout, once for all tests.
"""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from support.cli import CHECKOUT, Result, run
from support.instance import Instance, UnavailableError
from support.programs import foreign_program
from support.required import unavailable
from support.workflows import defaults, on_path, step, steps, stub

from binfmtd import __version__
from binfmtd.catalog.architectures import CATALOG

pytestmark = pytest.mark.container

INSTALL_SECONDS = 300
GITHUB = {
    "github.action_path": str(CHECKOUT),
    "github.server_url": "https://github.invalid",
    "github.action_repository || github.repository": "owner/binfmtd",
}
AARCH64 = "/usr/bin/qemu-aarch64"


class Runner:
    """A job on a runner: its steps share RUNNER_TEMP, and each has a file for its outputs."""

    def __init__(self, directory: Path, instance: Instance | None = None) -> None:
        self.directory = directory
        self.temporary = directory / "temp"
        self.stubs = directory / "stubs"
        self.outputs: dict[str, str] = {}
        self._instance = instance
        self.temporary.mkdir(parents=True)
        stub(self.stubs, "apt-get", f'echo "$@" >>{directory}/apt-get')

    def run(self, name: str, values: Mapping[str, str] = {}, **inputs: str) -> Result:
        """Run a step of the action with these inputs, and read its outputs."""
        of_inputs = {f"inputs.{key}": value for key, value in (defaults() | inputs).items()}
        each = step("action.yml", name)
        output = self.directory / "output"
        output.touch()
        settings = {
            **each.environment({**GITHUB, **of_inputs, **values}),
            **on_path(self.stubs),
            "GITHUB_OUTPUT": str(output),
            "RUNNER_TEMP": str(self.temporary),
        }
        command = [
            "env",
            "--unset=PYTHONPATH",
            *(f"{key}={value}" for key, value in settings.items()),
            *each.command(self.directory),
        ]
        done = run(command if self._instance is None else self._instance.entering(command), timeout=INSTALL_SECONDS)
        self.outputs |= dict(line.split("=", 1) for line in output.read_text().splitlines())
        return done


class Job(NamedTuple):
    """A runner with an instance, and the path of the installed command."""

    runner: Runner
    instance: Instance
    command: str

    def register(self, **inputs: str) -> Result:
        return self.runner.run("Register handlers", {"steps.install.outputs.command": self.command}, **inputs)

    def entries(self) -> list[str]:
        return sorted(self.instance.names())


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Install binfmtd by the action's step, and return the path of the command."""
    runner = Runner(tmp_path_factory.mktemp("install") / "runner")
    done = runner.run("Install binfmtd")
    assert done.status == 0, done.stdout + done.stderr
    assert __version__ in done.stdout
    return runner.outputs["command"]


@pytest.fixture
def job(command: str, tmp_path: Path) -> Iterator[Job]:
    """Yield a job with an instance, /run and /var/lib of its own."""
    try:
        with Instance() as instance:
            for directory in ("/run", "/var/lib"):
                assert instance.run(["mount", "-t", "tmpfs", "tmpfs", directory]).returncode == 0
            yield Job(Runner(tmp_path / "runner", instance), instance, command)
    except UnavailableError as error:
        unavailable(str(error))


def test_the_steps() -> None:
    """There are three steps; the one with apt runs by default, and not for other emulators."""
    apt, *others = (each for each in steps() if each.place == "action.yml")
    assert [each.name for each in others] == ["Install binfmtd", "Register handlers"]
    assert apt.applies(defaults())
    assert not apt.applies(defaults() | {"emulators": "host"})
    assert all(each.applies(defaults() | {"emulators": "host"}) for each in others)


def test_apt(tmp_path: Path) -> None:
    """It installs qemu-user-static, without what that recommends, after an update of the lists."""
    runner = Runner(tmp_path / "runner")
    done = runner.run("Install QEMU's emulators")
    assert done.status == 0, done.stderr
    update, install = (runner.directory / "apt-get").read_text().splitlines()
    assert update.split()[-1] == "update"
    assert {"install", "--no-install-recommends", "qemu-user-static"} <= set(install.split())


def test_it_registers(job: Job) -> None:
    """The architectures run afterwards, also in a chroot, and the output names them as platforms."""
    done = job.register(arch="arm64,riscv64")
    assert done.status == 0, done.stdout + done.stderr
    assert job.entries() == ["qemu-aarch64", "qemu-riscv64"]
    foreign_program(job.runner.directory / "program", CATALOG["aarch64"])
    assert job.instance.run(["chroot", str(job.runner.directory), "/program"]).returncode == 42
    platforms = job.runner.outputs["platforms"].split(",")
    assert {"linux/arm64", "linux/riscv64"} <= set(platforms)
    assert "linux/s390x" not in platforms


def test_all_but_one(job: Job) -> None:
    """With ``all`` each architecture that has an emulator runs, except for one that is left out."""
    done = job.register(arch="all,-riscv64")
    assert done.status == 0, done.stdout + done.stderr
    assert "qemu-aarch64" in job.entries()
    assert "qemu-riscv64" not in job.entries()


def test_without_verification(job: Job) -> None:
    """With ``verify: false`` nothing is executed, and there is no output."""
    done = job.register(arch="arm64", verify="false")
    assert done.status == 0, done.stdout + done.stderr
    assert job.entries() == ["qemu-aarch64"]
    assert job.runner.outputs == {}


def test_deep(job: Job) -> None:
    """With ``verify: deep`` it prints a table of the deep checks as well, of the architectures that have programs."""
    done = job.register(arch="arm64,mips", verify="deep")
    assert "ARCHITECTURE" in done.stdout
    checks = done.stdout.partition("PLATFORM")[2]
    assert "linux/arm64" in checks, done.stderr
    assert "has no programs" not in done.stderr
    done = job.register(arch="mips", verify="deep")
    assert (done.status, "PLATFORM" in done.stdout) == (0, False), done.stderr


def test_emulators_of_a_directory(job: Job) -> None:
    """The emulators of a directory are imported into the store, and the entry's interpreter is in it."""
    emulators = job.runner.directory / "emulators"
    emulators.mkdir()
    shutil.copy(AARCH64, emulators)
    done = job.register(arch="arm64", emulators=str(emulators))
    assert done.status == 0, done.stdout + done.stderr
    assert "interpreter /var/lib/binfmtd/emulators/action-" in job.instance.read("qemu-aarch64")


def test_emulators_that_have_changed(job: Job) -> None:
    """A directory or a tag may have other emulators in a later job on the same machine: these are used then."""
    emulators = job.runner.directory / "emulators"
    emulators.mkdir()
    shutil.copy(AARCH64, emulators)
    assert job.register(arch="arm64", emulators=str(emulators)).status == 0
    with (emulators / Path(AARCH64).name).open("ab") as file:
        file.write(b"changed")
    done = job.register(arch="arm64", emulators=str(emulators))
    assert done.status == 0, done.stdout + done.stderr
    interpreter = job.instance.read("qemu-aarch64").partition("interpreter ")[2].partition("\n")[0]
    assert job.instance.run(["tail", "--bytes=7", interpreter]).stdout == "changed"
    assert "action-" in job.instance.run(["ls", "/var/lib/binfmtd/emulators"]).stdout
    assert ".new" not in job.instance.run(["ls", "/var/lib/binfmtd/emulators"]).stdout
    (emulators / Path(AARCH64).name).write_text("broken")
    assert job.register(arch="arm64", emulators=str(emulators)).status != 0
    assert job.instance.run(["tail", "--bytes=7", interpreter]).stdout == "changed"  # a failure removes nothing


def test_it_fails(job: Job) -> None:
    """The step fails for an architecture that has no emulator or does not exist, and for an unknown ``verify``."""
    emulators = job.runner.directory / "emulators"
    emulators.mkdir()
    shutil.copy(AARCH64, emulators)
    assert job.register(arch="riscv64", emulators=str(emulators)).status != 0
    assert job.register(arch="arm65").status != 0
    wrong = job.register(verify="yes")
    assert wrong.status == 1
    assert "::error::verify: yes" in wrong.stdout
    assert job.entries() == []


def test_as_a_user_it_calls_sudo(job: Job) -> None:
    """As another user than root it runs what needs root through sudo: registration, probes, apt-get."""
    log = job.runner.directory / "sudo"
    stub(job.runner.stubs, "id", "echo 1001")
    stub(job.runner.stubs, "sudo", f'echo "$@" >>{log}\nexec "$@"')
    assert job.runner.run("Install QEMU's emulators").status == 0
    assert job.register(arch="arm64").status == 0
    commands = [line.split() for line in log.read_text().splitlines()]
    assert [words[0] for words in commands[:2]] == ["apt-get", "env"]
    assert [words[:2] for words in commands[2:]] == [[job.command, "apply"]] + [[job.command, "probe"]] * 2


def test_a_version(tmp_path: Path) -> None:
    """With ``version`` the tag of the action's repository is installed; a word that is no version is an error."""
    source = tmp_path / "server/owner/binfmtd"
    source.mkdir(parents=True)
    tree = subprocess.run(["git", "-C", str(CHECKOUT), "archive", "HEAD"], capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(source)], input=tree, check=True)
    module = source / "binfmtd/__init__.py"
    module.write_text(module.read_text().replace(f'"{__version__}"', '"7.8.9"'))
    for arguments in (
        ["init", "--quiet"],
        ["config", "uploadpack.allowFilter", "true"],  # as GitHub's; pip asks for it
        ["add", "--all"],
        ["-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "--quiet", "--message=7.8.9"],
        ["tag", "v7.8.9"],
    ):
        subprocess.run(["git", "-C", str(source), *arguments], check=True)
    runner = Runner(tmp_path / "runner")
    values = {"github.server_url": f"file://{tmp_path}/server"}
    done = runner.run("Install binfmtd", values, version="7.8.9")
    assert done.status == 0, done.stdout + done.stderr
    assert "7.8.9" in done.stdout
    wrong = runner.run("Install binfmtd", values, version="main; id")
    assert wrong.status == 1
    assert "::error::version: main; id" in wrong.stdout
