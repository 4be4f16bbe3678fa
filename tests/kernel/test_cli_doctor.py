"""``binfmtd doctor``: each fault is made in a private instance, found, and ended by the remedy that is shown for it."""

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.binfmt_d import put_binfmt_d
from support.cli import Cli, Result, run, state, unprivileged_python
from support.daemon import Daemon
from support.instance import Instance
from support.programs import exits_with, install

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.program import tiny_program
from binfmtd.files.whereabouts import in_container, shares_first_processes
from binfmtd.formats.line import encode_line
from binfmtd.kernel.host import kernel_version
from binfmtd.model.desired import P_VISIBLE_FROM
from binfmtd.model.handler import Flags, Registration
from binfmtd.model.match import Extension, Magic, Match

StartDaemon = Callable[..., Daemon]
Finding = dict[str, Any]

FOREIGN = "riscv64" if os.uname().machine == "aarch64" else "aarch64"
EMULATOR = Path(f"/usr/bin/qemu-{FOREIGN}")
ONE = "architectures = []\n[handlers.one]\nmagic = '\\x00one'\ninterpreter = '{}'\nflags = 'F'\n"


class Doctor(Cli):
    """It, in a private instance, and a shell there to which its remedies are typed."""

    def look(self, *arguments: str, config: str | None = None) -> list[Finding]:
        """Return what it found; the exit status has to go with it."""
        result = self("doctor", "--json", *arguments, config=config)
        assert result.stderr == ""
        document = result.json
        findings: list[Finding] = document["findings"]
        levels = [found["level"] for found in findings]
        assert document["failures"] == levels.count("failure")
        assert document["warnings"] == levels.count("warning")
        assert result.status == (1 if "failure" in levels else 0)
        assert all(found["remedy"] for found in findings if found["level"] != "ok"), findings
        return findings

    def unseen(self) -> list[Finding]:
        found: list[Finding] = self("doctor", "--json").json["not_seen"]
        return found

    def find(self, section: str, check: str, *arguments: str, config: str | None = None) -> Finding | None:
        """Return the one finding of this check, or None."""
        every = [
            found
            for found in self.look(*arguments, config=config)
            if (found["section"], found["check"]) == (section, check)
        ]
        assert len(every) <= 1, every
        return every[0] if every else None

    def found(self, section: str, check: str, *arguments: str, config: str | None = None) -> Finding:
        found = self.find(section, check, *arguments, config=config)
        assert found is not None, self("doctor").stdout
        return found

    def type(self, remedy: str) -> None:
        """Type it into a shell in there, as it stands."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = ["env", f"PATH={path}", f"BINFMTD_STATE_DIR={self.state_directory}"]
        done = self.instance.run([*environment, "sh", "-euc", remedy])
        assert done.returncode == 0, (remedy, done.stdout, done.stderr)

    def register(self, name: str, match: Match, interpreter: Path | str, flags: str = "F") -> None:
        self.instance.register(encode_line(name, Registration(match, str(interpreter), Flags.parse(flags))))


@pytest.fixture
def doctor(instance: Instance, tmp_path: Path) -> Doctor:
    return Doctor(instance, tmp_path)


@pytest.fixture
def static(tmp_path: Path) -> Path:
    """Return an interpreter that needs nothing else."""
    return install(tmp_path / "static", exits_with(7))


@pytest.fixture
def emulator() -> Path:
    if not EMULATOR.exists():
        pytest.skip(f"{EMULATOR} is not installed: apt-get install qemu-user")
    return EMULATOR


def match_of(architecture: str) -> Match:
    return CATALOG[architecture].match


def test_all_is_well(doctor: Doctor, start_daemon: StartDaemon, static: Path) -> None:
    """With a daemon that has converged there is no failure and no warning: 0, and each section has its say."""
    config = ONE.format(static)
    daemon = start_daemon(config)
    doctor.state_directory = daemon.state_directory
    findings = doctor.look()
    assert [found for found in findings if found["level"] != "ok"] == []
    sections = dict.fromkeys(found["section"] for found in findings)
    assert list(sections) == [
        "kernel",
        "module",
        "mount",
        "user_namespace",
        "privileges",
        "other_managers",
        "entries",
        "emulators",
        "config",
        "daemon",
    ]
    page = doctor("doctor").stdout.splitlines()
    assert page[-1].startswith(f"0 failures, 0 warnings, {len(findings)} ok")
    (runs,) = (found for found in findings if found["section"] == "daemon")
    assert runs["text"].startswith(f"pid {daemon.pid}, converged, ")
    (valid,) = (found for found in findings if found["section"] == "config")
    assert valid["text"] == f"{daemon.config}: 1 handler for this host"  # the daemon's, without being told


def test_it_changes_nothing(doctor: Doctor, static: Path) -> None:
    """However much is wrong: what is registered stays, and no state directory is made."""
    doctor.register("one", Extension("a.b"), static)
    doctor.register("two", Extension("one"), "/nowhere", "")
    before = state(doctor.instance)
    assert doctor("doctor", config="architectures = 1").status == 1
    assert state(doctor.instance) == before
    assert not doctor.state_directory.exists()


# Kernel and module


def test_kernel(doctor: Doctor) -> None:
    """It names the release, and what is known of it."""
    assert os.uname().release in doctor.found("kernel", "release")["text"]
    assert "last mount" in doctor.found("kernel", "lifetime")["text"]


def test_no_module(doctor: Doctor, tmp_path: Path) -> None:
    """A kernel that does not know the file system: a failure, with the command that loads it."""
    known = tmp_path / "filesystems"
    known.write_text("nodev\ttmpfs\n\text4\n")
    assert doctor.found("module", "module")["level"] == "ok"
    doctor.type(f"mount --bind {known} /proc/filesystems")
    found = doctor.found("module", "module")
    assert (found["level"], found["remedy"]) == ("failure", "modprobe binfmt_misc")


# Mount and user namespace


def test_unmounted(doctor: Doctor, tmp_path: Path) -> None:
    """Nothing at the path, or no such path: a failure, and the remedy mounts it."""
    place = tmp_path / "a place"
    found = doctor.found("mount", "mounted", "--mount", str(place))
    assert (found["level"], place.exists()) == ("failure", False)
    doctor.type(found["remedy"])
    assert doctor.found("mount", "mounted", "--mount", str(place))["level"] == "ok"
    doctor.type(f"umount '{place}'")
    found = doctor.found("mount", "mounted", "--mount", str(place))
    assert found["level"] == "failure"
    doctor.type(found["remedy"])
    assert doctor.found("mount", "mounted", "--mount", str(place))["level"] == "ok"


def test_unmounted_and_served(doctor: Doctor, emulator: Path, tmp_path: Path) -> None:
    """A container without a mount of its own is served by the host's: what runs is tried, and that is no failure."""
    found = doctor.found("mount", "mounted", "--mount", str(tmp_path))
    assert found["level"] == "failure"
    doctor.register(f"qemu-{FOREIGN}", match_of(FOREIGN), emulator)
    found = doctor.found("mount", "mounted", "--mount", str(tmp_path))
    assert found["level"] == "ok"
    assert found["text"].endswith(f"handlers serve all the same: {FOREIGN} run (tried)")


