"""`doctor` finds what is wrong with a host: kernel, module, mount, user namespace, privileges."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.cli import BINFMTD, run, state, unprivileged_python
from support.doctor import NEEDS_ROOT, ONE, Doctor, StartDaemon, match_of
from support.instance import Instance
from support.programs import FOREIGN
from support.waiting import wait_until

from binfmtd.errors import StateError
from binfmtd.files.environment import shares_first_processes
from binfmtd.model.match import Extension
from binfmtd.report.status_json import read_status


def test_all_is_well(doctor: Doctor, start_daemon: StartDaemon, static: Path) -> None:
    """With a converged daemon there is no failure and no warning, the exit status is 0, and no section is missing."""
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
    assert valid["text"] == f"{daemon.config}: 1 handler for this host"  # the daemon's config, without an option


def test_it_changes_nothing(doctor: Doctor, static: Path) -> None:
    """`doctor` changes no entry and makes no state directory, however much is wrong."""
    doctor.instance.add("one", Extension("a.b"), static)
    doctor.instance.add("two", Extension("one"), "/nowhere", "")
    before = state(doctor.instance)
    assert doctor("doctor", config="architectures = 1").status == 1
    assert state(doctor.instance) == before
    assert not doctor.state_directory.exists()


# Kernel and module


def test_kernel(doctor: Doctor) -> None:
    """The findings contain the kernel's release and how long its entries last."""
    assert os.uname().release in doctor.found("kernel", "release")["text"]
    assert "last mount" in doctor.found("kernel", "lifetime")["text"]


def test_no_module(doctor: Doctor, tmp_path: Path) -> None:
    """A kernel without the file system binfmt_misc is a failure; the remedy is the command that loads the module."""
    known = tmp_path / "filesystems"
    known.write_text("nodev\ttmpfs\n\text4\n")
    assert doctor.found("module", "module")["level"] == "ok"
    doctor.type(f"mount --bind {known} /proc/filesystems")
    found = doctor.found("module", "module")
    assert (found["level"], found["remedy"]) == ("failure", "modprobe binfmt_misc")


# Mount and user namespace


def test_unmounted(doctor: Doctor, tmp_path: Path) -> None:
    """A mount point without binfmt_misc, or that does not exist, is a failure; the remedy mounts it."""
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
    """A container without a mount is no failure if the host's handlers serve it; `doctor` tests which programs run."""
    found = doctor.found("mount", "mounted", "--mount", str(tmp_path))
    assert found["level"] == "failure"
    doctor.instance.add(f"qemu-{FOREIGN}", match_of(FOREIGN), emulator)
    found = doctor.found("mount", "mounted", "--mount", str(tmp_path))
    assert found["level"] == "ok"
    assert found["text"].endswith(f"handlers still work: programs of {FOREIGN} run (tested)")


