"""``binfmtd import``: kernel, binfmt.d and Debian's format files become a config."""

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from support.binfmt_d import put_binfmt_d
from support.cli import Cli, run, unprivileged_python
from support.instance import Instance

from binfmtd.formats.register_line import to_bytes
from binfmtd.model.stand_in import stand_in_name

DEBIAN = "package p\ninterpreter /usr/bin/true\nmagic \\x00deb\nfix_binary yes\n"


@pytest.fixture
def cli(module_instance: Instance, tmp_path: Path) -> Cli:
    return Cli(module_instance, tmp_path)


def handlers(text: str) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = tomllib.loads(text).get("handlers", {})
    return found


def test_what_is_registered_now(instance: Instance, tmp_path: Path) -> None:
    """`import --kernel` gives a config of the kernel's present state: `check` accepts it, `plan` has nothing to do.

    Order, flags, masks and disabled entries are in it; stand-ins are not, without a note.
    """
    cli = Cli(instance, tmp_path)
    lines = [
        b":low:E::jar::/usr/bin/true:",
        b":magic:M:3:\\x00\\xffa'\\x5c:\\xff\\x00\\xff\\xff\\xff:/usr/bin/true:POCF",
        b':a b"c\xc3\xa4:E::b::/usr/bin/true:F',
        b":high:E::jar::/usr/bin/false:",
        b":off:M::\\x00off::/usr/bin/true:",
        b":%s:M::\\x00off::/usr/bin/true:" % to_bytes(stand_in_name("off")),
    ]
    for line in lines:
        instance.register(line)
    instance.write("off", b"0")
    result = cli("import", "--kernel")
    assert (result.status, result.stderr) == (0, "")
    instance.remove(stand_in_name("off"))
    texts = {name: instance.read(name) for name in instance.names()}
    assert list(handlers(result.stdout)) == list(texts)[::-1]
    assert cli("check", config=result.stdout).status == 0
    assert cli("apply", config=result.stdout).status == 0  # which file F opened is unknown: those are registered again
    names = instance.names()
    assert {name: instance.read(name) for name in names} == texts
    assert names.index("high") < names.index("low")
    plan = cli("plan", config=result.stdout)
    assert (plan.status, plan.stdout) == (0, f"nothing to do: {len(texts) - 1} handlers registered\n")


def test_what_no_config_can_hold_is_named(instance: Instance, tmp_path: Path) -> None:
    """An entry that no config can express (name not UTF-8, relative path, extension with dot) is a note: status 0."""
    for line in (
        b":l\xe4t:E::a::/usr/bin/true:",
        b":path:E::b::/usr/\xe4:",
        b":relative:E::c::true:",
        b":dot:E::tar.gz::/usr/bin/true:",
        b":fine:E::d::/usr/bin/true:",
    ):
        instance.register(line)
    instance.write("status", b"0")
    result = Cli(instance, tmp_path)("import", "--kernel")
    assert (result.status, list(handlers(result.stdout))) == (0, ["fine"])
    mount = instance.mount_point
    assert result.messages[0] == f"{mount}: binfmt_misc is switched off as a whole there; a config cannot express that"
    assert {message.partition(": ")[0] for message in result.messages[1:]} == {
        f"{mount}/{name}" for name in ("l\\xe4t", "path", "relative", "dot")
    }
    assert all(" left out: " in message for message in result.messages[1:])


def test_without_paths_it_is_systemds_directories(instance: Instance, tmp_path: Path) -> None:
    """Without paths it reads systemd's directories with their precedence; a bad line is named, and gives status 1."""
    etc, _, _, lib = put_binfmt_d(instance, tmp_path / "tree").values()
    (lib / "a.conf").write_text(":lib:E::a::/usr/bin/true:\n")
    (etc / "a.conf").write_text(":etc:E::a::/usr/bin/true:\nbroken\n:too:E::b::/usr/bin/true:F\n")
    cli = Cli(instance, tmp_path)
    result = cli("import")
    assert result.status == 1
    assert result.message.startswith("/etc/binfmt.d/a.conf:2: a registration line has 11 to 1920 bytes")
    assert handlers(result.stdout) == {
        "etc": {"extension": "a", "interpreter": "/usr/bin/true"},
        "too": {"extension": "b", "interpreter": "/usr/bin/true", "flags": "F"},
    }
    assert "# /etc/binfmt.d/a.conf:3\n[handlers.too]\n" in result.stdout