@pytest.mark.parametrize("how", ["remount,ro", "remount,bind,ro"])
def test_read_only(doctor: Doctor, how: str) -> None:
    """The file system or this mount of it read-only: a failure, and the remedy makes it writable."""
    doctor.type(f"mount -o {how} {doctor.instance.mount_point}")
    found = doctor.found("mount", "read_only")
    assert found["level"] == "failure"
    assert doctor.find("mount", "mounted") is None
    doctor.type(found["remedy"])
    assert doctor.find("mount", "read_only") is None
    doctor.type(f"printf %s ':a:E::a::/a:' >{doctor.instance.mount_point}/register")


def test_over_mounted(doctor: Doctor) -> None:
    """Something else over it: a failure that names its type, and the remedy uncovers binfmt_misc."""
    doctor.type(f"mount -t tmpfs tmpfs {doctor.instance.mount_point}")
    found = doctor.found("mount", "over_mounted")
    assert found["level"] == "failure"
    assert "type tmpfs is mounted over it: binfmt_misc is mounted beneath" in found["text"]
    doctor.type(found["remedy"])
    assert doctor.find("mount", "over_mounted") is None
    assert doctor.found("mount", "mounted")["level"] == "ok"


def test_over_mounted_and_bound_elsewhere(doctor: Doctor, tmp_path: Path) -> None:
    """Where it can be reached at another place only, that one is looked at, and what hides it is a warning."""
    point = doctor.instance.mount_point
    doctor.type(f"mount --bind {point} {tmp_path} && mount -t tmpfs tmpfs {point}")
    assert doctor.found("mount", "mounted")["text"].startswith(f"binfmt_misc is mounted at {tmp_path}")
    found = doctor.found("mount", "over_mounted")
    assert found["level"] == "warning"
    doctor.type(found["remedy"])
    assert f"at {point}; also at {tmp_path}" in doctor.found("mount", "mounted")["text"]


