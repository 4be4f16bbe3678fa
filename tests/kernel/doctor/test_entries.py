"""What may be wrong with an entry: each fault is made, found, and ended by the remedy that is shown for it."""

import os
import sys
from pathlib import Path

import pytest
from support.cli import run
from support.doctor import EMULATOR, FOREIGN, NEEDS_ROOT, ONE, Doctor, ends, match_of
from support.programs import install

from binfmtd.catalog.architectures import CATALOG
from binfmtd.catalog.program import tiny_program
from binfmtd.kernel.host import kernel_version
from binfmtd.model.desired import P_VISIBLE_FROM
from binfmtd.model.match import Extension, Magic


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
    assert found["remedy"] == f'in {tmp_path / "binfmtd.toml"}, under [handlers.one]: flags = "F"'
    better = config.replace("flags = ''", found["remedy"].rpartition(": ")[2])
    assert doctor("apply", config=better).status == 0
    assert doctor.find("entries", "no_f", config=better) is None


def test_dynamic(doctor: Doctor) -> None:
    """A dynamic interpreter under F: a warning that names what it needs."""
    doctor.register("one", Extension("one"), "/usr/bin/true")
    found = ends(doctor, "dynamic", "warning")
    assert "/usr/bin/true is not a static program" in found["text"]
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
    """With F what was opened serves on: a warning, and no remedy takes away what serves."""
    doctor.register("one", Extension("one"), static)
    assert doctor.find("entries", "gone") is None
    static.unlink()
    found = doctor.found("entries", "gone")
    assert (found["level"], found["remedy"]) == ("warning", None)
    assert found["text"].endswith(": put the file there again")


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
    assert doctor.instance.read("one") == f"enabled\ninterpreter {static}\nflags: OF\nextension .gz\n"


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


@NEEDS_ROOT
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


def test_o_and_a_script(doctor: Doctor, static: Path) -> None:
    """The kernel runs no script in the place of a file that it has opened for it."""
    script = static.with_name("script")
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    doctor.register("one", Extension("one"), script, "O")
    found = ends(doctor, "script", "failure")
    assert "the entry's programs fail with ENOEXEC" in found["text"]
    assert doctor.instance.read("one") == f"enabled\ninterpreter {script}\nflags: \nextension .one\n"
