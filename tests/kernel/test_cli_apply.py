"""``binfmtd apply``: one pass, as a command."""

import os
import shutil
from pathlib import Path

from support.cli import Cli, fake_emulators, run, state
from support.daemon import StartDaemon
from support.instance import Instance
from support.programs import install
from support.waiting import DirectoryWatch, wait_until

from binfmtd.catalog.architectures import CATALOG
from binfmtd.model.stand_in import stand_in_name

OF_NO_PACKAGE = "put the emulator there, or correct [emulators] paths"

ONE = """
architectures = []
[handlers.one]
magic = '\\x00one'
interpreter = "/usr/bin/true"
"""
ONE_TEXT = "enabled\ninterpreter /usr/bin/true\nflags: \noffset 0\nmagic 006f6e65\n"


def test_everything_that_has_an_emulator_and_is_not_native(instance: Instance, tmp_path: Path, cli: Cli) -> None:
    """By default each architecture with an emulator is registered, unless native; a second run changes nothing."""
    with_emulator = set(CATALOG) - {"s390x", "sparc"}
    config = fake_emulators(tmp_path / "bin", with_emulator)
    native = {row["name"] for row in cli("arch", "--json", config=config).json if row["native"]}
    assert native
    expected = {f"qemu-{name}" for name in with_emulator - native}
    result = cli("apply", config=config)
    assert (result.status, result.stderr) == (0, "")
    heading, *rows = result.rows
    assert heading == ["DONE", "ENTRY", "DRIFT", "REASON"]
    assert {tuple(row[:3]) for row in rows} == {("registered", name, "missing") for name in expected}
    assert set(instance.names()) == expected
    assert f"\ninterpreter {tmp_path}/bin/qemu-arm\n" in instance.read("qemu-arm")

    before = state(instance)
    again = cli("apply", config=config)
    assert (again.status, again.stderr) == (0, "")
    assert again.stdout == f"nothing to do: {len(expected)} handlers registered\n"
    assert state(instance) == before


def test_json(cli: Cli) -> None:
    """With --json stdout is one document with the actions and the failures."""
    result = cli("apply", "--json", config=ONE)
    assert (result.status, result.stderr) == (0, "")
    done = {"action": "register", "entry": "one", "drift": "missing", "reason": "the entry is missing"}
    assert result.json == {"actions": [done], "failed": []}
    assert cli("apply", "--json", config=ONE).json == {"actions": [], "failed": []}


def test_leading_options_mean_apply(instance: Instance, cli: Cli) -> None:
    """Options without a command mean `apply`."""
    result = cli("--json", config=ONE)
    assert result.status == 0
    assert [action["entry"] for action in result.json["actions"]] == ["one"]
    assert instance.read("one") == ONE_TEXT


def test_what_is_no_longer_declared_goes(instance: Instance, cli: Cli) -> None:
    """An entry of an earlier `apply` that the config no longer declares is removed."""
    cli("apply", config=ONE)
    result = cli("apply", config="architectures = []")
    assert result.status == 0
    assert result.rows[1][:3] == ["removed", "one", "unwanted"]
    assert instance.names() == []


def test_foreign_entries_are_left_alone(instance: Instance, cli: Cli) -> None:
    """Foreign entries stay as they are, byte for byte and by inode number, whatever they contain."""
    instance.register(b":alien:M::\\x00alien::/usr/bin/true:F")
    instance.register(b":l\xe4t \x1b[31m:E::lat::/nowhere:")
    instance.register(b":same-magic:M::\\x00one::/usr/bin/false:")
    instance.write("alien", b"0")
    before = state(instance)
    assert cli("apply", config=ONE).status == 0
    assert cli("apply", config="architectures = []").status == 0
    assert state(instance) == before


def test_a_named_architecture_without_emulator(instance: Instance, tmp_path: Path, cli: Cli) -> None:
    """A named architecture that has no emulator is a failure with the reason; the rest is registered."""
    config = "architectures = ['arm64', 'all']\n" + fake_emulators(tmp_path / "bin", ["arm", "riscv64"])
    result = cli("apply", config=config)
    assert result.status == 1
    assert result.message == (
        f"qemu-aarch64: waiting: no executable file at {tmp_path}/bin/qemu-aarch64: {OF_NO_PACKAGE}"
    )
    assert {"qemu-arm", "qemu-riscv64"} & set(instance.names())
    again = cli("apply", "--json", config=config)
    assert again.status == 1
    assert [(row["entry"], row["errno"]) for row in again.json["failed"]] == [("qemu-aarch64", None)]