def test_hidden_host(doctor: Doctor, private_instances: None, static: Path) -> None:  # noqa: ARG001  a condition
    """An instance of the namespace's own hides the host's: a warning while it is empty, and the remedy fills it."""
    if os.geteuid() == 0 and not shares_first_processes():
        pytest.skip("where root is the same in all namespaces, only process 1 of the host tells whose it is")
    config = ONE.format(static)
    found = doctor.found("user_namespace", "owner", config=config)
    assert found["level"] == "warning"
    assert "an instance of its own, which hides the host's" in found["text"]
    doctor.type(found["remedy"])
    found = doctor.found("user_namespace", "owner", config=config)
    assert found["level"] == "ok"
    assert "the host's is hidden" in found["text"]


def test_an_instance_from_outside(private_instances: None) -> None:  # noqa: ARG001  a condition
    """In a namespace that has none of its own, with another root: whose it is shows by who owns its files."""
    python = unprivileged_python()
    if os.geteuid() != 0:
        pytest.skip("takes root: an ordinary user's instance has no second user")
    with Instance(everybody=True) as instance:
        inside = [*python[: python.index("env")], "unshare", "-Urm", *python[python.index("env") :]]
        result = run(instance.entering([*inside, "-m", "binfmtd", "doctor", "--json"]))
    (found,) = (each for each in result.json["findings"] if each["section"] == "user_namespace")
    assert found["level"] == "ok"
    assert "the instance comes from outside" in found["text"]


# Privileges


def test_without_privileges(instance: Instance, static: Path) -> None:
    """An ordinary user gets the page as well; it says what he may not, and what was not seen."""
    instance.register(b":odd:E::a.b::%s:F" % os.fsencode(static))
    command = ["nsenter", "-m", "-t", str(instance.pid), "--", *unprivileged_python(), "-m", "binfmtd"]
    result = run([*command, "doctor", "--json"])
    assert (result.status, result.stderr) == (0, "")
    findings = {(found["section"], found["check"]): found for found in result.json["findings"]}
    register = findings["privileges", "register"]
    assert register["level"] == "ok"
    assert "may not register entries, may not mount (no CAP_SYS_ADMIN)" in register["text"]
    assert findings["entries", "never"]["level"] == "warning"
    assert result.json["not_seen"]
    page = run([*command, "doctor"])
    assert "not seen" in page.stdout.splitlines()[-1]


def test_what_is_closed_to_an_ordinary_user(instance: Instance, tmp_path: Path) -> None:
    """A config and a state directory that he may not read are said to be so, and are no failure."""
    if os.geteuid() != 0:
        pytest.skip("takes root: somebody else has to own them")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "binfmtd.toml").write_text("architectures = []")
    options = ["--config", str(closed / "binfmtd.toml"), "--state-dir", str(closed)]
    command = ["nsenter", "-m", "-t", str(instance.pid), "--", *unprivileged_python(), "-m", "binfmtd"]
    result = run([*command, "doctor", "--json", *options])
    assert (result.status, result.stderr) == (0, "")
    unseen = {each["section"]: each["text"] for each in result.json["not_seen"]}
    assert "Permission denied" in unseen["config"]
    assert unseen["daemon"] == f"whether it runs: {closed} is closed to us"


def test_no_user_namespaces(doctor: Doctor, private_instances: None) -> None:  # noqa: ARG001  a condition
    """Where user namespaces are forbidden: a warning, and the remedy allows them."""
    assert doctor.found("privileges", "own_instance")["level"] == "ok"
    doctor.type("echo 0 >/proc/sys/user/max_user_namespaces")
    found = doctor.found("privileges", "own_instance")
    assert found["level"] == "warning"
    doctor.type(found["remedy"])
    assert doctor.found("privileges", "own_instance")["level"] == "ok"


# PR_SET_MDWE with PR_MDWE_REFUSE_EXEC_GAIN (prctl(2), Linux 6.3): what systemd's MemoryDenyWriteExecute does.
REFUSE = (
    "import ctypes, os, sys; assert not ctypes.CDLL(None).prctl(65, 1, 0, 0, 0); os.execvp(sys.argv[1], sys.argv[1:])"
)


def test_no_code_memory(doctor: Doctor) -> None:
    """A sandbox in which no emulator runs: a warning."""
    result = run([sys.executable, "-c", REFUSE, *doctor.command("doctor", "--json")])
    if "AssertionError" in result.stderr:
        pytest.skip("PR_SET_MDWE came with Linux 6.3")
    found = [each["level"] for each in result.json["findings"] if each["check"] == "code_memory"]
    assert found == ["warning"]
    assert doctor.find("privileges", "code_memory") is None


