"""``binfmt``, the drop-in for tonistiigi/binfmt: its output, and what is registered afterwards."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli import BINFMTD, Result, run, state
from support.daemon import StartDaemon
from support.drop_in import BINFMT, DropIn
from support.exec_loop import ExecLoop
from support.instance import Instance
from support.waiting import IN_DELETE, IN_MODIFY, DirectoryWatch

from binfmtd.files.distribution import emulators_remedy
from binfmtd.model.handler import Flags
from binfmtd.model.stand_in import stand_in_name


@pytest.fixture
def binfmt(instance: Instance, tmp_path: Path) -> DropIn:
    """Return a ``binfmt`` with emulators for two architectures that this host does not run."""
    made = DropIn(instance, tmp_path)
    made.add("s390x", "riscv64")
    return made


def document(supported: list[str], emulators: list[str]) -> str:
    """Return the document as Go's json.MarshalIndent writes it, indented by two."""

    def array(names: list[str]) -> str:
        return "[\n" + ",\n".join(f'    "{name}"' for name in names) + "\n  ]" if names else "null"

    return f'{{\n  "supported": {array(supported)},\n  "emulators": {array(emulators)}\n}}\n'


def supported(result: Result) -> list[str]:
    """Return the list ``supported`` of the document."""
    found: list[str] = result.json["supported"]
    return found


def test_setup_qemu_action(binfmt: DropIn, instance: Instance) -> None:
    """The four calls of docker/setup-qemu-action print and register the same as with tonistiigi/binfmt."""
    version = binfmt("--version")
    assert (version.status, version.stdout) == (0, "")
    assert re.fullmatch(r"binfmt/\S+ qemu/v\d+\.\d+\S* go/\S+\n", version.stderr)

    binfmt.register("s390x")
    instance.register(b":jar:E::jar::/usr/bin/true:")
    reset = binfmt("--uninstall qemu-*")
    native = supported(reset)
    assert (reset.status, reset.stderr) == (0, "uninstalling: qemu-s390x OK\n")
    assert reset.stdout == document(native, ["jar"])
    assert instance.names() == ["jar"]

    install = binfmt("--install all", QEMU_PRESERVE_ARGV0="1")
    assert (install.status, install.stderr) == (0, "installing: riscv64 OK\ninstalling: s390x OK\n")
    emulated = ["linux/riscv64", "linux/s390x"]
    late = [platform for platform in native if platform in ("linux/386", "linux/arm/v7", "linux/arm/v6")]
    early = [platform for platform in native if platform not in late]
    assert install.stdout == document([*early, *emulated, *late], ["jar", "qemu-riscv64", "qemu-s390x"])
    assert instance.read("qemu-s390x").startswith(f"enabled\ninterpreter {binfmt.emulators}/qemu-s390x\nflags: POF\n")
    assert binfmt.runs("s390x")

    before = state(instance)
    look = binfmt("")
    assert (look.status, look.stdout, look.stderr) == (0, install.stdout, "")
    again = binfmt("--install all", QEMU_PRESERVE_ARGV0="1")
    assert (again.status, again.stdout, again.stderr) == (0, install.stdout, "")
    assert state(instance) == before


def test_names_spellings_and_errors(binfmt: DropIn, instance: Instance) -> None:
    """All spellings are accepted, the log has Go's name; an unknown, repeated, native or missing one has its line."""
    host = os.uname().machine
    result = binfmt(f"-install linux/s390x,S390X,foo,arm64,{host},qemu-s390x")
    first, second, unknown, missing, native, entry = result.stderr.splitlines()
    assert result.status == 0
    assert first == "installing: s390x OK"
    assert second == "installing: s390x qemu-s390x already registered"
    assert unknown == "installing: foo unsupported architecture: foo"
    path = f"{binfmt.emulators}/qemu-aarch64"
    if host != "aarch64":
        assert missing.startswith(f'installing: arm64 cannot register "{path}" to {instance.mount_point}/register: no ')
        assert missing.endswith(emulators_remedy("aarch64", [path], "$QEMU_BINARY_PATH"))
    assert native.endswith(" already runs natively")
    assert entry == "installing: qemu-s390x unsupported architecture: qemu-s390x"
    assert result.json["emulators"] == instance.names() == ["qemu-s390x"]


