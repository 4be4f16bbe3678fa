"""``binfmtd export``: every exported format works with the program that reads it."""

import shutil
from pathlib import Path

import pytest
from support.binfmt_d import SYSTEMD_BINFMT, needs_systemd_binfmt, put_binfmt_d
from support.cli import Cli, fake_emulators
from support.instance import Instance

TRICKY = r"""
architectures = []
[handlers.low]
extension = "jar"
interpreter = "/usr/bin/true"
[handlers.high]
extension = "jar"
interpreter = "/usr/bin/true"
flags = "F"
[handlers.'a:b|c,d "e$f` ä\']
magic = '\x00\x0a\x0d :;#\x27\xff\x5c'
mask = '\xff\xff\xff\xff\xff\xff\xff\xff\xff\x0d'
offset = 7
interpreter = "/usr/bin/true"
flags = "POCF"
[handlers.-n]
magic = '%s\n'
interpreter = "/usr/bin/../bin/true"
"""
# Too long for escapes: the line contains the bytes themselves, every value that they can have.
LONG = "[handlers.long]\nmagic = '{}'\nmask = '{}'\ninterpreter = '/usr/bin/true'\n".format(
    "".join(f"\\x{byte:02x}" for byte in range(1, 256)), "\\xff" * 255
)


def wanted(instance: Instance, tmp_path: Path, config: str) -> tuple[list[str], dict[str, str]]:
    """Return names in order, and texts, that `apply` registers for the config; the instance is empty again."""
    result = Cli(instance, tmp_path)("apply", config=config)
    assert result.status == 0, result.stderr
    found = state(instance)
    instance.remove("status")
    assert instance.names() == []
    return found


def state(instance: Instance) -> tuple[list[str], dict[str, str]]:
    names = instance.names()
    return names, {name: instance.read(name) for name in names}


def exported(instance: Instance, tmp_path: Path, kind: str, config: str) -> str:
    result = Cli(instance, tmp_path)("export", "--format", kind, config=config)
    assert (result.status, result.stderr) == (0, "")
    return result.stdout