# Other managers


def test_systemd_binfmt(doctor: Doctor, tmp_path: Path) -> None:
    """Its rules are counted, a line that is none is a warning, and the remedy takes that out."""
    directory = put_binfmt_d(doctor.instance, tmp_path / "tree")["/etc/binfmt.d"]
    file = directory / "some.conf"
    file.write_text("# rules\n:one:E::one::/usr/bin/true:\nnonsense\n")
    assert "registers 1 rule of /etc/binfmt.d/some.conf" in doctor.found("other_managers", "systemd_binfmt")["text"]
    found = doctor.found("other_managers", "binfmt_d")
    assert found["level"] == "warning"
    assert found["text"].startswith("/etc/binfmt.d/some.conf:3: ")
    doctor.type(found["remedy"])
    assert doctor.find("other_managers", "binfmt_d") is None
    assert file.read_text() == "# rules\n:one:E::one::/usr/bin/true:\n#nonsense\n"


def test_update_binfmts(doctor: Doctor, tmp_path: Path, static: Path) -> None:
    """Its formats are counted; one that the config declares as well is a warning."""
    (tmp_path / "lib" / "binfmts").mkdir(parents=True)
    doctor.type(f"mount -t overlay overlay -o lowerdir={tmp_path}/lib:/var/lib /var/lib")
    (tmp_path / "lib" / "binfmts" / "jar").write_text("")
    config = ONE.format(static)
    assert doctor.found("other_managers", "update_binfmts", config=config)["text"] == "update-binfmts keeps jar"
    (tmp_path / "lib" / "binfmts" / "one").write_text("")
    found = doctor.found("other_managers", "update_binfmts", config=config)
    assert found["level"] == "warning"
    assert found["remedy"] == "for f in one; do update-binfmts --disable $f; done"


def test_wsl(doctor: Doctor) -> None:
    """WSL is known by its entry."""
    assert doctor.find("other_managers", "wsl") is None
    doctor.instance.register(b":WSLInterop:M::MZ::/init:P")
    assert doctor.found("other_managers", "wsl")["level"] == "ok"


def test_another_binfmtd(doctor: Doctor, start_daemon: StartDaemon) -> None:
    """A second daemon on the same instance is named with its process id; the remedy ends it."""
    daemon = start_daemon("architectures = []")
    found = doctor.found("other_managers", "binfmtd")
    assert found["level"] == "warning"
    assert found["remedy"] == f"kill {daemon.pid}"
    doctor.type(found["remedy"])
    daemon.wait_exit()
    assert doctor.find("other_managers", "binfmtd") is None


def test_a_daemon_elsewhere(doctor: Doctor, make_instance: Callable[[], Instance], tmp_path: Path) -> None:
    """One that keeps another instance is nobody's business."""
    daemon = Daemon(make_instance(), tmp_path / "elsewhere", "architectures = []")
    try:
        daemon.wait_ready()
        assert doctor.find("other_managers", "binfmtd") is None
    finally:
        daemon.close()


def test_left_stand_ins(doctor: Doctor, static: Path) -> None:
    """A stand-in of a daemon that is gone: a warning, and the remedy ends it."""
    doctor.register(".binfmtd~one", Extension("one"), static)
    config = ONE.format(static)
    found = doctor.found("other_managers", "stand_ins", config=config)
    assert found["level"] == "warning"
    doctor.type(found["remedy"])
    assert doctor.find("other_managers", "stand_ins", config=config) is None


# Entries


def ends(doctor: Doctor, check: str, level: str, config: str = "architectures = []") -> Finding:
    """See that the fault is found as one of this level, and that what is to be typed ends it."""
    found = doctor.found("entries", check, config=config)
    assert found["level"] == level
    doctor.type(found["remedy"])
    assert doctor.find("entries", check, config=config) is None
    return found


def test_switched_off(doctor: Doctor, static: Path) -> None:
    """The whole instance off: a failure."""
    doctor.register("one", Extension("one"), static)
    doctor.instance.write("status", b"0")
    ends(doctor, "switched_off", "failure")


def test_nothing_registered(doctor: Doctor, static: Path) -> None:
    """No entry at all: a warning."""
    ends(doctor, "none", "warning", ONE.format(static))


def test_disabled(doctor: Doctor, static: Path) -> None:
    """A disabled entry is a warning, unless the config wants it so."""
    doctor.register("one", Extension("one"), static)
    doctor.instance.write("one", b"0")
    wanted = "architectures = []\n[handlers.one]\nextension = 'one'\ninterpreter = '/x'\nenabled = false\n"
    assert doctor.find("entries", "disabled", config=wanted) is None
    ends(doctor, "disabled", "warning")