def test_formats_are_recognised_by_content(cli: Cli, tmp_path: Path) -> None:
    """Debian's format files and binfmt.d files are distinguished by their content, alone and in a directory."""
    (tmp_path / "deb").write_text(DEBIAN)
    (tmp_path / "rules").write_text(":rule:E::a::/usr/bin/true:\n")
    expected = {"deb", "rule"}
    result = cli("import", str(tmp_path / "deb"), str(tmp_path / "rules"))
    assert (result.status, result.stderr, set(handlers(result.stdout))) == (0, "", expected)
    assert f"# {tmp_path}/deb (package p)\n" in result.stdout
    (tmp_path / "rules").rename(tmp_path / "rules.conf")
    (tmp_path / "README").write_text("about these files\n")
    for number in range(3):
        (tmp_path / f"X{number}").write_bytes(b"\0" * (2 << 20))
    result = cli("import", str(tmp_path))
    assert (result.status, set(handlers(result.stdout))) == (0, expected)
    assert result.message == (
        f"{tmp_path}: left out, because they are neither *.conf nor Debian's format files: README, X0, X1 and 1 more; "
        "to import a file, name it"
    )


def test_the_format_can_be_forced(cli: Cli, tmp_path: Path) -> None:
    """`--format` decides for a file that looks like the other kind, for example by the first word of a comment."""
    conf = tmp_path / "a.conf"
    conf.write_text("package comes first\n:a:E::a::/usr/bin/true:\n")
    result = cli("import", "--format", "binfmt.d", str(conf))
    assert (result.status, list(handlers(result.stdout))) == (1, ["a"])
    assert result.message.startswith(f"{conf}:1: a registration line has 7 fields")
    result = cli("import", "--format", "debian", str(conf))
    assert (result.status, result.stdout) == (1, "")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (str, "cannot be read: No such file or directory"),
        (lambda path: path.write_bytes(b"\x7fELF\0\1\2\n\xff\xfe\n" * 9), "neither a binfmt.d file"),
        (lambda path: path.write_text("package p\nmagic A\n"), "interpreter: is missing"),
        (os.mkfifo, "is a FIFO"),
        (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
    ],
)
def test_bad_input_is_one_error(cli: Cli, tmp_path: Path, make: Callable[[Path], object], says: str) -> None:
    """Bad input gives status 1, one line that names the file, and nothing on stdout, since an empty config is wrong."""
    make(tmp_path / "bad")
    result = cli("import", str(tmp_path / "bad"))
    assert (result.status, result.stdout) == (1, "")
    assert result.message.startswith(f"{tmp_path}/bad")
    assert says in result.message


def test_a_directory_without_permission() -> None:
    """A directory that the user may not list is one line, with the remedy."""
    with TemporaryDirectory() as directory:
        Path(directory).chmod(0)
        result = run([*unprivileged_python(), "-m", "binfmtd", "import", directory], cwd="/")
    assert (result.status, result.stdout) == (1, "")
    assert result.message == f"{directory}: cannot be read: Permission denied: run this as root"


def test_a_detector_is_named(cli: Cli, tmp_path: Path) -> None:
    """An entry with a detector, which the kernel cannot run, is left out with a remedy: status 0."""
    (tmp_path / "cli").write_text(f"{DEBIAN}detector /usr/lib/cli/detect\n")
    result = cli("import", str(tmp_path / "cli"))
    assert (result.status, handlers(result.stdout)) == (0, {})
    assert "detector '/usr/lib/cli/detect'" in result.message
    assert "declare [handlers.cli] by hand" in result.message


def test_a_name_again(cli: Cli, tmp_path: Path) -> None:
    """A later entry replaces an earlier one of its name, as in the kernel; both places are named."""
    conf = tmp_path / "a.conf"
    conf.write_text(":a:E::a::/usr/bin/true:\n:b:E::b::/usr/bin/true:\n:a:E::c::/usr/bin/true:\n")
    result = cli("import", str(conf))
    assert (result.status, result.message) == (0, f"{conf}:3: entry 'a' replaces the earlier one from {conf}:1")
    assert list(handlers(result.stdout)) == ["b", "a"]


def test_what_takes_native_programs_is_named(cli: Cli, tmp_path: Path) -> None:
    """An entry that takes native programs is imported, with a warning that binfmtd will refuse it."""
    conf = tmp_path / "a.conf"
    conf.write_text(":elf:M::\\x7fELF::/usr/bin/true:\n")
    result = cli("import", str(conf))
    assert (result.status, list(handlers(result.stdout))) == (0, ["elf"])
    assert "takes native programs of this host, so binfmtd will refuse it" in result.message


def test_as_json(cli: Cli, tmp_path: Path) -> None:
    """With --json the config, its handlers and the notes are one document."""
    (tmp_path / "cli").write_text(f"{DEBIAN}detector /d\n")
    (tmp_path / "deb").write_text(DEBIAN)
    document = cli("import", "--json", str(tmp_path / "cli"), str(tmp_path / "deb")).json
    assert document["handlers"] == ["deb"]
    assert list(handlers(document["toml"])) == ["deb"]
    assert [note["where"] for note in document["notes"]] == [f"{tmp_path}/cli"]


def test_kernel_and_files_are_two_imports(cli: Cli) -> None:
    """`--kernel` together with a path is wrong usage: status 2."""
    assert cli("import", "--kernel", "/usr/share/binfmts").status == 2
