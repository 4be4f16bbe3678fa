"""``--persistent``: handlers that come back after a reboot.

The "host" is a file system of the test's own, named by --host-root. The real systemd-binfmt, run in the test's own
instance, shows what a boot would register from its binfmt.d.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.cli import BINFMTD, Cli, Result, run
from support.daemon import StartDaemon
from support.instance import Instance
from support.programs import foreign_program
from support.waiting import wait_until

from binfmtd.catalog.architectures import CATALOG
from binfmtd.formats.binfmt_d import parse_conf

CONF = "etc/binfmt.d/binfmtd.conf"
COPIES = "var/lib/binfmtd/boot"
SYSTEMD_BINFMT = "/usr/lib/systemd/systemd-binfmt"


class Host:
    """A host's root, as it is bound into a container of the test's instance."""

    def __init__(self, instance: Instance, cli: Cli, root: Path) -> None:
        self.instance = instance
        self.cli = cli
        self.root = root
        root.mkdir()
        # Its own mount, as a directory that is bound into a container is.
        self.shell(f"mount -t tmpfs -o mode=755 tmpfs {root} && mkdir -p {root}/etc/binfmt.d {root}/var/lib/binfmtd")

    def shell(self, script: str) -> str:
        """Run a script inside, and assert that it succeeds."""
        result = self.instance.shell(script)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def seen(self, path: str) -> Path:
        """Return a path of the host as it is reached from outside of the instance."""
        return Path(f"/proc/{self.instance.pid}/root{self.root}/{path}")

    def names(self) -> list[str]:
        """Return the names in the generated file, in its order."""
        rules, problems = parse_conf(self.seen(CONF).read_bytes())
        assert problems == ()
        return [rule.name for rule in rules]

    def files(self) -> list[str]:
        """Return every file and link of the host; the daemon may remove directories meanwhile."""
        root = self.seen("")
        found = (Path(directory, name) for directory, below, files in os.walk(root) for name in (*below, *files))
        return sorted(str(path.relative_to(root)) for path in found if path.is_symlink() or path.is_file())

    def versions(self) -> list[tuple[str, int, int]]:
        """Return every file with its inode number and mtime, which change if it is written."""
        found = [(name, self.seen(name).stat()) for name in self.files()]
        return [(name, stat.st_ino, stat.st_mtime_ns) for name, stat in found]

    def apply(self, *options: str, config: str | None = None) -> Result:
        """Run `apply --persistent`."""
        return self.cli("apply", "--persistent", "--host-root", str(self.root), *options, config=config)


@pytest.fixture
def host(instance: Instance, cli: Cli, tmp_path: Path) -> Host:
    return Host(instance, cli, tmp_path / "host")


def test_after_a_reboot(instance: Instance, host: Host, tmp_path: Path) -> None:
    """The file and the copies alone restore the handlers: systemd-binfmt registers them, and programs run."""
    if not os.path.exists(SYSTEMD_BINFMT):
        pytest.skip(f"no {SYSTEMD_BINFMT} here")
    result = host.apply("--arch", "arm64,riscv64")
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout.endswith(f"after a reboot, the handlers come back through /{CONF} on the host\n")
    assert host.names() == ["qemu-aarch64", "qemu-riscv64"]
    assert host.files() == [CONF, f"{COPIES}/usr/bin/qemu-aarch64", f"{COPIES}/usr/bin/qemu-riscv64"]
    program = foreign_program(tmp_path / "program", CATALOG["aarch64"])
    instance.remove("status")
    assert instance.run([str(program)], errors="replace").returncode != 42  # execvp falls back to a shell
    boot = f"""
        mount --bind {host.root}/etc/binfmt.d /etc/binfmt.d
        mount -t tmpfs tmpfs /usr/lib/binfmt.d
        mount --bind {host.root}/var/lib /var/lib
        {SYSTEMD_BINFMT}
    """
    result_of_boot = instance.run(["unshare", "-m", "sh", "-euc", boot])
    assert result_of_boot.returncode == 0, result_of_boot.stderr
    assert sorted(instance.names()) == ["qemu-aarch64", "qemu-riscv64"]
    assert f"interpreter /{COPIES}/usr/bin/qemu-aarch64\nflags: POF" in instance.read("qemu-aarch64")
    assert instance.run([str(program)]).returncode == 42


def test_entries_have_f(instance: Instance, host: Host) -> None:
    """Entries of architectures get F whatever the config has: without it they would end with their container."""
    config = "[emulators]\nflags = 'P'\n[handlers.one]\nmagic = '\\x00one'\ninterpreter = '/usr/bin/true'\n"
    assert host.apply("--arch", "arm64", config=config).status == 0
    assert "flags: PF" in instance.read("qemu-aarch64")
    assert "flags: \n" in instance.read("one")
    # The interpreter of a handler without F is looked up in each program's own root: there is nothing to copy.
    assert host.files() == [CONF, f"{COPIES}/usr/bin/qemu-aarch64"]
    assert b":/usr/bin/true:" in host.seen(CONF).read_bytes()


def test_an_interpreter_that_is_not_alone(host: Host) -> None:
    """A warning is shown if a copied interpreter needs a dynamic linker, and so may not work on the host."""
    config = "architectures = []\n[handlers.one]\nmagic = '\\x00one'\ninterpreter = '/usr/bin/true'\nflags = 'F'\n"
    result = host.apply(config=config)
    assert result.status == 0
    assert result.message.startswith("/usr/bin/true needs /lib")
    assert host.apply("--arch", "arm64", config="").stderr == "", "Debian's emulators are static"


def test_adding_and_converging(host: Host) -> None:
    """With --arch the file is added to; without it the file follows the config, and other copies are removed."""
    config = "architectures = ['arm']"
    assert host.apply("--arch", "arm64", config=config).status == 0
    assert host.apply("--arch", "riscv64", config=config).status == 0
    assert host.names() == ["qemu-aarch64", "qemu-riscv64"]
    assert host.apply(config=config).status == 0
    assert host.names() == ["qemu-arm"]
    assert host.files() == [CONF, f"{COPIES}/usr/bin/qemu-arm"]


def test_nothing_changes_the_second_time(host: Host) -> None:
    """A second run changes nothing, in whichever order the architectures are named."""
    host.apply("--arch", "arm64,arm")
    before = host.versions()
    for words in ("arm64", "arm", "arm,arm64"):
        result = host.apply("--arch", words)
        assert result.status == 0
        assert result.stdout.startswith("nothing to do: ")
        assert host.versions() == before


def test_an_upgraded_emulator_is_copied_again(instance: Instance, host: Host, tmp_path: Path) -> None:
    """After an upgrade the copy is that of the emulator which is registered."""
    emulator = tmp_path / "bin/qemu-aarch64"
    emulator.parent.mkdir()
    shutil.copy2("/usr/bin/qemu-aarch64", emulator)
    config = f"architectures = ['arm64']\n[emulators]\npaths = ['{tmp_path}/bin/qemu-{{name}}']\n"
    assert host.apply(config=config).status == 0
    shutil.copy2("/usr/bin/qemu-arm", tmp_path / "new")
    (tmp_path / "new").rename(emulator)
    assert host.apply(config=config).status == 0
    copy = host.seen(f"{COPIES}{emulator}")
    assert copy.read_bytes() == emulator.read_bytes()
    assert instance.names() == ["qemu-aarch64"]


def test_taken_back(instance: Instance, host: Host) -> None:
    """`--arch none --persistent` removes file, copies and our entries, but no foreign ones."""
    host.apply("--arch", "arm64,arm")
    instance.register(b":alien:M::\\x00alien::/usr/bin/true:")
    instance.remove("qemu-arm")
    instance.register(b":qemu-arm:M::\\x00another::/usr/bin/true:")
    result = host.apply("--arch", "none")
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout == f"removed /{CONF} on the host and its copies of emulators\nremoved qemu-aarch64\n"
    assert host.files() == []
    assert sorted(instance.names()) == ["alien", "qemu-arm"]
    again = host.apply("--arch", "none")
    assert (again.status, again.stdout) == (0, "nothing to do\n")


def test_taken_back_from_a_container(instance: Instance, host: Host) -> None:
    """A container without a mount removes the entries, too, if another process has the instance mounted."""
    host.apply("--arch", "arm64,arm")
    words = ["apply", "--arch", "none", "--persistent", "--host-root", str(host.root), "--own-instance"]
    command = ["env", f"BINFMTD_STATE_DIR={host.cli.state_directory}-other", *BINFMTD, *words, "--mount", "/mnt/m"]
    script = 'umount /proc/sys/fs/binfmt_misc; mount -t tmpfs t /mnt; mkdir /mnt/m; exec "$@"'
    result = instance.run(["unshare", "-m", "sh", "-c", script, "sh", *command])
    assert (result.returncode, result.stderr) == (0, "")
    assert instance.names() == []
    assert host.files() == []


def test_taking_back_begins_with_the_entries(instance: Instance, host: Host) -> None:
    """If the entries cannot be removed, the file stays, and still lists them."""
    host.apply("--arch", "arm64")
    host.shell("mount -o remount,bind,ro /proc/sys/fs/binfmt_misc")
    assert host.apply("--arch", "none").status == 1
    assert host.names() == ["qemu-aarch64"]
    host.shell("mount -o remount,bind,rw /proc/sys/fs/binfmt_misc")
    assert host.apply("--arch", "none").status == 0
    assert instance.names() == []


def test_taking_back_spares_other_interpreters(instance: Instance, host: Host) -> None:
    """A foreign entry under the same name, for the same programs, stays."""
    host.apply("--arch", "arm64")
    instance.remove("qemu-aarch64")
    instance.add("qemu-aarch64", CATALOG["aarch64"].match, "/usr/bin/qemu-aarch64-of-others", "P")
    assert host.apply("--arch", "none").stdout == f"removed /{CONF} on the host and its copies of emulators\n"
    assert instance.names() == ["qemu-aarch64"]


def test_taken_back_by_export(instance: Instance, host: Host) -> None:
    """`export --remove` removes file, copies and entries as well."""
    host.apply("--arch", "arm64,arm")
    result = host.cli("export", "--remove", "--host-root", str(host.root))
    assert (result.status, result.stderr) == (0, "")
    assert host.files() == []
    assert instance.names() == []
    assert host.cli("export", "--remove", "--format", "shell").status == 2
    assert host.cli("export").status == 2


def test_taken_back_after_a_daemon(instance: Instance, host: Host, start_daemon: StartDaemon) -> None:
    """`export --remove` also removes the stand-ins that a daemon has left of these entries."""
    daemon = start_daemon("architectures = ['arm64']", ("--persistent", "--host-root", str(host.root)))
    daemon.wait_for_log("persistent_file_in_step")
    assert daemon.terminate() == 0
    assert len(instance.all_names()) == 2
    result = host.cli("export", "--remove", "--host-root", str(host.root))
    assert (result.status, result.stderr) == (0, "")
    assert instance.all_names() == []


def test_copies_that_are_not_needed(host: Host) -> None:
    """If the generated file and its directory are missing, copies are removed, and the directory is not made again."""
    host.apply("--arch", "arm64")
    host.shell(f"rm -r {host.root}/etc/binfmt.d")
    result = host.cli("export", "--remove", "--host-root", str(host.root))
    assert (result.status, result.stderr) == (0, "")
    assert not host.seen("etc/binfmt.d").exists()
    assert host.files() == []


def test_a_file_that_binfmtd_did_not_generate(instance: Instance, host: Host) -> None:
    """A file of that name that binfmtd did not generate is left alone: status 1 before anything is registered."""
    host.shell(f"echo '# mine' > {host.root}/{CONF}")
    for options in (("--arch", "arm64"), ("--arch", "none"), ()):
        result = host.apply(*options)
        assert (result.status, result.stdout) == (1, "")
        assert result.message.startswith(f"{host.root}/{CONF} was not generated by binfmtd")
    assert host.seen(CONF).read_text() == "# mine\n"
    assert instance.names() == []


def test_where_it_would_not_last(cli: Cli, instance: Instance, host: Host) -> None:
    """Directories that are not the host's, or read-only, give status 1 and the mounts to add; actions are listed."""
    host.shell(f"mount -t tmpfs -o ro tmpfs {host.root}/var/lib/binfmtd")
    result = host.apply("--arch", "arm64", "--json")
    assert result.status == 1
    assert f"{host.root}/{COPIES}" in result.message
    assert "Read-only file system" in result.message
    assert [row["entry"] for row in result.json["actions"]] == ["qemu-aarch64"]
    assert host.files() == []
    inside = instance.run(["find", "/opt", "-maxdepth", "0", "-printf", "%D"]).stdout
    assert inside == instance.run(["find", "/", "-maxdepth", "0", "-printf", "%D"]).stdout, "/opt is no mount"
    result = cli("apply", "--persistent", "--host-root", "/opt", "--arch", "arm64")
    assert result.status == 1
    assert "-v /etc/binfmt.d:/host/etc/binfmt.d -v /var/lib/binfmtd:/host/var/lib/binfmtd" in result.message
    assert cli("apply", "--persistent", "--host-root", "/nowhere").message.startswith("/nowhere is not a directory")


