"""``binfmtd emulators configure``: versions with settings, from the store to a program in a chroot."""

import sys
from pathlib import Path

import pytest
from support.cli import BINFMTD, Cli, run
from support.daemon import Daemon
from support.doctor import StartDaemon
from support.instance import Instance
from support.programs import FOREIGN, install
from support.starts import EXIT_STATUS, Start, program
from support.stores import ENVIRONMENT, StoreCli, emulators, three
from support.waiting import wait_until

EMULATOR = Path(f"/usr/bin/qemu-{FOREIGN}")
RELEASE = "9.8.7"
CONFIG = "architectures = ['{}']\n[emulators]\nstore = '{}'\nversion = '{}'\n"
CODE = "import os, sys; os.chroot(sys.argv[1]); os.execve('/program', ['program'], {})"


@pytest.fixture
def store(tmp_path: Path) -> StoreCli:
    """Return a store with the distribution's emulator of one architecture, as version ``plain``."""
    if not EMULATOR.exists():
        pytest.skip(f"{EMULATOR} is not installed: apt-get install qemu-user")
    (tmp_path / "emulators").mkdir()
    install(tmp_path / "emulators" / EMULATOR.name, EMULATOR.read_bytes())
    store = StoreCli(tmp_path / "of-emulators")
    store.checked("import", str(tmp_path / "emulators"), "--name", "plain")
    return store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a directory with a program of another machine, and nothing else."""
    (root := tmp_path / "root").mkdir()
    program(root, compiler=f"{FOREIGN}-linux-gnu-gcc").rename(root / "program")
    return root


def released(instance: Instance, root: Path) -> str:
    """Run the program in a chroot, and return the kernel's release that it sees."""
    done = instance.run([sys.executable, "-c", CODE, str(root)])
    assert done.returncode == EXIT_STATUS, (done.stdout, done.stderr)
    return Start.parse(done.stdout).all("release")[0]


def test_probe_deep(instance: Instance, store: StoreCli, tmp_path: Path) -> None:
    """`probe --deep` does not take the settings, which are in each program's environment, for a fault."""
    store.checked("configure", "plain", "--name", "set", "ANY=1")
    cli = Cli(instance, tmp_path)
    assert cli("apply", config=CONFIG.format(FOREIGN, store.path, "set")).status == 0
    (row,) = cli("probe", "--deep", "--json", FOREIGN).json["platforms"]
    (start,) = (check for check in row["checks"] if check["check"] == "start")
    assert start["outcome"] == "untested"
    assert start["reason"].startswith("the emulator's settings (ANY=1) are in the environment")


def test_a_version_with_settings(store: StoreCli) -> None:
    """The new version is listed with its source and settings, its files are whole, and the old one is as it was."""
    before = store.checksums("plain")
    result = store.checked("configure", "plain", "--name", "set", f"QEMU_UNAME={RELEASE}", "EMPTY=")
    assert result.stdout.startswith("added set: 1 architecture, ")
    assert store.checksums("plain") == before
    assert store.checksums("set") != before
    listed = {version["name"]: version for version in store.checked("list", "--json").json}
    assert listed["plain"]["settings"] == {}
    assert listed["set"]["settings"] == {FOREIGN: {"QEMU_UNAME": RELEASE, "EMPTY": ""}}
    assert listed["set"]["architectures"] == listed["plain"]["architectures"]
    assert (listed["set"]["source"], listed["set"]["digest"]) == ("version plain", None)
    assert f"version plain, with QEMU_UNAME={RELEASE} EMPTY=''" in store.checked("list").stdout
    assert (store("verify").status, store.hidden()) == (0, [])
    again = store.checked("configure", "plain", f"QEMU_UNAME={RELEASE}", "EMPTY=", "--name", "set")
    assert again.stdout.startswith("set is already in the store")
    other = store("configure", "plain", "--name", "set", "QEMU_UNAME=1.2.3")
    assert (other.status, "has a version set with other files" in other.message) == (1, True)


def test_the_way_through_an_archive(store: StoreCli, tmp_path: Path) -> None:
    """Settings are part of the files: they survive `export` and `import`."""
    store.checked("configure", "plain", "--name", "set", f"QEMU_UNAME={RELEASE}")
    other = StoreCli(tmp_path / "other")
    other.checked("import", str(store.path / "set"), "--name", "imported")
    (version,) = other.checked("list", "--json").json
    assert version["settings"] == {FOREIGN: {"QEMU_UNAME": RELEASE}}


def test_more_settings(store: StoreCli) -> None:
    """A version with settings can be the source of another one; the later settings win."""
    store.checked("configure", "plain", "--name", "one", f"QEMU_UNAME={RELEASE}", "QEMU_CPU=max")
    store.checked("configure", "one", "--name", "two", "QEMU_UNAME=1.2.3")
    listed = {version["name"]: version["settings"] for version in store.checked("list", "--json").json}
    assert listed["two"] == {FOREIGN: {"QEMU_UNAME": "1.2.3", "QEMU_CPU": "max"}}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["plain", "QEMU_CPU"], 2, "'QEMU_CPU' is no setting: write NAME=VALUE"),
        (["plain", "A=1", "A=2"], 2, "the setting A is given twice"),
        (["plain", "LD_PRELOAD=/x"], 2, "LD_PRELOAD cannot be a setting"),
        (["plain", "lower=1"], 2, "'lower' cannot be the name of a setting"),
        (["other", "A=1"], 2, "no version 'other' is in the store"),
        (["plain", "A=1", "--arch", "sh4"], 2, "version plain has no emulator of sh4: leave that out of --arch"),
        (["plain", "QEMU_CPU=no-such"], 1, f"qemu-{FOREIGN} runs no program with these settings: "),
    ],
)
def test_refused(store: StoreCli, arguments: list[str], status: int, message: str) -> None:
    """A setting, version or architecture that cannot be is one error, and nothing is added."""
    result = store("configure", *arguments, "--name", "set")
    assert result.status == status
    assert message in result.message
    assert "no-such" in result.message or "no-such" not in arguments[1]
    assert (store.versions, store.hidden()) == (["plain"], [])