def test_systemd_binfmt_reads_it(instance: Instance, tmp_path: Path) -> None:
    """With the exported file in /etc/binfmt.d systemd-binfmt registers what `apply` would, in the same order."""
    needs_systemd_binfmt()
    expected = wanted(instance, tmp_path, TRICKY + LONG)
    etc = put_binfmt_d(instance, tmp_path / "tree")["/etc/binfmt.d"]
    text = exported(instance, tmp_path, "binfmt.d", TRICKY + LONG)
    (etc / "binfmtd.conf").write_bytes(text.encode("utf-8", "surrogateescape"))
    done = instance.run([str(SYSTEMD_BINFMT)])
    assert (done.returncode, done.stderr) == (0, "")
    assert state(instance) == expected


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_the_script_runs(instance: Instance, tmp_path: Path, shell: str) -> None:
    """In every shell the script registers what `apply` would, in the same order, also over existing entries."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not here")
    expected = wanted(instance, tmp_path, TRICKY + LONG)
    script = tmp_path / "script"
    text = exported(instance, tmp_path, "shell", TRICKY + LONG)
    script.write_bytes(text.encode("utf-8", "surrogateescape"))
    command = [shell, *(["sh"] if shell == "busybox" else []), str(script)]
    for _ in range(2):
        done = instance.run(command)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert state(instance) == expected


def test_the_script_goes_on_after_a_refusal(instance: Instance, cli: Cli, tmp_path: Path) -> None:
    """A line that the kernel refuses is reported by the shell; the other lines take effect, and the status is 1."""
    late = "[handlers.a]\nextension = 'a'\nflags = 'F'\ninterpreter = '/nowhere'\n"
    late += "[handlers.b]\nextension = 'b'\ninterpreter = '/usr/bin/true'\n"
    result = cli("export", "--format", "shell", config="architectures = []\n" + late)
    assert (result.status, result.message) == (0, "a: waiting: no executable file at /nowhere")
    (tmp_path / "script").write_text(result.stdout)
    done = instance.run(["sh", str(tmp_path / "script")])
    assert done.returncode == 1
    assert done.stderr
    assert instance.names() == ["b"]


def test_the_script_mounts(instance: Instance, tmp_path: Path) -> None:
    """The script mounts binfmt_misc at its argument if it is not mounted there."""
    (tmp_path / "mount").mkdir()
    one = "architectures = []\n[handlers.a]\nextension = 'a'\ninterpreter = '/usr/bin/true'\n"
    text = exported(instance, tmp_path, "shell", one)
    (tmp_path / "script").write_text(text)
    done = instance.run(["sh", str(tmp_path / "script"), str(tmp_path / "mount")])
    assert done.returncode == 0, done.stderr
    assert instance.names() == ["a"]


def test_all_is_what_is_here(instance: Instance, tmp_path: Path) -> None:
    """Of "all" the export has exactly what `apply` registers: architectures with an emulator that are not native."""
    emulators = fake_emulators(tmp_path / "bin", ["aarch64", "arm", "x86_64", "i386"])
    names, _ = wanted(instance, tmp_path, emulators)
    text = exported(instance, tmp_path, "binfmt.d", emulators)
    assert [line.split(":")[1] for line in text.splitlines() if line.startswith(":")] == names[::-1]
    assert "qemu-arm" in names


def test_a_round_trip(instance: Instance, cli: Cli, tmp_path: Path) -> None:
    """An exported and imported config declares the same entries."""
    expected = wanted(instance, tmp_path, TRICKY)
    (tmp_path / "a.conf").write_text(exported(instance, tmp_path, "binfmt.d", TRICKY))
    again = cli("import", str(tmp_path / "a.conf"))
    assert (again.status, again.stderr) == (0, "")
    assert wanted(instance, tmp_path, again.stdout) == expected


LOSSES = r"""
architectures = []
[handlers.priority]
extension = "a"
interpreter = "/usr/bin/true"
priority = 3
[handlers.forced]
magic = '\x7fELF'
interpreter = "/usr/bin/true"
force = true
[handlers.off]
extension = "b"
interpreter = "/usr/bin/true"
enabled = false
[handlers.o]
extension = "c"
interpreter = "/usr/bin/true"
flags = "O"
[handlers.z]
magic = 'zz'
interpreter = "/usr/bin/true"
[handlers.y]
magic = 'z'
interpreter = "/usr/bin/true"
[handlers.twin]
magic = 'z'
interpreter = "/usr/bin/false"
"""


@pytest.mark.parametrize("kind", ["binfmt.d", "debian", "nixos", "shell"])
def test_what_a_format_cannot_express_is_a_note(cli: Cli, kind: str) -> None:
    """Each property that a format cannot express is a note with its entry, and no failure."""
    result = cli("export", "--format", kind, "--json", config=LOSSES)
    assert result.status == 0
    notes: dict[str, list[str]] = {}
    for note in result.json["notes"]:
        notes.setdefault(note["entry"], []).append(note["reason"])
    assert [f"{note['entry']}: {note['reason']}" for note in result.json["notes"]] == result.messages
    assert "priority = 3" in notes["priority"][0]
    assert f"the {kind} format cannot express force = true" in notes["forced"][0]
    assert notes["off"] == [f"left out: the {kind} format cannot express enabled = false"]
    assert ("o" in notes) == (kind == "debian")
    names = {file["name"] for file in result.json["files"]}
    if kind == "debian":
        assert names == {"priority", "forced", "o", "z", "twin"}
        assert notes["y"][0].startswith("left out: twin takes the same files first")
        assert notes["twin"] == ["should win over z where both match, but the debian format cannot express this order"]
        assert notes["priority"][1].startswith("should win over ")
    elif kind == "nixos":  # in the order of the names priority, twin, y, z: the last is the newest
        assert notes["twin"] == [
            "should win over z, y where both match, but the nixos format cannot express this order"
        ]
        assert notes["y"] == ["should win over z where both match, but the nixos format cannot express this order"]
        assert notes["priority"][1] == (
            "should win over z, y, twin where both match, but the nixos format cannot express this order"
        )
        assert "z" not in notes
    else:
        assert {"twin", "y", "z"}.isdisjoint(notes)


def test_what_is_refused_is_left_out(cli: Cli) -> None:
    """A handler that is refused, or that a format cannot express, is left out: status 1 with the reason."""
    config = "architectures = []\n[handlers.elf]\nmagic = '\\x7fELF'\ninterpreter = '/usr/bin/true'\n"
    config += "[handlers.'a b']\nextension = 'a'\ninterpreter = '/usr/bin/true'\n"
    result = cli("export", "--format", "nixos", config=config)
    assert result.status == 1
    elf, blank = sorted(result.messages, reverse=True)
    assert elf.startswith("elf: left out: refused: it takes this host's native programs")
    assert blank.startswith("a b: left out: 'a b' has characters that NixOS does not quote")
    assert "elf" not in result.stdout


def test_a_shared_loss_is_one_note(cli: Cli, tmp_path: Path) -> None:
    """A loss that several entries share is one note: architectures have flag O, which Debian's files cannot express."""
    config = fake_emulators(tmp_path / "bin", ["arm", "s390x"]) + "\n"
    result = cli("export", "--format", "debian", "--output", str(tmp_path / "out"), config=config)
    assert result.message.startswith("qemu-arm, qemu-s390x: the debian format cannot express flag O, ")


def test_debians_files(cli: Cli, tmp_path: Path) -> None:
    """Debian's format is a directory with a file per entry, or one on stdout; foreign files are not overwritten."""
    two = "architectures = []\n"
    for name in ("a", "b"):
        two += f"[handlers.{name}]\nextension = '{name}'\ninterpreter = '/usr/bin/true'\n"
    result = cli("export", "--format", "debian", config=two)
    assert (result.status, result.stdout) == (2, "")
    assert "--output" in result.message
    output = tmp_path / "new" / "binfmts"
    for _ in range(2):  # our own files are replaced
        result = cli("export", "--format", "debian", "--output", str(output), config=two)
        assert (result.status, result.stdout, result.stderr) == (0, "", "")
        assert sorted(path.name for path in output.iterdir()) == ["a", "b"]
    again = cli("import", str(output))
    assert (again.status, again.stderr) == (0, "")
    (output / "c").write_text("package p\n")
    (output / "d").mkdir()
    result = cli("export", "--format", "debian", "--output", str(output), config=two.partition("[handlers.b]")[0])
    expected = f"{output}/b: an earlier export wrote this file, and it is not in this one: remove it"
    assert (result.status, result.message) == (0, expected)
    (output / "b").write_text("package p\n")
    result = cli("export", "--format", "debian", "--output", str(output), config=two)
    assert (result.status, result.message.partition(": ")[0]) == (2, f"{output}/b")
    assert (output / "b").read_text() == "package p\n"
    one = two.partition("[handlers.b]")[0]
    result = cli("export", "--format", "debian", config=one)
    assert (result.status, result.stdout) == (0, (output / "a").read_text())


@pytest.mark.parametrize("arguments", [["--format", "shell", "--output", "/"], ["--format", "rpm"], []])
def test_wrong_usage(cli: Cli, arguments: list[str]) -> None:
    """Wrong usage gives status 2 and one line."""
    result = cli("export", *arguments, config="architectures = []\n")
    assert (result.status, result.stdout, len(result.messages)) == (2, "", 1)