def test_no_f(doctor: Doctor, static: Path) -> None:
    """An entry without F whose interpreter could have it: the remedy registers the same with F."""
    doctor.register("a 'b'", Extension("one"), static, "P")
    ends(doctor, "no_f", "warning")
    assert f"interpreter {static}\nflags: PF\nextension .one\n" in doctor.instance.read("a 'b'")


def test_no_f_of_an_emulator(doctor: Doctor, emulator: Path) -> None:
    """Of an architecture's entry, whatever its name: the remedy has binfmtd's own in its place."""
    doctor.register("odd", match_of(FOREIGN), emulator, "")
    found = doctor.found("entries", "no_f")
    assert found["level"] == "warning"
    doctor.type(found["remedy"])
    assert doctor.find("entries", "no_f") is None
    assert doctor.instance.names() == [f"qemu-{FOREIGN}"]


def test_no_f_by_the_config(doctor: Doctor, static: Path, tmp_path: Path) -> None:
    """If the config has it so, the remedy is a line of the config, which works."""
    config = ONE.format(static).replace("flags = 'F'", "flags = ''")
    assert doctor("apply", config=config).status == 0
    found = doctor.found("entries", "no_f", config=config)
    assert found["remedy"] == f'flags = "F" below [handlers.one] in {tmp_path / "binfmtd.toml"}'
    better = config.replace("flags = ''", found["remedy"].partition(" below")[0])
    assert doctor("apply", config=better).status == 0
    assert doctor.find("entries", "no_f", config=better) is None


def test_dynamic(doctor: Doctor) -> None:
    """A dynamic interpreter under F: a warning that names what it needs."""
    doctor.register("one", Extension("one"), "/usr/bin/true")
    found = ends(doctor, "dynamic", "warning")
    assert "/usr/bin/true is dynamic" in found["text"]
    assert "/ld-" in found["text"]


def test_a_dynamic_emulator(doctor: Doctor, emulator: Path, tmp_path: Path) -> None:  # noqa: ARG001  must be there
    """Of an architecture's entry where there is a static one as well: the remedy has that."""
    dynamic = tmp_path / f"qemu-{FOREIGN}"
    dynamic.symlink_to("/usr/bin/true")
    doctor.register("odd", match_of(FOREIGN), dynamic)
    ends(doctor, "dynamic", "warning")
    assert f"interpreter {EMULATOR}\n" in doctor.instance.read(f"qemu-{FOREIGN}")


def test_credentials(doctor: Doctor, emulator: Path) -> None:
    """C is a warning, unless the config asks for it."""
    doctor.register(f"qemu-{FOREIGN}", match_of(FOREIGN), emulator, "OCF")
    asked = f"architectures = ['{FOREIGN}']\n[emulators.{FOREIGN}]\nflags = 'CF'\n"
    assert doctor.find("entries", "credentials", config=asked) is None
    ends(doctor, "credentials", "warning")


@pytest.mark.parametrize(("version", "levels"), [("5.2.0", ["failure"]), ("6.0.0", [])])
def test_p_that_qemu_cannot_see(doctor: Doctor, tmp_path: Path, version: str, levels: list[str]) -> None:
    """P with a QEMU from before 6.0: a failure, and the remedy takes it out."""
    if kernel_version() < P_VISIBLE_FROM:
        levels = ["failure"]  # the kernel does not tell anybody
    old = install(tmp_path / "qemu-old", f"#!/bin/sh\necho qemu-old version {version}\n".encode())
    doctor.register("one", Extension("one"), old, "PF")
    config = "architectures = []"
    found = [each for each in doctor.look(config=config) if each["check"] == "p_unseen"]
    assert [each["level"] for each in found] == levels
    if found:
        ends(doctor, "p_unseen", "failure")
        assert "flags: \n" in doctor.instance.read("one")  # nor F, which a script under it has no use for


# Ends with the number of its arguments, its name included, which is where the stack begins (System V ABI).
COUNTS = {
    "aarch64": bytes.fromhex("e00340f9 a80b80d2 010000d4"),  # ldr x0, [sp]; mov x8, 93; svc 0
    "riscv64": bytes.fromhex("0265 9308d005 73000000"),  # ld a0, 0(sp); li a7, 93; ecall
}