@pytest.mark.usefixtures("private_instances")
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(("namespaces", "before"), [("-Urm", ""), ("-Ur", "unshare --mount ")])
def test_unmounted_in_a_user_namespace(
    doctor: Doctor, static: Path, tmp_path: Path, namespaces: str, before: str, *, there: bool
) -> None:
    """A mount would hide the host's handlers: `doctor` says that as `apply` does, and its remedy names that choice."""
    doctor.type(f"umount {doctor.instance.mount_point}")  # uncovers an empty file system, never the host's
    place, state_directory, config = tmp_path / "place", tmp_path / "daemon", tmp_path / "one.toml"
    config.write_text(ONE.format(static))
    if there:
        place.mkdir()
    options = ["--config", str(config), "--mount", str(place), "--state-dir", str(state_directory)]
    entering = doctor.instance.entering(["unshare", namespaces])
    findings = run([*entering, *BINFMTD, "doctor", "--json", *options]).json["findings"]
    (found,) = (each for each in findings if each["section"] == "mount")
    assert found["level"] == "failure"
    why = run([*entering, *BINFMTD, "apply", *options]).message
    if there:
        assert found["text"] == why
    assert "would hide the host's handlers in it for good: bind the host's into it" in found["text"]
    assert "--own-instance" in found["text"]
    own = f"{before}binfmtd run --own-instance {' '.join(options)}"
    assert found["remedy"] == (own if there else f"mkdir -p {place} && {own}")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    remedy = subprocess.Popen(
        [*entering, "env", f"PATH={path}", "sh", "-euc", found["remedy"]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        status = wait_until(lambda: _status(state_directory), what="a daemon that serves")
        assert status["mount"]["directory"] == str(place)
    finally:
        os.killpg(remedy.pid, signal.SIGTERM)
        remedy.wait()


@pytest.mark.usefixtures("private_instances")
def test_unmounted_in_a_container_that_may_not_mount(doctor: Doctor, tmp_path: Path) -> None:
    """In a user namespace no new container may mount the host's instance either: the remedy binds it in."""
    doctor.type(f"umount {doctor.instance.mount_point}")
    unable = ["env", "container=docker", "setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    entering = doctor.instance.entering(["unshare", "-Urm", *unable])
    findings = run([*entering, *BINFMTD, "doctor", "--json", "--mount", str(tmp_path)]).json["findings"]
    (found,) = (each for each in findings if each["section"] == "mount")
    assert found["text"].endswith("; this container may not mount, so run this outside of it:")
    assert found["remedy"] == "docker run --rm -v /proc/sys/fs/binfmt_misc:/binfmt_misc binfmtd"


def _status(directory: Path) -> dict[str, Any]:
    """Return the status of a daemon that has converged, else an empty one."""
    try:
        status: dict[str, Any] = read_status(str(directory))
    except StateError:
        return {}
    return status if status["state"] == "converged" else {}


@pytest.mark.parametrize(
    ("how", "check", "level"), [("remount,ro", "sealed", "warning"), ("remount,bind,ro", "read_only", "failure")]
)
def test_read_only(doctor: Doctor, how: str, check: str, level: str) -> None:
    """A read-only file system (sealed) is a warning, a read-only mount a failure; the remedy makes it writable."""
    doctor.type(f"mount -o {how} {doctor.instance.mount_point}")
    found = doctor.found("mount", check)
    assert found["level"] == level
    assert doctor.find("mount", "mounted") is None
    doctor.type(found["remedy"])
    assert doctor.find("mount", check) is None
    doctor.type(f"printf %s ':a:E::a::/a:' >{doctor.instance.mount_point}/register")


def test_over_mounted(doctor: Doctor) -> None:
    """A file system mounted over binfmt_misc is a failure that names its type; the remedy unmounts it."""
    doctor.type(f"mount -t tmpfs tmpfs {doctor.instance.mount_point}")
    found = doctor.found("mount", "over_mounted")
    assert found["level"] == "failure"
    assert "type tmpfs is mounted over binfmt_misc and hides it" in found["text"]
    doctor.type(found["remedy"])
    assert doctor.find("mount", "over_mounted") is None
    assert doctor.found("mount", "mounted")["level"] == "ok"


def test_over_mounted_and_bound_elsewhere(doctor: Doctor, tmp_path: Path) -> None:
    """If binfmt_misc is covered but also mounted elsewhere, `doctor` examines that mount; the cover is a warning."""
    point = doctor.instance.mount_point
    doctor.type(f"mount --bind {point} {tmp_path} && mount -t tmpfs tmpfs {point}")
    assert doctor.found("mount", "mounted")["text"].startswith(f"binfmt_misc is mounted at {tmp_path}")
    found = doctor.found("mount", "over_mounted")
    assert found["level"] == "warning"
    doctor.type(found["remedy"])
    assert f"at {point}; also at {tmp_path}" in doctor.found("mount", "mounted")["text"]


def test_hidden_host(doctor: Doctor, private_instances: None, static: Path) -> None:  # noqa: ARG001  a condition
    """A user namespace's own, empty instance hides the host's entries: a warning, and the remedy fills the instance."""
    if os.geteuid() == 0 and not shares_first_processes():
        pytest.skip("where root is the same in all namespaces, only process 1 of the host shows whose it is")
    config = ONE.format(static)
    found = doctor.found("user_namespace", "owner", config=config)
    assert found["level"] == "warning"
    assert "an instance of its own, which hides the host's" in found["text"]
    doctor.type(found["remedy"])
    found = doctor.found("user_namespace", "owner", config=config)
    assert found["level"] == "ok"
    assert "the host's is hidden" in found["text"]


@pytest.mark.usefixtures("private_instances")
def test_an_instance_from_outside(everybody: Instance) -> None:
    """In a user namespace without its own instance, the owner of the files shows whose instance it is."""
    python = unprivileged_python()
    inside = [*python[: python.index("env")], "unshare", "-Urm", *python[python.index("env") :]]
    result = run(everybody.entering([*inside, "-m", "binfmtd", "doctor", "--json"]))
    (found,) = (each for each in result.json["findings"] if each["section"] == "user_namespace")
    assert found["level"] == "ok"
    assert "this is the instance of an outer user namespace" in found["text"]


# Privileges


@NEEDS_ROOT
def test_without_privileges(instance: Instance, static: Path) -> None:
    """An ordinary user gets the page as well; it lists what is not permitted and what could not be examined."""
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
    """A config and a state directory that an ordinary user may not read are reported as not seen, not as failures."""
    if os.geteuid() != 0:
        pytest.skip("takes root: another user has to own them")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "binfmtd.toml").write_text("architectures = []")
    options = ["--config", str(closed / "binfmtd.toml"), "--state-dir", str(closed)]
    command = ["nsenter", "-m", "-t", str(instance.pid), "--", *unprivileged_python(), "-m", "binfmtd"]
    result = run([*command, "doctor", "--json", *options])
    assert (result.status, result.stderr) == (0, "")
    unseen = {each["section"]: each["text"] for each in result.json["not_seen"]}
    assert "Permission denied" in unseen["config"]
    assert unseen["daemon"] == f"cannot see whether a daemon runs: no permission for {closed}"


def test_no_user_namespaces(doctor: Doctor, private_instances: None) -> None:  # noqa: ARG001  a condition
    """A limit of 0 user namespaces is a warning; the remedy raises the limit."""
    assert doctor.found("privileges", "own_instance")["level"] == "ok"
    doctor.type("echo 0 >/proc/sys/user/max_user_namespaces")
    found = doctor.found("privileges", "own_instance")
    assert found["level"] == "warning"
    doctor.type(found["remedy"])
    assert doctor.found("privileges", "own_instance")["level"] == "ok"


# PR_SET_MDWE with PR_MDWE_REFUSE_EXEC_GAIN (prctl(2), Linux 6.3): systemd's MemoryDenyWriteExecute sets it.
REFUSE = (
    "import ctypes, os, sys; assert not ctypes.CDLL(None).prctl(65, 1, 0, 0, 0); os.execvp(sys.argv[1], sys.argv[1:])"
)


def test_no_code_memory(doctor: Doctor) -> None:
    """A sandbox that forbids writable and executable memory, in which no emulator runs, is a warning."""
    result = run([sys.executable, "-c", REFUSE, *doctor.command("doctor", "--json")])
    if "AssertionError" in result.stderr:
        pytest.skip("PR_SET_MDWE came with Linux 6.3")
    found = [each["level"] for each in result.json["findings"] if each["check"] == "code_memory"]
    assert found == ["warning"]
    assert doctor.find("privileges", "code_memory") is None
