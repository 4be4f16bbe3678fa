"""`doctor` finds each fault that an entry can have, and the remedy that it shows ends the fault."""

import os
import sys
from pathlib import Path

import pytest
from support.cli import run
from support.daemon import Daemon
from support.doctor import EMULATOR, NEEDS_ROOT, ONE, Doctor, StartDaemon, ends, match_of
from support.programs import FOREIGN, install
from support.starts import with_settings

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.program import tiny_program
from binfmtd.host.facts import kernel_version
from binfmtd.model.match import Extension, Magic
from binfmtd.model.resolve import P_VISIBLE_FROM


def test_switched_off(doctor: Doctor, static: Path) -> None:
    """An instance that is switched off as a whole is a failure."""
    doctor.instance.add("one", Extension("one"), static)
    doctor.instance.write("status", b"0")
    ends(doctor, "switched_off", "failure")


def test_nothing_registered(doctor: Doctor, static: Path) -> None:
    """An instance without any entry is a warning."""
    ends(doctor, "none", "warning", ONE.format(static))


def test_disabled(doctor: Doctor, static: Path) -> None:
    """A disabled entry is a warning, unless the config declares it disabled."""
    doctor.instance.add("one", Extension("one"), static)
    doctor.instance.write("one", b"0")
    wanted = "architectures = []\n[handlers.one]\nextension = 'one'\ninterpreter = '/x'\nenabled = false\n"
    assert doctor.find("entries", "disabled", config=wanted) is None
    ends(doctor, "disabled", "warning")


def test_no_f(doctor: Doctor, static: Path) -> None:
    """An entry without F whose interpreter could have it is a warning; the remedy registers it again with F."""
    doctor.instance.add("a 'b'", Extension("one"), static, "P")
    ends(doctor, "no_f", "warning")
    assert f"interpreter {static}\nflags: PF\nextension .one\n" in doctor.instance.read("a 'b'")


def test_no_f_of_an_emulator(doctor: Doctor, emulator: Path) -> None:
    """The remedy for an architecture's entry without F replaces it, whatever its name, by binfmtd's own entry."""
    doctor.instance.add("odd", match_of(FOREIGN), emulator, "")
    found = doctor.found("entries", "no_f")
    assert found["level"] == "warning"
    doctor.type(found["remedy"])
    assert doctor.find("entries", "no_f") is None
    assert doctor.instance.names() == [f"qemu-{FOREIGN}"]


def test_no_f_beside_a_daemon(kept: tuple[Doctor, Daemon], emulator: Path) -> None:
    """If a daemon runs that does not declare the architecture, the remedy registers the entry: `apply` would not."""
    doctor, _ = kept
    doctor.instance.add("odd", match_of(FOREIGN), emulator, "P")
    doctor.type(doctor.found("entries", "no_f")["remedy"])
    assert doctor.find("entries", "no_f") is None
    assert f"interpreter {emulator}\nflags: PF\n" in doctor.instance.read("odd")


def test_no_f_by_an_older_config(doctor: Doctor, start_daemon: StartDaemon, static: Path) -> None:
    """If the daemon has not read the changed config yet, the remedy is a reload: beside it `apply` does nothing."""
    config = ONE.format(static)
    daemon = start_daemon(config.replace("flags = 'F'", "flags = ''"))
    doctor.state_directory, doctor.config = daemon.state_directory, daemon.config
    assert ends(doctor, "no_f", "warning", config)["remedy"].startswith("binfmtd reload ")


def test_no_f_by_the_config(doctor: Doctor, static: Path, tmp_path: Path) -> None:
    """If the config leaves out F, the remedy is a line of the config, and that line ends the finding."""
    config = ONE.format(static).replace("flags = 'F'", "flags = ''")
    assert doctor("apply", config=config).status == 0
    found = doctor.found("entries", "no_f", config=config)
    assert found["remedy"] == f'in {tmp_path / "binfmtd.toml"}, under [handlers.one]: flags = "F"'
    better = config.replace("flags = ''", found["remedy"].rpartition(": ")[2])
    assert doctor("apply", config=better).status == 0
    assert doctor.find("entries", "no_f", config=better) is None


