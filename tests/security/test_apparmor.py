"""AppArmor, enforcing: the daemon under the profile that we ship, and `binfmtd sandbox`.

Runs in a virtual machine of `make test-security`.
"""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.cli import AS_ORDINARY_USER, CHECKOUT, run
from support.confined import (
    BINFMTD,
    CONFIG,
    NAMES,
    RUN,
    STEPS,
    TWO,
    KernelLog,
    Machine,
    Start,
    probe_succeeds,
    starting,
)
from support.instance import made_for_tests
from support.programs import FOREIGN, foreign_program

from binfmtd.catalog.architectures import CATALOG

PROFILES = CHECKOUT / "config" / "apparmor"
INSTALLED = Path("/etc/apparmor.d")
# The socket of Daemon, instead of systemd's.
LOCAL = "/tmp/binfmtd-*/notify w,\n"  # noqa: S108  the rule for it
# As systemd does with the unit: the profile, then env, which executes the daemon.
CONFINED = ("aa-exec", "--profile=binfmtd", "--", "/usr/bin/env", "--block-signal=TERM,INT,HUP")
# A profile that allows everything but user namespaces.
STRICT = """abi <abi/4.0>,
profile strict { file, capability, mount, umount, ptrace, signal, unix, network, }
"""


def load(text: str, name: str) -> None:
    """Install a profile, and load it in place of an older one."""
    (INSTALLED / name).write_text(text)
    subprocess.run(["apparmor_parser", "--replace", "--skip-cache", str(INSTALLED / name)], check=True)


@pytest.fixture(scope="module", autouse=True)
def apparmor() -> None:
    """Skip where AppArmor does not enforce, or this is no machine for tests."""
    if not made_for_tests():
        pytest.skip("takes a virtual machine of `make test-security`")
    subprocess.run(["mount", "-t", "securityfs", "securityfs", "/sys/kernel/security"], check=True)
    assert "apparmor" in Path("/sys/kernel/security/lsm").read_text().split(",")
    (INSTALLED / "local").mkdir(exist_ok=True)
    (INSTALLED / "local" / "binfmtd").write_text(LOCAL)


@pytest.fixture
def profile() -> str:
    """Load the profile that we ship; return its text."""
    text = (PROFILES / "binfmtd").read_text()
    load(text, "binfmtd")
    return text


@pytest.fixture
def denied(profile: str) -> Callable[[], list[str]]:  # noqa: ARG001  loaded before the log counts
    """Return a function for the lines of the kernel's log, from now on, about what our profile denied."""
    log = KernelLog()
    return lambda: [line for line in log() if 'apparmor="DENIED"' in line and 'profile="binfmtd' in line]


@pytest.fixture
def machine(profile: str) -> Machine:  # noqa: ARG001  loaded
    return Machine(CONFINED)


@pytest.fixture
def start(machine: Machine) -> Iterator[Start]:
    with starting(machine) as start:
        yield start


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_the_daemon(
    start: Start, machine: Machine, denied: Callable[[], list[str]], step: Callable[[Start, Machine], None]
) -> None:
    """The daemon does all of its work under our profile, which denies it nothing."""
    step(start, machine)
    assert denied() == []


def test_it_is_confined(start: Start) -> None:
    """The daemon has our profile, in enforce mode."""
    daemon = start(TWO)
    assert Path(f"/proc/{daemon.pid}/attr/current").read_text() == "binfmtd (enforce)\n"


def test_a_reload_by_the_unit(start: Start, machine: Machine, denied: Callable[[], list[str]]) -> None:
    """`binfmtd reload` works under the profile as well: systemd gives it to all commands of the unit."""
    start(TWO)
    CONFIG.write_text('architectures = ["riscv64"]\n')
    result = run([*CONFINED, BINFMTD, "reload", "--state-dir", str(RUN / "state")])
    assert (result.status, result.stderr) == (0, "")
    assert machine.names() == ["qemu-riscv64"]
    assert denied() == []


def test_with_no_new_privileges(profile: str, denied: Callable[[], list[str]]) -> None:  # noqa: ARG001  loaded
    """The unit's NoNewPrivileges=yes does not keep the profile from the daemon."""
    machine = Machine(("setpriv", "--no-new-privs", *CONFINED))
    with starting(machine) as start:
        daemon = start(TWO)
        assert Path(f"/proc/{daemon.pid}/attr/current").read_text() == "binfmtd (enforce)\n"
        assert set(machine.names()) == NAMES
    assert denied() == []