def test_interpreters_with_odd_paths(host: Host) -> None:
    """A copy lies below its directory, whatever the interpreter's path is, and the line has the copy's path."""
    config = "architectures = []\n" + "".join(
        f"[handlers.{name}]\nmagic = '\\x00{name}'\ninterpreter = '{path}'\nflags = 'F'\n"
        for name, path in (("one", "/usr/bin/../bin/qemu-arm"), ("two", "//usr//bin/qemu-alpha"))
    )
    assert host.apply(config=config).status == 0
    assert host.files() == [CONF, f"{COPIES}/usr/bin/qemu-alpha", f"{COPIES}/usr/bin/qemu-arm"]
    text = host.seen(CONF).read_text()
    assert f":/{COPIES}/usr/bin/qemu-arm:F" in text
    assert f":/{COPIES}/usr/bin/qemu-alpha:F" in text
    outside = config.replace("/usr/bin/../bin", "/../../../../../usr/bin")
    assert host.apply(config=outside).status == 0
    assert host.files() == [CONF, f"{COPIES}/usr/bin/qemu-alpha", f"{COPIES}/usr/bin/qemu-arm"]


@pytest.fixture
def too_long() -> str:
    """Return a config whose second line fits for the kernel, but not with the copy's longer path."""
    magic, name = "\\x00" * 225, "n" * 76
    mask = "\\x3a" * 225  # a colon, which the line has to escape, too
    long = f"[handlers.{name}]\nmagic = '{magic}'\nmask = '{mask}'\ninterpreter = '/usr/bin/qemu-arm'\nflags = 'F'\n"
    return "architectures = ['arm64']\n" + long