def test_p_that_qemu_counts_on(doctor: Doctor, emulator: Path, tmp_path: Path) -> None:
    """Debian's name for an emulator that takes P for granted, without P: an argument is lost, until the remedy."""
    named = tmp_path / f"{FOREIGN}-binfmt-P"
    named.symlink_to(emulator)
    architecture = CATALOG[FOREIGN]
    program = tiny_program(architecture).removesuffix(architecture.exit42) + COUNTS[FOREIGN]
    counts = install(tmp_path / "counts", program)
    doctor.register("one", match_of(FOREIGN), named)
    if (given := doctor.instance.run([str(counts), "one", "two"]).returncode) == 3:
        pytest.skip("only Debian's QEMU goes by its name")
    assert given == 2
    ends(doctor, "p_missing", "failure")
    assert doctor.instance.run([str(counts), "one", "two"]).returncode == 3


def test_missing_interpreter(doctor: Doctor) -> None:
    """Without F and without its interpreter no program runs: a failure."""
    doctor.register("one", Extension("one"), "/nowhere/one", "")
    assert "/nowhere/one" in ends(doctor, "missing", "failure")["text"]


def test_missing_emulator(doctor: Doctor, emulator: Path) -> None:  # noqa: ARG001  must be there
    """Of an architecture that has an emulator elsewhere: the remedy has that."""
    doctor.register("odd", match_of(FOREIGN), "/nowhere/qemu", "")
    ends(doctor, "missing", "failure")
    assert doctor.instance.names() == [f"qemu-{FOREIGN}"]


def test_gone_interpreter(doctor: Doctor, static: Path) -> None:
    """With F what was opened serves on: a warning."""
    doctor.register("one", Extension("one"), static)
    assert doctor.find("entries", "gone") is None
    static.unlink()
    ends(doctor, "gone", "warning")


def test_shadowed(doctor: Doctor, emulator: Path) -> None:
    """A newer entry that takes more: a warning, and the remedy takes that away."""
    doctor.register("wanted", match_of(FOREIGN), emulator)
    narrow = CATALOG[FOREIGN].match
    assert narrow.mask is not None
    doctor.register("wide", Magic(narrow.magic[:-1], narrow.mask[:-1]), emulator)  # the last byte counts for nothing
    found = doctor.found("entries", "shadowed", config="architectures = []")
    assert found["level"] == "warning"
    assert found["text"].startswith("wanted: ")
    assert "wide" in found["text"]
    doctor.type(found["remedy"])
    assert doctor.instance.names() == ["wanted"]


def test_duplicate(doctor: Doctor, static: Path) -> None:
    """Two for the same files: a warning; the remedy takes away the one that never serves."""
    doctor.register("older", Extension("one"), static)
    doctor.register("newer", Extension("one"), static)
    ends(doctor, "duplicate", "warning")
    assert doctor.instance.names() == ["newer"]


def test_duplicate_that_is_broken(doctor: Doctor, static: Path) -> None:
    """If the newer one cannot serve, it is that one which goes, by either remedy."""
    doctor.register("older", Extension("one"), static)
    doctor.register("newer", Extension("one"), "/nowhere", "")
    assert doctor.found("entries", "missing")["remedy"] == ends(doctor, "duplicate", "warning")["remedy"]
    assert doctor.instance.names() == ["older"]


def test_several_faults_of_one(doctor: Doctor, static: Path) -> None:
    """What is shown for one fault of an entry ends its others, too."""
    doctor.register("one", Extension("tar.gz"), static, "OC")
    findings = [each for each in doctor.look(config="architectures = []") if each["level"] == "warning"]
    (remedy,) = {each["remedy"] for each in findings if each["section"] == "entries"}
    assert {each["check"] for each in findings} >= {"never", "credentials", "no_f"}
    doctor.type(remedy)
    assert doctor.instance.read("one") == f"enabled\ninterpreter {static}\nflags: F\nextension .gz\n"


def test_duplicate_of_a_declared_one(doctor: Doctor, static: Path) -> None:
    """If the older one is the config's, it is the newer one that goes."""
    config = ONE.format(static)
    assert doctor("apply", config=config).status == 0
    doctor.instance.register(b":newer:M::\\x00one::%s:F" % os.fsencode(static))
    ends(doctor, "duplicate", "warning", config)
    assert doctor.instance.names() == ["one"]


def test_native(doctor: Doctor, static: Path) -> None:
    """One that would take the host's own programs: disabled, it is a warning."""
    doctor.instance.register(b":native:M::\\x7fELF::%s:F" % os.fsencode(static))
    doctor.instance.write("native", b"0")  # before any program of this host starts in there
    found = ends(doctor, "native", "warning")
    assert "native programs of this host" in found["text"]