def test_an_emulator_elsewhere(profile: str, start: Start, denied: Callable[[], list[str]]) -> None:
    """With the two rules that docs/security-modules.md names, an emulator in another directory serves and is probed."""
    elsewhere = Path("/srv/emulators")
    elsewhere.mkdir(parents=True, exist_ok=True)
    for name in ("aarch64", "riscv64"):
        shutil.copy(f"/usr/bin/qemu-{name}", elsewhere)
    local = INSTALLED / "local"
    config = f'{TWO}probe = "after-repair"\n[emulators]\npaths = ["{elsewhere}/qemu-{{name}}"]\n'
    for file, rule in (("binfmtd", f"{LOCAL}{elsewhere}/* r,\n"), ("binfmtd-program", f"{elsewhere}/* mr,\n")):
        (local / file).write_text(rule)
    try:
        load(profile, "binfmtd")
        probe_succeeds(start(config))
        assert denied() == []
    finally:
        (local / "binfmtd").write_text(LOCAL)
        (local / "binfmtd-program").unlink()


# What fails without a rule: the rule, the step, and the denied operation and object in `doctor`.
RULES = [
    (r"  mount fstype=binfmt_misc .*\n", "registers_and_repairs", "mount binfmt_misc /proc/sys/fs/binfmt_misc/"),
    (r"(?<=  @\{PROC\}/sys/fs/binfmt_misc/\{,\*\*\} r)w", "registers_and_repairs", "/proc/sys/fs/binfmt_misc/register"),
    (r"  /etc/binfmtd/.*\n", "reloads", "open r /etc/binfmtd/"),
    (r"  /\{,var/\}tmp/binfmtd-probe-\*/program cx -> program,\n", "probes", "exec x /tmp/binfmtd-probe-"),
    (r"(?<=profile binfmtd) flags=\(attach_disconnected\)", "seals", "getattr r"),
]


@pytest.mark.parametrize(("rule", "step", "named"), RULES, ids=[step for _, step, _ in RULES])
def test_without_a_rule(
    profile: str,
    machine: Machine,
    denied: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    rule: str,
    step: str,
    named: str,
) -> None:
    """Each of these rules is needed: without it the step fails, and `doctor` names the operation and the object."""
    monkeypatch.setattr("support.waiting.SLOWNESS", 2)  # it will fail
    (work,) = (each for each in STEPS if each.__name__ == step)
    less, removed = re.subn(rule, "", profile)
    assert removed == 1
    load(less, "binfmtd")
    with pytest.raises((AssertionError, OSError)), starting(machine) as start:
        work(start, machine)
    assert denied()
    findings = run([BINFMTD, "doctor", "--json"]).json["findings"]
    texts = [found["text"] for found in findings if found["check"] == "denied"]
    assert any(text.startswith("AppArmor denied binfmtd") and named in text for text in texts), texts


def test_a_seal_that_the_profile_forbids(profile: str, machine: Machine) -> None:
    """A profile without attach_disconnected makes the seal impossible, with the reason; all else works."""
    load(profile.replace("profile binfmtd flags=(attach_disconnected)", "profile binfmtd"), "binfmtd")
    with starting(machine) as start:
        seal = start(TWO + "sealed = true\n").status()["seal"]
        assert seal["state"] == "impossible"
        assert "a profile of AppArmor needs the flag attach_disconnected" in seal["reason"]
        assert "qemu-aarch64" in machine.names()


# The sandbox


def sandbox(*confining: str) -> list[str]:
    return [*AS_ORDINARY_USER, "env", "-u", "XDG_RUNTIME_DIR", *confining, BINFMTD, "sandbox", "--arch", FOREIGN, "--"]


def test_the_sandbox() -> None:
    """An ordinary user runs a foreign program in a sandbox, without a profile and with the one for it."""
    program = foreign_program(Path("/usr/local/bin/foreign"), CATALOG[FOREIGN])
    assert run([*sandbox(), str(program)], cwd="/").status == 42
    load((PROFILES / "binfmtd-sandbox").read_text(), "binfmtd-sandbox")
    try:
        assert run([*sandbox(), "cat", "/proc/self/attr/current"], cwd="/").stdout == "binfmtd-sandbox (unconfined)\n"
        assert run([*sandbox(), str(program)], cwd="/").status == 42
    finally:
        subprocess.run(["apparmor_parser", "--remove", str(INSTALLED / "binfmtd-sandbox")], check=True)


def test_a_forbidden_sandbox() -> None:
    """Where a profile forbids user namespaces, the message names AppArmor, the profile and the rules that allow it."""
    load(STRICT, "strict")
    result = run([*sandbox("aa-exec", "--profile=strict", "--"), "true"], cwd="/")
    assert result.status == 1
    assert "AppArmor's profile strict confines this process and forbids it" in result.message
    assert "add the rules `userns,` and `mount,`" in result.message
    load(STRICT.replace("file,", "file, userns,"), "strict")
    assert run([*sandbox("aa-exec", "--profile=strict", "--"), "true"], cwd="/").status == 0