def test_what_does_not_fit(host: Host, too_long: str) -> None:
    """A handler that does not fit into the file is a failure; the other handlers come back after a reboot."""
    result = host.apply(config=too_long)
    assert result.status == 1
    assert result.message.startswith("n" * 76 + f": {host.root}/{CONF} cannot contain it: ")
    assert host.names() == ["qemu-aarch64"]


def test_the_daemon_lives_with_what_does_not_fit(host: Host, start_daemon: StartDaemon, too_long: str) -> None:
    """The daemon logs once that a handler does not fit into the file, and goes on."""
    daemon = start_daemon(too_long, ("--persistent", "--host-root", str(host.root)))
    daemon.wait_for_log("persistent_file_in_step")
    assert len(daemon.logs("persistent_warning")) == 1
    assert host.names() == ["qemu-aarch64"]


def test_what_the_kernel_refuses(host: Host, tmp_path: Path) -> None:
    """A line that the kernel has just refused, and would refuse at each boot, is left out."""
    directory = tmp_path / "noexec"
    directory.mkdir()
    host.shell(f"mount -t tmpfs -o noexec,mode=755 tmpfs {directory} && cp /usr/bin/qemu-arm {directory}/program")
    config = f"[handlers.one]\nmagic = '\\x00one'\ninterpreter = '{directory}/program'\nflags = 'F'\n"
    assert host.apply("--arch", "arm64", config=config).status == 1
    assert host.names() == ["qemu-aarch64"]


