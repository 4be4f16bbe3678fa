"""The drop-ins of linuxkit, multiarch and vicamo: their output, and what is registered afterwards."""

import os
from pathlib import Path

import pytest
from support.cli import state
from support.daemon import StartDaemon
from support.drop_in import DropIn
from support.instance import Instance
from support.programs import install

from binfmtd.catalog.architectures import CATALOG
from binfmtd.host.native import find_native

_CONFIGURE = " (`binfmtd emulators configure` makes emulators with settings such as QEMU_CPU)"


@pytest.fixture
def binfmt(instance: Instance, tmp_path: Path) -> DropIn:
    made = DropIn(instance, tmp_path)
    made.add("s390x", "alpha")
    return made


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """Return a directory for registration lines, as in /etc/binfmt.d."""
    directory = tmp_path / "binfmt.d"
    directory.mkdir()
    return directory


def everything() -> set[str]:
    """Return the entries of every architecture that Debian's emulators serve on this host."""
    native = find_native(None)
    return {f"qemu-{name}" for name in CATALOG if name not in native and os.path.exists(f"/usr/bin/qemu-{name}")}


# linuxkit/binfmt


def test_linuxkit(binfmt: DropIn, instance: Instance, lines: Path) -> None:
    """linuxkit's registers each file in order of names, without comments and empty lines, silently, always anew."""
    (lines / "20-no-suffix").write_text(":late:M::late::/usr/bin/true:F")
    (lines / "10.conf").write_text(
        "# a comment\n\n:early:M::early::/usr/bin/true:\n|magic|M|2|\\x00a||/usr/bin/true|P\n"
    )
    for line in (f"-dir {lines}", f"--dir={lines} -mount {instance.mount_point}"):
        result = binfmt(line)
        assert (result.status, result.stdout, result.stderr) == (0, "", "")
        assert instance.names()[0] == "late"
        assert set(instance.names()) == {"late", "early", "magic"}
    assert instance.read("magic") == "enabled\ninterpreter /usr/bin/true\nflags: P\noffset 2\nmagic 0061\n"


def test_linuxkit_replaces(binfmt: DropIn, instance: Instance, lines: Path) -> None:
    """An existing entry of the name is replaced, also one that no config could declare; others are left."""
    instance.register(b":one:M::other::relative/path:")
    instance.register(b":other:M::other::/usr/bin/false:")
    other = instance.inode("other")
    (lines / "a").write_text(":one:M::oone::/usr/bin/true:F\n:one:M::oone::/usr/bin/false:F\n")
    assert binfmt(f"-dir {lines}").status == 0
    assert instance.read("one").startswith("enabled\ninterpreter /usr/bin/false\nflags: F\n")
    first = instance.inode("one")
    assert binfmt(f"-dir {lines}").status == 0
    assert instance.inode("one") != first
    assert instance.inode("other") == other


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (":x", "a registration line has 11 to 1920 bytes"),
        ("; systemd's comment", "a registration line has 7 fields"),
        (":two:M::two!::/usr/bin/true:Z", "flag 'Z' is not one of"),
        (":two:M::two!::bin/true:F", "interpreter 'bin/true' must be an absolute path"),
        (":.binfmtd~two:M::two!::/usr/bin/true:F", "is reserved for binfmtd's stand-ins"),
    ],
)
def test_linuxkit_bad_line(binfmt: DropIn, instance: Instance, lines: Path, bad: str, why: str) -> None:
    """The first bad line ends it with file, line and reason on stderr; the lines before it are registered."""
    (lines / "a").write_text(f":one:M::oone::/usr/bin/true:\n{bad}\n:three:M::three::/usr/bin/true:\n")
    result = binfmt(f"-dir {lines}")
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: {lines}/a:2: ")
    assert why in result.stderr
    assert result.stderr.count("\n") == 1
    assert instance.names() == ["one"]


def test_linuxkit_refused_line(binfmt: DropIn, instance: Instance, lines: Path) -> None:
    """A line that the kernel refuses ends it, too: the lines after it are not registered."""
    (lines / "a").write_text(
        ":one:M::oone::/usr/bin/true:\n:two:M::ttwo::/etc/passwd:F\n:three:M::three::/usr/bin/true:\n"
    )
    result = binfmt(f"-dir {lines}")
    assert result.status == 1
    assert result.stderr.startswith(f"error: {lines}/a:2: two: ")
    assert instance.names() == ["one"]


def test_linuxkit_masked(binfmt: DropIn, instance: Instance, lines: Path) -> None:
    """A link to /dev/null counts as an empty file, as in systemd's binfmt.d."""
    (lines / "a.conf").symlink_to("/dev/null")
    (lines / "b.conf").write_text(":one:M::oone::/usr/bin/true:\n")
    result = binfmt(f"-dir {lines}")
    assert (result.status, result.stderr) == (0, "")
    assert instance.names() == ["one"]


