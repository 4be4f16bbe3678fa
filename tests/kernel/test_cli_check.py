"""``binfmtd check`` with valid configs, and with handlers that this host cannot register."""

import shlex
from pathlib import Path

import pytest
from support.cli import BINFMTD, Cli, run
from support.instance import Instance
from support.waiting import DirectoryWatch

ONE = """
architectures = []
[handlers.one]
magic = '\\x00one'
interpreter = "/usr/bin/true"
"""
LATE = "[handlers.late]\nmagic = '\\x00late'\ninterpreter = '/nowhere/late'\n"
ELF = "[handlers.elf]\nmagic = '\\x7fELF'\ninterpreter = '/usr/bin/true'\n"


@pytest.fixture
def cli(module_instance: Instance, tmp_path: Path) -> Cli:
    return Cli(module_instance, tmp_path)


def test_valid(cli: Cli) -> None:
    """A config that this host can use: status 0, one line on stdout, and nothing is written anywhere."""
    with DirectoryWatch(cli.instance.directory) as watch:
        result = cli("check", config=ONE)
        assert watch.pending() == []
    assert (result.status, result.stdout, result.stderr) == (0, "valid: 1 handler\n", "")
    assert not cli.state_directory.exists()
    document = cli("check", "--json", config=ONE).json
    assert document == {"valid": True, "handlers": 1, "errors": [], "warnings": []}


def test_waiting(cli: Cli) -> None:
    """A handler whose interpreter does not exist yet is a warning: status 0."""
    result = cli("check", config=ONE + LATE)
    assert (result.status, result.stdout) == (0, "valid: 1 handler, 1 waiting\n")
    assert result.message == "late: waiting: no executable file at /nowhere/late"


def test_refused(cli: Cli) -> None:
    """A handler that would take native programs makes the config unusable on this host: status 78."""
    result = cli("check", config=ONE + LATE + ELF)
    assert (result.status, result.stdout) == (78, "")
    late, elf = result.messages
    assert late.startswith("late: waiting: ")
    assert elf.startswith("elf: refused: it takes this host's native programs")
    assert elf.endswith(f"({cli.config} [handlers.elf])")
    document = cli("check", "--json", config=ONE + LATE + ELF).json
    assert (document["valid"], document["warnings"], document["errors"]) == (False, [late], [elf])
    assert cli("check", config=ONE + ELF + "force = true").status == 0


def test_an_interpreter_that_others_can_change(cli: Cli, tmp_path: Path) -> None:
    """An interpreter that another user could replace is refused: status 78, with the path and the remedy."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o777)
    result = cli("check", config=ONE.replace("/usr/bin/true", str(program)))
    assert result.status == 78
    assert result.message.startswith("one: refused: ")
    assert result.message.endswith(f"run `chmod go-w '{program}'`")


def test_no_room_for_a_stand_in(cli: Cli) -> None:
    """A handler whose line fits, but its stand-in's does not, is a warning: status 0."""
    magic, mask = "\\x00" * 230, "\\x0a" * 230  # bytes that the kernel takes as escapes alone
    config = f"architectures = []\n[handlers.long]\nmagic = '{magic}'\nmask = '{mask}'\n"
    # One write of at most 1920 bytes: the interpreter fills the rest of the line, with no room for a stand-in's name.
    rest = 1920 - len(f":long:M:0:{magic}:{mask}::")
    interpreter = "/usr/bin/" + "./" * ((rest - len("/usr/bin/true")) // 2) + "true"
    result = cli("check", config=config + f"interpreter = '{interpreter}'\n")
    assert result.status == 0, result.stderr
    assert result.message.startswith("long: its registration line is too long for a stand-in ")


def test_declared_twice(cli: Cli, tmp_path: Path) -> None:
    """A name that two sources declare is a warning that names both; the later one is used."""
    (tmp_path / "conf.d").mkdir()
    later = tmp_path / "conf.d" / "50-later.toml"
    later.write_text("[handlers.one]\nextension = 'one'\ninterpreter = '/usr/bin/false'\n")
    result = cli("check", config=ONE)
    assert (result.status, result.stdout) == (0, "valid: 1 handler\n")
    assert result.message == f"{later}: handlers.one: replaces the whole table of this name in {cli.config}"
    arm = "architectures = ['arm']\n[handlers.qemu-arm]\nextension = 'one'\ninterpreter = '/usr/bin/false'\n"
    later.write_text("")
    result = cli("check", config=arm)
    assert result.status == 0
    assert result.message == (
        f"entry 'qemu-arm' is declared twice: {cli.config} [handlers.qemu-arm] replaces "
        f'{cli.config} architectures "arm"'
    )


def test_without_binfmt_misc(instance: Instance, tmp_path: Path) -> None:
    """A config can be checked where no binfmt_misc is mounted."""
    instance.shell(f"umount {instance.mount_point}")
    result = Cli(instance, tmp_path)("check", "--mount", instance.mount_point, config=ONE)
    assert (result.status, result.stdout, result.stderr) == (0, "valid: 1 handler\n", "")


def test_nothing_to_keep(cli: Cli, tmp_path: Path) -> None:
    """If "all" finds no emulator, a warning with the remedy is shown."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    result = cli("check", config=f'[emulators]\npaths = ["{tmp_path}/bin/{{name}}"]\n')
    assert (result.status, result.stdout) == (0, "valid: 0 handlers\n")
    assert "no architecture has an emulator here: put the emulator there, or" in result.message
    assert cli("check", config="architectures = []").stderr == ""


CONTAINER = ("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc")
VOLUME = "mount -t tmpfs tmpfs {0} && cp {1} {0}/binfmtd.toml && chmod 666 {0}/binfmtd.toml"
READ_ONLY = "mount -o remount,bind,ro {0}"


@pytest.mark.parametrize(
    ("script", "status"),
    [
        pytest.param(f"{READ_ONLY} && {{2}}", 0, id="a read-only volume of a container"),
        pytest.param(f"unshare --mount sh -c '{READ_ONLY} && {{2}}'", 78, id="a service's own read-only view"),
        pytest.param(f"{READ_ONLY} && unshare --mount {{2}}", 0, id="read-only for process 1, too"),
        pytest.param("{2}", 78, id="a writable volume"),
    ],
)
def test_a_config_on_a_read_only_mount(tmp_path: Path, script: str, status: int) -> None:
    """In a container a read-only mount may have any mode, unless process 1 can write to it in its mount namespace."""
    config, volume = tmp_path / "binfmtd.toml", tmp_path / "volume"
    config.write_text(ONE)
    volume.mkdir()
    check = shlex.join([*BINFMTD, "check", "--config", str(volume / "binfmtd.toml")])
    filled = f"{VOLUME} && {script}; exit $?".format(volume, config, check)
    result = run([*CONTAINER, "sh", "-c", filled], cwd="/")
    assert result.status == status, result.stderr
    assert ("is writable by other users" in result.stderr) is (status != 0)