def test_whatever_the_umask(host: Host) -> None:
    """No other user can write the file or the copies, with any umask: root registers them at the next boot."""
    command = host.cli.command("apply", "--persistent", "--host-root", str(host.root), "--arch", "arm64")
    result = run(["sh", "-c", 'umask 0; exec "$@"', "sh", *command])
    assert (result.status, result.stderr) == (0, "")
    assert host.shell(f"find {host.root} -perm /022 -not -type l -not -path {host.root}") == ""


def test_others_could_write_there(instance: Instance, host: Host) -> None:
    """A directory of the host that other users can write to is refused before anything is registered."""
    host.shell(f"chmod 777 {host.root}/etc/binfmt.d")
    result = host.apply("--arch", "arm64")
    assert result.status == 1
    assert f"run `chmod go-w '{host.root}/etc/binfmt.d'`" in result.message
    assert instance.names() == []


def test_two_at_once(instance: Instance, host: Host) -> None:
    """Containers that share only the host's directories wait for each other's lock: no handler is lost."""
    architectures = ["arm64", "arm", "riscv64", "s390x", "ppc64le", "sh4"]
    running = []
    for name in architectures:
        state = f"BINFMTD_STATE_DIR={host.cli.state_directory}-{name}"
        words = ["apply", "--persistent", "--host-root", str(host.root), "--arch", name]
        running.append(instance.popen(["env", state, *BINFMTD, *words], stdout=subprocess.DEVNULL))
    assert [each.wait(60) for each in running] == [0] * len(architectures)
    assert len(host.names()) == len(architectures)
    assert len(host.files()) == len(architectures) + 1