def test_linuxkit_other_errors(binfmt: DropIn, instance: Instance, lines: Path) -> None:
    """A sub-directory, a missing directory and a missing interpreter end it with status 1 and one line."""
    (lines / "sub").mkdir()
    (lines / "a").write_text(":one:M::oone::/usr/bin/true:\n")
    sub = binfmt(f"-dir {lines}")
    assert (sub.status, sub.stderr.startswith(f"error: '{lines}/sub' is a directory")) == (1, True)
    assert instance.names() == ["one"]
    missing = binfmt(f"-dir {lines}/sub/none")
    assert (missing.status, missing.stderr.count("\n")) == (1, 1)
    (lines / "sub").rmdir()
    (lines / "b").write_text(":two:M::two!::/nowhere:F\n")
    refused = binfmt(f"-dir {lines}")
    assert (refused.status, refused.stderr.count("\n")) == (1, 1)
    assert refused.stderr.startswith(f"error: {lines}/b:1: two: no executable file at /nowhere")


def test_linuxkit_guards(binfmt: DropIn, instance: Instance, lines: Path) -> None:
    """A line that would take the host's own programs is refused."""
    (lines / "a").write_text(":elf:M::\\x7fELF::/usr/bin/true:\n")
    result = binfmt(f"-dir {lines}")
    assert (result.status, instance.names()) == (1, [])
    assert "it takes this host's native programs" in result.stderr


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        (":one:M::oone::{}:F", 'or write "" as its flags if the handler is meant for this root alone'),
        (":one:M::oone::{}:C", "name a native program, or remove the flag"),
        (":one:M::#!/::/usr/bin/true:F", "narrow its magic and mask"),
    ],
)
def test_linuxkit_remedies(binfmt: DropIn, lines: Path, tmp_path: Path, line: str, remedy: str) -> None:
    """No config is read, so the remedy for a refused line is a change of this line."""
    script = install(tmp_path / "script", b"#!/bin/sh\n")
    (lines / "a").write_text(line.format(script))
    result = binfmt(f"-dir {lines}")
    assert (result.status, "force" in result.stderr, "set flags" in result.stderr) == (1, False, False)
    assert result.stderr.endswith(f"{remedy} ({lines}/a:1)\n")


def test_multiarch_remedies(binfmt: DropIn, instance: Instance) -> None:
    """The remedy for a script names the options that add the flags, and without them it is registered."""
    binfmt.put("s390x", b"#!/bin/sh\n", "-static")
    for options in ("-p yes", "-c yes"):
        result = binfmt(f"--reset {options}")
        assert result.status == 1
        hint = _CONFIGURE if "p" in options else ""
        assert result.stderr.endswith(f" program{hint}, or leave out {options} (qemu-s390x)\n")
        assert "put in its place a " in result.stderr
        assert "qemu-s390x" not in instance.names()
    assert binfmt("--reset").status == 0
    assert "qemu-s390x" in instance.names()


def test_linuxkit_alone(binfmt: DropIn, instance: Instance, lines: Path) -> None:
    """Without -dir it reads /etc/binfmt.d; if that is empty, architectures with an emulator are registered."""
    instance.shell(f"mount --bind {lines} /etc/binfmt.d" if os.path.isdir("/etc/binfmt.d") else ":")
    result = binfmt("", BINFMTD_COMPAT="linuxkit")
    assert (result.status, result.stdout, result.stderr) == (0, "", "")
    assert set(instance.names()) == everything()
    instance.remove("status")
    if os.path.isdir("/etc/binfmt.d"):
        (lines / "a").write_text(":one:M::oone::/usr/bin/true:\n")
        assert binfmt("", BINFMTD_COMPAT="linuxkit").status == 0
        assert instance.names() == ["one"]


# multiarch/qemu-user-static


@pytest.mark.parametrize(
    ("options", "flags"),
    [("-p yes", "F"), ("--persistent yes -c no", "F"), ("-p yes --credential=yes -g yes", "POCF"), ("-g yes", "P")],
)
def test_multiarch(binfmt: DropIn, instance: Instance, options: str, flags: str) -> None:
    """--reset removes every qemu-*, then each emulator is registered, a line each; -p is F, -c is OC, -g is P."""
    binfmt.add("s390x", suffix="-static")
    binfmt.register("riscv64", "/usr/bin/false", entry="qemu-old")
    binfmt.register("s390x", "/usr/bin/false")
    instance.register(b":jar:E::jar::/usr/bin/true:")
    result = binfmt(f"--reset {options}")
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        f"Setting {binfmt.emulators}/qemu-alpha as binfmt interpreter for alpha",
        f"Setting {binfmt.emulators}/qemu-s390x-static as binfmt interpreter for s390x",
    ]
    assert set(instance.names()) == {"jar", "qemu-alpha", "qemu-s390x"}
    text = f"enabled\ninterpreter {binfmt.emulators}/qemu-s390x-static\nflags: {flags}\n"
    assert instance.read("qemu-s390x").startswith(text)
    assert binfmt.runs("s390x") == ("F" in flags)
    assert binfmt(f"--reset {options}").stdout == result.stdout