def test_dynamic(doctor: Doctor) -> None:
    """A dynamic interpreter under F is a warning that names the loader which it needs."""
    doctor.instance.add("one", Extension("one"), "/usr/bin/true")
    found = ends(doctor, "dynamic", "warning")
    assert "/usr/bin/true is not a static program" in found["text"]
    assert "/ld-" in found["text"]


def test_a_dynamic_emulator(doctor: Doctor, emulator: Path, tmp_path: Path) -> None:  # noqa: ARG001  must be there
    """The remedy for an architecture's entry with a dynamic emulator registers the static one, if there is one."""
    dynamic = tmp_path / f"qemu-{FOREIGN}"
    dynamic.symlink_to("/usr/bin/true")
    doctor.instance.add("odd", match_of(FOREIGN), dynamic)
    ends(doctor, "dynamic", "warning")
    assert f"interpreter {EMULATOR}\n" in doctor.instance.read(f"qemu-{FOREIGN}")


def test_credentials(doctor: Doctor, emulator: Path) -> None:
    """Flag C is a warning, unless the config asks for it."""
    doctor.instance.add(f"qemu-{FOREIGN}", match_of(FOREIGN), emulator, "OCF")
    asked = f"architectures = ['{FOREIGN}']\n[emulators.{FOREIGN}]\nflags = 'CF'\n"
    assert doctor.find("entries", "credentials", config=asked) is None
    ends(doctor, "credentials", "warning")


@pytest.mark.parametrize(("version", "levels"), [("5.2.0", ["failure"]), ("6.0.0", [])])
def test_p_that_qemu_cannot_see(doctor: Doctor, tmp_path: Path, version: str, levels: list[str]) -> None:
    """Flag P with a QEMU older than 6.0, which cannot see it, is a failure; the remedy registers without P."""
    if kernel_version() < P_VISIBLE_FROM:
        levels = ["failure"]  # an older kernel does not report P to any interpreter
    old = install(tmp_path / "qemu-old", f"#!/bin/sh\necho qemu-old version {version}\n".encode())
    doctor.instance.add("one", Extension("one"), old, "PF")
    config = "architectures = []"
    found = [each for each in doctor.look(config=config) if each["check"] == "p_unseen"]
    assert [each["level"] for each in found] == levels
    if found:
        ends(doctor, "p_unseen", "failure")
        assert "flags: \n" in doctor.instance.read("one")  # nor F, which is of no use with a script


# Ends with the number of its arguments, its name included; the stack begins with that number (System V ABI).
COUNTS = {
    "aarch64": bytes.fromhex("e00340f9 a80b80d2 010000d4"),  # ldr x0, [sp]; mov x8, 93; svc 0
    "riscv64": bytes.fromhex("0265 9308d005 73000000"),  # ld a0, 0(sp); li a7, 93; ecall
}


def test_p_that_qemu_counts_on(doctor: Doctor, emulator: Path, tmp_path: Path) -> None:
    """An emulator whose Debian name promises P loses an argument without it: a failure, which the remedy ends."""
    named = tmp_path / f"{FOREIGN}-binfmt-P"
    named.symlink_to(emulator)
    architecture = CATALOG[FOREIGN]
    program = tiny_program(architecture).removesuffix(architecture.exit42) + COUNTS[FOREIGN]
    counts = install(tmp_path / "counts", program)
    doctor.instance.add("one", match_of(FOREIGN), named)
    if (given := doctor.instance.run([str(counts), "one", "two"]).returncode) == 3:
        pytest.skip("only Debian's QEMU goes by its name")
    assert given == 2
    ends(doctor, "p_missing", "failure")
    assert doctor.instance.run([str(counts), "one", "two"]).returncode == 3


def test_missing_interpreter(doctor: Doctor) -> None:
    """A missing interpreter without F is a failure, because no program of the entry runs."""
    doctor.instance.add("one", Extension("one"), "/nowhere/one", "")
    assert "/nowhere/one" in ends(doctor, "missing", "failure")["text"]


def test_missing_emulator(doctor: Doctor, emulator: Path) -> None:  # noqa: ARG001  must be there
    """The remedy for an architecture's entry with a missing emulator registers the emulator that is elsewhere."""
    doctor.instance.add("odd", match_of(FOREIGN), "/nowhere/qemu", "")
    ends(doctor, "missing", "failure")
    assert doctor.instance.names() == [f"qemu-{FOREIGN}"]