def test_all_is_there_and_nothing_may_be_written(host: Host) -> None:
    """A read-only /etc is no failure if the file is already as wanted; if it has to change, it is one."""
    assert host.apply("--arch", "arm64").status == 0
    host.shell(f"mount --bind {host.root}/etc/binfmt.d {host.root}/etc/binfmt.d")
    host.shell(f"mount -o remount,bind,ro {host.root}/etc/binfmt.d")
    again = host.apply("--arch", "arm64")
    assert (again.status, again.stderr) == (0, "")
    other = host.apply("--arch", "arm")
    assert other.status == 1
    assert "Read-only file system: make it writable" in other.message


def test_what_a_killed_one_left(host: Host) -> None:
    """A half-written copy is removed before new ones are made, and so gives room."""
    host.shell(
        f"mount -t tmpfs -o size=20m,mode=755 tmpfs {host.root}/var/lib/binfmtd; mkdir -p {host.root}/{COPIES}/usr/bin;"
        f"head -c 12000000 /dev/zero > {host.root}/{COPIES}/usr/bin/.qemu-arm.0123abcd"
    )
    assert host.apply("--arch", "arm64").status == 0
    assert host.files() == [CONF, f"{COPIES}/usr/bin/qemu-aarch64"]
    full = host.apply("--arch", "arm")
    assert full.status == 1
    assert f"{host.root}/{COPIES}/usr/bin/qemu-arm: No space left on device" in full.message


def test_a_host_without_systemd_binfmt(host: Host) -> None:
    """A host's root without systemd-binfmt, which would read the file, is an error."""
    host.shell(f"mkdir -p {host.root}/usr/lib/systemd")
    result = host.apply("--arch", "arm64")
    assert result.status == 1
    assert "systemd-binfmt is missing, so no program would read etc/binfmt.d/binfmtd.conf at boot" in result.message


def test_a_link_that_leads_out(host: Host) -> None:
    """A link in the host's root, which would lead into our own root, is refused."""
    host.shell(f"mkdir {host.root}/elsewhere && rm -r {host.root}/etc && ln -s elsewhere {host.root}/etc")
    result = host.apply("--arch", "arm64")
    assert result.status == 1
    assert result.message.startswith(f"{host.root}/etc is a link, which names another place in this container")


def test_bound_in_at_the_documented_path(instance: Instance, host: Host) -> None:
    """Without --host-root the host is found at /host, also if only the two directories are bound in."""
    script = f"""
        mount -t tmpfs tmpfs /mnt; mkdir -p /mnt/host/etc/binfmt.d /mnt/host/var/lib/binfmtd
        for directory in /*/; do
            test $directory = /mnt/ || {{ mkdir -p /mnt$directory; mount --rbind $directory /mnt$directory; }}
        done
        mount --bind {host.root}/etc/binfmt.d /mnt/host/etc/binfmt.d
        mount --bind {host.root}/var/lib/binfmtd /mnt/host/var/lib/binfmtd
        exec chroot /mnt "$@"
    """
    command = host.cli.command("apply", "--persistent", "--arch", "arm64")
    binfmtd = command[command.index("env") :]
    result = instance.run(["unshare", "-m", "sh", "-euc", script, "sh", *binfmtd])
    assert (result.returncode, result.stderr) == (0, "")
    assert host.files() == [CONF, f"{COPIES}/usr/bin/qemu-aarch64"]


def test_beside_a_daemon(host: Host, start_daemon: StartDaemon) -> None:
    """Beside a daemon nothing is written and nothing removed; the message names the daemon and its option."""
    daemon = start_daemon("architectures = ['arm64']")
    host.cli.state_directory = daemon.state_directory
    result = host.apply("--arch", "arm64")
    assert result.status == 1
    assert str(daemon.pid) in result.messages[0]
    assert "differs from the config; start the daemon with --persistent" in result.messages[1]
    assert host.files() == []
    back = host.apply("--arch", "none")
    assert back.status == 1
    assert f"(pid {daemon.pid}, " in back.message