def test_multiarch_without_reset(binfmt: DropIn, instance: Instance) -> None:
    """Without --reset a working entry is left, and named on stderr."""
    binfmt.register("s390x", "/usr/bin/qemu-s390x")
    before = instance.inode("qemu-s390x")
    result = binfmt("-p yes", BINFMTD_COMPAT="multiarch")
    assert result.status == 0
    assert result.stdout == f"Setting {binfmt.emulators}/qemu-alpha as binfmt interpreter for alpha\n"
    assert result.stderr == "qemu-s390x already registered\n"
    assert instance.inode("qemu-s390x") == before


def test_multiarch_without_emulators(instance: Instance, tmp_path: Path) -> None:
    """Without any emulator the message names the directory that was searched, and the status is 1."""
    (tmp_path / "none").mkdir()
    result = DropIn(instance, tmp_path)("--reset -p yes", QEMU_BIN_DIR=str(tmp_path / "none"))
    assert (result.status, result.stdout) == (1, "")
    said = f"error: no architecture has an emulator in {tmp_path}/none: correct or unset $QEMU_BIN_DIR"
    assert result.stderr.startswith(said)


# vicamo/binfmt-qemu


def test_vicamo(binfmt: DropIn, instance: Instance) -> None:
    """vicamo's silently registers each architecture that has one of Debian's emulators, and replaces entries."""
    binfmt.register("s390x", "/usr/bin/false")
    result = binfmt("", BINFMTD_COMPAT="vicamo")
    assert (result.status, result.stdout, result.stderr) == (0, "", "")
    assert set(instance.names()) == everything()
    assert "interpreter /usr/bin/qemu-s390x" in instance.read("qemu-s390x")
    assert binfmt.runs("s390x")


# all of them


@pytest.mark.parametrize("named", ["linuxkit", "multiarch", "vicamo"])
@pytest.mark.parametrize(
    ("how", "said"),
    [("remount,bind,ro", "Read-only file system: it is mounted read-only"), ("remount,ro", "binfmt_misc is sealed")],
)
def test_read_only(binfmt: DropIn, instance: Instance, named: str, how: str, said: str) -> None:
    """With a read-only mount or a sealed instance each ends with 1, and the last line has reason and remedy."""
    instance.shell(f"mount -o {how} {instance.mount_point}")
    result = binfmt("", BINFMTD_COMPAT=named)
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: {instance.mount_point}/register: {said}")


@pytest.mark.parametrize("named", ["linuxkit", "vicamo"])
def test_what_is_wanted_is_sealed(binfmt: DropIn, instance: Instance, named: str) -> None:
    """In a sealed instance with equal entries those are left, and the status is 0."""
    assert binfmt("", BINFMTD_COMPAT=named).status == 0
    before = state(instance)
    instance.shell(f"mount -o remount,ro {instance.mount_point}")
    assert binfmt("", BINFMTD_COMPAT=named).status == 0
    assert state(instance) == before


def test_beside_a_daemon(instance: Instance, start_daemon: StartDaemon, binfmt: DropIn, lines: Path) -> None:
    """Beside a daemon none of them writes: status 0 if its entries suffice, else 1 with the line its config lacks."""
    daemon = start_daemon(f"architectures = ['alpha']\n[emulators]\npaths = ['{binfmt.emulators}/qemu-{{name}}']\n")
    binfmt.state_directory = daemon.state_directory
    (binfmt.emulators / "qemu-s390x").unlink()
    before = state(instance)
    there = binfmt("--reset -p yes")
    assert (there.status, there.stdout, there.stderr) == (0, "", "qemu-alpha already registered\n")
    (lines / "a").write_text(":one:M::oone::/usr/bin/true:\n")
    result = binfmt(f"-dir {lines}")
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: nothing was written: a daemon (pid {daemon.pid}, ")
    assert f": declare [handlers.one] in {daemon.config}, " in result.stderr
    assert state(instance) == before


def test_registered_flags(binfmt: DropIn, instance: Instance) -> None:
    """If the image itself chooses the flags, they are P, O and F, as binfmtd's own; never C."""
    assert binfmt("", BINFMTD_COMPAT="vicamo").status == 0
    assert {instance.read(name).splitlines()[2] for name in instance.names()} == {"flags: POF"}