def test_an_architecture_beyond_the_list(binfmt: DropIn, instance: Instance) -> None:
    """An architecture that only QEMU has, and the original does not, is installed by QEMU's name."""
    binfmt.add("hexagon")
    result = binfmt("--install hexagon")
    assert (result.status, result.stderr) == (0, "installing: hexagon OK\n")
    assert (instance.names(), binfmt.runs("hexagon")) == (["qemu-hexagon"], True)


@pytest.mark.parametrize(
    ("variables", "entry", "flags"),
    [
        ({}, "qemu-s390x", "OF"),
        ({"QEMU_PRESERVE_ARGV0": "1", "BINFMTD_CREDENTIALS": "1"}, "qemu-s390x", "POCF"),
        ({"QEMU_BINARY_PREFIX": "my-"}, "my-qemu-s390x", "OF"),
        ({"QEMU_BINARY_PATH": "/usr/bin/"}, "qemu-s390x", "OF"),
    ],
)
def test_variables(binfmt: DropIn, instance: Instance, variables: dict[str, str], entry: str, flags: str) -> None:
    """The original's variables set the directory, the prefix of names, and flag P; a variable of binfmtd sets C."""
    (binfmt.emulators / "my-qemu-s390x").hardlink_to(binfmt.emulators / "qemu-s390x")
    result = binfmt("--install s390x", **variables)
    assert result.stderr == "installing: s390x OK\n"
    assert instance.names() == [entry]
    path = f"{variables.get('QEMU_BINARY_PATH', f'{binfmt.emulators}/').removesuffix('/')}/{entry}"
    assert instance.read(entry).startswith(f"enabled\ninterpreter {path}\nflags: {flags}\n")


def test_only_the_static_name(instance: Instance, tmp_path: Path) -> None:
    """An emulator that exists only under Debian's older name (-static) is used."""
    binfmt = DropIn(instance, tmp_path)
    binfmt.add("s390x", suffix="-static")
    assert binfmt("--install all").stderr == "installing: s390x OK\n"
    assert f"interpreter {binfmt.emulators}/qemu-s390x-static\n" in instance.read("qemu-s390x")


def test_uninstall(binfmt: DropIn, instance: Instance) -> None:
    """An entry is removed by platform, by its name or by a glob, with its stand-in; WSLInterop is never removed."""
    binfmt.register("s390x")
    binfmt.register("riscv64")
    binfmt.register("riscv64", entry=".binfmtd~qemu-riscv64")
    for line in (b":WSLInterop:M::MZ::/init:", b":my-loongarch64:E::l::/usr/bin/true:", b":jar:E::jar::/usr/bin/true:"):
        instance.register(line)
    result = binfmt("--uninstall linux/riscv64,loong64,qemu-*,ppc64le,*Interop")
    assert result.status == 0
    assert result.stderr.splitlines() == [
        "uninstalling: riscv64 OK",
        "uninstalling: loongarch64 OK",
        "uninstalling: qemu-riscv64 OK",
        "uninstalling: qemu-s390x OK",
        "uninstalling: ppc64le not found",
        "uninstalling: *Interop not found",
    ]
    assert result.json["emulators"] == ["WSLInterop", "jar"]
    assert set(instance.names()) == {"WSLInterop", "jar"}


def test_uninstall_leaves_a_stand_in_that_a_daemon_makes_meanwhile(binfmt: DropIn, instance: Instance) -> None:
    """Stand-ins are removed before the entries; one that a daemon with another state directory then makes, serves."""
    binfmt.register("riscv64")
    binfmt.register("riscv64", entry=".binfmtd~qemu-riscv64")
    with DirectoryWatch(instance.directory, IN_DELETE) as watch:
        assert binfmt("--uninstall qemu-*").status == 0
        removed = [event.name for event in watch.pending()]
    assert removed == [".binfmtd~qemu-riscv64", "qemu-riscv64"]