def test_beside_a_daemon_that_keeps_it(host: Host, start_daemon: StartDaemon) -> None:
    """If a daemon keeps everything that is asked for, the status is 0, and no file is written."""
    daemon = start_daemon("architectures = ['arm64', 'arm']", ("--persistent", "--host-root", str(host.root)))
    daemon.wait_for_log("persistent_file_in_step")
    host.cli.state_directory = daemon.state_directory
    before = {path.name: path.stat().st_mtime_ns for path in daemon.state_directory.iterdir()}
    for words in ("arm64", "arm", "arm,arm64"):
        assert host.apply("--arch", words).status == 0
    assert host.apply("--arch", "all").status == 1
    assert {path.name: path.stat().st_mtime_ns for path in daemon.state_directory.iterdir()} == before


def test_passes_do_not_keep_it_from_copying(host: Host, start_daemon: StartDaemon) -> None:
    """Frequent passes, caused by other mounts, do not prevent the copies."""
    daemon = start_daemon("architectures = ['all']", ("--persistent", "--host-root", str(host.root)))

    def kept() -> bool:
        host.shell("mount -t tmpfs t /mnt && umount /mnt")
        return bool(daemon.logs("persistent_file_in_step"))

    wait_until(kept, 30, "the file")
    assert len(host.names()) > 20


def test_the_daemon_keeps_it_in_step(instance: Instance, host: Host, start_daemon: StartDaemon) -> None:
    """With `run --persistent` the file follows the config at each reload, and a pass restores a removed file."""
    options = ("--persistent", "--host-root", str(host.root))
    daemon = start_daemon("architectures = ['arm64']", options)
    daemon.wait_for_log("persistent_file_in_step")
    assert host.names() == ["qemu-aarch64"]
    daemon.config.write_text("architectures = ['arm64', 'arm']\n[emulators]\nflags = ''")
    daemon.reload()
    wait_until(lambda: host.names() == ["qemu-aarch64", "qemu-arm"], what="the file of the new config")
    assert "flags: F" in instance.read("qemu-arm")
    daemon.config.write_text("architectures = ['arm']")
    daemon.reload()
    wait_until(lambda: host.files() == [CONF, f"{COPIES}/usr/bin/qemu-arm"], what="the other copy's removal")
    daemon.config.write_text("architectures = []")
    daemon.reload()
    wait_until(lambda: host.files() == [], what="no file where there is nothing to bring back")
    daemon.config.write_text("architectures = ['arm']")
    daemon.reload()
    wait_until(lambda: host.files() == [CONF, f"{COPIES}/usr/bin/qemu-arm"], what="the file again")
    host.shell(f"rm {host.root}/{CONF}")
    instance.remove("qemu-arm")
    wait_until(lambda: host.files() == [CONF, f"{COPIES}/usr/bin/qemu-arm"], what="the file, with the next pass")
    assert daemon.terminate() == 0
    assert host.names() == ["qemu-arm"]


def test_the_daemon_reports_what_it_cannot_keep(host: Host, start_daemon: StartDaemon) -> None:
    """A full disk is logged once and shown in the status; repairs go on."""
    host.shell(f"mount -t tmpfs -o size=1m,mode=755 tmpfs {host.root}/var/lib/binfmtd")
    daemon = start_daemon("architectures = ['arm64']", ("--persistent", "--host-root", str(host.root)))
    failure = daemon.wait_for_log("persistent_file_failed")
    assert "No space left on device" in failure["reason"]
    daemon.wait_status(lambda status: status["state"] == "degraded" and "No space" in status["problem"])
    assert host.files() == []
    host.instance.remove("qemu-aarch64")
    wait_until(lambda: "qemu-aarch64" in host.instance.names(), what="the repair")


def test_the_daemon_without_a_host(instance: Instance, start_daemon: StartDaemon) -> None:
    """`run --persistent` ends at the start with the reason if the host's root does not exist."""
    daemon = start_daemon("", ("--persistent", "--host-root", "/nonexistent"), ready=False)
    assert daemon.wait_exit() == 1
    assert "/nonexistent" in daemon.log_text()
    assert instance.names() == []


def test_json(host: Host) -> None:
    """The JSON names the file; after `--arch none` it is null."""
    document = host.apply("--json", "--arch", "arm64").json
    assert document["persistent"] == f"{host.root}/{CONF}"
    assert host.apply("--json", "--arch", "none").json == {"removed": ["qemu-aarch64"], "persistent": None}