def test_gone_interpreter(doctor: Doctor, static: Path) -> None:
    """A removed interpreter that F keeps open is a warning, and no remedy removes the entry, which still serves."""
    doctor.instance.add("one", Extension("one"), static)
    assert doctor.find("entries", "gone") is None
    static.unlink()
    found = doctor.found("entries", "gone")
    assert (found["level"], found["remedy"]) == ("warning", None)
    assert found["text"].endswith(": put the file there again")


def test_shadowed(doctor: Doctor, emulator: Path) -> None:
    """A newer entry that takes all files of another one is a warning; the remedy removes the newer entry."""
    doctor.instance.add("wanted", match_of(FOREIGN), emulator)
    narrow = CATALOG[FOREIGN].match
    assert narrow.mask is not None
    doctor.instance.add("wide", Magic(narrow.magic[:-1], narrow.mask[:-1]), emulator)  # the last byte is ignored
    found = doctor.found("entries", "shadowed", config="architectures = []")
    assert found["level"] == "warning"
    assert found["text"].startswith("wanted: ")
    assert "wide" in found["text"]
    doctor.type(found["remedy"])
    assert doctor.instance.names() == ["wanted"]


def test_shadowed_by_a_declared_one(doctor: Doctor, emulator: Path) -> None:
    """If the config asks for the newer entry, as one that outranks foreign ones, the remedy removes the older one."""
    narrow = CATALOG[FOREIGN].match
    assert narrow.mask is not None
    doctor.instance.add("wide", Magic(narrow.magic[:-1], narrow.mask[:-1]), emulator)
    config = f"architectures = ['{FOREIGN}']"
    assert doctor("apply", config=config).status == 0
    ends(doctor, "shadowed", "warning", config)
    assert doctor.instance.names() == [f"qemu-{FOREIGN}"]


def test_duplicate(doctor: Doctor, static: Path) -> None:
    """Two entries for the same files are a warning; the remedy removes the one that never serves."""
    doctor.instance.add("older", Extension("one"), static)
    doctor.instance.add("newer", Extension("one"), static)
    ends(doctor, "duplicate", "warning")
    assert doctor.instance.names() == ["newer"]


def test_duplicate_that_is_broken(doctor: Doctor, static: Path) -> None:
    """Of two entries for the same files the remedy removes the newer one if that cannot serve; both findings agree."""
    doctor.instance.add("older", Extension("one"), static)
    doctor.instance.add("newer", Extension("one"), "/nowhere", "")
    assert doctor.found("entries", "missing")["remedy"] == ends(doctor, "duplicate", "warning")["remedy"]
    assert doctor.instance.names() == ["older"]


def test_several_faults_of_one(doctor: Doctor, static: Path) -> None:
    """All faults of one entry have one remedy, which ends them all."""
    doctor.instance.add("one", Extension("tar.gz"), static, "OC")
    findings = [each for each in doctor.look(config="architectures = []") if each["level"] == "warning"]
    (remedy,) = {each["remedy"] for each in findings if each["section"] == "entries"}
    assert {each["check"] for each in findings} >= {"never", "credentials", "no_f"}
    doctor.type(remedy)
    assert doctor.instance.read("one") == f"enabled\ninterpreter {static}\nflags: OF\nextension .gz\n"


def test_duplicate_of_a_declared_one(doctor: Doctor, static: Path) -> None:
    """Of two entries for the same files, the remedy keeps the older one if the config declares it."""
    config = ONE.format(static)
    assert doctor("apply", config=config).status == 0
    doctor.instance.register(b":newer:M::\\x00one::%s:F" % os.fsencode(static))
    ends(doctor, "duplicate", "warning", config)
    assert doctor.instance.names() == ["one"]


def test_nothing_to_register(doctor: Doctor) -> None:
    """Without an emulator the remedy is not `apply`, which would register nothing."""
    found = doctor.found("entries", "none", config="[emulators]\npaths = ['/nowhere/{name}']")
    assert found["level"] == "warning"
    assert "no architecture has an emulator here: put the emulator there" in found["text"]
    assert doctor.found("entries", "none", config="architectures = []")["remedy"].startswith("binfmtd apply")