def test_no_gap_beside_a_daemon_of_another_container(
    binfmt: DropIn, instance: Instance, start_daemon: StartDaemon
) -> None:
    """Beside a daemon that ``binfmt`` cannot see, an entry is removed only when its stand-in is there again.

    All other stand-ins of the daemon stay as they are, also if ``binfmt`` had registered an entry of that name before.
    """
    assert binfmt("--install riscv64").status == 0
    emulators = f"[emulators]\npaths = ['{binfmt.emulators}/qemu-{{name}}']\n"
    daemon = start_daemon(f"settle = '1s'\narchitectures = ['s390x', 'riscv64']\n{emulators}")
    stand_in, other = (stand_in_name(f"qemu-{name}") for name in ("s390x", "riscv64"))
    before = instance.inode(other)
    with ExecLoop(instance, binfmt.program("s390x")) as loop:
        for _ in range(3):
            daemon.wait_converged()
            with DirectoryWatch(instance.directory, IN_DELETE | IN_MODIFY) as watch:
                assert binfmt("--uninstall qemu-s390x").status == 0
                names = [event.name for event in watch.pending()]
            removed = names.index(stand_in), names.index("qemu-s390x")
            assert "register" in names[slice(*removed)], names
            assert binfmt("--install s390x").status == 0
            assert instance.inode(other) == before, "of riscv64, which the ledger of binfmt has"
        outcomes = [outcome for outcome, _ in loop.stop()]
    assert outcomes == [42]


def test_emulators_are_what_is_enabled(binfmt: DropIn, instance: Instance) -> None:
    """``emulators`` lists every enabled entry by name, foreign ones too, but no stand-in; odd names stay readable."""
    for name in (b"b", b"a", b"off", b".binfmtd~a", b"l\xe4t"):
        instance.register(b":%s:E::x%d::/usr/bin/true:" % (name, len(name)))
    instance.write("off", b"0")
    assert binfmt("").json["emulators"] == ["a", "b", "l\ufffdt"]


@pytest.mark.parametrize(
    ("line", "status"),
    [("--install foo,s390x", 1), ("--install alpha", 1), ("--install all --uninstall nothing", 0)],
)
def test_strict(binfmt: DropIn, line: str, status: int) -> None:
    """With --strict the exit status is 1 if a platform cannot be installed, and the last line says why; otherwise 0."""
    assert binfmt(line).status == 0
    result = binfmt(f"--strict {line}")
    lines = result.stderr.splitlines()
    assert (result.status, lines[-1] == f"error: {lines[0]}") == (status, bool(status))


def test_no_gap_when_both(binfmt: DropIn, instance: Instance) -> None:
    """An entry that is uninstalled and installed in one run is registered anew, and no execution fails meanwhile."""
    assert binfmt("--install s390x").status == 0
    program, going = binfmt.program("s390x"), binfmt.emulators / "going"
    going.touch()
    loop = f"n=0; while [ -e {going} ]; do {program} || [ $? = 42 ] || echo failed; n=$((n+1)); done; echo $n"
    runner = instance.popen(["sh", "-c", loop], stdout=subprocess.PIPE, text=True)
    inodes = {instance.inode("qemu-s390x")}
    for _ in range(5):
        result = binfmt("--uninstall s390x --install s390x")
        assert result.stderr == "uninstalling: s390x OK\ninstalling: s390x OK\n"
        inodes.add(instance.inode("qemu-s390x"))
    going.unlink()
    *failed, count = runner.communicate(timeout=30)[0].split()
    assert (len(inodes), instance.names()) == (6, ["qemu-s390x"])
    assert (failed, int(count) > 20) == ([], True)