def test_native_and_enabled(doctor: Doctor, private_instances: None, static: Path) -> None:  # noqa: ARG001  a condition
    """Enabled it is a failure: seen from the namespace outside, in which programs still run."""
    doctor.instance.register(b":native:M::\\x7fELF::%s:F" % os.fsencode(static))
    outside = ["nsenter", "-m", "-t", str(doctor.instance.pid), "--", sys.executable, "-m", "binfmtd"]
    result = run([*outside, "doctor", "--json"])
    doctor.instance.remove("status")
    assert result.status == 1, result.stderr
    (found,) = (each for each in result.json["findings"] if each["check"] == "native")
    assert found["level"] == "failure"
    assert found["remedy"] == f"echo -1 >{doctor.instance.mount_point}/native"


@pytest.mark.parametrize(
    ("line", "left"),
    [
        (b":one:E::tar.gz::%s:F", ["one"]),  # the remedy guesses .gz
        (b":one:M::\\\\x7fELF\\\\x01::%s:F", []),  # escaped once too often
        (b":one:M::\\x7fELF\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02::%s:F", []),  # e_type
    ],
)
def test_never(doctor: Doctor, static: Path, line: bytes, left: list[str]) -> None:
    """What the kernel takes, and no file can have: a warning."""
    doctor.instance.register(line % os.fsencode(static))
    ends(doctor, "never", "warning")
    assert doctor.instance.names() == left


def test_untrusted_interpreter(doctor: Doctor, static: Path) -> None:
    """An interpreter that others could change: a warning, and the remedy closes it."""
    static.chmod(0o777)
    doctor.register("one", Extension("one"), static)
    ends(doctor, "untrusted", "warning")


def test_nobody_elses_emulator_is_run(doctor: Doctor, tmp_path: Path) -> None:
    """What others could exchange is not asked for its version."""
    trap = install(tmp_path / "qemu-trap", f"#!/bin/sh\ntouch {tmp_path}/ran\n".encode())
    doctor.register("one", Extension("one"), trap)
    trap.chmod(0o777)
    doctor.look(config="architectures = []")
    assert not (tmp_path / "ran").exists()
    trap.chmod(0o755)
    doctor.look(config="architectures = []")
    assert (tmp_path / "ran").exists()


def test_a_name_that_cannot_be_typed(doctor: Doctor) -> None:
    """Of an entry with control characters and raw bytes in its name the remedy works all the same."""
    doctor.instance.register(b":odd\x1b[31m\xff:E::one::/nowhere/one:")
    found = ends(doctor, "missing", "failure")
    assert found["remedy"].isprintable()
    assert "\x1b" not in doctor("doctor").stdout


# Emulators


def test_a_broken_emulator(doctor: Doctor, tmp_path: Path) -> None:
    """One that does not tell its version: a failure."""
    broken = install(tmp_path / "qemu-broken", b"#!/bin/sh\nexit 3\n")
    doctor.register("one", Extension("one"), broken)
    found = doctor.found("emulators", "broken", config="architectures = []")
    assert found["level"] == "failure"
    assert found["text"] == f"{broken}: it ended with status 3 and told no version"


def test_emulators(doctor: Doctor, emulator: Path, tmp_path: Path) -> None:
    """The versions are theirs, and what has none is named; where there is no emulator at all, that is a warning."""
    said = run([str(emulator), "--version"]).stdout.split()[2]
    (tmp_path / "bin").mkdir()
    config = f"architectures = []\n[emulators]\npaths = ['{tmp_path}/bin/qemu-{{name}}']\n"
    found = doctor.found("emulators", "missing", config=config)
    assert (found["level"], found["remedy"]) == ("warning", "apt-get install qemu-user")
    (tmp_path / "bin" / f"qemu-{FOREIGN}").symlink_to(emulator)
    found = doctor.found("emulators", "version", config=config)
    assert found["text"] == f"QEMU {said}: {tmp_path}/bin/qemu-{FOREIGN}"
    found = doctor.found("emulators", "missing", config=config)
    assert found["level"] == "ok"
    assert " alpha " in found["text"]
    assert f" {FOREIGN} " not in found["text"].partition(";")[0]


# Config


def test_bad_config(doctor: Doctor) -> None:
    """An invalid config: a failure, with the message that `run` would end with, and what shows it mended."""
    bad = "architectures = ['amr64']"
    found = doctor.found("config", "valid", config=bad)
    assert found["level"] == "failure"
    assert doctor("check", config=bad).message == found["text"]
    doctor.config.write_text("architectures = ['arm64']")
    doctor.type(found["remedy"])