def test_native(doctor: Doctor, static: Path) -> None:
    """A disabled entry that would take the host's own programs is a warning."""
    doctor.instance.register(b":native:M::\\x7fELF::%s:F" % os.fsencode(static))
    doctor.instance.write("native", b"0")  # before any program of this host starts in the instance
    assert doctor.find("entries", "disabled") is None, "to enable it would stop every exec"
    found = ends(doctor, "native", "warning")
    assert "native programs of this host" in found["text"]


@NEEDS_ROOT
def test_native_and_enabled(doctor: Doctor, private_instances: None, static: Path) -> None:  # noqa: ARG001  a condition
    """An enabled entry that takes the host's own programs is a failure; seen from outside, where programs still run."""
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
    """An entry that the kernel accepts, but that no file can match, is a warning."""
    doctor.instance.register(line % os.fsencode(static))
    ends(doctor, "never", "warning")
    assert doctor.instance.names() == left


def test_untrusted_interpreter(doctor: Doctor, static: Path) -> None:
    """An interpreter that other users could change is a warning; the remedy corrects its mode."""
    static.chmod(0o777)
    doctor.instance.add("one", Extension("one"), static)
    ends(doctor, "untrusted", "warning")


def test_an_emulator_that_others_can_replace_is_not_run(doctor: Doctor, tmp_path: Path) -> None:
    """`doctor` does not execute an emulator that other users could replace to read its version."""
    trap = install(tmp_path / "qemu-trap", f"#!/bin/sh\ntouch {tmp_path}/ran\n".encode())
    doctor.instance.add("one", Extension("one"), trap)
    trap.chmod(0o777)
    doctor.look(config="architectures = []")
    assert not (tmp_path / "ran").exists()
    trap.chmod(0o755)
    doctor.look(config="architectures = []")
    assert (tmp_path / "ran").exists()


def test_an_emulator_with_settings(doctor: Doctor, emulator: Path, tmp_path: Path) -> None:
    """The finding about an emulator's version has the settings that its file carries."""
    plain = install(tmp_path / emulator.name, emulator.read_bytes())
    carrying = with_settings(plain, {"QEMU_CPU": "max"}, f"{emulator.name}-max")
    doctor.instance.add("one", Extension("one"), carrying)
    texts = [found["text"] for found in doctor.look(config="architectures = []") if found["check"] == "version"]
    assert [text for text in texts if str(carrying) in text] == [
        text for text in texts if " with QEMU_CPU=max: " in text
    ]
    assert len(texts) == 2  # the other one has the emulators of the distribution


def test_a_name_that_cannot_be_typed(doctor: Doctor) -> None:
    """The remedy works for an entry with control characters and raw bytes in its name."""
    doctor.instance.register(b":odd\x1b[31m\xff:E::one::/nowhere/one:")
    found = ends(doctor, "missing", "failure")
    assert found["remedy"].isprintable()
    assert "\x1b" not in doctor("doctor").stdout


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return install(tmp_path / "script", b"#!/bin/sh\n")


def test_o_and_a_script(doctor: Doctor, script: Path) -> None:
    """A script as interpreter with flag O is a failure: the kernel executes no script for a file that it has opened."""
    doctor.instance.add("one", Extension("one"), script, "O")
    found = ends(doctor, "script", "failure")
    assert "the entry's programs fail with ENOEXEC" in found["text"]
    assert doctor.instance.read("one") == f"enabled\ninterpreter {script}\nflags: \nextension .one\n"


def test_f_and_a_script(doctor: Doctor, script: Path) -> None:
    """`doctor` names both files that a chroot needs, and its remedy for another kind of file is to leave out F."""
    doctor.instance.add("one", Magic(b"\0one"), script, "F")
    found = ends(doctor, "dynamic", "warning")
    assert f"{script} is not a static program: in a chroot or container, it and /bin/sh must exist" in found["text"]
    assert doctor.instance.read("one").startswith(f"enabled\ninterpreter {script}\nflags: \n")


@pytest.mark.parametrize(("flags", "check", "level"), [("F", "dynamic", "warning"), ("O", "script", "failure")])
def test_a_script_as_emulator(doctor: Doctor, emulator: Path, script: Path, flags: str, check: str, level: str) -> None:
    """For an architecture's entry the remedy is the static emulator, with whatever flags the script was registered."""
    doctor.instance.add("odd", match_of(FOREIGN), script, flags)
    ends(doctor, check, level)
    assert f"interpreter {emulator}\n" in doctor.instance.read(f"qemu-{FOREIGN}")