def test_damaged(store: StoreCli) -> None:
    """A version whose files were changed is not copied."""
    (store.path / "plain" / EMULATOR.name).write_bytes(b"\x7fELF")
    result = store("configure", "plain", "--name", "set", "A=1")
    assert (result.status, "damaged" in result.message) == (1, True)
    assert store.versions == ["plain"]


def test_programs_that_run_no_programs(tmp_path: Path) -> None:
    """An emulator that runs no program without settings either may have them: they are not what it fails by."""
    store = StoreCli(tmp_path / "store")
    store.checked("import", emulators(tmp_path / "tiny", three("9.2.2")))
    result = store.checked("configure", "9.2.2", "--name", "set", "A=1")
    assert result.stdout.startswith("added set: 3 architectures")


def test_a_daemon(store: StoreCli, root: Path, start_daemon: StartDaemon, instance: Instance) -> None:
    """A program in a chroot runs with the settings of the version that the config names, and a reload switches them."""
    store.checked("configure", "plain", "--name", "set", f"QEMU_UNAME={RELEASE}")
    daemon: Daemon = start_daemon(CONFIG.format(FOREIGN, store.path, "set"))
    assert f"{store.path}/set/{EMULATOR.name}\n" in instance.read(EMULATOR.name)
    assert released(instance, root) == RELEASE
    shown = run([*BINFMTD, "status", "--all", "--state-dir", str(daemon.state_directory)])
    assert f" with QEMU_UNAME={RELEASE}" in shown.stdout
    daemon.config.write_text(CONFIG.format(FOREIGN, store.path, "plain"))
    daemon.reload()
    daemon.wait_for_log("config_reloaded")
    daemon.wait_converged()
    assert released(instance, root) != RELEASE
    assert daemon.terminate() == 0


def test_candidates(store: StoreCli, root: Path, start_daemon: StartDaemon, instance: Instance) -> None:
    """The version may be one of several interpreters; it serves as soon as it is there, without a reload."""
    interpreters = f"architectures = ['{FOREIGN}']\n[emulators]\nstore = '{store.path}'\n[emulators.{FOREIGN}]\n"
    start_daemon(interpreters + "interpreters = ['store:set', 'store:plain']\n")
    assert released(instance, root) != RELEASE
    store.checked("configure", "plain", "--name", "set", f"QEMU_UNAME={RELEASE}")
    wait_until(lambda: f"{store.path}/set/" in instance.read(EMULATOR.name), what="the version with settings")
    assert released(instance, root) == RELEASE


def test_in_a_sandbox(store: StoreCli, root: Path) -> None:
    """`sandbox --emulators` runs a program once with each version, with settings and without."""
    store.checked("configure", "plain", "--name", "set", f"QEMU_UNAME={RELEASE}")
    command = ["sandbox", "--store", str(store.path), "--config", str(store.config), "--arch", FOREIGN]
    done = run([*BINFMTD, *command, "--emulators", "plain,set", "--", str(root / "program")], env=ENVIRONMENT)
    releases = [line for line in done.stdout.splitlines() if line.startswith("release ")]
    assert (len(releases), releases[1], releases[0] == releases[1]) == (2, f"release {RELEASE}", False)


def test_the_other_commands(store: StoreCli, root: Path, instance: Instance, cli: Cli) -> None:
    """`check` waits for a version that is missing; `apply` registers it; `arch` and `explain` name the settings."""
    config = CONFIG.format(FOREIGN, store.path, "set")
    assert "waiting" in cli("check", config=config).stdout
    store.checked("configure", "plain", "--name", "set", f"QEMU_UNAME={RELEASE}")
    assert cli("check", config=config).stdout == "valid: 1 handler\n"
    assert cli("apply", config=config).status == 0
    assert released(instance, root) == RELEASE
    (row,) = cli("arch", FOREIGN, "--json", config=config).json
    assert row["settings"] == {"QEMU_UNAME": RELEASE}
    assert f"with QEMU_UNAME={RELEASE}" in cli("arch", FOREIGN, config=config).stdout
    explained = cli("explain", str(root / "program"), config=config)
    assert f"QEMU_UNAME={RELEASE}" in explained.stdout
    assert f"{store.path}/set/{EMULATOR.name}" in cli("export", "--format", "binfmt.d", config=config).stdout


def test_too_long_a_manifest(tmp_path: Path) -> None:
    """Settings whose manifest could not be read again are refused, and nothing is added."""
    store = StoreCli(tmp_path / "store")
    store.checked("import", emulators(tmp_path / "tiny", three("9.2.2")))
    value = "\x01" * 65000  # \u0001 in the manifest
    result = store("configure", "9.2.2", "--name", "set", f"A={value}")
    assert (result.status, result.stdout) == (1, "")
    assert result.message.startswith("the manifest of set would have ")
    assert (store.versions, store.hidden()) == (["9.2.2"], [])
    store.checked("configure", "9.2.2", "--name", "set", f"A={value}", "--arch", "arm")
    assert store("verify").status == 0