def test_a_refused_handler(instance: Instance, cli: Cli) -> None:
    """A handler that would take the host's own programs is not registered, and the message has the remedy."""
    result = cli("apply", config=ONE + "[handlers.elf]\nmagic = '\\x7fELF'\ninterpreter = '/usr/bin/true'")
    assert result.status == 1
    assert result.message.startswith("elf: refused: it takes this host's native programs")
    assert "set force = true" in result.message
    assert instance.names() == ["one"]


def test_the_kernel_refuses(instance: Instance, tmp_path: Path, cli: Cli) -> None:
    """A registration that the kernel refuses is one message with errno and meaning; the rest is registered."""
    noexec = tmp_path / "noexec"
    noexec.mkdir()
    instance.shell(f"mount -t tmpfs -o noexec,mode=755 tmpfs {noexec} && cp /usr/bin/true {noexec}/program")
    busy = install(tmp_path / "busy", Path("/usr/bin/true").read_bytes())
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    config = "".join(
        f"[handlers.{path.name}]\nmagic = '\\x00{path.name}'\ninterpreter = '{program}'\nflags = 'F'\n"
        for path, program in ((noexec, noexec / "program"), (busy, busy), (loop, loop))
    )
    with busy.open("a"):
        result = cli("apply", "--json", config=ONE + config)
    assert result.status == 1
    messages = sorted(result.messages)
    assert [message.split(":")[0] for message in messages] == ["busy", "loop", "noexec"]
    assert f"ETXTBSY: {busy} is open for writing in another process" in messages[0]
    assert messages[1] == f"loop: waiting: no executable file at {loop}"
    assert "EACCES" in messages[2]
    assert "noexec" in messages[2].removeprefix("noexec")
    failed = {row["entry"]: row for row in result.json["failed"]}
    assert {name: row["errno"] for name, row in failed.items()} == {"busy": 26, "loop": None, "noexec": 13}
    assert failed["noexec"]["reason"].startswith("the kernel refused it with EACCES: ")
    assert instance.names() == ["one"]