def test_refused_and_waiting(doctor: Doctor, static: Path) -> None:
    """What a guard refuses is a failure, and what has no interpreter a warning."""
    static.chmod(0o777)
    config = ONE.format(static) + "[handlers.late]\nextension = 'late'\ninterpreter = '/nowhere/late'\n"
    found = doctor.found("config", "refused", config=config)
    assert (found["level"], found["text"].partition(":")[0]) == ("failure", "one")
    doctor.type(found["remedy"])
    assert doctor.find("config", "refused", config=config) is None
    found = doctor.found("config", "waiting", config=config)
    assert (found["level"], found["text"].partition(":")[0]) == ("warning", "late")


# Daemon


@pytest.fixture
def kept(doctor: Doctor, start_daemon: StartDaemon, static: Path) -> tuple[Doctor, Daemon]:
    """Return a doctor beside a daemon that has converged."""
    daemon = start_daemon(ONE.format(static))
    doctor.state_directory = daemon.state_directory
    return doctor, daemon


def test_no_daemon(doctor: Doctor) -> None:
    """None has ever run: a warning, but in a container, where others cannot be seen."""
    if in_container() and not shares_first_processes():
        assert [each["text"] for each in doctor.unseen() if each["section"] == "daemon"] != []
        return
    found = doctor.found("daemon", "runs")
    assert (found["level"], found["remedy"]) == ("warning", "binfmtd run")


def test_dead_daemon(kept: tuple[Doctor, Daemon]) -> None:
    """One that has ended, and left its status: a failure."""
    doctor, daemon = kept
    assert doctor.found("daemon", "runs")["level"] == "ok"
    daemon.kill()
    found = doctor.found("daemon", "runs", "--config", str(daemon.config))
    assert found["level"] == "failure"
    assert found["remedy"] == shlex.join(["binfmtd", "run", "--config", str(daemon.config)])


def test_degraded_daemon(kept: tuple[Doctor, Daemon], static: Path) -> None:
    """One that refuses a handler: a failure, and the remedy ends it."""
    doctor, daemon = kept
    static.chmod(0o777)
    daemon.wait_status(lambda status: status["state"] == "degraded")
    found = doctor.found("daemon", "refused")
    assert found["level"] == "failure"
    doctor.type(found["remedy"])
    daemon.wait_converged()
    assert doctor.find("daemon", "refused") is None


def test_a_daemon_that_cannot_write(kept: tuple[Doctor, Daemon]) -> None:
    """One whose mount has become read-only: a failure, and its remedy works."""
    doctor, daemon = kept
    doctor.type(f"mount -o remount,ro {doctor.instance.mount_point}")
    daemon.wait_status(lambda status: status["problem"])
    found = doctor.found("daemon", "problem")
    assert found["level"] == "failure"
    doctor.type(found["remedy"])
    daemon.wait_converged()
    assert doctor.find("daemon", "problem") is None


def test_a_daemon_with_an_older_config(kept: tuple[Doctor, Daemon]) -> None:
    """One that refused a reload: a failure of both, its config and itself."""
    doctor, daemon = kept
    daemon.config.write_text("nonsense")
    daemon.reload()
    daemon.wait_for_log("config_rejected")
    daemon.wait_status(lambda status: status["config"]["error"])
    assert doctor.found("config", "valid")["level"] == "failure"
    assert doctor.found("daemon", "config")["level"] == "failure"


def test_a_paused_daemon(kept: tuple[Doctor, Daemon]) -> None:
    """One that an admin has paused: a warning, and the remedy resumes."""
    doctor, daemon = kept
    assert doctor("pause", "--state-dir", str(daemon.state_directory)).status == 0
    daemon.wait_status(lambda status: status["state"] == "paused")
    found = doctor.found("daemon", "paused")
    assert found["level"] == "warning"
    doctor.type(found["remedy"])
    daemon.wait_converged()
    assert doctor.find("daemon", "paused") is None


# The page


def test_page(doctor: Doctor, static: Path) -> None:
    """The worst comes first, what is to be typed stands beneath, many of a kind are three, and the sum is last."""
    for name in "abcde":
        doctor.register(name, Extension(name), static, "")
    doctor.register("bad", Extension("bad"), "/nowhere/bad", "")
    result: Result = doctor("doctor", config="architectures = []")
    assert result.status == 1
    first, remedy, *others, last = result.stdout.splitlines()
    assert first.split()[:3] == ["failure", "entries", "bad:"]
    assert remedy.strip().startswith("$ echo -1 >")
    assert sum("no flag F" in line for line in others) == 3
    assert sum("... and 2 more of these" in line for line in others) == 1
    assert last.startswith("1 failure, ")