def test_several_at_once(binfmt: DropIn, instance: Instance) -> None:
    """Four containers that run the same command at once, each with its own state directory, all succeed."""
    for _ in range(3):
        running = [
            instance.popen(
                binfmt.command_inside(
                    *["--strict", "--uninstall", "qemu-*", "--install", "s390x,riscv64"],
                    variables={"BINFMTD_STATE_DIR": f"{binfmt.state_directory}-{number}"},
                ),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(4)
        ]
        ended = [(*process.communicate(timeout=30), process.returncode) for process in running]
        assert [status for _, _, status in ended] == [0] * 4, ended
        assert set(instance.names()) == {"qemu-s390x", "qemu-riscv64"}


def test_what_cannot_come_back_goes(binfmt: DropIn, instance: Instance) -> None:
    """An entry that is uninstalled and installed, but whose emulator is gone, is removed; the log has the reason."""
    assert binfmt("--install all").status == 0
    (binfmt.emulators / "qemu-s390x").unlink()
    result = binfmt("--uninstall qemu-* --install riscv64,s390x")
    uninstalled, other, installed, missing = result.stderr.splitlines()
    assert uninstalled == "uninstalling: qemu-riscv64 OK"
    assert other == "uninstalling: qemu-s390x OK"
    assert installed == "installing: riscv64 OK"
    assert missing.startswith("installing: s390x cannot register ")
    assert instance.names() == ["qemu-riscv64"]


def test_all_after_uninstall_of_some(binfmt: DropIn, instance: Instance) -> None:
    """``all`` means the architectures that do not run after the uninstalling."""
    assert binfmt("--install all").status == 0
    riscv64 = instance.inode("qemu-riscv64")
    result = binfmt("--uninstall s390x --install all")
    assert result.stderr == "uninstalling: s390x OK\ninstalling: s390x OK\n"
    assert instance.inode("qemu-riscv64") == riscv64
    binfmt.register("s390x", entry="other")
    assert binfmt("--uninstall qemu-s390x --install all").stderr == "uninstalling: qemu-s390x OK\n"
    assert set(instance.names()) == {"qemu-riscv64", "other"}


def test_switched_off(binfmt: DropIn, instance: Instance) -> None:
    """Installing switches on an instance that is switched off as a whole, and leaves entries that work."""
    assert binfmt("--install all").status == 0
    before = state(instance)
    instance.write("status", b"0")
    assert "linux/s390x" not in supported(binfmt(""))
    result = binfmt("--install s390x")
    assert result.stderr == "installing: s390x qemu-s390x already registered\n"
    assert "linux/s390x" in supported(result)
    assert state(instance) == before


def test_beside_a_daemon(instance: Instance, start_daemon: StartDaemon, binfmt: DropIn) -> None:
    """Beside a daemon nothing is written: status 0 if all is as asked, else 1 and the line that its config lacks."""
    paths = f"[emulators]\npaths = ['{binfmt.emulators}/qemu-{{name}}']\n"
    daemon = start_daemon(f"architectures = ['s390x']\n{paths}")
    binfmt.state_directory = daemon.state_directory
    before = state(instance)
    there = binfmt("--uninstall qemu-* --install s390x --strict")
    assert (there.status, there.stderr.splitlines()[-1]) == (0, "installing: s390x qemu-s390x already registered")
    lacking = binfmt("--install s390x,riscv64")
    assert lacking.status == 1
    assert supported(lacking) == supported(there)
    last = lacking.stderr.splitlines()[-1]
    assert last.startswith("error: nothing was written: a daemon (pid ")
    assert f"(pid {daemon.pid}, " in last
    assert last.endswith(
        f': add "riscv64" to `architectures` in {daemon.config}, '
        f"then run `binfmtd reload --state-dir {daemon.state_directory}`"
    )
    unwanted = binfmt("--uninstall qemu-*")
    assert (unwanted.status, unwanted.stderr.splitlines()[0]) == (1, "uninstalling: qemu-s390x was not removed")
    change = 'take s390x out of `architectures` (or add "-s390x" to it if it has "all")'
    assert f": {change} in {daemon.config}, " in unwanted.stderr.splitlines()[-1]
    assert state(instance) == before


def test_the_remedies_name_no_key_of_a_config(binfmt: DropIn) -> None:
    """``binfmt`` reads no config: for a missing emulator or a script its messages name the variable that decides."""
    missing = binfmt("--install arm64").stderr
    assert missing.endswith(": put the emulator there, or correct $QEMU_BINARY_PATH\n")
    prefixed = binfmt("--install arm64", QEMU_BINARY_PREFIX="x-").stderr
    assert prefixed.endswith("or correct $QEMU_BINARY_PATH or $QEMU_BINARY_PREFIX\n")
    binfmt.put("aarch64", b"#!/bin/sh\n")
    script = binfmt("--install arm64").stderr
    assert "fails: put in its place a static program (`binfmtd emulators configure` " in script
    for text in (missing, prefixed, script):
        for key in ("[emulators] paths", "force", "flags =", "interpreter ="):
            assert key not in text
    binfmt.add("aarch64")
    assert binfmt("--install arm64").stderr == "installing: arm64 OK\n"


@pytest.mark.parametrize("sealed", [False, True])
def test_foreign_entries_beside_a_daemon(
    instance: Instance, start_daemon: StartDaemon, binfmt: DropIn, *, sealed: bool
) -> None:
    """No change of the daemon's config removes an entry that it does not declare: the message has commands that do."""
    declared = "[handlers.qemu-odd]\nmagic = '\\x00odd'\ninterpreter = '/usr/bin/true'\n"
    instance.register(b":qemu-a b:E::a.b::/usr/bin/true:")
    binfmt.register("riscv64")
    daemon = start_daemon(f"architectures = []\nsealed = {str(sealed).lower()}\n{declared}")
    binfmt.state_directory = daemon.state_directory
    result = binfmt("--uninstall qemu-*")
    assert result.status == 1
    last = result.stderr.splitlines()[-1]
    assert f": leave out the handler qemu-odd in {daemon.config}, then run " in last
    assert "; qemu-a b, qemu-riscv64 are no handlers there: to remove them, run " in last
    result = binfmt("--uninstall riscv64")
    last = result.stderr.splitlines()[-1]
    assert ": qemu-riscv64 is no handler there: to remove it, run " in last
    assert "reload" not in last
    assert "architectures" not in last
    commands = re.findall("`([^`]+)`", last)
    assert [command.split()[0] for command in commands] == (["binfmtd", "echo", "binfmtd"] if sealed else ["echo"])
    for command in commands:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = instance.run(["env", f"PATH={path}", "sh", "-euc", command])
        assert done.returncode == 0, (command, done.stderr)
    assert sorted(instance.names()) == ["qemu-a b", "qemu-odd"]
    removed = binfmt("--uninstall riscv64")
    assert (removed.status, removed.stderr) == (0, "uninstalling: riscv64 not found\n")


def test_declared_but_not_running_beside_a_daemon(
    instance: Instance, start_daemon: StartDaemon, binfmt: DropIn, tmp_path: Path
) -> None:
    """To declare an architecture once more would change nothing: the message has the reason, and what changes it."""
    absent = tmp_path / "absent"
    broken = "[emulators.s390x]\ninterpreter = '/usr/bin/false'\n"
    daemon = start_daemon(
        f"architectures = ['s390x', 'riscv64', 'aarch64']\n{broken}[emulators.riscv64]\ninterpreter = '{absent}'\n"
    )
    binfmt.state_directory = daemon.state_directory
    last = binfmt("--install s390x").stderr.splitlines()[-1]
    assert (
        f": name an emulator that runs, in place of /usr/bin/false, in [emulators.s390x] in {daemon.config}, " in last
    )
    last = binfmt("--install riscv64").stderr.splitlines()[-1]
    assert last.endswith(
        f"config: its handler qemu-riscv64 is waiting: no executable file at {absent}: put the emulator there, "
        "or correct [emulators.riscv64] interpreter"
    )
    last = binfmt("--install riscv64,mips64").stderr.splitlines()[-1]
    assert ': add "mips64" to `architectures`' in last
    assert "; its handler qemu-riscv64 is waiting: " in last
    pause = [*BINFMTD, "pause", "arm64", "--state-dir", str(daemon.state_directory)]
    assert instance.run(pause).returncode == 0
    instance.remove("qemu-aarch64")
    last = binfmt("--install arm64").stderr.splitlines()[-1]
    resume = f"`binfmtd resume --state-dir {daemon.state_directory} qemu-aarch64`"
    assert last.endswith(f"by its own config. An administrator has paused its repairs, too: {resume} ends that")
    daemon.config.write_text("architectures = ['s390x']\n")
    daemon.reload()
    assert binfmt("--install s390x").status == 0


def test_a_reset_beside_a_daemon(instance: Instance, start_daemon: StartDaemon, binfmt: DropIn) -> None:
    """``--reset`` of multiarch names no change of the daemon's config if only foreign entries are left."""
    paths = f"[emulators]\npaths = ['{binfmt.emulators}/qemu-{{name}}']\n"
    binfmt.put("riscv64", Path("/usr/bin/qemu-riscv64").read_bytes(), "-static")
    binfmt.put("s390x", Path("/usr/bin/qemu-s390x").read_bytes(), "-static")
    daemon = start_daemon(f"architectures = ['s390x', 'riscv64']\n{paths}")
    binfmt.state_directory = daemon.state_directory
    instance.register(b":qemu-mine:E::a.b::/usr/bin/true:")
    result = binfmt("--reset -p yes")
    assert result.status == 1
    last = result.stderr.splitlines()[-1]
    place = f"{instance.mount_point}/qemu-mine"
    assert last.endswith(f": qemu-mine is no handler there: to remove it, run `echo -1 >{place}` as root")


@pytest.mark.parametrize(
    ("how", "said"),
    [("remount,bind,ro", ": Read-only file system: "), ("remount,ro", ": binfmt_misc is sealed ")],
)
def test_read_only(binfmt: DropIn, instance: Instance, how: str, said: str) -> None:
    """With a read-only mount or a sealed instance the last line has reason and remedy, and the exit status is 1.

    The document is printed nevertheless. To install an entry that exists is no failure.
    """
    binfmt.register("riscv64")
    instance.shell(f"mount -o {how} {instance.mount_point}")
    assert binfmt("--install riscv64").status == 0
    for line in ("--install s390x", "--uninstall riscv64"):
        result = binfmt(line)
        assert result.status == 1
        assert result.json["emulators"] == ["qemu-riscv64"]
        last = result.stderr.splitlines()[-1]
        assert last.startswith(f"error: {instance.mount_point}/")
        assert said in last
    assert binfmt("").status == 0


def test_no_permission(binfmt: DropIn, instance: Instance) -> None:
    """Without the permission to write the exit status is 1, and the last line names the permission."""
    instance.shell(f"chmod 0 {instance.mount_point}/register")
    unable = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]
    command = binfmt.command("--install", "s390x")
    place = command.index("env")
    result = run([*command[:place], *unable, *command[place:]])
    assert result.status == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"error: {instance.mount_point}/register: Permission denied: run as root")
    assert result.json["emulators"] is None