def test_beside_a_daemon(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """Beside a daemon nothing is written: status 0 if all is as wanted, else 1 with the daemon's pid."""
    daemon = start_daemon(ONE)
    cli.state_directory = daemon.state_directory
    with DirectoryWatch(instance.directory) as watch:
        agreed = cli("apply", config=ONE)
        assert (agreed.status, agreed.stdout, agreed.stderr) == (0, "nothing to do: 1 handler registered\n", "")

        other = ONE.replace("one", "two") + "[handlers.late]\nmagic = '\\x00late'\ninterpreter = '/nowhere'"
        result = cli("apply", config=other)
        assert (result.status, result.stdout) == (1, "")
        first, *rest = result.messages
        assert f"(pid {daemon.pid}, " in first
        assert first.endswith(f"then run `binfmtd reload --state-dir {daemon.state_directory}`")
        assert [line.split(":")[0] for line in rest] == ["late", "two", "one"]

        as_json = cli("apply", "--json", config=other)
        assert as_json.status == 1
        assert as_json.json["actions"] == []
        assert [row["entry"] for row in as_json.json["failed"]] == ["late", "two", "one"]
        assert watch.pending() == []
    assert instance.names() == ["one"]


def test_a_changed_config_beside_a_daemon(instance: Instance, start_daemon: StartDaemon, cli: Cli) -> None:
    """With the daemon's own config, which was changed since, the remedy is a reload alone."""
    daemon = start_daemon(ONE)
    cli.state_directory = daemon.state_directory
    daemon.config.write_text(ONE.replace("one", "two"))
    result = cli("apply", "--config", str(daemon.config))
    assert result.status == 1
    remedy = f"run `binfmtd reload --state-dir {daemon.state_directory}`"
    assert result.messages[0].endswith(f": if {daemon.config} was changed after the daemon had read it, then {remedy}")
    assert cli("reload").status == 0
    assert cli("apply", "--config", str(daemon.config)).stdout == "nothing to do: 1 handler registered\n"
    assert instance.names() == ["two"]


def test_a_second_mount_beside_a_daemon(start_daemon: StartDaemon, tmp_path: Path, cli: Cli) -> None:
    """--hold mounts binfmt_misc at its directory, once, also while a daemon runs."""
    cli.state_directory = start_daemon(ONE).state_directory
    held = tmp_path / "held"
    for printed in (f"mounted binfmt_misc at {held}\n", "nothing to do: 1 handler registered\n"):
        result = cli("apply", "--own-instance", "--hold", str(held), config=ONE)
        assert (result.status, result.stdout, result.stderr) == (0, printed, "")


def test_read_only(instance: Instance, cli: Cli) -> None:
    """A read-only mount is one clear error with the remedy."""
    instance.shell(f"mount -o remount,bind,ro {instance.mount_point}")
    result = cli("apply", config=ONE)
    assert (result.status, result.stdout) == (1, "")
    assert result.message.startswith(f"{instance.mount_point}/register: Read-only file system: ")
    assert "mount -o remount,bind,rw" in result.message


def test_not_mounted(instance: Instance, tmp_path: Path, cli: Cli) -> None:
    """Without a mount there is one line with the remedy, and nothing is mounted in a user namespace."""
    # Always with --mount: without it, an instance that is mounted elsewhere would be used, possibly the host's.
    instance.shell(f"umount {instance.mount_point}")  # uncovers the empty file system below, never the host's
    covered = cli("apply", "--mount", instance.mount_point, config=ONE)
    assert covered.message.endswith("a file system of type tmpfs is mounted there, not binfmt_misc: unmount it")
    empty = cli("apply", "--mount", str(tmp_path), config=ONE)
    assert empty.message.startswith(f"{tmp_path}: no binfmt_misc is mounted here, and this is a user namespace")
    assert empty.message.endswith("--own-instance")
    missing = cli("apply", "--mount", "/nowhere", config=ONE)
    assert missing.message.startswith("/nowhere is not a directory: name one with --mount")
    assert {(result.status, result.stdout) for result in (covered, empty, missing)} == {(1, "")}


def test_state_directory_of_others(instance: Instance, cli: Cli) -> None:
    """A state directory that other users can write to is refused before anything is registered."""
    cli.state_directory.mkdir()
    cli.state_directory.chmod(0o777)
    result = cli("apply", config=ONE)
    assert result.status == 1
    assert result.message.startswith("the state directory is not safe")
    assert result.message.endswith(f"is writable by other users: run `chmod go-w '{cli.state_directory}'`")
    assert instance.names() == []
    assert os.listdir(cli.state_directory) == []


def test_invalid_config(instance: Instance, cli: Cli) -> None:
    """A config error gives exit status 78, before anything is registered."""
    result = cli("apply", config=ONE + "typo = 1")
    assert (result.status, result.stdout) == (78, "")
    assert result.message.startswith(f"{cli.config}: handlers.one.typo: unknown key")
    assert instance.names() == []


def test_arch_only_adds(instance: Instance, tmp_path: Path, cli: Cli) -> None:
    """`--arch` replaces the config's architectures, accepts any of their names, and removes no entry."""
    config = "architectures = ['s390x']\n" + fake_emulators(tmp_path / "bin", ["aarch64", "arm", "s390x", "riscv64"])
    assert cli("apply", config=config).status == 0
    result = cli("--arch", "arm64", "linux/arm/v7", config=config)
    assert (result.status, result.stderr) == (0, "")
    assert instance.names() == ["qemu-arm", "qemu-aarch64", "qemu-s390x"]
    assert cli("--arch", "none", config=config).stdout == "nothing to do: no handler is needed\n"
    assert cli("--arch=all,-arm64,-arm", config=config).status == 0
    assert instance.names() == ["qemu-riscv64", "qemu-arm", "qemu-aarch64", "qemu-s390x"]
    assert cli("apply", config=config).status == 0, "without it, what the config no longer declares goes"
    assert instance.names() == ["qemu-s390x"]


def test_arch_leaves_the_rest_of_the_config(instance: Instance, tmp_path: Path, cli: Cli) -> None:
    """With `--arch` the handlers of the config are registered as well."""
    config = ONE + fake_emulators(tmp_path / "bin", ["arm"])
    assert cli("--arch", "arm", config=config).status == 0
    assert instance.names() == ["one", "qemu-arm"]


def test_nothing_to_be_had(instance: Instance, tmp_path: Path, cli: Cli) -> None:
    """If "all" finds no emulator, as in an image without any, that is a failure: status 1 and one line."""
    result = cli("apply", config=f"[emulators]\npaths = ['{tmp_path}/bin/qemu-{{name}}']\n")
    assert (result.status, result.stdout) == (1, "")
    assert result.message.startswith("no architecture has an emulator here")
    assert instance.names() == []
    assert cli("apply", config="architectures = []").status == 0


def test_arch_without_its_emulator(instance: Instance, tmp_path: Path, cli: Cli) -> None:
    """An architecture without emulator that `--arch` names gives status 1 with the package; "all" leaves it out."""
    config = fake_emulators(tmp_path / "bin", ["arm"])
    result = cli("--arch", "arm,riscv64", config=config)
    assert result.status == 1
    assert result.message == (
        f"qemu-riscv64: waiting: no executable file at {tmp_path}/bin/qemu-riscv64: {OF_NO_PACKAGE}"
    )
    assert instance.names() == ["qemu-arm"]
    assert cli("--arch", "all", config=config).status == 0


def test_arch_that_does_not_exist(instance: Instance, cli: Cli) -> None:
    """An unknown architecture is an error that lists similar names, before anything is registered."""
    result = cli("apply", "--arch", "arm,rscv64", config=ONE)
    assert (result.status, result.stdout) == (2, "")
    assert result.message == "--arch: unknown architecture 'rscv64': did you mean riscv64, sparc64 or riscv32?"
    assert instance.names() == []


def test_arch_by_environment(instance: Instance, tmp_path: Path, cli: Cli) -> None:
    """`$BINFMTD_ARCH` and `$BINFMTD_CONFIG` work as the options do."""
    cli.config.write_text("architectures = ['s390x']\n" + fake_emulators(tmp_path / "bin", ["arm", "s390x"]))
    command = ["env", "BINFMTD_ARCH=arm", f"BINFMTD_CONFIG={cli.config}", *cli.command("apply")]
    assert run(command).status == 0
    assert instance.names() == ["qemu-arm"]


def test_arch_beside_a_daemon(instance: Instance, start_daemon: StartDaemon, tmp_path: Path, cli: Cli) -> None:
    """Beside a daemon `--arch` writes nothing: the message names the daemon, its config and the line to add."""
    emulators = fake_emulators(tmp_path / "bin", ["arm", "s390x"])
    daemon = start_daemon("architectures = ['arm']\n" + emulators)
    cli.state_directory = daemon.state_directory
    assert cli("--arch", "arm", config=emulators).status == 0
    result = cli("--arch", "s390x", config=emulators)
    assert result.status == 1
    assert f': add "s390x" to `architectures` in {daemon.config}, then run' in result.messages[0]
    assert result.messages[0].endswith(f"then run `binfmtd reload --state-dir {daemon.state_directory}`")
    assert result.messages[1].startswith("qemu-s390x: missing: the entry is missing")
    assert instance.names() == ["qemu-arm"]


def test_the_daemon_takes_arch(instance: Instance, start_daemon: StartDaemon, tmp_path: Path) -> None:
    """`run --arch` overrides the config's architectures, also after a reload."""
    emulators = fake_emulators(tmp_path / "bin", ["arm", "s390x"])
    daemon = start_daemon("architectures = ['s390x']\n" + emulators, ("--arch", "arm"))
    assert instance.names() == ["qemu-arm"]
    daemon.config.write_text("architectures = []\n" + emulators + ONE.replace("architectures = []", ""))
    daemon.reload()
    daemon.wait_for_log("config_reloaded")
    wait_until(lambda: sorted(instance.names()) == ["one", "qemu-arm"], what="the handler of the new config")


def test_arch_that_runs_natively(instance: Instance, tmp_path: Path, cli: Cli) -> None:
    """A native architecture in `--arch`, in a list for many hosts, needs no handler and is no failure."""
    native = {row["name"] for row in cli("arch", "--json").json if row["native"]}
    config = fake_emulators(tmp_path / "bin", [*native, "alpha"])
    result = cli("--arch", ",".join([*sorted(native), "alpha"]), config=config)
    assert result.status == 0
    assert result.messages == [f"{name} runs natively: it needs no handler" for name in CATALOG if name in native]
    assert instance.names() == ["qemu-alpha"]
    for name in native & {"x86_64", "aarch64"}:
        word = str(CATALOG[name].goarch)
        assert cli("plan", "--arch", word, config=config).message == f"{word} runs natively: it needs no handler"
    for words in (("apply",), ("plan",), ("check",), ("export", "--format", "binfmt.d")):
        alone = cli(*words, "--arch", ",".join(native), config=config)
        assert alone.status == 0, "nothing is missing where nothing is needed"
        assert alone.messages == result.messages


def test_a_replacement_leaves_no_stand_in(instance: Instance, tmp_path: Path, cli: Cli) -> None:
    """A stand-in serves while `apply` replaces an entry, and is removed after that; one of a daemon stays."""
    cli.config.write_text(fake_emulators(tmp_path / "bin", ["arm", "riscv64"]))
    apply = ("apply", "--arch", "arm,riscv64", "--config", str(cli.config))
    assert cli(*apply).status == 0
    for name in ("qemu-arm", "qemu-riscv64"):
        instance.remove(name)
        instance.register(f":{name}:E::{name}::/usr/bin/false:".encode())
    instance.add(stand_in_name("qemu-riscv64"), CATALOG["riscv64"].match, f"{tmp_path}/bin/qemu-riscv64", "POF")
    assert cli(*apply).status == 0
    assert sorted(instance.all_names()) == [stand_in_name("qemu-riscv64"), "qemu-arm", "qemu-riscv64"]


def test_by_environment_alone(instance: Instance, tmp_path: Path, cli: Cli) -> None:
    """Without arguments `$BINFMTD_ARCH` means `apply`; without that variable the help is shown."""
    cli.config.write_text(fake_emulators(tmp_path / "bin", ["arm"]))
    assert run(["env", "BINFMTD_ARCH=arm", f"BINFMTD_CONFIG={cli.config}", *cli.command()]).status == 0
    assert instance.names() == ["qemu-arm"]
    assert run(["env", "BINFMTD_ARCH=foo", *cli.command()]).status == 2
    assert cli().stdout.startswith("usage: ")


def test_what_another_container_registered(instance: Instance, tmp_path: Path, cli: Cli) -> None:
    """Without a ledger an entry is tried: one that runs the same emulator is left, one with another is replaced.

    ``plan`` predicts this, and leaves no trace.
    """
    config = f"[emulators]\npaths = ['{tmp_path}/bin/qemu-{{name}}']\n"
    emulator = tmp_path / "bin/qemu-aarch64"
    emulator.parent.mkdir()
    shutil.copy("/usr/bin/qemu-aarch64", emulator)
    assert cli("--arch", "arm64", config=config).status == 0
    before = state(instance)
    shutil.rmtree(cli.state_directory)
    shutil.copy("/usr/bin/qemu-aarch64", tmp_path / "same")  # as another container shows the same image
    (tmp_path / "same").rename(emulator)
    planned = cli("plan", config='architectures = ["arm64"]\n' + config)
    assert (planned.status, planned.stdout) == (0, "nothing to do: 1 handler registered\n")
    assert not cli.state_directory.exists()
    assert cli("--arch", "arm64", config=config).stdout == "nothing to do: 1 handler registered\n"
    assert state(instance) == before
    assert cli("--arch", "arm64", config=config).stdout == "nothing to do: 1 handler registered\n", (
        "the ledger knows now"
    )
    shutil.rmtree(cli.state_directory)
    install(emulator, emulator.read_bytes() + b"newer")
    planned = cli("plan", config='architectures = ["arm64"]\n' + config)
    assert (planned.status, planned.rows[1][:3]) == (3, ["replace", "qemu-aarch64", "stale_interpreter"])
    assert "stale_interpreter" in cli("--arch", "arm64", config=config).stdout
    assert state(instance) != before