def test_not_mounted(binfmt: DropIn, instance: Instance, tmp_path: Path) -> None:
    """Where none is mounted and none may be, the document has what is known, the reason is last, the status is 1."""
    # Always with --mount: without it, an instance that is mounted elsewhere would be used, possibly the host's.
    instance.shell(f"umount {instance.mount_point}")  # uncovers the empty file system below, never the host's
    for line in ("--install s390x", ""):
        result = binfmt(f"--mount {tmp_path} {line}")
        assert (result.status, result.json["emulators"]) == (1, None)
        assert "no binfmt_misc is mounted here, and this is a user namespace" in result.stderr.splitlines()[-1]
        assert result.stderr.splitlines()[-1].endswith("instance for this namespace with BINFMTD_OWN_INSTANCE=1")


@pytest.mark.usefixtures("instance")
def test_all_would_vanish(tmp_path: Path) -> None:
    """If all entries would end with our own mount, nothing is registered: status 1; without options it is no error."""
    mounted, emulators = tmp_path / "mounted", tmp_path / "bin"
    for directory in (mounted, emulators):
        directory.mkdir()
    (emulators / "qemu-s390x").symlink_to("/usr/bin/qemu-s390x")
    variables = {
        "BINFMTD_OWN_INSTANCE": "1",
        "BINFMTD_STATE_DIR": str(tmp_path / "state"),
        "QEMU_BINARY_PATH": str(emulators),
    }
    command = ["unshare", "-Urm", "--propagation", "private", *BINFMT, "--mount", str(mounted)]
    result = run([*command, "--install", "all"], env=os.environ | variables)
    assert (result.status, json.loads(result.stdout)["emulators"]) == (1, None)
    assert f"error: {mounted}: nothing was registered: " in result.stderr.splitlines()[-1]
    look = run(command, env=os.environ | variables)
    assert (look.status, look.stderr, json.loads(look.stdout)["emulators"]) == (0, "", None)


def test_bound_in_elsewhere(binfmt: DropIn, instance: Instance, tmp_path: Path) -> None:
    """binfmt_misc that is mounted at another path is found by its type, and can be named by --mount."""
    other = tmp_path / "binfmt_misc"
    other.mkdir()
    instance.shell(f"mount --bind {instance.mount_point} {other} && umount {instance.mount_point}")
    assert binfmt(f"--mount {other} --install s390x").stderr == "installing: s390x OK\n"
    assert binfmt("--uninstall s390x").stderr == "uninstalling: s390x OK\n"


def test_closed_outputs(binfmt: DropIn, instance: Instance) -> None:
    """With stdout closed or full `binfmt` ends without a traceback, and the entries are registered."""
    command = " ".join(f"'{word}'" for word in binfmt.command("--install", "s390x"))
    closed = run(["sh", "-c", f"{command} >&-"])
    assert (closed.status, closed.stderr) == (0, "installing: s390x OK\n")
    full = run(["sh", "-c", f"{command} >/dev/full"])
    assert full.status == 1
    assert "Traceback" not in full.stderr
    assert instance.names() == ["qemu-s390x"]


def test_flags_are_those_of_the_original(binfmt: DropIn, instance: Instance) -> None:
    """Flag C is left out, as in Debian: a foreign set-uid program does not become root."""
    assert binfmt("--install all").status == 0
    for name in instance.names():
        assert Flags.C.letters not in instance.read(name).splitlines()[2].removeprefix("flags: ")
